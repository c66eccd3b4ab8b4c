"""Connections to the warehouse: one place for the settings every session must have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from sluice import settings

_SESSION = (
    "-c timezone=UTC -c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c extra_float_digits=1 "
    "-c idle_in_transaction_session_timeout=15min -c lock_timeout=60s -c statement_timeout=2h "
    "-c client_connection_check_interval=10s"  # a query whose client is gone ends, and its locks with it
)
_READING_SECONDS = 10  # a query that a person waits for


def connect(*, autocommit: bool = False) -> psycopg.Connection:
    """Open a session in the warehouse: UTC, ISO dates, bounded waits, dead peers noticed within a minute."""
    return psycopg.connect(
        settings.warehouse_url(),
        autocommit=autocommit,
        options=f"{_SESSION} {os.environ.get('PGOPTIONS', '')}",  # a task's statement_timeout comes that way
        application_name="sluice",
        connect_timeout=10,
        keepalives_idle=20,
        keepalives_interval=5,
        keepalives_count=4,
        tcp_user_timeout=60_000,  # ms; keepalives are not sent while data waits for its acknowledgement
    )


@contextmanager
def reading() -> Iterator[psycopg.Connection]:
    """A read-only transaction for a person who looks on: it sees one state throughout, and gives up before they do."""
    with connect() as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(f"set local statement_timeout = '{_READING_SECONDS}s'")
        # a query of 2 ms must not be compiled for 200: the planner's estimates of a young ledger are wild
        connection.execute("set local jit = off")
        yield connection
        connection.rollback()


_HOLDER = """
select activity.pid, coalesce(nullif(activity.application_name, ''), 'a program without a name'), activity.usename,
    coalesce(activity.state, 'at work'), -- of another role's session not everybody is told
    coalesce(to_char(activity.xact_start at time zone 'UTC', '" since "YYYY-MM-DD HH24:MI:SS" UTC"'), '')
from pg_locks as held
inner join pg_stat_activity as activity using (pid)
where held.granted and activity.datname = current_database() and (
    held.locktype = 'advisory' and held.objsubid = 1
    and (held.classid::bigint << 32) | held.objid::bigint = hashtextextended(%(lock)s, 0)
    or held.locktype = 'relation' and held.relation = to_regclass(%(relation)s)
    and held.mode <> all (case when %(exclusive)s then '{}'::text[] else '{AccessShareLock}' end)
)
order by held.locktype <> 'advisory', activity.xact_start
limit 1
"""


def holder(relation: str, lock: str = "", *, exclusive: bool = False) -> str:
    """Who holds up whoever waits for `relation` or for the advisory lock of the name `lock`, and what to do: a clause
    for an error. `exclusive`: readers are in the way, too. What it executes is not said, since it may quote a row."""
    with connect(autocommit=True) as connection:
        wanted = {"relation": relation, "lock": lock, "exclusive": exclusive}
        row = connection.execute(_HOLDER, wanted).fetchone()
    if row is None:
        return "who held it has ended"
    pid, program, user, state, since = row
    return (
        f"session {pid} holds it ({program} of {user}, {state}{since}). Wait for it, or end it: "
        f"select pg_terminate_backend({pid})"
    )
