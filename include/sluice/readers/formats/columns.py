"""Rows as blocks of text for a COPY: what every format but CSV itself is turned into, on its way into values.

It is PostgreSQL's own text format, not CSV: a row is always one line, nothing is quoted, and the server reads it in
half the time of fields that are all quoted.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sluice.readers.base import by_line
from sluice.readers.textlines import Lines

OPTIONS = "format text, encoding 'UTF8', on_error ignore, log_verbosity verbose"
Problem = tuple[str, str]  # code and reason
Texts = Sequence[str | None]
_COPY = 1 << 20  # bytes
NULL = "\0"  # in columns of texts: no text that Postgres can hold has it

_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MEANT = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}
_ALONE = re.compile(r"(?<![^\t\n])\0(?![^\t\n])")
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Damaged:
    """A record that can't become a row. Its bytes go to quarantine under this code; the reason holds no value."""

    code: str
    reason: str
    raw: bytes


@dataclass
class Rows(ABC):
    """Some rows in PostgreSQL's text format (`readers.base.Block`), each a line."""

    first: int
    count: int
    known: dict[int, Damaged] = field(default_factory=dict)  # these are NULL in `data`
    suspect = False
    unsayable = None

    @property
    @abstractmethod
    def data(self) -> bytes:
        """All of them."""

    @property
    def binary(self) -> bytes | None:
        """The same for a binary COPY, where there is that."""
        return None

    @cached_property
    def damaged(self) -> dict[int, Problem]:
        """The records that are known to be no rows."""
        found = {index: (record.code, record.reason) for index, record in self.known.items()}
        if b"\0" in self.data or b"\\u0000" in self.data:
            others = ((index, self.problem(index)) for index in range(self.count) if index not in found)
            found |= {index: problem for index, problem in others if problem}
        return found

    @cached_property
    def records(self) -> Sequence[bytes]:
        """Each record with its line feed."""
        return Lines(self.data, self.count)

    def ended(self, lines: list[int], kept: list[int] | None) -> list[int]:
        """Which records are these lines of a block of these records (of all), as COPY counts lines: from 1."""
        return by_line(lines, self.count, kept)

    def keep(self, indexes: list[int]) -> bytes:
        """Only these records."""
        records = list(self.records)
        return b"".join([records[index] for index in indexes])

    def fields(self, index: int) -> list[str | None]:
        """The fields of a record, as text; a byte that is no UTF-8 is half of a surrogate pair."""
        return [_unescaped(field) for field in self.records[index][:-1].split(b"\t")]

    def raw(self, index: int) -> bytes:
        """What goes to quarantine of a record that is no row."""
        return self.known[index].raw if index in self.known else raw(self.fields(index))

    def problem(self, index: int) -> Problem | None:
        """Why a record can't be a row, if it can't."""
        if index in self.known:
            return self.known[index].code, self.known[index].reason
        return unstorable(self.fields(index))


class Cut(Rows):
    """Rows that were cut out of their source as they are."""

    data = b""

    def __init__(self, first: int, count: int, data: bytes) -> None:
        super().__init__(first, count)
        self.data = data


def joined(blocks: Iterable[Rows]) -> Iterator[Rows]:
    """The same rows, in blocks as large as a COPY is worth: each costs a millisecond of its own."""
    held: list[Rows] = []
    for block in blocks:
        held.append(block)
        if sum(len(each.data) for each in held) >= _COPY:
            yield _whole(held)
            held = []
    if held:
        yield _whole(held)


def _whole(blocks: Sequence[Rows]) -> Rows:
    made = Cut(blocks[0].first, 0, b"".join([block.data for block in blocks]))
    for block in blocks:
        made.known |= {made.count + index: record for index, record in block.known.items()}
        made.count += block.count
    return made


class Written(Rows):
    """Rows that were written from texts."""

    data = b""

    @classmethod
    def of(cls, columns: Sequence[Sequence[str]], first: int, known: dict[int, Damaged]) -> Written:
        """Rows from columns of texts, in which `NULL` stands for none. Raises `TypeError` for what is no text."""
        made = cls(first, len(columns[0]), known)
        made.data = lines(columns, made.count)
        return made


def lines(columns: Sequence[Sequence[str]], count: int) -> bytes:
    """`count` rows of texts in PostgreSQL's text format. Raises `TypeError` for what is no text.

    Joined and escaped as a whole, which costs a row next to nothing, unless a text holds what is to tell them apart.
    """
    text = "\n".join(map("\t".join, zip(*columns, strict=True)))
    if (text.count("\t"), text.count("\n")) != (count * (len(columns) - 1), count - 1) or "\r" in text:
        text = "\n".join("\t".join(map(_escaped, row)) for row in zip(*columns, strict=True))
    elif "\\" in text:
        text = text.replace("\\", "\\\\")
    return _with_nulls(text + "\n").encode("utf-8", "surrogatepass")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _with_nulls(text: str) -> str:
    """A field that is `NULL`, and not one that holds a NUL beside other characters."""
    text = text.replace(f"\t{NULL}\n", "\t\\N\n")  # the usual case: nothing to rescue
    if NULL not in text:
        return text
    return _ALONE.sub("\\\\N", text)


def _unescaped(field: bytes) -> str | None:
    if field == b"\\N":
        return None
    field = field.removeprefix(NULL.encode())  # which a text that begins with it has twice
    plain = _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), field) if b"\\" in field else field
    return plain.decode("utf-8", "surrogateescape")


def blocks_of(records: Iterable[Texts | Damaged], width: int, size: int) -> Iterator[Rows]:
    """Blocks of records of texts, of about `size` characters."""
    first, rows, known, length = 1, list[Texts](), dict[int, Damaged](), 0
    nothing: Texts = (None,) * width
    for record in records:
        if isinstance(record, Damaged):
            known[len(rows)] = record
            rows.append(nothing)
        else:
            rows.append(record)
            length += sum(len(text) for text in record if text)
        if length >= size or len(rows) >= size // 64:
            yield _block(rows, first, known)
            first, rows, known, length = first + len(rows), [], {}, 0
    if rows:
        yield _block(rows, first, known)


def _block(rows: list[Texts], first: int, known: dict[int, Damaged]) -> Rows:
    columns = [[NULL if text is None else text for text in column] for column in zip(*rows, strict=True)]
    return Written.of(columns, first, known)


# -- what Postgres can't hold ---------------------------------------------------------------------


def unstorable(values: Texts) -> Problem | None:
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


def raw(values: Texts) -> bytes:
    """A row of texts as the bytes that go to quarantine."""
    text = "\t".join(text or "" for text in values)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
