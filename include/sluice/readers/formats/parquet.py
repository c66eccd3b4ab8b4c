"""Parquet, batch by batch: every value as the text that Postgres reads as the same value.

Arrow itself writes the texts of numbers and times, so that no digit passes through a float of Python's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from pyarrow import types

from sluice.declarations import Table
from sluice.declarations.files import Parquet
from sluice.errors import GateRefused
from sluice.readers.base import Read, Sink, Unit
from sluice.readers.formats.binary import encoded
from sluice.readers.formats.columns import NULL, OPTIONS, Rows, lines
from sluice.readers.formats.header import must_be_header
from sluice.readers.formats.records import RecordFormat, common_header, finished
from sluice.readers.jsonl import Number, as_text

pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # mimalloc keeps 20 to 30 MB more
_BLOCK = 1 << 22  # bytes of a batch, about
_ROWS = 1 << 15  # and rows, at most: each batch costs some hundred calls of Arrow's
_BUFFER = 1 << 16  # bytes a column: pages are read as they are needed, and not a whole row group


class ParquetReader(RecordFormat):
    """The rows of all row groups."""

    def __init__(self, options: Parquet) -> None:
        self._options = options

    def header(self, path: Path) -> list[str]:
        """The names of the schema."""
        with _opened(path) as file:
            return list(file.schema_arrow.names)

    def texts(self, path: Path) -> list[str]:
        """The fields that hold texts."""
        with _opened(path) as file:
            return [field.name for field in file.schema_arrow if _holds_text(field.type)]

    def records(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each row; no more than one batch and the pages it stands on are in memory."""
        for batch in _batches(path):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, values, strict=True))

    def read(self, table: Table, paths: list[Path], unit: Unit, sink: Sink) -> Read:
        """Land the columns of all files as they are, where they can go straight into values."""
        header = common_header(self, paths)
        assert header is not None
        must_be_header(header, table, unit)
        sink.create(header)
        if not sink.takes_blocks:
            return super().read(table, paths, unit, sink)
        sink.blocks(_blocks(paths, sink.kinds), OPTIONS)
        return finished(Read(header, header=header), paths, None, None)


class _Batch(Rows):
    """Rows that Arrow writes."""

    def __init__(self, columns: list[pyarrow.Array], kinds: list[str], first: int) -> None:
        super().__init__(first, len(columns[0]))
        self._columns, self._kinds = columns, kinds

    @cached_property
    def binary(self) -> bytes | None:
        """The values themselves, where that is certain to mean the same as their texts."""
        return encoded(self._columns, self._kinds)

    @cached_property
    def data(self) -> bytes:
        """Their texts."""
        return lines([[_field(value) for value in _values(column)] for column in self._columns], self.count)


def _field(value: Any) -> str:
    text = value if isinstance(value, str) else as_text(value)
    if text is None:
        return NULL
    return NULL + text if text.startswith(NULL) else text  # not to be taken for none: `columns._unescaped`


def _blocks(paths: list[Path], kinds: list[str]) -> Iterator[Rows]:
    first = 1
    for batch in (batch for path in paths for batch in _batches(path)):
        yield _Batch(batch.columns, kinds, first)
        first += batch.num_rows


def _batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    with _opened(path) as file:
        groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
        widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
        try:
            yield from file.iter_batches(batch_size=int(max(1, min(_ROWS, _BLOCK / max(widest, 1)))), use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise _refused(error) from None


def _opened(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise _refused(error) from None


def _refused(error: Exception) -> GateRefused:
    return GateRefused(f"the file is no whole Parquet file ({type(error).__name__}); the unit was left unread")


def _holds_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind)


def _values(column: pyarrow.Array) -> Sequence[Any]:
    """Texts, or nested values."""
    kind = column.type
    if types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if value is None else "\\x" + value.hex() for value in column.to_pylist()]
    if types.is_decimal(kind):  # Arrow may write an exponent
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if types.is_nested(kind):
        return [_plain(_nested(value)) for value in column]
    if isinstance(column, pyarrow.ExtensionArray):  # uuid, json
        return [None if value is None else str(value) for value in column.to_pylist()]
    if types.is_string(kind) or types.is_large_string(kind):
        return _decoded(column)
    return column.cast(pyarrow.string()).to_pylist()


def _nested(value: pyarrow.Scalar) -> Any:
    try:
        return value.as_py(maps_as_pydicts="strict")
    except KeyError:  # a key twice in a map: its pairs are all kept
        return value.as_py()


def _decoded(column: pyarrow.Array) -> list[str | None]:
    """Texts; a byte that is no UTF-8, which a file may well hold, is half of a surrogate pair."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        binary = pyarrow.large_binary() if types.is_large_string(column.type) else pyarrow.binary()
        raw = column.cast(binary).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]


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
