"""One small reader per kind of source. A new one is a class with `ready`, `units` and `read`, named here."""

from __future__ import annotations

import importlib
from functools import cache

from sluice.declarations import Table
from sluice.declarations.model import Files, PostgresTable, Rest
from sluice.readers.base import Read, Reader, Readiness, Unit

# Imported when a source of the kind is read: a load of files needs no client of HTTP or of Postgres's wire in memory.
_READERS: dict[type, str] = {
    Files: "files:FileReader",
    PostgresTable: "postgres:PostgresReader",
    Rest: "rest:RestReader",
}


def reader_of(table: Table) -> Reader:
    """The reader for the table's kind of origin."""
    return _reader(_READERS[type(table.origin.kind)])


@cache
def _reader(where: str) -> Reader:
    module, name = where.split(":")
    made: Reader = getattr(importlib.import_module(f"{__name__}.{module}"), name)()
    return made


__all__ = ["Read", "Reader", "Readiness", "Unit", "reader_of"]
