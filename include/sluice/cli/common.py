"""What the commands share: finding declarations, and tables that a pipe can read as well as a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.table import Table as RichTable

from sluice import settings, warehouse
from sluice.declarations import Source, Table, load_folder
from sluice.ledger.migrate import missing

# what a database without our ledger answers, or one with an older ledger
NO_SUCH_PART = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)
Json = Annotated[bool, typer.Option("--json", help="For a program")]


def tables_named(name: str) -> list[tuple[Source, Table]]:
    """The tables that `<source>` or `<source>.<table>` means. A name that isn't there is said with those that are."""
    found = load_folder(settings.sources_dir())
    source_name, _, table_name = name.partition(".")
    source = found.sources.get(source_name)
    if source is None:
        broken = [fault for fault in found.faults if f"/{source_name}." in fault.file]
        for fault in broken:
            print(fault, file=sys.stderr)
        known = ", ".join(found.sources) or "none"
        raise typer.BadParameter(f"there is no source {source_name} that can be used; known: {known}")
    if table_name and table_name not in source.tables:
        raise typer.BadParameter(f"{source_name} has no table {table_name}; it has {', '.join(source.tables)}")
    return [(source, table) for table in source.tables.values() if table_name in ("", table.name)]


def must_be_known(name: str) -> None:
    """Refuse a source or table that is neither declared nor in the ledger, which keeps those that once were."""
    source, _, table = name.partition(".")
    declared = load_folder(settings.sources_dir()).sources.get(source)
    if not name or (declared and table in ("", *declared.tables)):
        return
    with warehouse.connect() as connection:
        known = connection.execute(
            "select exists (select from ops.batch where source = %s and %s in ('', table_name))", [source, table]
        ).fetchone()
    if known != (True,):
        tables_named(name)


def ledger_problem(error: psycopg.Error) -> str:
    """Why a part of the ledger is missing, and what makes it."""
    with suppress(psycopg.Error), warehouse.connect(autocommit=True) as connection:
        if connection.execute("select to_regclass('ops.batch') is null").fetchone() == (True,):
            return "the warehouse has no ledger yet. Make it: sluice migrate (or let make run do so)"
        if not missing(connection):
            return f"{error.diag.message_primary}, though the ledger is up to date: was it dropped by hand?"
    return "the ledger is older than this command. Bring it up to date: sluice migrate (or let make run do so)"


def print_json(value: Any) -> None:
    """As the web API has it."""
    print(json.dumps(value, default=str, indent=2))


def drawn() -> bool:
    """Whether a person looks on: only then are tables drawn, and in colour."""
    return sys.stdout.isatty()


def show(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table: drawn on a terminal, tab separated in a pipe."""
    rows = [["" if value is None else str(value) for value in row] for row in rows]
    if not rows:
        print(empty)
    elif drawn():
        table = RichTable(box=None, pad_edge=False)
        for index, column in enumerate(columns):  # the first column is the name, which is never cut
            table.add_column(column, no_wrap=index == 0, overflow="fold")
        for row in rows:
            table.add_row(*row)
        Console().print(table, markup=False)
    else:
        print("\t".join(columns))
        for row in rows:
            print("\t".join(value.replace("\t", " ").replace("\n", " ") for value in row))
