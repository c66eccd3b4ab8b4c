"""The formats that a file may have, each with what lands its rows.

A format is given whole, local, unpacked files: one, or the members of an archive in the order of their names.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.declarations import Table
from sluice.declarations.files import Csv, Custom, Excel, FixedWidth, Json, JsonLines, Parquet, Xml
from sluice.errors import GateRefused, SluiceError
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
            return _custom(options).read(table, paths, unit, sink)
        case _:
            return _record_format(options).read(table, paths, unit, sink)


def _record_format(options: Any) -> RecordFormat:
    module, name = _RECORDS[type(options)].split(":")
    found: RecordFormat = getattr(importlib.import_module(f"{__name__}.{module}"), name)(options)
    return found


def _custom(options: Custom) -> RecordFormat:
    from sluice.readers.formats.records import RecordFormat

    module, name = options.reader.split(":")
    try:
        made = getattr(importlib.import_module(module), name)(**options.options)
    except (ImportError, AttributeError, TypeError) as error:
        raise SluiceError(
            f"format.reader {options.reader} can't be made ({type(error).__name__}): is its module on PYTHONPATH, and "
            "are its options named as in the class? Nothing was read"
        ) from None
    if not isinstance(made, RecordFormat):
        raise SluiceError(f"format.reader {options.reader} is no RecordFormat; nothing was read")
    return made
