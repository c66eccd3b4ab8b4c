"""What two warehouses must have in common to be one: emptied, loaded another way, and compared by every value."""

from __future__ import annotations

import psycopg
from psycopg import sql

from sluice import settings
from sluice.declarations import load_folder
from sluice.ledger import migrate
from sluice.loading.shape import ensure

BUILT = ("snapshots", "intermediate", "marts")


def empty(url: str) -> None:
    """A warehouse with an empty ledger, and an empty log for every declared table."""
    with psycopg.connect(url, autocommit=True, options="-c client_min_messages=warning") as admin:
        for schema in ("ops", "landing", "staging", "rebuild", *BUILT):
            admin.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))
    migrate(url)
    with psycopg.connect(url) as connection:
        for source in load_folder(settings.sources_dir()).sources.values():
            for table in source.tables.values():
                ensure(connection, table)


def tables(connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
    """Rows and a hash of all values, of every table that is built, and of what each log of the shop means."""
    relations = connection.execute(
        """
        select table_schema, table_name from information_schema.tables
        where table_schema = any(%s) and table_type = 'BASE TABLE' and table_name !~ '__20\\d\\d_\\d\\d$'
        union all
        select table_schema, table_name from information_schema.views
        where table_schema = 'staging' and table_name like 'stg_shop__%%'
        """,
        [list(BUILT)],
    ).fetchall()
    return {f"{schema}.{name}": _contents(connection, schema, name) for schema, name in relations}


def _contents(connection: psycopg.Connection, schema: str, name: str) -> tuple[int, str]:
    columns: sql.Composable = sql.SQL("*")
    if schema == "staging":  # which batch said so is no part of what it means
        named = connection.execute(
            "select column_name from information_schema.columns"
            " where (table_schema, table_name) = (%s, %s) and column_name not in ('_batch_id', '_row_number')",
            [schema, name],
        )
        columns = sql.SQL("distinct ") + sql.SQL(", ").join(sql.Identifier(column) for (column,) in named)
    return connection.execute(
        sql.SQL(
            "select count(*), md5(coalesce(string_agg(whole, E'\\n' order by whole), ''))"
            " from (select r::text as whole from (select {} from {}) as r) as rows"
        ).format(columns, sql.Identifier(schema, name))
    ).fetchone()  # type: ignore[return-value]
