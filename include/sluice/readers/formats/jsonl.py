"""JSON Lines: one object a line; a line that is none is one rejected row.

A block of lines is decoded at once into columns of texts. A line that this does not understand, or that has a field
which the contract does not know, is read by itself, by Python's own parser, and joins the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow

from sluice.declarations import Table
from sluice.declarations.files import JsonLines
from sluice.readers.base import Digest, Names, Read, Sink, Unit, source_fields
from sluice.readers.formats.columns import OPTIONS, Damaged, Rows, Texts, unstorable
from sluice.readers.formats.records import land
from sluice.readers.jsonl import as_fields, as_text, loads

BLOCK = 1 << 20  # bytes
_BOM = b"\xef\xbb\xbf"


def read(table: Table, options: JsonLines, path: Path, unit: Unit, sink: Sink) -> Read:
    """Land the objects of a file."""
    fields = [*source_fields(table), "_rescued"]
    names, digest = Names(fields), Digest()
    result = Read(fields, names=names)
    sink.create(fields)
    with path.open("rb") as file:
        blocks = _lines(digest.reading(file))
        if sink.takes_blocks:
            sink.blocks(_Decoder(fields, names, sink.kinds).blocks(blocks), OPTIONS)
        else:
            land((_record(line, fields, names) for lines in blocks for line in lines), sink)
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


def _lines(file: BinaryIO) -> Iterator[list[bytes]]:
    """The lines of a file that are not blank, a block at a time."""
    rest = file.read(len(_BOM)).removeprefix(_BOM)
    while chunk := file.read(BLOCK):
        whole, found, more = chunk.rpartition(b"\n")
        if found:
            yield _not_blank(rest + whole)
            rest = more
        else:
            rest += chunk
    if rest:
        yield _not_blank(rest)


def _not_blank(block: bytes) -> list[bytes]:
    return list(filter(bytes.strip, block.split(b"\n")))


class _Decoder:
    """Lines into columns: every value as the text that `as_fields` makes of it."""

    def __init__(self, fields: list[str], names: Names, kinds: list[str]) -> None:
        self._fields, self._names, self._kinds = fields, names, kinds
        self._places = {f"f{index}": name for index, name in enumerate(fields) if name != "_rescued"}
        members = [(place, Any, msgspec.UNSET) for place in self._places]
        # not tracked by the garbage collector, which would look at a million of them again and again
        self._row = msgspec.defstruct("Row", members, rename=self._places, forbid_unknown_fields=True, gc=False)
        # a number with a fraction stays as it was written
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(self._row, float_hook=str).decode

    def blocks(self, blocks: Iterator[list[bytes]]) -> Iterator[Rows]:
        """Each list of lines as a block."""
        first = 1
        for lines in blocks:
            if lines:
                yield self._block(lines, first)
            first += len(lines)

    def _block(self, lines: list[bytes], first: int) -> Rows:
        rescued: list[str | None] = [None] * len(lines)
        damaged: dict[int, Damaged] = {}
        try:
            rows = list(map(self._decode, lines))
        except (ValueError, RecursionError):
            rows = [self._alone(index, line, rescued, damaged) for index, line in enumerate(lines)]
        self._names.any |= len(damaged) < len(lines)
        columns = [self._column(place, rows, lines) for place in self._places]
        block = Rows([*columns, pyarrow.array(rescued, pyarrow.string())], self._kinds, first, damaged)
        for index in block.damaged.keys() - damaged.keys():
            damaged[index] = Damaged(*block.damaged[index], lines[index].rstrip(b"\r\n"))
        return block

    def _alone(self, index: int, line: bytes, rescued: list[str | None], damaged: dict[int, Damaged]) -> Any:
        """One line by itself: its known fields as a row, and what else it has in its place."""
        try:
            return self._decode(line)
        except (ValueError, RecursionError):
            record = _record(line, self._fields, self._names)
        if isinstance(record, Damaged):
            damaged[index] = record
            return self._row()
        *values, rescued[index] = record
        return self._row(*(msgspec.UNSET if value is None else value for value in values))

    def _column(self, place: str, rows: list[Any], lines: list[bytes]) -> pyarrow.Array:
        name, values = self._places[place], list(map(attrgetter(place), rows))
        if name in self._names.missing and any(value is not msgspec.UNSET for value in values):
            self._names.missing.discard(name)
        for kind in (pyarrow.string(), pyarrow.int64()):  # as quick as they are few: a value of another kind raises
            try:
                return pyarrow.array(values, kind)
            except (pyarrow.ArrowException, OverflowError):
                pass
        texts = [_text(value, name, line) for value, line in zip(values, lines, strict=True)]
        return pyarrow.array(texts, pyarrow.string())


def _text(value: Any, name: str, line: bytes) -> str | None:
    if isinstance(value, dict | list):
        value = loads(line)[name]  # with its numbers as they were written
    return None if value is msgspec.UNSET else as_text(value)


def _record(line: bytes, fields: list[str], names: Names) -> Texts | Damaged:
    """One line by itself, by Python's own parser."""
    item, found = _object(line)
    if item is None:
        return Damaged(*found, line.rstrip(b"\r\n"))
    values = as_fields(item, fields)
    if problem := unstorable(values):
        return Damaged(*problem, line.rstrip(b"\r\n"))
    names.add(item)
    return values


def _object(line: bytes) -> tuple[dict[str, Any] | None, tuple[str, str]]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, ("ENCODING", f"not UTF-8 at byte {error.start}")
    if "\0" in text:
        return None, ("NUL_BYTE", "a NUL character, which text in Postgres can't hold")
    try:
        item = loads(text)
        json.dumps(item, ensure_ascii=False).encode()  # a lone surrogate is a character that no encoding has
    except UnicodeEncodeError:
        return None, ("ENCODING", "half of a surrogate pair")
    except RecursionError:
        return None, ("JSON", "objects inside objects, too deep to be read")
    except ValueError as error:
        return None, ("JSON", f"not JSON: {getattr(error, 'msg', 'unreadable')}")
    if not isinstance(item, dict):
        return None, ("JSON", "not a JSON object")
    return item, ("", "")
