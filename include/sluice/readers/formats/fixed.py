"""Lines whose fields stand at fixed places; possibly several types of records in one file, and a trailer that counts.

Places are counted in characters. Each table reads its own type of record; a type that no declaration mentions is
rejected, so that nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sluice.declarations.files import FixedField, FixedWidth, Span
from sluice.errors import GateRefused
from sluice.readers.formats.dialect import as_it_came, lines_of
from sluice.readers.formats.records import Damaged, RecordFormat

_DAMAGED = re.compile("[\udc00-\udcff]")  # see `dialect.lines_of`
_WHOLE = re.compile(r"([+-]?)([0-9]+)([+-]?)")


class FixedReader(RecordFormat):
    """One table's records."""

    def __init__(self, options: FixedWidth) -> None:
        self._options = options
        self._length = max(span.start + span.length - 1 for span in options.fields.values())

    def records(self, path: Path) -> Iterator[dict[str, Any] | Damaged]:
        """The table's own records, and those that nobody knows."""
        counted: Counter[str] = Counter()
        held: str | None = None
        for line in self._lines(path):
            if held is not None:
                yield from self._record(held, counted)
            held = line
        if self._options.trailer:
            self._judge_trailer(held or "", counted)
        elif held is not None:
            yield from self._record(held, counted)

    def _lines(self, path: Path) -> Iterator[str]:
        for number, line in enumerate(lines_of(path, self._options.encoding)):
            if number >= self._options.skip_lines and line.strip("\r\n\x1a "):
                yield line.rstrip("\r\n")

    def _record(self, line: str, counted: Counter[str]) -> Iterator[dict[str, Any] | Damaged]:
        kind = self._options.record
        if kind:
            seen = line[kind.start - 1 : kind.start - 1 + len(kind.value)]
            if seen != kind.value:
                known = next((other for other in kind.others if line.startswith(other, kind.start - 1)), None)
                counted[known or ""] += 1
                if known is None:
                    yield Damaged(
                        "RECORD_TYPE",
                        "a record type that the declaration does not know",
                        as_it_came(line, self._options.encoding),
                    )
                return
        counted[kind.value if kind else ""] += 1
        if damaged := _DAMAGED.search(line):
            encoding = self._options.encoding
            offset = len(as_it_came(line[: damaged.start()], encoding))
            reason = f"bytes that are not {encoding} at offset {offset} of the record"
            yield Damaged("ENCODING", reason, as_it_came(line, encoding))
            return
        if len(line) < self._length - max(span.length for span in self._options.fields.values()):
            # senders cut trailing spaces off, which may empty the last field, but not those before it
            yield Damaged(
                "RECORD_LENGTH",
                f"{len(line)} characters where {self._length} are declared",
                as_it_came(line, self._options.encoding),
            )
            return
        try:
            yield {name: _value(span, line) for name, span in self._options.fields.items()}
        except ValueError as error:
            yield Damaged("IMPLIED_DECIMALS", str(error), as_it_came(line, self._options.encoding))

    def _judge_trailer(self, line: str, counted: Counter[str]) -> None:
        trailer = self._options.trailer
        assert trailer is not None
        if not line.startswith(trailer.begins):
            raise GateRefused(
                f"the last line does not begin with {trailer.begins}, so that the end of the file is missing; the unit "
                "was left unread"
            )
        if trailer.rows is None:
            return
        text = _cut(trailer.rows, line)
        if not text.isdecimal():
            raise GateRefused("the trailer holds no number of records where it is declared; the unit was left unread")
        own = self._options.record.value if self._options.record else ""
        if trailer.counts in ((), (own,)):
            self.control_total = (self.control_total or 0) + int(text)
        elif (seen := sum(counted[kind] for kind in trailer.counts)) != int(text):
            raise GateRefused(
                f"the trailer announces {int(text)} records of the types {', '.join(trailer.counts)} but the file has "
                f"{seen}; nothing was published"
            )


def _cut(span: Span, line: str) -> str:
    return line[span.start - 1 : span.start - 1 + span.length].strip()


def _value(field: FixedField, line: str) -> str | None:
    text = _cut(field, line)
    if not text:
        return None
    if not field.decimals:
        return text
    found = _WHOLE.fullmatch(text)
    if not found or (found[1] and found[3]):
        raise ValueError("a field with implied decimals that holds no whole number")
    digits = found[2].rjust(field.decimals + 1, "0")
    sign = "-" if "-" in (found[1], found[3]) else ""
    return f"{sign}{digits[: -field.decimals]}.{digits[-field.decimals :]}"
