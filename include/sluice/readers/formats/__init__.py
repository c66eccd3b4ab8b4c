"""The formats that a file may have, each with what lands its rows.

A format is given whole, local, unpacked files: one, or the members of an archive in the order of their names.
"""

from __future__ import annotations

import errno
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from sluice.declarations import Table
from sluice.declarations.files import Csv, Custom, Excel, FixedWidth, Json, JsonLines, Parquet, Xml
from sluice.errors import GateRefused, ReadBroken, SluiceError, SourceUnavailable
from sluice.readers.base import Read, Sink, Unit
from sluice.readers.formats import csv, dialect

if TYPE_CHECKING:
    from sluice.readers.formats.records import RecordFormat

# Imported when a file of the kind is read: a load of CSV need not hold openpyxl and pyarrow in memory.
_RECORDS: dict[type, str] = {
    Json: "json:JsonReader",
    Xml: "xml:XmlReader",
    Excel: "excel:ExcelReader",
    FixedWidth: "fixed:FixedReader",
    Parquet: "parquet:ParquetReader",
}


def read(table: Table, options: Any, paths: list[Path], unit: Unit, sink: Sink) -> Read:
    """Land the rows of one unit's files. A refusal names the unit."""
    try:
        return _read(table, options, paths, unit, sink)
    except GateRefused as error:
        named = str(error) if str(error).startswith(unit.name) else f"{unit.name}: {error}"
        raise GateRefused(named) from None


def _read(table: Table, options: Any, paths: list[Path], unit: Unit, sink: Sink) -> Read:
    match options:
        case Csv():
            with dialect.plain(options, paths, unit.name) as plain:
                result = csv.read_differences(table, plain.dialect, plain.path, unit, sink)
            result.control_total = plain.control_total
            return result
        case JsonLines():
            from sluice.readers.formats import jsonl

            with dialect.joined(paths) as path:
                return jsonl.read(table, options, path, unit, sink)
        case Custom():
            return _custom(table, options, paths, unit, sink)
        case _:
            return _record_format(options).read(table, paths, unit, sink)


def _record_format(options: Any) -> RecordFormat:
    module, name = _RECORDS[type(options)].split(":")
    found: RecordFormat = getattr(importlib.import_module(f"{__name__}.{module}"), name)(options)
    return found


def _custom(table: Table, options: Custom, paths: list[Path], unit: Unit, sink: Sink) -> Read:
    from sluice.readers.formats import custom

    try:
        reader = custom.make(options)
    except custom.Unusable as problem:
        raise SluiceError(f"format.reader {options.reader} {problem}; nothing was read") from None
    try:
        return reader.read(table, paths, unit, sink)
    except (SluiceError, psycopg.Error):
        raise
    except Exception as error:  # a fault in the project's own code has a place there
        place = custom.place(error, options)
        if not place or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        kind = SourceUnavailable if isinstance(error, OSError) else ReadBroken
        name = type(error).__name__
        raise kind(f"{table.log_name} {unit.name}: {name}{place}; the unit was left unread", kind=name) from None
