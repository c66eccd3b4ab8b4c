"""Postgres tables and queries: COPY straight from the source, and a watermark that loses no row.

The watermark is that of docs/reference/faults.md: read the clock and the oldest open transaction first, then the
rows in a
repeatable-read snapshot, and move to the lesser of the two. A row that is read twice is recognised by its key and hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Source, Table
from sluice.errors import SluiceError
from sluice.readers.base import Digest, Interval, Read, Readiness, Sink, Unit, connect, now

_OLDEST_OPEN = """
    select least(
        (select min(xact_start) from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid()),
        (select min(prepared) - interval '1 day' from pg_prepared_xacts)
    )
"""


class PostgresReader:
    """Full tables, queries, and cursors."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether the table can be selected from."""
        try:
            with connect(_conn_id(table)) as connection:
                connection.execute(sql.SQL("select from {} limit 0").format(_relation(table)))
        except psycopg.Error as error:
            return Readiness(False, f"{table.log_name} at connection {_conn_id(table)}: {error.diag.message_primary}")
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit: what has changed since the watermark, an interval read again, or the whole table as it is now."""
        instant = now(source)
        if table.mode is not Mode.CURSOR:
            return [Unit(instant.isoformat(), instant)]
        if interval:
            return [
                Unit(f"{interval[0].isoformat()}/{interval[1].isoformat()}", instant, interval, location="interval")
            ]
        return [Unit(f"{watermark or 'beginning'}/{instant.isoformat()}", instant, location=watermark or "")]

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Copy the unit's rows, and for `key_scan` all keys of the same snapshot, into landing."""
        fields = source_fields(table)
        result, digest = Read(fields), Digest()
        with connect(_conn_id(table), autocommit=True) as connection:
            if table.cursor and source.clock is None:
                _must_see_other_sessions(connection, table)
            clock = _clock(connection) if source.clock is None else now(source)
            oldest = connection.execute(_OLDEST_OPEN).fetchone()[0] if source.clock is None else None
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                sink.create(fields)
                sink.copy(digest.over(_copy(connection, _select(table, unit, fields))), "format text")
                if table.deletes.detect == "key_scan":
                    result.keys = sink.keys(digest.over(_copy(connection, _select_keys(table))))
        if table.cursor and unit.location != "interval":
            reached = min(clock, oldest.astimezone(UTC)) if oldest else clock
            result.watermark_from = unit.location or None
            result.watermark_to = (reached - table.cursor.overlap).isoformat()
        result.content_hash, result.bytes_read = digest.hex(), digest.size
        return result


def _must_see_other_sessions(connection: psycopg.Connection, table: Table) -> None:
    """Where it can't be seen when others' transactions began, the watermark would lose their rows in silence."""
    may, standby, user = connection.execute(
        "select pg_has_role('pg_read_all_stats', 'usage'), pg_is_in_recovery(), current_user"
    ).fetchone()  # type: ignore[misc]
    if not may:
        raise SluiceError(
            f"{table.log_name}: the user {user} of connection {_conn_id(table)} can't see when other transactions "
            f"began, "
            f"and rows would be lost; nothing was read. At the source: grant pg_read_all_stats to {user}"
        )
    if standby:
        raise SluiceError(
            f"{table.log_name}: connection {_conn_id(table)} is a standby, where the primary's open transactions "
            f"can't be "
            "seen, and rows would be lost; nothing was read. Name the primary, or declare a clock and an overlap"
        )


def source_fields(table: Table) -> list[str]:
    """The fields to ask the source for: those of the contract, and the one that marks deletes."""
    fields = [column.field or name for name, column in table.columns.items() if not column.from_path]
    if table.deleted_by and table.deleted_by.field not in fields:
        fields.append(table.deleted_by.field)
    return fields


def _conn_id(table: Table) -> str:
    return table.origin.postgres.connection  # type: ignore[union-attr]


def _relation(table: Table) -> sql.Composable:
    origin = table.origin.postgres
    assert origin is not None
    if origin.table:
        return sql.Identifier(*origin.table.split("."))
    return sql.SQL("({}) as query").format(sql.SQL(origin.query))  # the declaration's own text, not data


def _cursor_field(table: Table) -> sql.Identifier:
    assert table.cursor is not None
    return sql.Identifier(table.columns[table.cursor.column].field or table.cursor.column)


def _select(table: Table, unit: Unit, fields: list[str]) -> sql.Composable:
    query = sql.SQL("select {} from {}").format(sql.SQL(", ").join(map(sql.Identifier, fields)), _relation(table))
    if table.cursor is None:
        return query
    cursor = _cursor_field(table)
    if unit.location == "interval" and unit.interval:
        bounds = sql.SQL("{0} >= {1} and {0} < {2}").format(
            cursor, unit.interval[0].isoformat(), unit.interval[1].isoformat()
        )
    elif unit.location:
        bounds = sql.SQL("{} >= {}").format(cursor, unit.location)
    else:
        return query
    # a row without a cursor value would never be seen again: read it, and let the contract reject it
    return sql.SQL("{} where ({}) or {} is null").format(query, bounds, cursor)


def _select_keys(table: Table) -> sql.Composable:
    fields = [sql.Identifier(table.columns[key].field or key) for key in table.key]
    return sql.SQL("select {} from {}").format(sql.SQL(", ").join(fields), _relation(table))


def _copy(connection: psycopg.Connection, query: sql.Composable) -> Iterator[bytes]:
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy ({}) to stdout").format(query)) as copy:
        for block in copy:
            yield bytes(block)


def _clock(connection: psycopg.Connection) -> datetime:
    return connection.execute("select clock_timestamp()").fetchone()[0].astimezone(UTC)  # type: ignore[index]
