"""Postgres tables and queries: COPY straight from the source, and a watermark that loses no row.

The watermark is that of docs/reference/faults.md: read the clock and the oldest open transaction first, then the
rows in a repeatable-read snapshot, and move to the lesser of the two. A row that is read twice is recognised by its key
and hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Source, Table
from sluice.declarations.model import PostgresTable
from sluice.errors import GateRefused, ReadBroken, SluiceError, SourceUnavailable
from sluice.readers import wire
from sluice.readers.base import (
    Digest,
    Interval,
    Read,
    Readiness,
    Sink,
    Unit,
    connect,
    day_interval,
    days,
    is_of,
    now,
    source_fields,
)

_OLDEST_OPEN = """
    select least(
        (select min(xact_start) from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid()),
        (select min(prepared) - interval '1 day' from pg_prepared_xacts)
    )
"""
_CLOCK_JITTER = 5.0  # seconds; clocks that are kept by NTP are closer to each other
_EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
BINARY_FROM = 10_000  # rows; for fewer, more sessions cost more than they save
PARALLEL_FROM = 500_000  # rows


class PostgresReader:
    """Full tables, queries, and cursors."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether the table can be selected from."""
        try:
            with connect(_conn_id(table)) as connection:
                connection.execute(sql.SQL("select from {} limit 0").format(_relation(table, None)))
        except psycopg.Error as error:
            return Readiness(False, f"{table.log_name} at connection {_conn_id(table)}: {error.diag.message_primary}")
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit: what has changed since the watermark, an interval read again, or the whole table as it is now. Of a
        query with an interval in it: one for each finished day."""
        instant = now(source)
        if _origin(table).by_day:
            first = table.start or source.start
            every = (
                Unit(day.isoformat(), day_interval(day)[1], day_interval(day)) for day in days(first, instant.date())
            )
            return [unit for unit in every if is_of(unit.interval, interval)]
        if table.mode is not Mode.CURSOR:
            return [Unit(instant.isoformat(), instant)]
        if interval:
            return [
                Unit(f"{interval[0].isoformat()}/{interval[1].isoformat()}", instant, interval, location="interval")
            ]
        return [Unit(f"{watermark or 'beginning'}/{instant.isoformat()}", instant, location=watermark or "")]

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Copy the unit's rows, and for `key_scan` all keys of the same snapshot, into landing."""
        with connect(_conn_id(table), autocommit=True) as connection:
            columns = _Columns.of(connection, table, unit.known)
            result = Read(columns.read, left_out=columns.left_out, new=columns.new)
            reached = _reached(connection, source, table, unit, result)
            rows = _Rows(table, columns, _bounds(unit, result))
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                sink.create(columns.read)
                digests: list[Digest] = []
                if table.deletes.detect == "key_scan":
                    digests.append(Digest())
                    result.keys = sink.keys(digests[-1].over(_copy(connection, rows.keys())))
                    if unit.location and unit.location != "interval":
                        rows.include(connection, sink)
                digests += rows.land(connection, sink)
                result.keys_once = rows.keys_once
                result.control_total = rows.control_total(connection)
        if table.cursor and unit.location != "interval":
            result.watermark_from = unit.location or None
            result.watermark_to = (reached - table.cursor.overlap).isoformat()
        result.content_hash, result.bytes_read = Digest.of(digests), sum(digest.size for digest in digests)
        return result


def _reached(connection: psycopg.Connection, source: Source, table: Table, unit: Unit, result: Read) -> datetime:
    """Up to where the rows are complete; asked for before their snapshot is taken."""
    if source.clock is not None:
        return now(source)
    if table.cursor is None:
        return datetime.now(UTC)
    _must_see_other_sessions(connection, table)
    clock, ours = _clock(connection), datetime.now(UTC)
    result.clock_ahead = (clock - ours).total_seconds()
    if unit.clock_ahead is not None and unit.clock_ahead - result.clock_ahead > _CLOCK_JITTER:
        result.clock_back = unit.clock_ahead - result.clock_ahead
    ends = [clock]
    if oldest := connection.execute(_OLDEST_OPEN).fetchone()[0]:  # type: ignore[index]
        ends.append(oldest.astimezone(UTC))
    if table.cursor.max_future is not None:
        ends.append(ours + table.cursor.max_future)  # a clock that is ahead must not carry the watermark with it
    return min(ends)


def _bounds(unit: Unit, result: Read) -> Interval | None:
    """The interval of the reading; None: all there is."""
    if unit.interval:
        return unit.interval
    if not unit.location:
        return None
    # what was stamped since the clock went back is so much below the watermark
    return datetime.fromisoformat(unit.location) - timedelta(seconds=result.clock_back), _EVER[1]


@dataclass(frozen=True)
class _Columns:
    """Which columns of a source are read, and which it has besides.

    A declaration may leave columns of a table out, to which nobody objects: what it did not declare when the table was
    first read is not asked for. What comes later is news: it is read, and judged as `drift.new_column` says.
    """

    read: list[str]  # as the source spells them
    new: list[str]  # those of them that the contract does not know
    left_out: list[str]

    @classmethod
    def of(cls, connection: psycopg.Connection, table: Table, known: frozenset[str] | None) -> _Columns:
        """Compare a source as it is now with the contract, and with what is known of it."""
        query = sql.SQL("select * from {} limit 0").format(_relation(table, None))
        try:
            there = [column.name for column in connection.execute(query).description or ()]
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith("42"):
                raise
            # an error of this class speaks of names, not of values; a table may be away while another takes its place
            raise ReadBroken(
                f"{table.log_name} can't be selected at connection {_conn_id(table)}: {error.diag.message_primary}; "
                "nothing was read. Correct from.postgres in the declaration, or ask the owner of the source"
            ) from None
        wanted = [found for field in source_fields(table) if (found := _named(field, there))]
        others = [name for name in dict.fromkeys(there) if name not in wanted]
        kept = [name for name in others if known is None or name in known]
        new = [name for name in others if name not in kept]
        needed = {*table.key, *([table.cursor.column] if table.cursor else [])}
        missing = [f for n in sorted(needed) if not _named(f := table.columns[n].field or n, there)]
        if table.deleted_by and not _named(table.deleted_by.field, there):
            missing.append(table.deleted_by.field)  # without it deleted rows would come back to life
        if missing:
            hint = f" (new in it: {', '.join(new)})" if new else ""
            raise GateRefused(
                f"the source of {table.log_name} has no column {', '.join(missing)}{hint}; nothing was published. Name "
                "the field in the declaration if it was renamed, or ask the owner of the source"
            )
        return cls([*wanted, *new], new, kept)

    def spelt(self, field: str) -> str:
        """A declared field as the source spells it."""
        return _named(field, self.read) or field


def _named(field: str, there: list[str]) -> str | None:
    """The column of this name: exactly, else without regard to case, as a header is read."""
    if field in there:
        return field
    same = [name for name in there if name.lower() == field.lower()]
    return same[0] if len(same) == 1 else None


class _Rows:
    """What is read of a table: all of it, or what lies between two bounds."""

    def __init__(self, table: Table, columns: _Columns, bounds: Interval | None) -> None:
        self._table, self._columns, self._bounds = table, columns, bounds
        self._relation = _relation(table, bounds)
        self.keys_once = False  # of rows that came as values, whose key is unique in the source
        self._missed: sql.Composable | None = None

    def land(self, connection: psycopg.Connection, sink: Sink) -> list[Digest]:
        """As values where they are many and their types allow it, else as text."""
        query = self._query([self._selected(name) for name in self._columns.read])
        count = _estimate(connection, query)
        if count >= BINARY_FROM and (values := self._values(connection, sink)):
            halves = self._halves(connection) if count >= PARALLEL_FROM else [[]]
            connection.execute("set local synchronize_seqscans = off")
            self.keys_once = self._is_unique(connection, dict(zip(sink.types, values, strict=True)))
            queries = [self._query(values, *half) for half in halves]
            return wire.pipe(connection, _conn_id(self._table), queries, list(sink.types), sink)
        digest = Digest()
        sink.copy(digest.over(_copy(connection, query)), "format text")
        return [digest]

    def _values(self, connection: psycopg.Connection, sink: Sink) -> list[sql.Composable] | None:
        """What to select for each column of typed landing, in their order; None if one of them must come as text."""
        sources = self._sources(sink)
        declared = {name: kind for name, kind in sink.types.items() if sources[name] not in self._columns.new}
        found = wire.values(connection, self._relation, sources, declared)
        if found is None:
            return None
        known = dict(zip(declared, found, strict=True))
        return [known.get(name) or self._selected(sources[name]) for name in sink.types]

    def _selected(self, name: str) -> sql.Composable:
        """A column as text takes it; one that the contract does not know in a form that every type has."""
        column = sql.Identifier(name)
        return sql.SQL("{}::text").format(column) if name in self._columns.new else column

    def keys(self) -> sql.Composable:
        """Every key with its stamp, for a key scan."""
        return sql.SQL("select {}, {} from {}").format(self._key(), self._stamp(), self._relation)

    def include(self, connection: psycopg.Connection, sink: Sink) -> None:
        """Read those keys too whose stamp went back, or that appeared with an old one; all rows, if they are many."""
        assert self._bounds is not None
        missed = sink.missed(self._bounds[0])
        if missed is None:
            self._bounds = None
        elif missed:
            # of the source's own types, so that a key is found whatever its text looks like in the warehouse
            cursor = connection.execute(sql.SQL("select {} from {} limit 0").format(self._key(), self._relation))
            kinds = [_type_name(connection, column.type_code) for column in cursor.description or ()]
            self._missed = sql.SQL("({}) in (select {} from unnest({}) as missed ({}))").format(
                self._key(),
                sql.SQL(", ").join(sql.SQL(f"k{n}::{{}}").format(sql.SQL(kind)) for n, kind in enumerate(kinds)),
                sql.SQL(", ").join(sql.SQL("{}::text[]").format(list(texts)) for texts in zip(*missed, strict=True)),
                sql.SQL(", ").join(sql.SQL(f"k{n}") for n in range(len(kinds))),
            )

    def _key(self) -> sql.Composable:
        return sql.SQL(", ").join(sql.Identifier(self._field(key)) for key in self._table.key)

    def _field(self, column: str) -> str:
        """The source's column of one of the contract's."""
        return self._columns.spelt(self._table.columns[column].field or column)

    def _stamp(self) -> sql.Identifier:
        assert self._table.cursor is not None
        return sql.Identifier(self._field(self._table.cursor.column))

    def control_total(self, connection: psycopg.Connection) -> int | None:
        """How many rows the source says there are."""
        declared = _origin(self._table).control_total
        if declared is None:
            return None
        row = connection.execute(_with_bounds(declared.query, self._bounds)).fetchone()
        if row is None or len(row) != 1 or not isinstance(row[0], int):
            raise SluiceError(
                f"{self._table.log_name}: the query of control_total must return one whole number; nothing "
                "was published"
            )
        return row[0] + self._count_missed(connection)

    def _count_missed(self, connection: psycopg.Connection) -> int:
        """Rows that are read besides those between the bounds, of which the total speaks."""
        if self._missed is None or self._bounds is None:
            return 0
        row = connection.execute(
            sql.SQL("select count(*) from {} where {} and {} < {}").format(
                self._relation, self._missed, self._stamp(), self._bounds[0]
            )
        ).fetchone()
        return int(row[0]) if row else 0

    def _query(self, what: list[sql.Composable], *conditions: sql.Composable) -> sql.Composable:
        query = sql.SQL("select {} from {}").format(sql.SQL(", ").join(what), self._relation)
        every = [*self._within(), *conditions]
        return sql.SQL("{} where {}").format(query, sql.SQL(" and ").join(every)) if every else query

    def _within(self) -> list[sql.Composable]:
        """The rows of a cursor that lie between the bounds."""
        if self._table.cursor is None or self._bounds is None:
            return []
        field = self._stamp()
        start, end = self._bounds
        within = sql.SQL("{} >= {}").format(field, start)
        if end != _EVER[1]:
            within = sql.SQL("{} and {} < {}").format(within, field, end)
        # a row without a cursor value would never be seen again: read it, and let the contract reject it
        parts = [within, sql.SQL("{} is null").format(field), *([self._missed] if self._missed else [])]
        return [sql.SQL("({})").format(sql.SQL(" or ").join(parts))]

    def _sources(self, sink: Sink) -> dict[str, str]:
        """The source's field of each landing column."""
        columns, read = self._table.columns, self._columns.read
        return {
            name: self._field(name) if name in columns else read[int(name.removeprefix("_f"))] for name in sink.types
        }

    def _is_unique(self, connection: psycopg.Connection, values: dict[str, sql.Composable]) -> bool:
        """Whether the source keeps an index by which no key of one snapshot can be there twice, nor become another
        by a cast."""
        name, key = _origin(self._table).table, self._table.key
        fields = [self._field(column) for column in key]
        if name is None or any(
            values[column] != sql.Identifier(field) for column, field in zip(key, fields, strict=True)
        ):
            return False
        found = connection.execute(
            """
            select exists (
                select from pg_index inner join pg_class on pg_class.oid = indrelid
                where indrelid = %s::regclass and indisunique and indisvalid and indpred is null and indexprs is null
                    and %s::name[] @> array(
                        select attname from pg_attribute
                        where attrelid = indrelid and attnum = any(indkey[0:indnkeyatts - 1])
                    )
                    -- an index speaks of all partitions, but not of tables that inherit
                    and (relkind = 'p' or not exists (select from pg_inherits where inhparent = indrelid))
            )
            """,
            [self._relation.as_string(connection), fields],
        ).fetchone()
        return bool(found and found[0])

    def _halves(self, connection: psycopg.Connection) -> list[list[sql.Composable]]:
        """Conditions that part the table into two by where its rows lie: two sessions read each page once, in order,
        whatever its keys are. A view or a query is read in one piece."""
        name = _origin(self._table).table
        if name is None or connection.info.server_version < 140000:  # before, a range of places was read as a whole
            return [[]]
        pages = connection.execute(
            """
            select max(pg_relation_size(relid)) / current_setting('block_size')::bigint
            from (
                select oid as relid from pg_class where oid = %(table)s::regclass and relkind in ('r', 'm')
                union all
                select relid from pg_partition_tree(%(table)s::regclass) where isleaf
            ) as parts
            """,
            {"table": self._relation.as_string(connection)},
        ).fetchone()[0]  # type: ignore[index]
        if not pages or pages < 2:
            return [[]]
        middle = sql.Literal(f"({pages // 2},0)")
        return [[sql.SQL("ctid < {}::tid").format(middle)], [sql.SQL("ctid >= {}::tid").format(middle)]]


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


def _origin(table: Table) -> PostgresTable:
    assert table.origin.postgres is not None
    return table.origin.postgres


def _conn_id(table: Table) -> str:
    return _origin(table).connection


def _relation(table: Table, bounds: Interval | None) -> sql.Composable:
    origin = _origin(table)
    if origin.table:
        return sql.Identifier(*origin.table.split("."))
    return sql.SQL("({}) as query").format(_with_bounds(origin.query or "", bounds))


def _with_bounds(query: str, bounds: Interval | None) -> sql.Composable:
    """A declaration's own text, with the bounds of the reading where it names them."""
    start, end = (sql.Literal(bound).as_string(None) for bound in bounds or _EVER)
    return sql.SQL(query.replace("{start}", start).replace("{end}", end))


def _estimate(connection: psycopg.Connection, query: sql.Composable) -> float:
    """How many rows the source's planner expects."""
    plan = connection.execute(sql.SQL("explain (format json) {}").format(query)).fetchone()
    assert plan is not None
    return float(plan[0][0]["Plan"]["Plan Rows"])


def _copy(connection: psycopg.Connection, query: sql.Composable) -> Iterator[bytes]:
    try:
        with connection.cursor() as cursor, cursor.copy(sql.SQL("copy ({}) to stdout").format(query)) as copy:
            for block in copy:
                yield bytes(block)
    except psycopg.OperationalError as error:
        kind = type(error).__name__
        raise SourceUnavailable(f"reading broke off ({kind}); nothing was published", kind=kind) from None


def _type_name(connection: psycopg.Connection, oid: int) -> str:
    """A type as the source spells it, quoted where it must be."""
    return connection.execute("select format_type(%s, null)", [oid]).fetchone()[0]  # type: ignore[index]


def _clock(connection: psycopg.Connection) -> datetime:
    return connection.execute("select clock_timestamp()").fetchone()[0].astimezone(UTC)  # type: ignore[index]
