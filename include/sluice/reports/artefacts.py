"""What `operations` builds and the pages show: kept in the ledger, because workers and the web server share no disk."""

from __future__ import annotations

from datetime import datetime

import psycopg

from sluice.warehouse import reading


def built_at(connection: psycopg.Connection, name: str) -> datetime | None:
    """When the artefact was last built; None before the first time."""
    row = connection.execute("select built_at from ops.artefact where name = %s", [name]).fetchone()
    return row[0] if row else None


def content(connection: psycopg.Connection, name: str) -> bytes | None:
    """The artefact itself."""
    row = connection.execute("select content from ops.artefact where name = %s", [name]).fetchone()
    return bytes(row[0]) if row else None


def read(name: str) -> bytes | None:
    """The artefact itself, in a session of its own."""
    with reading() as connection:
        return content(connection, name)


def write(connection: psycopg.Connection, name: str, built: bytes) -> None:
    """Replace it. The caller commits."""
    connection.execute(
        """
        insert into ops.artefact (name, content) values (%s, %s)
        on conflict (name) do update set content = excluded.content, built_at = excluded.built_at
        """,
        [name, built],
    )
