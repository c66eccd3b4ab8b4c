"""One writer per unit. A lease says who, and its token fences out a writer that was overtaken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psycopg

from sluice import warehouse
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


@contextmanager
def kept(source: str, table: str, unit: str, token: int) -> Iterator[None]:
    """Renew the lease while something long is done inside, by a session of its own that a short work never opens.

    Nothing is said here if it was lost meanwhile, as by a machine that slept: `check` says so before anything counts.
    """
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE.total_seconds() / 3):
            with suppress(psycopg.Error), warehouse.connect(autocommit=True) as connection:  # if it is gone, next time
                if not _renew(connection, source, table, unit, token):
                    return

    renewing = threading.Thread(target=renew, name=f"lease of {source}.{table}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()


def _renew(connection: psycopg.Connection, source: str, table: str, unit: str, token: int) -> bool:
    return bool(
        connection.execute(
            "update ops.lease set expires_at = clock_timestamp() + %s"
            " where (source, table_name, unit, token) = (%s, %s, %s, %s)",
            [LEASE, source, table, unit, token],
        ).rowcount
    )


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
