"""One short, read-only session in the warehouse: a report never writes, and gives up before a person does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from sluice import warehouse

_SECONDS = 10


@contextmanager
def reading() -> Iterator[psycopg.Connection]:
    """A transaction that sees one state of the ledger throughout, and ends by itself after a few seconds."""
    with warehouse.connect() as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(f"set local statement_timeout = '{_SECONDS}s'")
        # a query of 2 ms must not be compiled for 200: the planner's estimates of a young ledger are wild
        connection.execute("set local jit = off")
        yield connection
        connection.rollback()
