"""Parquet, batch by batch: every value as the text that Postgres reads as the same value.

Arrow itself writes the texts of numbers, decimals and times, so that no digit passes through a float of Python's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from pyarrow import types

from sluice.declarations.files import Parquet
from sluice.errors import GateRefused
from sluice.readers.formats.records import RecordFormat
from sluice.readers.jsonl import Number

_ROWS = 1024
_BUFFER = 1 << 20  # bytes a column: pages are read as they are needed, and not a whole row group


class ParquetReader(RecordFormat):
    """The rows of all row groups."""

    def __init__(self, options: Parquet) -> None:
        self._options = options

    def header(self, path: Path) -> list[str]:
        """The names of the schema."""
        with _opened(path) as file:
            return list(file.schema_arrow.names)

    def records(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each row; no more than one batch and the pages it stands on are in memory."""
        with _opened(path) as file:
            try:
                for batch in file.iter_batches(batch_size=_ROWS, use_threads=False):
                    columns = [_texts(column) for column in batch.columns]
                    for values in zip(*columns, strict=True):
                        yield dict(zip(batch.schema.names, values, strict=True))
            except (pyarrow.ArrowException, OSError) as error:
                raise _refused(error) from None


def _opened(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise _refused(error) from None


def _refused(error: Exception) -> GateRefused:
    return GateRefused(f"the file is no whole Parquet file ({type(error).__name__}); the unit was left unread")


def _texts(column: pyarrow.Array) -> list[Any]:
    kind = column.type
    if types.is_dictionary(kind):
        return _texts(column.dictionary_decode())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if value is None else "\\x" + value.hex() for value in column.to_pylist()]
    if types.is_decimal(kind):  # Arrow may write an exponent
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if types.is_nested(kind):
        return [_plain(value) for value in column.to_pylist(maps_as_pydicts="strict")]
    return column.cast(pyarrow.string()).to_pylist()


def _plain(value: Any) -> Any:
    """A nested value as JSON knows it; decimals keep their digits."""
    match value:
        case Decimal():
            return Number(format(value, "f"))
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return "\\x" + value.hex()
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float():
            return Number(json.dumps(value)) if value == value and abs(value) != float("inf") else str(value)
        case _:
            return value
