"""Create or upgrade the ledger. Safe to run at every start and from several processes at once."""

from importlib import resources

import psycopg

_LOCK = 7_301_442_018  # any constant: one migration at a time


def migrate(warehouse_url: str) -> None:
    """Bring the `ops` schema of the warehouse at `warehouse_url` to what this version expects.

    One transaction: either all of it is there afterwards or nothing changed.
    """
    ddl = resources.files("sluice.ledger").joinpath("schema.sql").read_text()
    with psycopg.connect(warehouse_url) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        connection.execute("set local client_min_messages = warning")
        connection.execute(ddl)
