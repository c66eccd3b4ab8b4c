"""Gaps: intervals of a source that should be in staging and are not.

Only tables whose units are intervals of time have them: dated files and resources that are read by day. A cursor reads
on from where it stopped, however long that was, and a live table can't be asked about the past.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import psycopg

from sluice.declarations import Source, Table
from sluice.readers.base import now


@dataclass(frozen=True)
class Gap:
    """A half-open range without published data. `why`: never read, refused, abandoned, or held: it came late, and
    waits for a person's word."""

    source: str
    table_name: str
    start: datetime
    end: datetime
    intervals: int
    why: str


def step_of(table: Table) -> timedelta | None:
    """The length of one interval of the table: a day or an hour; None if its units are not intervals."""
    origin = table.origin
    if origin.files is not None:
        text = origin.files.path
    elif origin.rest is not None:
        text = " ".join([origin.rest.path, *origin.rest.params.values()])
    else:
        return None
    if "{date" not in text:
        return None
    return timedelta(hours=1) if "{hour" in text else timedelta(days=1)


def gaps(connection: psycopg.Connection, source: Source, table: Table) -> list[Gap]:
    """Ranges from the declared start to now, oldest first; neighbours with the same reason are one. An interval is
    there if what was published covers all of it: an hour is no day, and a month's file is each of its days."""
    step = step_of(table)
    if step is None:
        return []
    zone = ZoneInfo(table.origin.files.time_zone if table.origin.files else "UTC")
    begin = datetime.combine(table.start or source.start, time(), zone)
    rows = connection.execute(
        """
        with expected as (
            select series.starts_at, date_add(series.starts_at, %(step)s, %(zone)s::text) as ends_at
            from generate_series(
                %(begin)s::timestamptz,
                date_subtract(%(now)s::timestamptz, %(step)s, %(zone)s::text),
                %(step)s,
                %(zone)s::text
            ) as series (starts_at)
        ),

        judged as (
            select expected.starts_at, expected.ends_at,
                case
                    when range_agg(tstzrange(batch.interval_start, batch.interval_end))
                        filter (where batch.state in ('published', 'unchanged'))
                        @> tstzrange(expected.starts_at, expected.ends_at) then null
                    when bool_or(batch.state = 'refused' and strpos(batch.verdict, '(LATE)') > 0) then 'held'
                    when bool_or(batch.state = 'refused') then 'refused'
                    when bool_or(batch.state not in ('published', 'unchanged', 'superseded')) then 'abandoned'
                    else 'never read'
                end as why
            from expected
            left join ops.batch as batch
                on batch.source = %(source)s and batch.table_name = %(table)s and batch.part = 'unit'
                and batch.interval_start < expected.ends_at and batch.interval_end > expected.starts_at
            group by expected.starts_at, expected.ends_at
        ),

        numbered as (
            select *,
                row_number() over (order by starts_at)
                - row_number() over (partition by why order by starts_at) as island
            from judged
        )

        select min(starts_at), max(ends_at), count(*), why
        from numbered
        where why is not null
        group by why, island
        order by 1
        """,
        {
            "step": step,
            "zone": zone.key,
            "begin": begin,
            "now": now(source),
            "source": source.source,
            "table": table.name,
        },
    ).fetchall()
    return [Gap(source.source, table.name, *row) for row in rows]
