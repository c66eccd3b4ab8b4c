"""A CSV file as blocks of whole records, each ready for a COPY of its own.

A block is cut at the end of a record: never inside quotes, and never by trusting that quotes come in pairs, since one
stray quote would turn the rest of the file inside out. A block whose quotes are not all where CSV puts them is read
record by record; all others are only counted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from sluice.declarations.files import Csv
from sluice.errors import GateRefused
from sluice.readers.base import by_line
from sluice.readers.oddities import Oddity, oddities
from sluice.readers.textlines import Lines, lines

BLOCK = 1 << 22  # bytes: a stream stands still for a millisecond between two
MAX_RECORD = 64 << 20  # bytes
NO_QUOTE = "\x01"

Problem = tuple[str, str]  # code and reason
STRAY_QUOTE: Problem = ("CSV", "a quote that neither begins nor ends a field")


@dataclass(frozen=True)
class Shape:
    """What the records of a file look like."""

    dialect: Csv
    width: int

    @cached_property
    def quote(self) -> bytes:
        """The quote, or the character that stands for none and must not occur."""
        return (self.dialect.quote or NO_QUOTE).encode()

    def is_well_formed(self, text: bytes) -> bool:
        """Whether each quoted field of whole records begins and ends where a field does.

        Split at quotes, every other piece is outside of them; an empty one stands in a doubled quote. (Not by an
        expression with possessive repeats: Python 3.11.2 finds `"a"b` well formed by it, 3.11.7 does not.)
        """
        pieces = text.split(self.quote)
        if len(pieces) == 1 or len(pieces) % 2 == 0:
            return len(pieces) == 1
        before, after = (self._delimiter, b"\n"), (self._delimiter, b"\r", b"\n")
        first, *between, last = pieces[::2]
        return (
            (not first or first.endswith(before))
            and (not last or last.startswith(after))
            and all(piece.startswith(after) and piece.endswith(before) for piece in set(between) if piece)
        )

    def parser(self) -> dict[str, Any]:
        """Python's words for the dialect."""
        dialect = self.dialect
        return {
            "delimiter": dialect.delimiter,
            "quotechar": dialect.quote,
            "quoting": csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            "escapechar": dialect.escape,
            "doublequote": dialect.escape is None,
        }

    def fields(self, raw: bytes) -> list[str | None]:
        """The fields of one whole record."""
        text = raw.decode(self.dialect.encoding, errors="replace").rstrip("\r\n")
        if self.dialect.quote is None or self.dialect.quote not in text:
            return list(text.split(self.dialect.delimiter)) if text else []
        return list(next(csv.reader([text + "\n"] if "\n" not in text else io.StringIO(text), **self.parser()), []))

    def is_plainly_whole(self, raw: bytes) -> bool:
        """Whether a record has no quotes, and as many fields as it should: what most are, found quickly."""
        return self.quote not in raw and raw.count(self._delimiter) == self.width - 1

    @cached_property
    def _delimiter(self) -> bytes:
        return self.dialect.delimiter.encode()

    def problem(self, raw: bytes) -> Problem | None:
        """Why a record can't be a row, if it can't."""
        if b"\0" in raw:
            return "NUL_BYTE", f"a NUL byte at offset {raw.index(0)} of the record"
        try:
            raw.decode(self.dialect.encoding)
        except UnicodeDecodeError as error:
            return "ENCODING", f"bytes that are not {self.dialect.encoding} at offset {error.start} of the record"
        line = raw.rstrip(b"\r\n")
        quoted = self.dialect.quote is not None and self.quote in line
        if quoted and not self.is_well_formed(line):
            return STRAY_QUOTE
        try:
            found = len(self.fields(raw))
        except csv.Error as error:
            return "CSV", str(error)
        return None if found == self.width else ("FIELD_COUNT", f"{found} fields where the header has {self.width}")


@dataclass
class Block:
    """Whole records, the first of which is at position `first` of the file; `count` of them."""

    shape: Shape
    data: bytes
    first: int
    count: int
    suspect: bool = False  # read record by record, since its quotes are not all where they belong
    by_line: bool = False  # each record is one line

    @property
    def unsayable(self) -> bytes | None:
        """What COPY would take for something else, wherever it stands."""
        return self.shape.quote if self.shape.dialect.quote is None else None

    @cached_property
    def records(self) -> Sequence[bytes]:
        """Each record with its line break."""
        if self.by_line:
            return Lines(self.data, self.count)
        return _Careful(self.shape, self.data, len(self.data), io.BytesIO(), self.first).records()

    def ended(self, lines: list[int], kept: list[int] | None) -> list[int]:
        """Which records end with these lines of a block of these records (of all), as COPY counts lines: from 1."""
        if b"\r" in self.data or not self.by_line:
            ends = self._ends(kept)
            return [ends[line] for line in lines if line in ends]
        return by_line(lines, self.count, kept)

    def _ends(self, kept: list[int] | None) -> dict[int, int]:
        """Inside quotes COPY counts only the first character of the line break that it found at the end of the first
        record; within that one it does not know it yet, and counts carriage returns."""
        indexes = range(self.count) if kept is None else kept
        plain = kept is not None or not self.records[0].endswith(b"\r\n")
        line, found, mark = 0, {}, b"\r"
        for index in indexes:
            line += 1 + self.records[index].rstrip(b"\r\n").count(mark)
            found[line] = index
            mark = b"\n" if plain else b"\r"
        return found

    @property
    def binary(self) -> None:
        """Text stays text: the server's parser is quicker than any here."""

    @property
    def damaged(self) -> dict[int, Problem]:
        """None is known before it is looked for."""
        return {}

    def fields(self, index: int) -> list[str | None]:
        """The fields of a record, as text."""
        return self.shape.fields(self.records[index])

    def raw(self, index: int) -> bytes:
        """The bytes of a record."""
        return self.records[index]

    def keep(self, indexes: list[int]) -> bytes:
        """Only these records, all with the same kind of line break."""
        records = list(self.records)
        if b"\r" not in self.data:
            return b"".join([records[index] for index in indexes])
        return b"".join(records[index].rstrip(b"\r\n") + b"\n" for index in indexes)

    def problem(self, index: int) -> Problem | None:
        """Why a record can't be a row, if it can't."""
        raw = self.records[index]
        if self._is_storable and self.shape.is_plainly_whole(raw):
            return None
        return self.shape.problem(raw)

    @cached_property
    def _is_storable(self) -> bool:
        """Whether all of it is text that the server can hold: no record need be asked alone."""
        if self.data.isascii():
            return b"\0" not in self.data
        try:
            self.data.decode(self.shape.dialect.encoding)
        except UnicodeDecodeError:
            return False
        return b"\0" not in self.data


def split(shape: Shape, file: BinaryIO, *, first: int = 1) -> Iterator[Block]:
    """Cut what is left of a file into blocks."""
    rest = b""
    while True:
        chunk = file.read(BLOCK)
        data = rest + chunk
        if not data:
            return
        if not chunk and not data.endswith(b"\n"):
            data += b"\n"
        cut = _cut(shape, data)
        if cut == 0 and chunk and len(data) <= 4 * BLOCK:
            rest = data
            continue
        block, rest = _block(shape, data, cut, first, file)
        if block.count:
            yield block
        first += block.count


def _cut(shape: Shape, data: bytes) -> int:
    """Behind the last line break before which quotes come in pairs; 0 if there is none."""
    end = data.rfind(b"\n") + 1
    if shape.dialect.quote is None:
        return end
    odd = data.count(shape.quote, 0, end) % 2
    while end and odd:
        before = data.rfind(b"\n", 0, end - 1) + 1
        odd = (odd + data.count(shape.quote, before, end)) % 2
        end = before
    return end


def _block(shape: Shape, data: bytes, cut: int, first: int, file: BinaryIO) -> tuple[Block, bytes]:
    """The block up to `cut` and what comes after it; or, where quotes are not what they seem, up to where a record
    ends."""
    body = data[:cut]
    if cut and (shape.dialect.quote is None or shape.quote not in body):
        body = _without_blank(body)
        return Block(shape, body, first, body.count(b"\n"), by_line=True), data[cut:]
    if cut and shape.is_well_formed(body):
        inside = sum(part.count(b"\n") for part in body.split(shape.quote)[1::2])
        if not _has_blank(body):
            return Block(shape, body, first, body.count(b"\n") - inside, by_line=not inside), data[cut:]
    careful = _Careful(shape, data, cut or len(data), file, first)
    records = careful.records()
    made = Block(shape, b"".join(records), first, len(records), suspect=True)
    made.records = records
    return made, careful.rest


def _has_blank(body: bytes) -> bool:
    return Oddity.BLANK_LINE in oddities(body)


def _without_blank(body: bytes) -> bytes:
    """Blank lines are no records."""
    if not _has_blank(body):
        return body
    return b"".join(line for line in lines(body) if line.strip(b"\r\n"))


class _Careful:
    """Reads records one by one from `data`, up to `enough` of it, and on into the file where a record goes beyond.

    Python's own parser says where a record ends: a quote opens a field only at its beginning.
    """

    def __init__(self, shape: Shape, data: bytes, enough: int, file: BinaryIO, first: int) -> None:
        self._shape, self._data, self._enough, self._file, self._first = shape, data, enough, file, first
        self._at, self._raw = 0, [b""]

    def records(self) -> list[bytes]:
        """Raises `GateRefused` if a quote is never closed."""
        csv.field_size_limit(MAX_RECORD)
        reader, found = csv.reader(self._lines(), strict=True, **self._shape.parser()), []
        while self._at < self._enough:
            self._raw = []
            try:
                next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if "unexpected end" in str(error) or "field limit" in str(error):
                    raise GateRefused(
                        f"a quote that opens in record {self._first + len(found)} is never closed, so that nobody can "
                        "say where the records after it begin; the whole file was left unread"
                    ) from None
            raw = b"".join(self._raw)
            if raw.strip(b"\r\n"):
                found.append(raw)
        return found

    def _lines(self) -> Iterator[str]:
        while True:
            while not (end := self._data.find(b"\n", self._at) + 1):
                more = self._file.read(BLOCK)
                if not more:
                    end = len(self._data)
                    break
                self._data, self._at, self._enough = self._data[self._at :] + more, 0, self._enough - self._at
            line, self._at = self._data[self._at : end], end
            if not line:
                return
            self._raw.append(line if line.endswith(b"\n") else line + b"\n")
            yield self._raw[-1].decode("latin-1").replace("\0", "\x1a")  # only the quotes matter

    @property
    def rest(self) -> bytes:
        """What was not read."""
        return self._data[self._at :]
