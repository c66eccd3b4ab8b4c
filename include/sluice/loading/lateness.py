"""Late data: rows that lie behind what is published already, what becomes of them, and how many there were.

A row's lateness is how far its instant lies behind the newest instant that its table had published before. No clock is
asked, so days that are loaded in order are never late, however long ago they were; and what a backfill reads was asked
for, so it is neither held nor counted. `docs/reference/internals.md` has the policies.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Table
from sluice.loading import batch as batches
from sluice.loading import lease, log
from sluice.loading.batch import Batch
from sluice.loading.landing import drop_landing, landing_table
from sluice.loading.mapping import Mapping

BUCKETS = (timedelta(0), timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30))


# -- the policy -----------------------------------------------------------------------------------


def of_unit(connection: psycopg.Connection, table: Table, batch: Batch, beyond: str) -> timedelta | None:
    """How far behind a unit is that is dealt with as a whole by the policy `beyond`. None: it is not.

    A unit is one thing if its rows have no instant of their own, and if it would replace one that readers have: they
    would lose what it says again.
    """
    newest = _newest(connection, table, batch, beyond)
    if newest is None or newest - batch.effective_at <= table.late.horizon:  # type: ignore[union-attr]
        return None
    return newest - batch.effective_at if not _row_by_row(connection, table, batch) else None


def is_left_out(connection: psycopg.Connection, table: Table, batch: Batch) -> bool:
    """Leave a late unit out, where the declaration says that such are only counted."""
    if (behind := of_unit(connection, table, batch, "count")) is None:
        return False
    batches.record_check(
        connection,
        batch,
        "late",
        "warn",
        severity="warn",
        observed=behind,
        bound=table.late.horizon,  # type: ignore[union-attr]
        failing=batch.rows_read,
        message=(
            told := f"{batch.unit} lies {behind} behind what is published; as declared it is counted and left out. "
            "A backfill of its interval takes it in"
        ),
    )
    drop_landing(connection, batch.batch_id)
    connection.execute("delete from ops.quarantine where batch_id = %s", [batch.batch_id])
    batches.move(connection, batch.batch_id, "unchanged", verdict=told, rows_late=batch.rows_read, rows_quarantined=0)
    lease.release(connection, batch.source, batch.table_name, batch.unit, batch.lease_token)
    connection.commit()
    return True


def set_aside(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> int:
    """Put the late rows of a batch into quarantine: they wait there, or are given up at once and only counted.

    Returns how many rows that were. A version that the log holds already is not late again.
    """
    from sluice.loading import rows

    beyond = table.late.beyond if table.late else "restate"
    newest = _newest(connection, table, batch, beyond)
    if newest is None or beyond == "restate" or not _row_by_row(connection, table, batch):
        return 0
    horizon: timedelta = table.late.horizon  # type: ignore[union-attr]
    connection.execute("drop table if exists pg_temp.late")
    count = connection.execute(
        sql.SQL(
            """
            create temporary table late on commit drop as
            select _part, _place, _row_number, jsonb_build_array({key})::text as key
            from {rows} as landed
            where _effective_at < {limit} and not exists (
                select from {log} as log
                where {same_key} and log._effective_at = landed._effective_at and log._row_hash = landed._row_hash
                    and {is_cursor}
            )
            """
        ).format(
            key=log.names(table.key),
            rows=landing_table(batch.batch_id, "rows"),
            limit=sql.Literal(newest - horizon),
            log=log.relation(table),
            same_key=log.same_key(table, "log", "landed"),
            is_cursor=table.mode is Mode.CURSOR,
        )
    ).rowcount
    if not count:
        return 0
    held = beyond == "hold"
    connection.execute(
        sql.SQL(
            """
            insert into ops.quarantine (batch_id, source, table_name, row_number, key, column_name, code, reason, raw,
                state, state_reason, state_by, state_at)
            select {batch_id}, {source}, {table_name}, late._row_number, late.key, {column}, 'LATE', {reason}, {raw},
                {state}, {state_reason}, {state_by}, {state_at}
            from {typed} as landed inner join late on landed.tableoid = _part and landed.ctid = _place
            """
        ).format(
            batch_id=batch.batch_id,
            source=batch.source,
            table_name=batch.table_name,
            column=table.effective_at or (table.cursor.column if table.cursor else ""),
            reason=f"it lies more than {horizon} behind what is published",
            raw=mapping.typed.raw,
            state="open" if held else "discarded",
            state_reason=None if held else "the declaration says: count",
            state_by=None if held else "declaration",
            state_at=sql.SQL("null" if held else "clock_timestamp()"),
            typed=landing_table(batch.batch_id, "typed"),
        )
    )
    if table.mode is Mode.CURSOR:  # a reading overlaps the last: the same row waits once
        connection.execute(
            """
            update ops.quarantine as earlier set state = 'superseded', state_at = clock_timestamp()
            from ops.quarantine as this
            where this.batch_id = %(batch)s and this.code = 'LATE' and earlier.code = 'LATE'
                and earlier.batch_id <> this.batch_id and earlier.state = 'open' and earlier.raw = this.raw
                and (earlier.source, earlier.table_name) = (this.source, this.table_name)
            """,
            {"batch": batch.batch_id},
        )
    return rows.delete(connection, batch, sql.SQL("select _part, _place from pg_temp.late"))


def _newest(connection: psycopg.Connection, table: Table, batch: Batch, beyond: str) -> datetime | None:
    """The newest instant that was published before; None where the policy does not apply to the batch."""
    if table.late is None or table.late.beyond != beyond or batch.details.get("asked"):
        return None
    row = connection.execute(
        "select max(effective_at) from ops.batch"
        " where (source, table_name) = (%s, %s) and state in ('published', 'superseded')"
        " and effective_at <= clock_timestamp()",  # what lies in the future makes nothing late
        [batch.source, batch.table_name],
    ).fetchone()
    return row[0] if row else None


def _row_by_row(connection: psycopg.Connection, table: Table, batch: Batch) -> bool:
    if table.mode is Mode.CURSOR:
        return True
    replaces = connection.execute(
        "select 1 from ops.batch where (source, table_name, unit, state) = (%s, %s, %s, 'published')",
        [batch.source, batch.table_name, batch.unit],
    ).fetchone()
    return table.mode is Mode.APPEND and table.effective_at is not None and not replaces


# -- the report -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lateness:
    """How late the rows of a table came: `counts` by bucket (in order, up to an hour, a day, a week, a month, later).

    `usual` is what 99 of 100 rows kept to. `beyond`: those past the declared horizon that went in; `waiting` and
    `left_out` those that did not.
    """

    source: str
    table_name: str
    counts: tuple[int, ...]
    usual: timedelta | None
    latest: timedelta | None
    beyond: int | None
    waiting: int
    left_out: int

    @property
    def rows(self) -> int:
        """Rows that went in."""
        return sum(self.counts)


def lateness(connection: psycopg.Connection, table: Table, since: timedelta) -> Lateness:
    """Measure what was published within `since`. Rows that a backfill asked for are not counted."""
    parameters = {"source": table.source, "table": table.name, "since": since}
    waiting, left_out = connection.execute(
        """
        select count(*) filter (where quarantine.state = 'open')
            + (
                select coalesce(sum(rows_read), 0) from (
                    select distinct on (unit) rows_read, state, verdict, details from ops.batch
                    where (source, table_name) = (%(source)s, %(table)s)
                        and started_at > clock_timestamp() - %(since)s
                    order by unit, batch_id desc
                ) as latest
                where state = 'refused' and strpos(verdict, '(LATE)') > 0 and not details ? 'declined'
            ),
            count(*) filter (where quarantine.state = 'discarded')
            + (
                select coalesce(sum(rows_late), 0) from ops.batch
                where (source, table_name, state) = (%(source)s, %(table)s, 'unchanged')
                    and started_at > clock_timestamp() - %(since)s
            )
        from ops.quarantine
        where (source, table_name, code) = (%(source)s, %(table)s, 'LATE')
            and created_at > clock_timestamp() - %(since)s
        """,
        parameters,
    ).fetchone()  # type: ignore[misc]
    if not _has_log(connection, table):
        return Lateness(table.source, table.name, (0,) * (len(BUCKETS) + 1), None, None, None, waiting, left_out)
    horizon = table.late.horizon if table.late else None
    *counts, usual, latest, beyond = connection.execute(
        sql.SQL(
            """
            {came}
            select {counts},
                extract(epoch from percentile_disc(0.99) within group (order by coalesce(behind, interval '0')))::float,
                extract(epoch from max(coalesce(behind, interval '0')))::float,
                count(*) filter (where behind > %(horizon)s::interval)
            from came
            """
        ).format(came=_came(table), counts=_counts()),
        {**parameters, "horizon": horizon},
    ).fetchone()  # type: ignore[misc]
    usual, latest = (None if seconds is None else timedelta(seconds=seconds) for seconds in (usual, latest))
    late = beyond if horizon is not None else None
    return Lateness(table.source, table.name, tuple(counts), usual, latest, late, waiting, left_out)


@dataclass(frozen=True)
class Restated:
    """How many rows of a table came after a model that is made of it had been taken for complete, as its
    `config.meta.horizon` says."""

    relation: str
    horizon: timedelta
    table_name: str
    rows: int
    late: int


def restated(connection: psycopg.Connection, table: Table, since: timedelta) -> list[Restated]:
    """For each model with a horizon that is made of the table: the rows that went in within `since`, and the late."""
    if not _has_log(connection, table):
        return []
    rows = connection.execute(
        sql.SQL(
            """
            {came}
            select lineage.relation, extract(epoch from lineage.horizon)::float, %(source)s || '.' || %(table)s,
                came.rows, came.late
            from ops.lineage
            cross join lateral (
                select count(*) as rows, count(*) filter (where behind > lineage.horizon) as late from came
            ) as came
            where (lineage.source, lineage.table_name) = (%(source)s, %(table)s) and lineage.horizon is not null
            order by 1
            """
        ).format(came=_came(table)),
        {"source": table.source, "table": table.name, "since": since},
    )
    return [Restated(relation, timedelta(seconds=seconds), *counts) for relation, seconds, *counts in rows]


def _has_log(connection: psycopg.Connection, table: Table) -> bool:
    found = connection.execute("select to_regclass(%s)", [log.relation(table).as_string(connection)]).fetchone()
    return bool(found and found[0])


def _came(table: Table) -> sql.Composable:
    """`came`: how far each row that went in lay behind what was published before."""
    return sql.SQL(
        """
        with published as (
            select batch_id, published_at, part, details,
                max(effective_at) filter (where effective_at <= clock_timestamp()) over (
                    order by published_seq rows between unbounded preceding and 1 preceding
                ) as newest
            from ops.batch where (source, table_name) = (%(source)s, %(table)s) and published_seq is not null
        ),

        came as (
            select greatest(newest - log._effective_at, interval '0') as behind
            from {log} as log inner join published on batch_id = log._batch_id
            where part = 'unit' and not coalesce((details ->> 'asked')::boolean, false) and log._op = 'upsert'
                and published_at > clock_timestamp() - %(since)s
        )
        """
    ).format(log=log.relation(table))


def _counts() -> sql.Composable:
    """A count per bucket: within the first bound, between it and the next …, beyond the last."""
    bounds = [None, *BUCKETS, None]
    parts = []
    for low, high in itertools.pairwise(bounds):
        within = [
            *([sql.SQL("coalesce(behind, interval '0') > {}").format(low)] if low is not None else []),
            *([sql.SQL("coalesce(behind, interval '0') <= {}").format(high)] if high is not None else []),
        ]
        parts.append(sql.SQL("count(*) filter (where {})").format(sql.SQL(" and ").join(within)))
    return sql.SQL(", ").join(parts)
