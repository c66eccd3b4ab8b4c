"""What a batch looks like, from a bounded sample of its rows, and the table's history of it.

One statement over at most some two thousand rows, whatever the batch's size: the cost is milliseconds, and does not
grow. Only aggregates are kept: shares of NULL, quantiles of numbers and of sizes, hours of the day, and shares of the
values of columns that have few. Of a personal column only the share of NULL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from sluice.declarations import Column, Mode, Table
from sluice.loading import batch as batches
from sluice.loading import contract
from sluice.loading.batch import Batch
from sluice.loading.landing import landing_table
from sluice.loading.mapping import Mapping

_SAMPLE = 2000  # rows, about
_THIN = 16  # of so many rows of a sampled page one is taken: rows of a page resemble each other
_VALUES = 20  # a column with more different values, or few rows of each, is no category: its values are not kept
_COLUMNS = 120
_POINTS = 800  # of the history of a table's row counts
_PROFILES = 14  # of the history of its columns
_QUANTILES = [round(0.05 * step, 2) for step in range(1, 20)]
_NUMBERS = ("smallint", "integer", "bigint", "real", "double precision")


@dataclass(frozen=True)
class Point:
    """One batch of the history."""

    instant: datetime
    rows: int
    seconds: float | None
    columns: dict[str, Any] | None  # only of the latest


def take(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> dict[str, Any]:
    """Profile the typed rows of a batch that was judged, keep it, and return its columns."""
    names = list(table.columns)[:_COLUMNS]
    landed = batch.details["typed_rows"] + batch.details["text_rows"]
    source = sql.SQL(
        "landed as (select * from {landed} {some}), sample as materialized ("
        "select {columns} from landed where not coalesce({deleted}, false) {thin})"
    ).format(
        landed=landing_table(batch.batch_id, "typed"),
        some=_pages(landed),
        columns=sql.SQL(", ").join(
            sql.SQL("{} as {}").format(contract.typed(table, mapping.typed, name), sql.Identifier(name))
            for name in names
        ),
        deleted=mapping.typed.deleted,
        thin=sql.SQL("and (hashint8(_row_number) & {}) = 0").format(sql.Literal(_thinning(landed) - 1))
        if _thinning(landed) > 1
        else sql.SQL(""),
    )
    wanted = [(name, kind, what) for name in names for kind, what in _measures(name, table.columns[name])]
    row = connection.execute(
        sql.SQL("with {} select {} from sample").format(
            source, sql.SQL(", ").join([sql.SQL("count(*)"), *(what for _, _, what in wanted)])
        )
    ).fetchone()
    assert row is not None
    columns: dict[str, Any] = {name: {"n": row[0]} for name in names}
    for (name, kind, _), found in zip(wanted, row[1:], strict=True):
        if kind == "nulls":
            columns[name]["nulls"] = row[0] - found
        elif found is not None and (kind != "values" or len(found) <= min(_VALUES, row[0] / 5)):
            columns[name][kind] = [round(value, 9) for value in found] if kind == "q" else found
    connection.execute(
        """
        insert into ops.batch_profile (batch_id, source, table_name, unit, instant, kind, rows_read, seconds,
            rows_profiled, columns)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        on conflict (batch_id) do update set columns = excluded.columns, rows_profiled = excluded.rows_profiled
        """,
        [
            batch.batch_id,
            batch.source,
            batch.table_name,
            batch.unit,
            batch.effective_at,
            kind_of(batch),
            batch.rows_read,
            window(connection, batch) if table.mode is Mode.CURSOR else None,
            row[0],
            json.dumps(columns, separators=(",", ":")),
        ],
    )
    return columns


def kind_of(batch: Batch) -> str:
    """What its rows are a sample of. An extract that was compared with the one before lands only what is new."""
    return "new rows" if batches.touched(batch) else "rows"


def window(connection: psycopg.Connection, batch: Batch) -> float | None:
    """How long a window of its cursor a batch covers, in seconds. The first reading of a table covers everything."""
    row = connection.execute(
        "select extract(epoch from watermark_to::timestamptz - watermark_from::timestamptz)::float8"
        " from ops.batch where batch_id = %s and mode = 'cursor' and watermark_from is not null",
        [batch.batch_id],
    ).fetchone()
    return row[0] if row else None


def history(connection: psycopg.Connection, table: Table, batch: Batch) -> list[Point]:
    """What was published before the instant of this batch, or passed its audit and will be; in order, never the unit
    itself.

    Of a cursor only windows of about this length: an hour is not compared with a day.
    """
    rows = connection.execute(
        """
        select instant, rows_read, seconds, case when place <= %(profiles)s and kind = %(kind)s then columns end
        from (
            select
                profile.instant, profile.rows_read, profile.seconds, profile.columns, profile.kind,
                row_number() over (order by profile.instant desc, profile.batch_id desc) as place
            from ops.batch_profile as profile
            inner join ops.batch using (batch_id)
            where profile.source = %(source)s and profile.table_name = %(table)s
                and profile.instant < %(instant)s and profile.unit <> %(unit)s
                and batch.state in ('audited', 'published')
            order by profile.instant desc, profile.batch_id desc
            limit %(points)s
        ) as latest
        order by place desc
        """,
        {
            "profiles": _PROFILES,
            "points": _POINTS,
            "kind": kind_of(batch),
            "source": batch.source,
            "table": batch.table_name,
            "instant": batch.effective_at,
            "unit": batch.unit,
        },
    ).fetchall()
    points = [Point(*row) for row in rows]
    if table.mode is not Mode.CURSOR:
        return points
    own = window(connection, batch)
    if own is None:
        return []
    return [p for p in points if p.seconds is not None and own / 2 <= p.seconds <= own * 2]


def _pages(rows: int) -> sql.Composable:
    """Of a large batch some pages only, the same ones if it is asked again."""
    if rows <= 2 * _SAMPLE * _THIN:
        return sql.SQL("")
    return sql.SQL("tablesample system ({}) repeatable (1)").format(sql.Literal(100 * _SAMPLE * _THIN / rows))


def _thinning(rows: int) -> int:
    """Of the rows that are read one in so many is taken; a power of two."""
    if rows > 2 * _SAMPLE * _THIN:
        return _THIN
    return 1 << max((rows // _SAMPLE).bit_length() - 1, 0)


def _measures(name: str, column: Column) -> list[tuple[str, sql.Composable]]:
    """What is asked of a column."""
    column_name = sql.Identifier(name)
    measures: list[tuple[str, sql.Composable]] = [("nulls", sql.SQL("count({})").format(column_name))]
    if column.personal:
        return measures
    if column.type.startswith("numeric"):  # may hold what no float8 does
        held = sql.SQL("case when abs({0}) >= 1e-300 then least(greatest({0}, -1e300), 1e300) else {0} * 0 end::float8")
        number = held.format(column_name)
        measures.append(("q", _quantiles(number)))
    elif column.type in _NUMBERS:
        measures.append(("q", _quantiles(sql.SQL("{}::float8").format(column_name))))
    elif column.type == "text":  # its size is known without fetching a long value
        measures.append(("q", _quantiles(sql.SQL("octet_length({})::float8").format(column_name))))
        measures.append(("values", _shares(sql.SQL("left({}, 40)").format(column_name))))
    elif column.type == "boolean":
        measures.append(("values", _shares(sql.SQL("{}::text").format(column_name))))
    elif column.type in ("timestamptz", "timestamp", "time"):
        measures.append(("hours", _shares(sql.SQL("extract(hour from {})::int::text").format(column_name))))
    return measures


def _quantiles(number: sql.Composable) -> sql.Composable:
    return sql.SQL("percentile_cont({}::float8[]) within group (order by {})").format(sql.Literal(_QUANTILES), number)


def _shares(text: sql.Composable) -> sql.Composable:
    """Counts by value, of the most frequent ones and one more than may be."""
    return sql.SQL(
        "(select jsonb_object_agg(value, rows) from (select {} as value, count(*) as rows from sample"
        " where {} is not null group by 1 order by 2 desc, 1 limit {}) as counted)"
    ).format(text, text, sql.Literal(_VALUES + 1))
