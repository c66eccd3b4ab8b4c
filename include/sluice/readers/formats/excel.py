"""A sheet of an .xlsx workbook, row by row, with cells as a person sees them: dates as dates, 0.3 as 0.3.

Rows are streamed. What grows with the file is the workbook's table of distinct texts, which the format keeps apart
from the sheet, and which must be read first.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from openpyxl import load_workbook
from openpyxl.utils import column_index_from_string, get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from sluice.declarations.files import Excel
from sluice.errors import GateRefused
from sluice.readers.formats.records import Damaged, RecordFormat

_DIGITS = 15  # what Excel shows of a number; the rest is how a binary fraction comes out


class ExcelReader(RecordFormat):
    """One sheet, or a part of it."""

    def __init__(self, options: Excel) -> None:
        self._options = options

    def header(self, path: Path) -> list[str]:
        """The names in the header row."""
        with self._rows(path, self._options.header_row) as rows:
            cells = next(rows, ())
            while cells and cells[-1].value is None:
                cells = cells[:-1]
            names = [
                str(cell.value).strip() if cell.value is not None else f"column {get_column_letter(position)}"
                for position, cell in enumerate(cells, start=self._bounds[0] or 1)
            ]
        if not names:
            raise GateRefused(f"row {self._options.header_row} holds no names; nothing was published")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise GateRefused(f"the header names {', '.join(twice)} more than once; nothing was published")
        return names

    def records(self, path: Path) -> Iterator[dict[str, Any] | Damaged]:
        """Each row that is not empty."""
        names = self.header(path)
        with self._rows(path, self._options.header_row + 1) as rows:
            for cells in rows:
                values = [_text(cell) for cell in cells]
                if all(value is None for value in values):
                    continue
                wrong = [name for name, cell in zip(names, cells, strict=False) if cell.data_type == "e"]
                if wrong:
                    reason = f"{', '.join(wrong)} holds an error of Excel's, such as #DIV/0!"
                    yield Damaged("CELL_ERROR", reason, "\t".join(value or "" for value in values).encode())
                elif any(value is not None for value in values[len(names) :]):
                    yield Damaged(
                        "FIELD_COUNT",
                        "cells beyond the last name of the header",
                        "\t".join(value or "" for value in values).encode(),
                    )
                else:
                    yield dict(zip(names, values, strict=False))

    @property
    def _bounds(self) -> tuple[int | None, int | None]:
        if not self._options.columns:
            return None, None
        first, last = map(column_index_from_string, self._options.columns.split(":"))
        return first, last

    @contextmanager
    def _rows(self, path: Path, first: int) -> Iterator[Iterator[tuple[Any, ...]]]:
        try:
            with path.open("rb") as file:
                book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
                sheet = book[self._options.sheet] if self._options.sheet else book.worksheets[0]
                sheet.reset_dimensions()  # what the file says of its size may be wrong
                least, most = self._bounds
                yield sheet.iter_rows(min_row=first, max_row=self._options.last_row, min_col=least, max_col=most)
                book.close()
        except KeyError:
            wanted = f"sheet {self._options.sheet}" if self._options.sheet else "sheet"
            raise GateRefused(f"the workbook has no {wanted}; the unit was left unread") from None
        except (zipfile.BadZipFile, InvalidFileException, EOFError, ParseError, ValueError) as error:
            raise GateRefused(
                f"the file is no whole .xlsx workbook ({type(error).__name__}); the unit was left unread"
            ) from None


def _text(cell: Any) -> str | None:
    """A cell's value as text that Postgres reads as the same value."""
    value = cell.value
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return format(Decimal(f"{value:.{_DIGITS}g}"), "f")
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime():
            return value.isoformat(sep=" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            minutes, seconds = divmod(value.total_seconds(), 60)
            return f"{int(minutes) // 60:02}:{int(minutes) % 60:02}:{seconds:02.0f}"
        case _:
            return str(value)
