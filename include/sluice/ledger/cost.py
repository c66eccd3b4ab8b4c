"""What a step of a batch took: its time, and what its session wrote to the write-ahead log.

PostgreSQL counts that log per session, so what others write is not in it, and when a transaction ends. So a step is
charged after its commit, in a transaction that waits for no disk; if the process dies between the two, what the step
took is not known, and its rows are where they should be.
"""

from __future__ import annotations

import time

import psycopg


def wal_bytes(connection: psycopg.Connection) -> int:
    """What this session has written since it began. To be asked between transactions."""
    with connection.transaction():
        connection.execute("select pg_stat_force_next_flush()")  # else they may be counted a second later
    with connection.transaction():
        row = connection.execute("select wal_bytes::bigint from pg_stat_get_backend_wal(pg_backend_pid())").fetchone()
    return int(row[0]) if row else 0


class Meter:
    """Charges a session's work to one batch after the other."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection, self._wal, self._since = connection, 0, time.monotonic()

    def charge(self, batch_id: int, *, wal_elsewhere: int = 0) -> None:
        """Add to the batch what was done since the last time, and the log that sessions beside this one wrote."""
        wal, seconds = self._taken()
        with self._connection.transaction():
            self._connection.execute("set local synchronous_commit = off")
            self._connection.execute(
                # a batch that somebody else has locked is left out: what is published must not fail for its bill
                "update ops.batch set wal_bytes = coalesce(wal_bytes, 0) + %s, seconds = coalesce(seconds, 0) + %s"
                " where batch_id = (select batch_id from ops.batch where batch_id = %s for update skip locked)",
                [wal + wal_elsewhere, seconds, batch_id],
            )

    def skip(self) -> None:
        """What was done since the last time is no batch's: it failed."""
        self._taken()

    def _taken(self) -> tuple[int, float]:
        wal, now = wal_bytes(self._connection), time.monotonic()
        taken = wal - self._wal, now - self._since
        self._wal, self._since = wal, now
        return taken
