"""The change logs against the ledger and against themselves: what can be known without asking the sources again."""

from __future__ import annotations

import psycopg
from psycopg import sql

from sluice import settings, warehouse
from sluice.declarations import Table, load_folder
from sluice.gates.results import Check, Verdict, record
from sluice.loading import contract, log

_SHOWN = 5


def verify_logs(run_id: str) -> Verdict:
    """Check the log of every declared table, and record a check each. Raises nothing for what it finds.

    - the rows of each batch are as many as its books say, and no row is of a batch that was never published;
    - each row's hash is that of its values, so that a value that was changed by hand shows;
    - no position of a batch is there twice, and keys and operations are whole.
    """
    sources = load_folder(settings.sources_dir()).sources.values()
    checks = []
    with warehouse.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for table in (table for source in sources for table in source.tables.values()):
            if _exists(connection, table):
                checks += [_books(connection, table), _hashes(connection, table), _positions(connection, table)]
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        record(connection, run_id, "verify", checks)
    return Verdict("verify", checks)


def _exists(connection: psycopg.Connection, table: Table) -> bool:
    name = log.relation(table).as_string(connection)
    return bool(connection.execute("select to_regclass(%s) is not null", [name]).fetchone()[0])  # type: ignore[index]


def _check(name: str, table: Table, found: list[tuple], told: str, observed: str) -> Check:
    """A pass if `found` (batch, rows …) is empty, else the first of them in words."""
    return Check(
        name,
        f"staging.{table.log_name}",
        "fail" if found else "pass",
        observed=observed,
        failing_rows=len(found),
        sample_keys=[list(row) for row in found[:_SHOWN]] or None,
        message=f"{len(found)} {told}: {'; '.join(str(list(row)) for row in found[:_SHOWN])}" if found else None,
    )


def _books(connection: psycopg.Connection, table: Table) -> Check:
    found = connection.execute(
        sql.SQL(
            """
            with held as (select _batch_id as batch_id, count(*) as held from {log} group by 1),
            booked as (
                select batch_id, rows_applied + rows_deleted as booked from ops.batch
                where (source, table_name) = (%s, %s) and state in ('published', 'superseded')
            )
            select batch_id, coalesce(booked, 0), coalesce(held, 0)
            from booked full join held using (batch_id)
            where coalesce(booked, 0) <> coalesce(held, 0)
            order by 1
            """
        ).format(log=log.relation(table)),
        [table.source, table.name],
    ).fetchall()
    (rows,) = connection.execute(sql.SQL("select count(*) from {}").format(log.relation(table))).fetchone()  # type: ignore[misc]
    told = "batches hold other rows than their books say (batch, rows in the books, rows in the log)"
    return _check("log_equals_books", table, found, told, f"{rows} rows")


def _hashes(connection: psycopg.Connection, table: Table) -> Check:
    """A column that the declaration lost keeps its values in the log, so the hash is taken over the log's columns."""
    columns = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = %s::regclass and attnum > 0 and not attisdropped and attname <> all(%s)",
        [log.relation(table).as_string(connection), list(log.SYSTEM)],
    ).fetchall()
    found = connection.execute(
        sql.SQL(
            "select _batch_id, _row_number from {log} where _row_hash <> {hash}"
            " and not (_op = 'delete' and _row_hash = {tombstone}) order by 1, 2"
        ).format(log=log.relation(table), hash=contract.row_hash_of(dict(columns)), tombstone=contract.DELETED_HASH)
    ).fetchall()
    told = "rows hold other values than were published (batch, row)"
    return _check("rows_equal_their_hash", table, found, told, "every row")


def _positions(connection: psycopg.Connection, table: Table) -> Check:
    found = connection.execute(
        sql.SQL(
            """
            select _batch_id, _row_number from {log}
            group by _batch_id, _row_number, ({key})
            having count(*) > 1 or bool_or(_op not in ('upsert', 'delete')) or bool_or({no_key})
            order by 1, 2
            """
        ).format(
            log=log.relation(table),
            key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
            no_key=sql.SQL(" or ").join(sql.SQL("{} is null").format(sql.Identifier(name)) for name in table.key),
        )
    ).fetchall()
    told = "positions of batches are there twice, or without key or operation (batch, row)"
    return _check("rows_are_whole", table, found, told, "every row")
