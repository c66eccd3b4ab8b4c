"""What the ledger knows of declared tables, beside what their declarations say."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg

from sluice import warehouse
from sluice.cli.common import NO_SUCH_PART, ledger_problem
from sluice.declarations import Source, Table
from sluice.errors import SluiceError, unreachable


@dataclass(frozen=True)
class Status:
    """One table: declared, and as it stands. What the ledger says is None where it can't be asked."""

    table: str
    mode: str
    key: list[str]
    connection: str
    schedule: str | None
    columns: int
    last_publish: datetime | None
    log_rows: int | None
    open_quarantine: int | None
    circuit: str | None
    meaning: str

    def as_json(self) -> dict[str, Any]:
        """For programs: times in ISO 8601."""
        stamp = self.last_publish.isoformat() if self.last_publish else None
        return asdict(self) | {"last_publish": stamp}


def statuses(tables: list[tuple[Source, Table]]) -> list[Status]:
    """The status of each table. Without a warehouse, what is declared; a word on stderr says so."""
    try:
        with warehouse.connect(autocommit=True) as connection:
            books, circuits = _books(connection), _circuits(connection)
    except (psycopg.Error, SluiceError) as error:
        print(f"the warehouse can't be asked: {_why(error)}. Only what is declared is shown", file=sys.stderr)
        books, circuits = None, {}
    return [_status(source, table, books, circuits) for source, table in tables]


def _why(error: psycopg.Error | SluiceError) -> str:
    if isinstance(error, psycopg.OperationalError):
        return unreachable(error)
    if isinstance(error, NO_SUCH_PART):
        return ledger_problem(error)
    return str(error) if isinstance(error, SluiceError) else type(error).__name__  # psycopg's own may quote the address


def _status(source: Source, table: Table, books: dict[str, tuple] | None, circuits: dict[str, str]) -> Status:
    name, conn_id = f"{source.source}.{table.name}", table.origin.kind.connection
    last, rows, waiting = (None, None, None) if books is None else books.get(name, (None, 0, 0))
    return Status(
        name,
        table.mode.value,
        list(table.key),
        conn_id,
        source.schedule,
        len(table.columns),
        last,
        rows,
        waiting,
        None if books is None else circuits.get(conn_id, "closed"),
        " ".join(table.description.split()),
    )


def _books(connection: psycopg.Connection) -> dict[str, tuple]:
    """Per table: when it was last known to be what the source held, the rows of its log that count, and open rows."""
    rows = connection.execute(
        """
        with published as (
            select source, table_name, max(published_at) as last_publish,
                sum(rows_applied + rows_deleted) filter (where state = 'published') as log_rows
            from ops.batch where state in ('published', 'superseded') group by 1, 2
        ),

        waiting as (
            select source, table_name, count(*) as open_rows from ops.quarantine where state = 'open' group by 1, 2
        )

        select coalesce(p.source, w.source) || '.' || coalesce(p.table_name, w.table_name), p.last_publish,
            coalesce(p.log_rows, 0)::bigint, coalesce(w.open_rows, 0)
        from published as p full join waiting as w on (p.source, p.table_name) = (w.source, w.table_name)
        """
    ).fetchall()
    return {name: (last, log_rows, waiting) for name, last, log_rows, waiting in rows}


def _circuits(connection: psycopg.Connection) -> dict[str, str]:
    """The connections whose circuit is open, and until when; a connection that never failed has no row."""
    rows = connection.execute("select connection, next_try_at from ops.circuit where opened_at is not null").fetchall()
    return {conn_id: f"open until {until:%H:%M:%S}" if until else "open" for conn_id, until in rows}
