"""What it takes: time, rows, bytes and WAL, per model and per source; what grows, and how fast."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sluice.reports.project import Project
from sluice.warehouse import reading

DAYS = 30


@dataclass(frozen=True)
class Spent:
    """What one model, one table of a source, or all of a part took in a span of days. A part is a source or a layer.

    `bytes_stored` is its size now, with indexes. `wal_bytes` is what its own sessions wrote to the write-ahead log;
    None where nothing was measured. `trend` is seconds per day, the oldest first. `before` is the seconds of the span
    before this one.
    """

    kind: Literal["model", "source", "part"]
    name: str
    layer: str
    runs: int
    seconds: float
    before: float
    rows: int
    bytes_read: int | None
    bytes_stored: int | None
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
    parts: tuple[Spent, ...]  # each source, and each layer of the warehouse
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
_BATCHES = """
select
    source || '.' || table_name, least(current_date - published_at::date, %(days)s::int) as days_ago, count(*),
    sum(seconds), sum(rows_applied + rows_deleted)::bigint, sum(bytes_read)::bigint, sum(wal_bytes)::bigint
from ops.batch
where published_at >= current_date - 2 * %(days)s::int + 1 and state in ('published', 'superseded') group by 1, 2
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
        grown = tuple(
            _grown(*row)
            for row in connection.execute(_SIZES)
            if sources is None or _seen(row[0], project, sources)
        )  # fmt: skip
        sizes = {each.relation: each.bytes for each in grown}
        for kind, query in (("model", _MODELS), ("source", _BATCHES)):
            days: dict[str, list[tuple]] = {}
            for name, *day in connection.execute(query, {"days": DAYS}):
                days.setdefault(name, []).append(tuple(day))
            found += [
                _spent(kind, name, rows, project, sizes)
                for name, rows in days.items()
                if _shown(kind, name, project, sources)
            ]  # type: ignore[arg-type]
    found.sort(key=lambda each: -each.seconds)
    return Cost(at, DAYS, tuple(found), _parts(found), grown)


def _shown(kind: str, name: str, project: Project, sources: Collection[str] | None) -> bool:
    return sources is None or (name in project.by_name if kind == "model" else name.partition(".")[0] in sources)


def _seen(relation: str, project: Project, sources: Collection[str]) -> bool:
    place, _, name = relation.partition(".")
    return name in project.by_name or (place == "staging" and name.partition("__")[0] in sources)


def _spent(
    kind: Literal["model", "source"], name: str, days: list[tuple], project: Project, sizes: Mapping[str, int]
) -> Spent:
    now = [day for day in days if day[0] < DAYS]
    trend = [0.0] * DAYS
    for day in now:
        trend[DAYS - 1 - max(day[0], 0)] += float(day[2] or 0)
    node = project.by_name.get(name) if kind == "model" else None
    relation = node.relation if node else f"staging.{name.replace('.', '__', 1)}"
    return Spent(
        kind,
        name,
        node.layer if node else "loading" if kind == "source" else "",
        sum(day[1] for day in now),
        sum(trend),
        float(sum(day[2] or 0 for day in days if day[0] >= DAYS)),
        sum(day[3] or 0 for day in now),
        sum(day[4] or 0 for day in now) if kind == "source" else None,
        sizes.get(relation),
        sum(day[5] or 0 for day in now) if any(day[5] is not None for day in now) else None,
        tuple(round(value, 3) for value in trend),
    )


def _parts(spent: list[Spent]) -> tuple[Spent, ...]:
    found: dict[str, list[Spent]] = {}
    for each in spent:
        part = each.name.partition(".")[0] if each.kind == "source" else each.layer or "models that are gone"
        found.setdefault(part, []).append(each)
    return tuple(sorted((_together(*part) for part in found.items()), key=lambda each: -each.seconds))


def _together(name: str, items: list[Spent]) -> Spent:
    def total(values: Iterable[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Spent(
        "part",
        name,
        items[0].layer,
        sum(each.runs for each in items),
        sum(each.seconds for each in items),
        sum(each.before for each in items),
        sum(each.rows for each in items),
        total(each.bytes_read for each in items),
        total(each.bytes_stored for each in items),
        total(each.wal_bytes for each in items),
        tuple(round(sum(day), 3) for day in zip(*(each.trend for each in items), strict=True)),
    )


def _grown(relation: str, size: int, rows: int, slope: float | None, measured: int) -> Grown:
    enough = slope is not None and measured >= 7  # a line through fewer days says nothing
    return Grown(
        relation, size, rows, slope if enough else None, max(0, int(size + slope * 90)) if enough else None, measured
    )
