"""A batch against the history of its own table: its volume, its NULLs, its distributions.

Each check says what it does when it fails (`checks:` of the table, `severity:` of a column), and is silent, saying
"learning", while there is too little to compare with. How they decide: `sluice.gates.anomaly`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from sluice.declarations import Mode, Table
from sluice.gates import anomaly
from sluice.gates.anomaly import Opinion
from sluice.loading import profile
from sluice.loading.batch import Batch
from sluice.loading.mapping import Mapping
from sluice.loading.profile import Point

_NEVER_EMPTY = 5  # units with rows, and none without: then an empty one is no matter of course
_FEW = 20  # rows: where a unit had fewer, as an hour of the night may, the next may well have none


@dataclass(frozen=True)
class Finding:
    """One check: what came of it, and what that does."""

    name: str
    severity: str
    failed: bool
    observed: object = None
    bound: object = None
    message: str | None = None


def judge(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> list[Finding]:
    """Profile a batch, compare it with those before, and say what was found."""
    columns = profile.take(connection, table, batch, mapping)
    points = profile.history(connection, table, batch)
    return [
        *_volume(table, batch, points),
        *_columns(table, points, columns, "nulls"),
        *_columns(table, points, columns, "distribution"),
    ]


def _volume(table: Table, batch: Batch, points: list[Point]) -> list[Finding]:
    found = []
    if table.checks.empty != "none" and table.mode is Mode.APPEND:
        before = points[-20:]
        usual = len(before) >= _NEVER_EMPTY and all(point.rows >= _FEW for point in before)
        failed = usual and not batch.rows_read
        message = (
            f"{batch.unit} is empty; each of the {len(before)} units before it had {_FEW} rows or more (EMPTY_SOURCE)"
            if failed
            else None
            if usual or batch.rows_read
            else f"nothing to go by: fewer than {_NEVER_EMPTY} units before it, or one of fewer than {_FEW} rows"
        )
        found.append(Finding("empty", table.checks.empty, failed, batch.rows_read, "more than 0", message))
    if table.checks.volume == "none" and table.checks.level == "none":
        return found
    series = anomaly.Series(is_level=table.mode is Mode.FULL)
    for point in points:
        series.add(point.instant, point.rows)
    said = series.judge(batch.effective_at, batch.rows_read)
    if table.mode is Mode.CURSOR and not points:
        said = Opinion(learning="no window of its cursor of about this length")
    if table.checks.volume != "none":
        what = f"{batch.rows_read} rows, where {said.expected:.0f} were to be expected"
        found.append(_said("volume", table.checks.volume, said, said.is_odd, batch.rows_read, _range(said), what))
    if table.checks.level != "none" and table.mode is not Mode.FULL:
        what = f"the level of the last batches lies {said.drift:+.0%} from that of the weeks before"
        found.append(
            _said("level", table.checks.level, said, said.has_drifted, f"{said.drift:+.1%}", "-26% to +35%", what)
        )
    return found


def _range(said: Opinion) -> str:
    return f"{said.low:.0f} to {said.high:.0f}"


def _said(name: str, severity: str, said: Opinion, failed: bool, observed: Any, bound: str, what: str) -> Finding:
    if said.learning:
        return Finding(name, severity, False, observed, None, f"learning: {said.learning}")
    return Finding(name, severity, failed, observed, bound, what if failed else None)


def _columns(table: Table, points: list[Point], columns: dict[str, Any], check: str) -> list[Finding]:
    """One finding for all columns that are in order, and one for each that is not."""
    known = [point.columns for point in points if point.columns]
    severity = {name: severity_of(table, name, check) for name in columns}
    judged = {}
    for name, current in columns.items():
        if severity[name] == "none" or (check == "distribution" and not _has_distribution(table, name, current)):
            continue
        before = [profiles[name] for profiles in known if name in profiles]
        judged[name] = _opinion(check, before, current, len(columns))
    if not judged:
        return []
    odd = {name: said for name, said in judged.items() if said.is_odd}
    learning = [said.learning for said in judged.values() if said.learning]
    summary = Finding(
        check,
        "warn",
        False,
        f"{len(judged) - len(odd) - len(learning)} of {len(judged)} columns as before",
        None,
        f"learning: {learning[0]}" if learning and len(learning) == len(judged) else None,
    )
    return [summary, *(_odd_column(check, name, severity[name], said, columns[name]) for name, said in odd.items())]


def severity_of(table: Table, column: str, check: str) -> str:
    """What a column's failure of a check does: its own word, else the table's."""
    return dict(table.columns[column].severity).get(check) or getattr(table.checks, check)  # type: ignore[call-overload]


def _has_distribution(table: Table, name: str, current: dict[str, Any]) -> bool:
    return name not in table.key and any(kind in current for kind in ("q", "values", "hours"))


def _opinion(check: str, before: list[dict[str, Any]], current: dict[str, Any], among: int) -> Opinion:
    if check == "distribution":
        return anomaly.judge_distribution(before, current, among=among)
    rows = current["n"]
    if rows < 20:
        return Opinion(learning=f"{rows} of 20 rows")
    shares = [(each["nulls"] / each["n"], each["n"]) for each in before if each["n"] >= 20]
    return anomaly.judge_share(shares, current["nulls"] / rows, rows, among=among)


def _odd_column(check: str, name: str, severity: str, said: Opinion, current: dict[str, Any]) -> Finding:
    if check == "nulls":
        share = current["nulls"] / current["n"]
        what = f"{share:.1%} of {name} are NULL, where {said.expected:.1%} were to be expected"
        return Finding(f"nulls:{name}", severity, True, f"{share:.2%}", f"at most {said.high:.2%}", what)
    what = f"the values of {name} are distributed otherwise than before"
    if "q" in current:
        what += f" (the middle one is now {current['q'][9]:g})"
    return Finding(f"distribution:{name}", severity, True, f"{said.measured:.3f}", f"at most {said.high:.3f}", what)
