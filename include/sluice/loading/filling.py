"""One block of text into one COPY, and what is done about the records that COPY does not take.

A value that is none of its type is left out by the server, which names the line. A record of another shape makes the
server refuse the block; then each of its records is looked at, and the good ones go again. Whatever is left out either
goes on as text, to be judged by the same rules as all text, or never was a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import psycopg
from psycopg import sql

from sluice.readers.base import Block
from sluice.readers.oddities import NUMBER, Oddity, oddities

_TIME = re.compile(r"[\w\s:.,+/()-]{1,64}")  # what a time can be written with: `now`, `tomorrow 10:00 UTC`
_NUMBER = re.compile(rf"\s*{NUMBER}[0-9a-fp._+-]*\s*", re.IGNORECASE | re.ASCII)


@dataclass
class Filled:
    """What became of a block."""

    accepted: int = 0
    as_text: list[tuple[int, Sequence[str | None]]] = field(default_factory=list)
    rejected: list[tuple[int, str, str, bytes]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)


class _Stream(Protocol):
    def number_from(self, first: int) -> None: ...
    def fill(self, statement: sql.Composable, data: bytes) -> tuple[int, list[int]]: ...
    def numbers_since(self, first: int) -> int: ...
    def take_back(self, first: int, count: int) -> None: ...


class Filling:
    """The work on one block."""

    def __init__(
        self, stream: _Stream, statement: sql.Composable, binary: sql.Composable, block: Block, *, odd: Oddity
    ) -> None:
        self._stream, self._statement, self._binary, self._block = stream, statement, binary, block
        self._odd, self._done = odd | Oddity.END_MARK, Filled()

    def run(self) -> Filled:
        """Fill, and say what became of each record. Raises for what is about no record: a lost connection, a full
        disk."""
        block, done = self._block, self._done
        if block.binary is not None and self._copy_binary(block.binary):
            return done
        aside = self._odd_ones() if self._is_odd() else []
        problems = dict(block.damaged)
        try:
            if block.suspect:
                raise psycopg.DataError
            left_out = self._copy(aside, problems)
        except psycopg.DataError:
            problems = self._problems(range(block.count))
            # the server takes a carriage return for the end of a record, even where lines end otherwise
            returns = (index for index, raw in enumerate(block.records) if b"\r" in raw.rstrip(b"\r\n"))
            aside = sorted({*aside, *returns}.difference(problems))
            try:
                left_out = self._copy(aside, problems)
            except psycopg.DataError:  # whatever it is, text will take it
                left_out = [index for index in range(block.count) if index not in problems]
        # a value may have been refused before the server saw that the record has too few fields
        problems |= self._problems(left_out)
        done.rejected = [(block.first + index, *problem, block.raw(index)) for index, problem in problems.items()]
        done.as_text = [(block.first + index, block.fields(index)) for index in left_out if index not in problems]
        return done

    def _problems(self, indexes: Iterable[int]) -> dict[int, tuple[str, str]]:
        """Those of the records that can't be rows."""
        found = ((index, self._block.problem(index)) for index in indexes)
        return {index: problem for index, problem in found if problem}

    def _copy(self, aside: list[int], problems: dict[int, tuple[str, str]]) -> list[int]:
        """COPY all records but these; the indexes of `aside` and of those that the server left out."""
        block = self._block
        out = {*aside, *problems}
        kept = [index for index in range(block.count) if index not in out] if out or block.suspect else None
        sent = block.count if kept is None else len(kept)
        self._stream.number_from(block.first)
        accepted, lines = self._stream.fill(self._statement, block.data if kept is None else block.keep(kept))
        refused = []
        if lines or accepted != sent:
            refused = block.ended(lines, kept)
        numbered = self._stream.numbers_since(block.first) if refused and accepted else accepted
        if accepted + len(refused) != sent or numbered not in (accepted, sent):
            # the server says it in words that nobody here understands: all of it goes as text
            self._stream.take_back(block.first, block.count)
            return [index for index in range(block.count) if index not in problems]
        self._done.accepted = accepted
        # PostgreSQL 18 gives a row that it leaves out a number too, 17 does not
        self._done.gaps = gaps(block, sorted(out.union(refused if numbered == accepted else [])))
        return sorted({*aside, *refused})

    def _copy_binary(self, data: bytes) -> bool:
        """COPY all records as they are. False if the server refused one, and so all."""
        self._stream.number_from(self._block.first)
        try:
            self._done.accepted, _ = self._stream.fill(self._binary, data)
        except psycopg.DataError:
            return False
        return True

    def _is_odd(self) -> bool:
        """Whether there may be a record that COPY would take for something else."""
        block = self._block
        return bool(oddities(block.data) & self._odd) or (block.unsayable is not None and block.unsayable in block.data)

    def _odd_ones(self) -> list[int]:
        """Records that COPY would take for something else: with words for times, odd numbers, or a mark for the end of
        the data."""
        records = self._block.records
        return [
            index
            for index, raw in enumerate(records)
            if raw.rstrip(b"\r\n") == b"\\."
            or (self._block.unsayable is not None and self._block.unsayable in raw)
            or self._says_otherwise(index, oddities(raw) & self._odd)
        ]

    def _says_otherwise(self, index: int, found: Oddity) -> bool:
        """Whether one of the record's fields is all of what looked odd in it."""
        fields = self._block.fields(index) if found & (Oddity.WORD | Oddity.NUMBER) else ()
        return (Oddity.WORD in found and _says_a_time(fields)) or (
            Oddity.NUMBER in found and any(text and _NUMBER.fullmatch(text) for text in fields)
        )


def gaps(block: Block, left_out: list[int]) -> list[tuple[int, int]]:
    """From which number on the rows that were accepted are how much further on in the file."""
    if not left_out:
        return []
    shifts: dict[int, int] = {}
    for before, index in enumerate(left_out):
        shifts[block.first + index - before] = before + 1
    shifts[block.first + block.count] = 0
    return list(shifts.items())


def _says_a_time(fields: Sequence[str | None]) -> bool:
    return any(text and _TIME.fullmatch(text) and Oddity.WORD in oddities(text.encode()) for text in fields)
