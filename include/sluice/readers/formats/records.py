"""Formats whose records become Python objects. One more is a class with one method: docs/how-to/add-a-reader.md."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.declarations import Table
from sluice.errors import GateRefused
from sluice.readers.base import Digest, Read, Sink, Unit, source_fields
from sluice.readers.jsonl import as_fields
from sluice.readers.nested import flat

_BLOCK = 1 << 18
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Damaged:
    """A record that can't become a row. Its bytes go to quarantine under this code; the reason holds no value."""

    code: str
    reason: str
    raw: bytes


class RecordFormat(ABC):
    """Yields the records of a file in their order, one at a time, so that a file of any size needs no more memory."""

    control_total: int | None = None  # the number of rows that the files themselves announce

    @abstractmethod
    def records(self, path: Path) -> Iterable[dict[str, Any] | Damaged]:
        """Each record by the names of its fields: text, numbers, booleans, None, or nested lists and objects.

        Raise `GateRefused` for a file that can't be read to its end: nothing of it is kept then.
        """

    def header(self, path: Path) -> list[str] | None:
        """The names of all fields, where the file says them once for all records; None where each record says its own.

        With a header, a field that is new or missing is noticed as such, and not only where a value is missing.
        """
        return None

    def read(self, table: Table, paths: list[Path], unit: Unit, sink: Sink) -> Read:
        """Land the records of all files. What the contract does not name is kept in `_rescued`."""
        header = _common_header(self, paths)
        fields = header or [*source_fields(table), "_rescued"]
        result, digest = Read(fields, header=header), Digest()
        sink.create(fields)
        sink.rows(_numbered(self, paths, fields, sink, result))
        for _ in digest.over(_blocks(paths)):
            pass
        result.content_hash, result.bytes_read = digest.hex(), digest.size
        result.control_total = self.control_total
        return result


# functions, and no methods, so that no subclass overrides one by chance


def _common_header(format: RecordFormat, paths: list[Path]) -> list[str] | None:
    first, *others = (format.header(path) for path in paths)
    if any(other != first for other in others):
        raise GateRefused("the members of the archive have different headers; the unit was left unread")
    return first


def _numbered(
    format: RecordFormat, paths: list[Path], fields: list[str], sink: Sink, result: Read
) -> Iterator[tuple[int, list[str | None]]]:
    dotted = [field for field in fields if "." in field]
    for number, record in enumerate((record for path in paths for record in format.records(path)), start=1):
        if isinstance(record, Damaged):
            damaged, values = record, []
        else:
            values = as_fields(flat(record, dotted) if dotted else record, fields)
            problem = _unstorable(values)
            damaged = Damaged(*problem, _raw(values)) if problem else None
        if damaged:
            sink.reject(number, damaged.code, damaged.reason, damaged.raw)
            result.rejects += 1
        else:
            yield number, values


def _blocks(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def _unstorable(values: list[str | None]) -> tuple[str, str] | None:
    """What Postgres can't hold in a text or in JSON."""
    for text in values:
        if text is None or (text.isascii() and "\0" not in text and "\\u0000" not in text):
            continue
        if "\0" in text or (text[:1] in ("{", "[") and _NUL_IN_JSON.search(text)):
            return "NUL_BYTE", "a NUL character, which text in Postgres can't hold"
        try:
            text.encode()
        except UnicodeEncodeError:
            return "ENCODING", "half of a surrogate pair, or a byte that is not text in the declared encoding"
    return None


def _raw(values: list[str | None]) -> bytes:
    return "\t".join(text or "" for text in values).encode("utf-8", "surrogatepass")
