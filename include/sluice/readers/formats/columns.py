"""Columns as blocks of CSV for a COPY: what every format but CSV itself is turned into, on its way into values.

Arrow writes the CSV, so that a row costs no Python. A text is quoted and NULL is not, so that an empty text stays one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow
import pyarrow.csv

OPTIONS = "format csv, encoding 'UTF8', on_error ignore, log_verbosity verbose"
Problem = tuple[str, str]  # code and reason
Texts = Sequence[str | None]

_PLAIN = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
_FIELD = re.compile(rb'(?:"((?:[^"]|"")*)"|([^",\n]*))[,\n]')
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Damaged:
    """A record that can't become a row. Its bytes go to quarantine under this code; the reason holds no value."""

    code: str
    reason: str
    raw: bytes


@dataclass
class Rows:
    """Some rows of texts, or of values that Arrow writes as Postgres reads them (`readers.base.Block`)."""

    columns: Sequence[pyarrow.Array]
    kinds: Sequence[str]  # the Postgres type of each
    first: int
    known: dict[int, Damaged] = field(default_factory=dict)  # these are empty in the columns
    suspect = False
    unsayable = None
    binary = None

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.columns[0])

    @cached_property
    def data(self) -> bytes:
        """CSV of our own, with a line feed at the end of each row."""
        batch = pyarrow.record_batch(self.written, names=[str(index) for index in range(len(self.columns))])
        target = pyarrow.BufferOutputStream()
        pyarrow.csv.write_csv(batch, target, _PLAIN)
        return bytes(target.getvalue().to_pybytes())

    @property
    def written(self) -> Sequence[pyarrow.Array]:
        """The columns, as far as Arrow can write them."""
        return self.columns

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
            for match in _FIELD.finditer(self.records[index])
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


def blocks_of(records: Iterable[Texts | Damaged], kinds: list[str], size: int) -> Iterator[Rows]:
    """The same of records of texts, in blocks of about `size` characters."""
    first, rows, known, length = 1, list[Texts](), dict[int, Damaged](), 0
    nothing: Texts = (None,) * len(kinds)
    for record in records:
        if isinstance(record, Damaged):
            known[len(rows)] = record
            rows.append(nothing)
        else:
            rows.append(record)
            length += sum(len(text) for text in record if text)
        if length >= size or len(rows) >= size // 64:
            yield _block(rows, first, kinds, known)
            first, rows, known, length = first + len(rows), [], {}, 0
    if rows:
        yield _block(rows, first, kinds, known)


def _block(rows: list[Texts], first: int, kinds: list[str], known: dict[int, Damaged]) -> Rows:
    columns = [pyarrow.array(column, pyarrow.string()) for column in zip(*rows, strict=True)]
    return Rows(columns, kinds, first, known)


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
