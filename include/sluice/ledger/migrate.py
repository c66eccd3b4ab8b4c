"""Create or upgrade the ledger. Safe to run at every start and from several processes at once."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import psycopg

_LOCK = 7_301_442_018  # any constant: one migration at a time
_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_RECORD = """
    create schema if not exists ops;
    create table if not exists ops.migration (
        number int primary key,
        name text not null,
        applied_at timestamptz not null default clock_timestamp()
    )
"""


def migrate(warehouse_url: str) -> list[str]:
    """Bring the `ops` schema of the warehouse at `warehouse_url` to what this version expects.

    `schema.sql` is the base; each file `migrations/NNNN_<what>.sql` is applied once, in order, and recorded in
    `ops.migration`. One transaction: either all of it is there afterwards or nothing changed. Returns the names of what
    was applied now; a second process waits for the first and finds nothing left to do.
    """
    with psycopg.connect(warehouse_url) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        connection.execute("set local client_min_messages = warning")
        connection.execute(_RECORD)
        lacking = missing(connection)
        for number, name, ddl in lacking:
            connection.execute(ddl)
            _record(connection, number, name)
    return [name for _, name, _ in lacking]


def missing(connection: psycopg.Connection) -> list[tuple[int, str, str]]:
    """Number, name and SQL of what this version expects and the ledger does not have, in order."""
    known = dict(connection.execute("select number, name from ops.migration").fetchall())
    base = resources.files("sluice.ledger").joinpath("schema.sql").read_text()
    name = f"schema_{hashlib.blake2b(base.encode(), digest_size=6).hexdigest()}"
    # the base is idempotent, but asking for its indexes locks tables that loaders are writing: only when it changed
    changed = [(0, name, base)] if known.get(0) != name else []
    return changed + [each for each in migrations() if each[0] not in known]


def migrations() -> list[tuple[int, str, str]]:
    """Number, name and SQL of every numbered file, in order. Raises `ValueError` where a number occurs twice."""
    files = resources.files("sluice.ledger").joinpath("migrations").iterdir()
    found = sorted((int(m[1]), m[2], file.read_text()) for file in files if (m := _FILE.match(file.name)))
    numbers = [number for number, _, _ in found]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"two migrations of the ledger have the same number: {numbers}")
    return found


def _record(connection: psycopg.Connection, number: int, name: str) -> None:
    connection.execute(
        """
        insert into ops.migration (number, name) values (%s, %s)
        on conflict (number) do update set name = excluded.name, applied_at = clock_timestamp()
        """,
        [number, name],
    )
