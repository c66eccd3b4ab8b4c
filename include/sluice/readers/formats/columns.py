"""Rows as blocks of CSV for a COPY: what every format but CSV itself is turned into, on its way into values."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

OPTIONS = "format csv, encoding 'UTF8', on_error ignore, log_verbosity verbose"
Problem = tuple[str, str]  # code and reason
Texts = Sequence[str | None]
NULL = "\0"  # in columns of texts: no text that Postgres can hold has it
_FIELD, _ROW = "\x1f", "\x1e"

_PARTS = re.compile(rb'(?:"((?:[^"]|"")*)"|([^",\n]*))[,\n]')
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Damaged:
    """A record that can't become a row. Its bytes go to quarantine under this code; the reason holds no value."""

    code: str
    reason: str
    raw: bytes


@dataclass
class Rows(ABC):
    """Some rows in CSV of our own (`readers.base.Block`): a text is quoted, NULL is not, a line feed ends each."""

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
    def records(self) -> list[bytes]:
        """Each record with its line feed."""
        lines = [line + b"\n" for line in self.data.split(b"\n")[:-1]]
        if len(lines) == self.count:
            return lines
        found, quotes = [b""], 0
        for line in lines:
            found[-1] += line
            quotes += line.count(b'"')
            if not quotes & 1:
                found.append(b"")
        return found[:-1]

    def ends(self, kept: list[int] | None) -> dict[int, int]:
        """Which record ends with which line of a block of these records (of all), as COPY counts lines: from 1.

        Inside quotes COPY counts line feeds, but in the first record, when it has not seen the end of one: there it
        counts carriage returns.
        """
        line, found, mark = 0, {}, b"\r"
        for index in range(self.count) if kept is None else kept:
            line += 1 + self.records[index][:-1].count(mark)
            found[line] = index
            mark = b"\n"
        return found

    def keep(self, indexes: list[int]) -> bytes:
        """Only these records."""
        return b"".join(self.records[index] for index in indexes)

    def fields(self, index: int) -> list[str | None]:
        """The fields of a record, as text; a byte that is no UTF-8 is half of a surrogate pair."""
        return [
            quoted.replace(b'""', b'"').decode("utf-8", "surrogateescape") if match[1] is not None else plain
            for match in _PARTS.finditer(self.records[index])
            for quoted, plain in [(match[1] or b"", (match[2] or b"").decode() or None)]
        ]

    def raw(self, index: int) -> bytes:
        """What goes to quarantine of a record that is no row."""
        return self.known[index].raw if index in self.known else raw(self.fields(index))

    def problem(self, index: int) -> Problem | None:
        """Why a record can't be a row, if it can't."""
        if index in self.known:
            return self.known[index].code, self.known[index].reason
        return unstorable(self.fields(index))


class Written(Rows):
    """Rows that were written from texts."""

    data = b""

    @classmethod
    def of(cls, columns: Sequence[Sequence[str]], first: int, known: dict[int, Damaged]) -> Written:
        """Rows from columns of texts, in which `NULL` stands for none. Raises `TypeError` for what is no text."""
        made = cls(first, len(columns[0]), known)
        made.data = _csv(columns, made.count).encode("utf-8", "surrogatepass")
        return made


def _csv(columns: Sequence[Sequence[str]], count: int) -> str:
    """Joined and quoted as a whole, which costs a row next to nothing, unless a text holds what is to tell them
    apart."""
    text = _ROW.join(map(_FIELD.join, zip(*columns, strict=True)))
    if (text.count(_FIELD), text.count(_ROW)) != (count * (len(columns) - 1), count - 1):
        quoted = [["" if text == NULL else '"' + text.replace('"', '""') + '"' for text in row] for row in columns]
        return "".join(f"{','.join(row)}\n" for row in zip(*quoted, strict=True))
    text = text.replace('"', '""').replace(_FIELD, '","').replace(_ROW, '"\n"')
    return f'"{text}"\n'.replace(f'"{NULL}"', "")


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
