"""One JSON document with an array of objects, parsed as a stream: memory holds one object at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import ijson
from ijson.common import JSONError, ObjectBuilder

from sluice.declarations.files import Json
from sluice.errors import GateRefused
from sluice.readers.formats.records import Damaged, RecordFormat
from sluice.readers.jsonl import Number

_BLOCK = 1 << 20
_PAIR = len(r"\ud83d\ude00")
_HALF_A_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


class JsonReader(RecordFormat):
    """The objects of the declared array."""

    def __init__(self, options: Json) -> None:
        self._records = options.records

    def records(self, path: Path) -> Iterator[dict[str, Any] | Damaged]:
        """Each element of the array."""
        prefix, seen = f"{self._records}.item".lstrip("."), False
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            try:
                for where, event, value in (events := iter(_backend(path).parse(file, use_float=False))):
                    seen |= (where, event) == (self._records, "start_array")
                    if where == prefix and seen:
                        if event == "end_array":
                            continue
                        yield _record(_build(event, value, events))
            except (JSONError, UnicodeDecodeError):
                raise GateRefused(
                    f"the file is no whole JSON document: it breaks near byte {file.tell():,}; the unit was left unread"
                ) from None
        if not seen:
            place = f"at {self._records}" if self._records else "as the document"
            raise GateRefused(f"the file has no array {place}; nothing was closed and nothing published")


def _backend(path: Path) -> Any:
    """The fast parser writes a question mark for half a surrogate pair; where one is, the exact one is used."""
    carry = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            text = carry + block
            if _HALF_A_PAIR.search(text, 0, len(text) - _PAIR) or (len(block) < _BLOCK and _HALF_A_PAIR.search(text)):
                return ijson.get_backend("python")
            carry = text[-2 * _PAIR :]
    return ijson


def _build(event: str, value: Any, events: Iterator[tuple[str, str, Any]]) -> Any:
    """One element, from its first event to its last."""
    builder, depth = ObjectBuilder(), 0
    while True:
        depth += event.startswith("start_") - event.startswith("end_")
        builder.event(event, Number(value) if isinstance(value, Decimal) else value)
        if depth == 0:
            return builder.value
        _, event, value = next(events)


def _record(item: Any) -> dict[str, Any] | Damaged:
    if isinstance(item, dict):
        return item
    return Damaged("JSON", "not a JSON object", json.dumps(item, ensure_ascii=False, default=str).encode())
