"""One writer per unit. A lease says who, and its token fences out a writer that was overtaken."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from sluice.errors import LeaseHeld, StaleLease

LEASE = timedelta(minutes=10)  # a crashed holder blocks others no longer; a slow one that is overtaken is fenced out


def take(connection: psycopg.Connection, source: str, table: str, unit: str, holder: str) -> int:
    """Become the writer of a unit and get a new fencing token. The same holder (a retry) may take over at once."""
    row = connection.execute(
        """
        insert into ops.lease as held (source, table_name, unit, token, holder, expires_at)
        values (%(source)s, %(table)s, %(unit)s, 1, %(holder)s, clock_timestamp() + %(lease)s)
        on conflict (source, table_name, unit) do update
        set token = held.token + 1, holder = excluded.holder, expires_at = excluded.expires_at
        where held.holder = excluded.holder or held.expires_at < clock_timestamp()
        returning token
        """,
        {"source": source, "table": table, "unit": unit, "holder": holder, "lease": LEASE},
    ).fetchone()
    if row is None:
        held = connection.execute(
            "select holder, expires_at from ops.lease where (source, table_name, unit) = (%s, %s, %s)",
            [source, table, unit],
        ).fetchone()
        by, until = held or ("another run", "soon")
        raise LeaseHeld(
            f"{source}.{table} {unit}: {by} holds the lease until {until}; this run left the unit alone (LEASE_HELD)"
        )
    return int(row[0])


def check(connection: psycopg.Connection, source: str, table: str, unit: str, token: int | None) -> None:
    """Lock the lease and make sure that it is still ours; otherwise a later attempt is at work, or done."""
    row = connection.execute(
        "select token from ops.lease where (source, table_name, unit) = (%s, %s, %s) for update", [source, table, unit]
    ).fetchone()
    if row is None or row[0] != token:
        raise StaleLease(
            f"{source}.{table} {unit}: a later attempt took this unit over; nothing was written (STALE_LEASE)"
        )


def release(connection: psycopg.Connection, source: str, table: str, unit: str, token: int | None) -> None:
    """Let others have the unit. The row stays, since its token must only ever grow."""
    connection.execute(
        "update ops.lease set expires_at = '-infinity', holder = '' where (source, table_name, unit) = (%s, %s, %s) "
        "and token = %s",
        [source, table, unit, token],
    )
