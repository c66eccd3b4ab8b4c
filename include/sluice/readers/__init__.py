"""One small reader per kind of source. A new one is a class with `ready`, `units` and `read`, named here."""

from sluice.declarations import Table
from sluice.declarations.model import Files, PostgresTable, Rest
from sluice.readers.base import Read, Reader, Readiness, Unit
from sluice.readers.files import FileReader
from sluice.readers.postgres import PostgresReader
from sluice.readers.rest import RestReader

_READERS: dict[type, Reader] = {Files: FileReader(), PostgresTable: PostgresReader(), Rest: RestReader()}


def reader_of(table: Table) -> Reader:
    """The reader for the table's kind of origin."""
    return _READERS[type(table.origin.kind)]


__all__ = ["Read", "Reader", "Readiness", "Unit", "reader_of"]
