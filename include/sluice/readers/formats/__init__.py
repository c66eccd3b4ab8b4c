"""The formats that a file may have, each with the function that lands its rows.

A format is given whole, local, unpacked files: one, or the members of an archive in the order of their names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sluice.declarations import Table
from sluice.declarations.files import Csv, JsonLines
from sluice.readers.base import Read, Sink, Unit
from sluice.readers.formats import csv, dialect, jsonl

ReadFiles = Callable[[Table, Any, list[Path], Unit, Sink], Read]


def _csv(table: Table, options: Csv, paths: list[Path], unit: Unit, sink: Sink) -> Read:
    with dialect.plain(options, paths, unit.name) as plain:
        result = csv.read(table, plain.dialect, plain.path, unit, sink)
    result.control_total = plain.control_total
    return result


def _jsonl(table: Table, options: JsonLines, paths: list[Path], unit: Unit, sink: Sink) -> Read:
    with dialect.joined(paths) as path:
        return jsonl.read(table, options, path, unit, sink)


_FORMATS: dict[type, ReadFiles] = {Csv: _csv, JsonLines: _jsonl}


def read(table: Table, options: Any, paths: list[Path], unit: Unit, sink: Sink) -> Read:
    """Land the rows of one unit's files."""
    return _FORMATS[type(options)](table, options, paths, unit, sink)
