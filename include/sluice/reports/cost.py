"""What it takes: time, rows, bytes and WAL, per model and per source; what grows, and how fast."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sluice.reports.project import Project
from sluice.reports.session import reading

DAYS = 30


@dataclass(frozen=True)
class Spent:
    """What one model, or the tables of one source, took in a span of days.

    `wal_bytes` is the write-ahead log of the whole server meanwhile: exact when nothing else wrote, else a bound;
    None where nothing was measured. `trend` is seconds per day, the oldest first. `before` is the seconds of the span
    before this one.
    """

    kind: Literal["model", "source"]
    name: str
    layer: str
    runs: int
    seconds: float
    before: float
    rows: int
    bytes_read: int | None
    wal_bytes: int | None
    trend: tuple[float, ...] = ()


@dataclass(frozen=True)
class Grown:
    """A relation's size, and what it will be in 90 days if it goes on as in the last 90 (a straight line)."""

    relation: str
    bytes: int
    rows: int
    per_day: float | None
    projected: int | None
    measured: int


@dataclass(frozen=True)
class Cost:
    """All of it, the dearest first."""

    at: datetime
    days: int
    spent: tuple[Spent, ...]
    grown: tuple[Grown, ...]

    @property
    def dearest(self) -> tuple[Spent, ...]:
        """The ten that took most time."""
        return self.spent[:10]

    @property
    def total(self) -> float:
        """Seconds of all together."""
        return sum(each.seconds for each in self.spent)


_MODELS = """
select
    model, least(current_date - committed_at::date, %(days)s::int) as days_ago, count(*), sum(seconds),
    sum(rows_inserted + rows_deleted)::bigint, null::bigint, sum(wal_bytes)::bigint
from ops.model_run where committed_at >= current_date - 2 * %(days)s::int + 1 group by 1, 2
"""
# Units of a run are landed one after the other, then published one after the other: what a batch took begins where the
# one before it ended. The pause of the scheduler between the two steps is in it.
_BATCHES = """
with published as (
    select
        source || '.' || table_name as name, least(current_date - published_at::date, %(days)s::int) as days_ago,
        rows_applied + rows_deleted as rows, bytes_read, wal_bytes,
        coalesce(extract(epoch from landed_at - started_at), 0) + coalesce(extract(epoch from published_at - greatest(
            lag(published_at) over steps, max(coalesce(audited_at, landed_at)) over whole
        )), 0) as seconds
    from ops.batch
    where published_at >= current_date - 2 * %(days)s::int + 1 and state in ('published', 'superseded')
    window
        whole as (partition by source, table_name, run_id),
        steps as (partition by source, table_name, run_id order by published_seq)
)

select name, days_ago, count(*), sum(seconds), sum(rows)::bigint, sum(bytes_read)::bigint, sum(wal_bytes)::bigint
from published group by 1, 2
"""
_SIZES = """
select
    relation, (array_agg(bytes order by measured_on desc))[1], (array_agg(rows order by measured_on desc))[1],
    regr_slope(bytes, measured_on - current_date), count(*)
from ops.relation_size where measured_on > current_date - 90 group by 1 order by 2 desc
"""


def cost(project: Project, sources: Collection[str] | None = None) -> Cost:
    """The last 30 days beside the 30 before. `sources`: only these, where not all may be seen."""
    found: list[Spent] = []
    with reading() as connection:
        at = connection.execute("select clock_timestamp()").fetchone()[0]  # type: ignore[index]
        for kind, query in (("model", _MODELS), ("source", _BATCHES)):
            days: dict[str, list[tuple]] = {}
            for name, *day in connection.execute(query, {"days": DAYS}):
                days.setdefault(name, []).append(tuple(day))
            found += [
                _spent(kind, name, rows, project) for name, rows in days.items() if _shown(kind, name, project, sources)
            ]  # type: ignore[arg-type]
        grown = tuple(
            _grown(*row)
            for row in connection.execute(_SIZES)
            if sources is None or _seen(row[0], project, sources)
        )  # fmt: skip
    found.sort(key=lambda each: -each.seconds)
    return Cost(at, DAYS, tuple(found), grown)


def _shown(kind: str, name: str, project: Project, sources: Collection[str] | None) -> bool:
    return sources is None or (name in project.by_name if kind == "model" else name.partition(".")[0] in sources)


def _seen(relation: str, project: Project, sources: Collection[str]) -> bool:
    place, _, name = relation.partition(".")
    return name in project.by_name or (place == "staging" and name.partition("__")[0] in sources)


def _spent(kind: Literal["model", "source"], name: str, days: list[tuple], project: Project) -> Spent:
    now = [day for day in days if day[0] < DAYS]
    trend = [0.0] * DAYS
    for day in now:
        trend[DAYS - 1 - max(day[0], 0)] += float(day[2] or 0)
    node = project.by_name.get(name) if kind == "model" else None
    return Spent(
        kind,
        name,
        node.layer if node else "loading" if kind == "source" else "",
        sum(day[1] for day in now),
        sum(trend),
        float(sum(day[2] or 0 for day in days if day[0] >= DAYS)),
        sum(day[3] or 0 for day in now),
        sum(day[4] or 0 for day in now) if kind == "source" else None,
        sum(day[5] or 0 for day in now) if any(day[5] is not None for day in now) else None,
        tuple(round(value, 3) for value in trend),
    )


def _grown(relation: str, size: int, rows: int, slope: float | None, measured: int) -> Grown:
    enough = slope is not None and measured >= 7  # a line through fewer days says nothing
    return Grown(
        relation, size, rows, slope if enough else None, max(0, int(size + slope * 90)) if enough else None, measured
    )
