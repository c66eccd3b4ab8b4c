"""JSON Lines: one object a line; a line that is none is one rejected row.

A block of lines is decoded at once into columns of texts. A line that this does not understand, or that has a field
which the contract does not know, is read by itself, by Python's own parser, and joins the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from sluice.declarations import Table
from sluice.declarations.files import JsonLines
from sluice.readers.base import Digest, Names, Read, Sink, Unit, source_fields
from sluice.readers.formats.alike import Alike
from sluice.readers.formats.columns import NULL, OPTIONS, Cut, Damaged, Rows, Texts, Written, joined, unstorable
from sluice.readers.formats.records import land
from sluice.readers.jsonl import TOO_DEEP, as_text, loads, with_rest

BLOCK = 1 << 19  # bytes: what a block needs stays in the processor's cache
_TRIALS = 3  # blocks in a row
_BOM = b"\xef\xbb\xbf"


def read(table: Table, options: JsonLines, path: Path, unit: Unit, sink: Sink) -> Read:
    """Land the objects of a file."""
    digest = Digest()
    with path.open("rb") as file:
        blocks = _blocks(digest.reading(file))
        first = next(blocks, b"")
        blocks = chain([first], blocks)
        fields = _in_order(source_fields(table), first)
        names = Names(fields)
        result = Read([*fields, "_rescued"], rest=True, names=names)
        sink.create(result.fields, rest=True)
        if sink.takes_blocks:
            sink.blocks(joined(_Decoder(fields, names).rows(blocks)), OPTIONS)
        else:
            land((_record(line, fields, names) for block in blocks for line in _split(block)), len(result.fields), sink)
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


def _in_order(fields: list[str], block: bytes) -> list[str]:
    """The fields in the order in which the first line has them."""
    item, _ = _object(block.partition(b"\n")[0])
    order = list(item or ())
    return sorted(fields, key=lambda name: order.index(name) if name in order else len(order))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, a block at a time."""
    rest = file.read(len(_BOM)).removeprefix(_BOM)
    while chunk := file.read(BLOCK):
        whole, found, more = chunk.rpartition(b"\n")
        if found:
            yield rest + whole
            rest = more
        else:
            rest += chunk
    if rest:
        yield rest


def _split(block: bytes) -> list[bytes]:
    """The lines that are not blank."""
    return list(filter(bytes.strip, block.split(b"\n")))


class _Decoder:
    """Lines into columns: every value as the text that `with_rest` makes of it."""

    def __init__(self, fields: list[str], names: Names) -> None:
        self._fields, self._names = fields, names
        self._places = {f"f{index}": name for index, name in enumerate(fields)}
        members = [(place, Any, msgspec.UNSET) for place in self._places]
        # not tracked by the garbage collector, which would look at a million of them again and again
        # msgspec takes no name that JSON would have to escape: lines with such a field are left to Python's parser
        plain = not any(json.dumps(name, ensure_ascii=False) != f'"{name}"' for name in fields)
        names_in_json = self._places if plain else None
        self._row = msgspec.defstruct("Row", members, rename=names_in_json, forbid_unknown_fields=True, gc=False)
        self._texts: set[str] = set()  # the places of fields that have been texts only
        # a number with a fraction stays as it was written
        self._alike: Alike | None = None
        self._trials = _TRIALS  # left for finding out how the lines are written
        self._decode: Callable[[bytes], Any] = (
            msgspec.json.Decoder(self._row, float_hook=str).decode if plain else _refused
        )

    def rows(self, blocks: Iterator[bytes]) -> Iterator[Rows]:
        """The rows of each block of lines."""
        first = 1
        for block in blocks:
            if rows := self._alike_rows(block, first):
                yield rows
                first += rows.count
                continue
            if lines := _split(block):
                yield self._rows(lines, first, is_plain=b"\\u0000" not in block)
            first += len(lines)

    def _alike_rows(self, block: bytes, first: int) -> Rows | None:
        """The rows of lines that are all written alike."""
        if not self._trials:
            return None
        try:
            self._alike = self._alike or Alike(block, self._fields)
            found = self._alike.rows(block)
        except (ValueError, RecursionError):
            found = None
        if found is None:
            self._alike = None
            self._trials -= 1
            return None
        self._trials = _TRIALS
        self._names.any = True
        self._names.missing.clear()
        return Cut(first, *found)

    def _rows(self, lines: list[bytes], first: int, *, is_plain: bool) -> Rows:
        rescued = [NULL] * len(lines)
        damaged: dict[int, Damaged] = {}
        try:
            if not is_plain:
                raise ValueError
            rows = list(map(self._decode, lines))
        except (ValueError, RecursionError):
            rows = [self._alone(index, line, rescued, damaged) for index, line in enumerate(lines)]
        try:
            columns = [self._column(place, rows, lines) for place in self._places]
        except RecursionError:
            rows = [self._with_text(index, line, rescued, damaged) for index, line in enumerate(lines)]
            columns = [self._column(place, rows, lines) for place in self._places]
        self._names.any |= len(damaged) < len(lines)
        try:
            return Written.of([*columns, rescued], first, damaged)
        except TypeError:
            self._texts.clear()
            columns = [self._column(place, rows, lines) for place in self._places]
            return Written.of([*columns, rescued], first, damaged)

    def _alone(self, index: int, line: bytes, rescued: list[str], damaged: dict[int, Damaged]) -> Any:
        """One line by itself: its known fields as a row, and what else it has in its place."""
        try:
            if b"\\u0000" in line:
                raise ValueError
            return self._decode(line)
        except (ValueError, RecursionError):
            return self._with_text(index, line, rescued, damaged)

    def _with_text(self, index: int, line: bytes, rescued: list[str], damaged: dict[int, Damaged]) -> Any:
        """The same by Python's own parser."""
        record = _record(line, self._fields, self._names)
        if isinstance(record, Damaged):
            damaged[index] = record
            return self._row()
        *values, rest = record
        rescued[index] = NULL if rest is None else rest
        return self._row(*(msgspec.UNSET if value is None else value for value in values))

    def _column(self, place: str, rows: list[Any], lines: list[bytes]) -> list[str]:
        name, values = self._places[place], list(map(attrgetter(place), rows))
        if place in self._texts:  # so far; another kind of value shows when they are joined
            return values
        kinds = set(map(type, values))
        if kinds != {msgspec.UnsetType}:
            self._names.missing.discard(name)
        if kinds <= {str}:
            self._texts.add(place)
            return values
        if kinds <= {int}:
            return list(map(str, values))
        return [_text(value, name, line) for value, line in zip(values, lines, strict=True)]


def _refused(line: bytes) -> Any:
    raise ValueError


def _text(value: Any, name: str, line: bytes) -> str:
    if isinstance(value, dict | list):
        value = loads(line)[name]  # with its numbers as they were written
    text = None if value is msgspec.UNSET else as_text(value)
    return NULL if text is None else text


def _record(line: bytes, fields: list[str], names: Names) -> Texts | Damaged:
    """One line by itself, by Python's own parser."""
    item, found = _object(line)
    if item is None:
        return Damaged(*found, line.rstrip(b"\r\n"))
    try:
        values = with_rest(item, fields)
    except RecursionError:
        return Damaged(*TOO_DEEP, line.rstrip(b"\r\n"))
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
        return None, TOO_DEEP
    except ValueError as error:
        return None, ("JSON", f"not JSON: {getattr(error, 'msg', 'unreadable')}")
    if not isinstance(item, dict):
        return None, ("JSON", "not a JSON object")
    return item, ("", "")
