"""Formats whose records become Python objects. One more is a class with one method: docs/how-to/add-a-reader.md."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sluice.declarations import Table
from sluice.errors import GateRefused
from sluice.readers.base import Digest, Names, Read, Sink, Unit, source_fields
from sluice.readers.formats.columns import OPTIONS, Damaged, Texts, blocks_of, raw, unstorable
from sluice.readers.formats.header import must_be_header
from sluice.readers.jsonl import TOO_DEEP, as_fields, with_rest
from sluice.readers.nested import flat

__all__ = ["Damaged", "RecordFormat"]
_BLOCK = 1 << 18


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
        header = common_header(self, paths)
        if header:
            must_be_header(header, table, unit)
        fields = header or source_fields(table)
        names = None if header else Names(fields)
        result = Read([*fields, "_rescued"], rest=True) if names else Read(fields, header=header)
        sink.create(result.fields, rest=result.rest)
        land(_texts(self, paths, fields, names), len(result.fields), sink)
        return finished(result, paths, names, self.control_total)


# functions, and no methods, so that no subclass overrides one by chance


def common_header(format: RecordFormat, paths: list[Path]) -> list[str] | None:
    """The header of all files. Raises `GateRefused` if they have different ones."""
    first, *others = (format.header(path) for path in paths)
    if any(other != first for other in others):
        raise GateRefused("the members of the archive have different headers; the unit was left unread")
    return first


def land(records: Iterable[Texts | Damaged], width: int, sink: Sink) -> None:
    """Records of texts straight into values, where they can go there, else as text."""
    if sink.takes_blocks:
        sink.blocks(blocks_of(records, width, _BLOCK), OPTIONS)
    else:
        sink.rows(_numbered(records, sink))


def finished(result: Read, paths: list[Path], names: Names | None, control_total: int | None) -> Read:
    """What is known of a unit when all of it has been read."""
    digest = Digest()
    for _ in digest.over(_blocks(paths)):
        pass
    result.content_hash, result.bytes_read, result.names = digest.hex(), digest.size, names
    result.control_total = control_total
    return result


def _numbered(records: Iterable[Texts | Damaged], sink: Sink) -> Iterator[tuple[int, Texts]]:
    for number, record in enumerate(records, start=1):
        if isinstance(record, Damaged):
            sink.reject(number, record.code, record.reason, record.raw)
        else:
            yield number, record


def _texts(
    format: RecordFormat, paths: list[Path], fields: list[str], names: Names | None
) -> Iterator[list[str | None] | Damaged]:
    dotted = [field for field in fields if "." in field]
    for record in (record for path in paths for record in format.records(path)):
        if isinstance(record, Damaged):
            yield record
            continue
        item = flat(record, dotted) if dotted else record
        try:
            values = with_rest(item, fields) if names else as_fields(item, fields)
        except RecursionError:
            yield Damaged(*TOO_DEEP, _written(item))
            continue
        problem = unstorable(values)
        if names and not problem:
            names.add(item)
        yield Damaged(*problem, raw(values)) if problem else values


def _written(item: dict[str, Any]) -> bytes:
    try:
        return json.dumps(item, default=str).encode()
    except RecursionError:
        return b""


def _blocks(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
