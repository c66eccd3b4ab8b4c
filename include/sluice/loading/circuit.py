"""A circuit breaker per connection: a source that is dead is asked rarely, and says so once.

After so many failures in a row the circuit of a connection opens. Until its next try nobody asks; then one request may,
and the circuit closes when something has been read. The state is a row of `ops.circuit`, shared by all tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg

from sluice.declarations import Source, Table
from sluice.declarations.model import Circuit
from sluice.errors import CircuitOpen, SourceRefused, SourceUnavailable
from sluice.loading import events

_LONGEST_WAIT = timedelta(minutes=30)


@contextmanager
def watched(
    connection: psycopg.Connection, source: Source, table: Table, *, is_admitted: bool = False
) -> Iterator[None]:
    """Ask a source inside. Raises `CircuitOpen` instead while its connection is left alone; counts what fails.

    `is_admitted`: this goes on with what was let through a moment ago. `connection` must not be in a transaction of the
    caller's, neither at the begin nor when an error leaves.
    """
    conn_id = table.origin.kind.connection
    if not is_admitted:
        _admit(connection, conn_id)
    try:
        yield
    except (SourceUnavailable, SourceRefused) as error:
        if error.counts:
            _count(connection, source, conn_id, error.kind)
        raise


def answered(connection: psycopg.Connection, table: Table) -> None:
    """Somebody is there: whoever comes next may try to read, without waiting for the next try."""
    connection.execute(
        "update ops.circuit set next_try_at = clock_timestamp() where connection = %s and opened_at is not null",
        [table.origin.kind.connection],
    )
    connection.commit()


def nothing_to_read(connection: psycopg.Connection, source: Source, table: Table) -> None:
    """A place of files was listed and holds nothing new. No reading follows that could close the circuit, and to list
    it is to have read it."""
    if table.origin.files:
        succeeded(connection, source, table)


def succeeded(connection: psycopg.Connection, source: Source, table: Table) -> None:
    """Something was read: the failures in a row are over, and an open circuit closes."""
    conn_id = table.origin.kind.connection
    row = connection.execute(
        "select failures, opened_at from ops.circuit where connection = %s and failures > 0 for update", [conn_id]
    ).fetchone()
    if row:
        connection.execute(
            "update ops.circuit set failures = 0, opened_at = null, next_try_at = null where connection = %s", [conn_id]
        )
        if row[1]:
            events.record(
                connection,
                "CIRCUIT_CLOSED",
                conn_id,
                source.source,
                f"connection {conn_id} answers again; it was left alone since {row[1]:%Y-%m-%d %H:%M} UTC",
            )
    connection.commit()


def _admit(connection: psycopg.Connection, conn_id: str) -> None:
    """Pass if the circuit is closed, or if this is the one try that is due."""
    row = connection.execute(
        "select failures, opened_at, next_try_at, last_error from ops.circuit "
        "where connection = %s and opened_at is not null",
        [conn_id],
    ).fetchone()
    if row is None:
        connection.commit()
        return
    failures, opened_at, next_try_at, last_error = row
    due = connection.execute(
        """
        update ops.circuit set next_try_at = clock_timestamp() + interval '1 minute'
        where connection = %s and opened_at is not null and next_try_at <= clock_timestamp()
        returning connection
        """,
        [conn_id],
    ).fetchone()
    connection.commit()
    if due is None:
        raise CircuitOpen(
            f"connection {conn_id} failed {failures} times in a row (last: {last_error}) and is left alone since "
            f"{opened_at:%Y-%m-%d %H:%M} UTC; it was not asked. The next try is due at {next_try_at:%H:%M:%S} UTC"
        )


def _count(connection: psycopg.Connection, source: Source, conn_id: str, kind: str) -> None:
    """One more failure. The one that reaches the limit opens the circuit, and says so."""
    rule = source.circuit.get(conn_id, Circuit())
    connection.execute("insert into ops.circuit (connection) values (%s) on conflict do nothing", [conn_id])
    failures, opened_at = connection.execute(
        "select failures + 1, opened_at from ops.circuit where connection = %s for update", [conn_id]
    ).fetchone()  # type: ignore[misc]
    excess = failures - rule.failures
    opens = opened_at is None and excess >= 0
    wait = min(_LONGEST_WAIT, rule.wait * 2 ** max(0, min(excess, 20))) if opened_at or opens else None
    connection.execute(
        """
        update ops.circuit
        set failures = %s, last_error = %s, last_failure_at = clock_timestamp(),
            opened_at = case when %s then clock_timestamp() else opened_at end,
            next_try_at = clock_timestamp() + %s
        where connection = %s
        """,
        [failures, kind[:100], opens, wait, conn_id],
    )
    if opens:
        events.record(
            connection,
            "CIRCUIT_OPENED",
            conn_id,
            source.source,
            f"connection {conn_id} failed {failures} times in a row (last: {kind}) and is left alone; it is tried "
            "again from time to time, and closes by itself. Look at the source, or at the connection's credentials",
        )
    connection.commit()
