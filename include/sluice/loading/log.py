"""The change log of a table: its shape, and the state that it describes at an instant."""

from __future__ import annotations

import psycopg
from psycopg import sql

from sluice.declarations import Table

_RANGE = 32  # pages
SYSTEM = ("_batch_id", "_row_number", "_op", "_effective_at", "_sequence", "_row_hash", "_rescued")


def relation(table: Table) -> sql.Identifier:
    """`staging.<source>__<table>`."""
    return sql.Identifier("staging", table.log_name)


def names(columns: object, prefix: str = "") -> sql.Composable:
    """A list of column names, each behind `prefix` (an alias) if given."""
    parts = (sql.Identifier(prefix, name) if prefix else sql.Identifier(name) for name in columns)  # type: ignore[attr-defined]
    return sql.SQL(", ").join(parts)


def same_key(table: Table, left: str, right: str) -> sql.Composable:
    """The condition that two aliases are of the same key."""
    pairs = (sql.SQL("{} = {}").format(sql.Identifier(left, key), sql.Identifier(right, key)) for key in table.key)
    return sql.SQL(" and ").join(pairs)


def create(connection: psycopg.Connection, table: Table) -> None:
    """Make the log of a table that has none; `sluice.loading.shape` changes it later. Its key has no index yet."""
    columns = [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(c.type)) for n, c in table.log_columns.items()]
    connection.execute(
        sql.SQL(
            "create table {} ({}, _batch_id bigint not null, _row_number bigint not null, _op text not null, "
            "_effective_at timestamptz not null, _sequence bigint not null, _row_hash bigint not null, _rescued jsonb)"
        ).format(relation(table), sql.SQL(", ").join(columns))
    )
    # The rows of a batch lie together, so that a summary per range of pages finds them; a b-tree here made publication
    # a third dearer.
    connection.execute(
        sql.SQL("create index on {} using brin (_batch_id) with (pages_per_range = {})").format(relation(table), _RANGE)
    )
    for name, column in table.columns.items():
        comment = sql.SQL("comment on column {} is {}")
        connection.execute(comment.format(sql.Identifier("staging", table.log_name, name), column.description))
    connection.execute(sql.SQL("comment on table {} is {}").format(relation(table), table.description))


def index(connection: psycopg.Connection, table: Table) -> None:
    """Make the index of the key, if there is none: after the first rows, which would find their places one by one."""
    there = connection.execute(
        """
        select from pg_index inner join pg_attribute on attrelid = indrelid and attnum = indkey[indnkeyatts - 1]
        where indrelid = %s::regclass and indnkeyatts > 1 and attname = '_effective_at'
        """,
        [relation(table).as_string(connection)],
    ).fetchone()
    if there is None:
        connection.execute(sql.SQL("create index on {} ({}, _effective_at)").format(relation(table), names(table.key)))


def summarize(connection: psycopg.Connection, table: Table) -> None:
    """Let the index over `_batch_id` know the rows that have just come; until then every search reads them all."""
    connection.execute(
        """
        select brin_summarize_new_values(indexrelid)
        from pg_index inner join pg_class on pg_class.oid = indexrelid inner join pg_am on pg_am.oid = relam
        where indrelid = %s::regclass and amname = 'brin'
        """,
        [relation(table).as_string(connection)],
    )


def spelled(declared: str) -> str:
    """A declared type as Postgres spells it."""
    short = {
        "timestamptz": "timestamp with time zone",
        "timestamp": "timestamp without time zone",
        "time": "time without time zone",
    }
    numeric = declared.replace(" ", "")
    if numeric.startswith("numeric(") and "," not in numeric:
        return numeric.replace(")", ",0)")
    return short.get(declared, numeric if numeric.startswith("numeric") else declared)


def state_before(table: Table, *, inclusive: bool, touched: sql.Composable | None = None) -> sql.Composable:
    """The latest assertion about each key before (or at) `%(instant)s`, deleted ones included, from active batches
    only; with `touched`, of the keys in that table."""
    if touched is not None:
        return sql.SQL(
            """
            select before.* from {touched} as touched
            cross join lateral (
                select log.* from {log} as log
                where {same_key} and log._effective_at {operator} %(instant)s
                    and not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
                order by log._effective_at desc, log._sequence desc, log._row_hash desc
                limit 1
            ) as before
            """
        ).format(
            touched=touched,
            log=relation(table),
            same_key=same_key(table, "log", "touched"),
            operator=sql.SQL("<=" if inclusive else "<"),
        )
    return sql.SQL(
        """
        select distinct on ({key}) log.*
        from {log} as log
        where log._effective_at {operator} %(instant)s
            and not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
        order by {key}, _effective_at desc, _sequence desc, _op desc, _row_hash desc
        """
    ).format(key=names(table.key), log=relation(table), operator=sql.SQL("<=" if inclusive else "<"))
