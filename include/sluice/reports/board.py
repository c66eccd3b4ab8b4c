"""Is the data right, right now? One line per table, from its source to the marts.

Times and counts are the ledger's; what was promised is in the declarations. A line is green only if what it shows was
found: what cannot be known is never shown as good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg

from sluice.declarations import Source, Table
from sluice.ledger.refused import STANDS
from sluice.reports.project import Node, Project
from sluice.warehouse import reading

Tone = Literal["good", "warn", "bad", "idle"]
DAYS = 30
BEHIND = timedelta(hours=2)  # the deadline of the warehouse DAG: by then a model has read what was published
_LAYERS = ("staging", "snapshots", "marts")


@dataclass(frozen=True)
class Place:
    """Where in Airflow to look: a DAG, a run of it, a task in it."""

    dag_id: str
    run_id: str | None = None
    task_id: str | None = None


@dataclass(frozen=True)
class Line:
    """One table. Ages and objectives are seconds; `trend` is rows written per day, the oldest of 30 days first.

    `state` says in a word what `tone` colours: fresh, late, refused, gate failed, behind, affected, rows wait,
    never read, not in use. `why` is the sentence behind it, `todo` the next step, `affects` what is made from it.
    """

    layer: str
    name: str
    relation: str
    owner: str
    tone: Tone
    state: str
    why: str = ""
    todo: str = ""
    objective: int | None = None
    last_publish: datetime | None = None
    age: int | None = None
    gate: str | None = None
    gate_check: str = ""
    rows_in: int | None = None
    rows_out: int | None = None
    open_quarantine: int = 0
    trend: tuple[int, ...] = ()
    affects: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    runbook: str = ""
    place: Place | None = None
    batch_id: int | None = None


@dataclass(frozen=True)
class SourceLine:
    """One declared source: whether it answers, and the worst of its tables."""

    name: str
    owner: str
    tone: Tone
    state: str
    why: str
    schedule: str | None
    tables: int
    last_read: datetime | None
    open_quarantine: int
    place: Place


@dataclass(frozen=True)
class Board:
    """All of it at one instant."""

    at: datetime
    sources: tuple[SourceLine, ...] = ()
    lines: tuple[Line, ...] = ()

    def layer(self, name: str) -> list[Line]:
        """The lines of one layer, what is not good first."""
        rank = ("bad", "warn", "good", "idle")
        return sorted((line for line in self.lines if line.layer == name), key=lambda line: rank.index(line.tone))

    def count(self, tone: Tone) -> int:
        """How many tables have this colour."""
        return sum(line.tone == tone for line in self.lines)

    @property
    def tone(self) -> Tone:
        """The worst of all."""
        return worst(line.tone for line in self.lines)


def worst(tones: Iterable[Tone]) -> Tone:
    """The worst of several: bad before warn before good before idle."""
    found = set(tones)
    order: tuple[Tone, ...] = ("bad", "warn", "good")
    return next((tone for tone in order if tone in found), "idle")


def board(sources: Iterable[Source], project: Project) -> Board:
    """The board over these declared sources and the models of `project`."""
    declared = list(sources)
    with reading() as connection:
        facts = _Facts.read(connection, declared, project)
    staging = [_staging(source, table, facts) for source in declared for table in source.tables.values()]
    models = [_model(node, facts) for node in project.nodes.values() if node.layer in _LAYERS and not node.is_view]
    lines = _with_consequences(staging, models, project)
    return Board(facts.at, tuple(_source(source, lines, facts) for source in declared), tuple(lines))


# -- what the ledger says -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Gate:
    verdict: str
    check: str
    message: str
    run_id: str
    gate: str

    @property
    def blocks(self) -> bool:
        return self.verdict in ("fail", "error", "missing")


@dataclass
class _Facts:
    at: datetime
    tables: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    trends: dict[str, list[int]] = field(default_factory=dict)  # by source.table, and by model
    gates: dict[str, _Gate] = field(default_factory=dict)  # by relation: the worst of the latest results
    behind: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # by relation: of what, since when
    circuits: dict[str, datetime | None] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: psycopg.Connection, sources: list[Source], project: Project) -> _Facts:
        now = connection.execute("select clock_timestamp()").fetchone()[0]  # type: ignore[index]
        facts = cls(now)
        names = [(source.source, table) for source in sources for table in source.tables]
        models = [node for node in project.nodes.values() if not node.is_view]
        with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            given = ([source for source, _ in names], [table for _, table in names])
            for row in cursor.execute(_TABLES, given).fetchall():
                facts.tables[row["source"], row["table_name"]] = row
            for row in cursor.execute(_MODELS, [[node.name for node in models]]).fetchall():
                facts.models[row["model"]] = row
        for name, days_ago, rows in connection.execute(_TREND).fetchall():
            if 0 <= days_ago < DAYS:
                facts.trends.setdefault(name, [0] * DAYS)[DAYS - 1 - days_ago] += rows
        relations = [f"staging.{source}__{table}" for source, table in names] + [node.relation for node in models]
        for relation, gate, check, verdict, message, run_id in connection.execute(_GATES, [relations]).fetchall():
            facts._judge(relation, _Gate(verdict, check, message or "", run_id, gate))
        facts._find_unread(connection, project)
        facts.circuits = dict(
            connection.execute("select connection, next_try_at from ops.circuit where opened_at is not null").fetchall()
        )
        return facts

    def _judge(self, relation: str, found: _Gate) -> None:
        rank = ("pass", "warn", "missing", "error", "fail")
        known = self.gates.get(relation)
        if known is None or rank.index(found.verdict) > rank.index(known.verdict):
            self.gates[relation] = found

    def _find_unread(self, connection: psycopg.Connection, project: Project) -> None:
        """What each model has not read yet, by sequence numbers, and since when it could have."""
        marks = {
            (relation, given): seq
            for relation, given, seq in connection.execute(
                "select relation, input, seq from ops.model_watermark where input not like 'code:%'"
            )
        }
        logs, relations = [], []
        for (relation, given), seq in marks.items():
            node = project.by_name.get(given)
            if node is None:
                continue
            if node.is_view:
                logs += [(relation, given, *log, seq) for log in node.logs]
            else:
                relations.append((relation, given, node.relation, seq))
        found = []
        if logs:
            found += connection.execute(_UNREAD_LOGS, [list(column) for column in zip(*logs, strict=True)]).fetchall()
        if relations:
            columns = [list(column) for column in zip(*relations, strict=True)]
            found += connection.execute(_UNREAD_CHANGES, columns).fetchall()
        for relation, given, since in found:
            if relation not in self.behind or since < self.behind[relation][1]:
                self.behind[relation] = (given, since)


_TABLES = f"""
select
    declared.source, declared.table_name, read.read_at,
    last.batch_id, last.published_at, last.run_id,
    refused.batch_id as refused_id, refused.verdict as refused_verdict, refused.run_id as refused_run,
    day.rows_read, day.rows_applied,
    coalesce(waiting.open_rows, 0) as open_rows,
    exists (select from ops.batch as any_of where any_of.source = declared.source) as in_use
from unnest(%s::text[], %s::text[]) as declared (source, table_name)
left join ops.table_read as read using (source, table_name)
left join lateral (
    select batch.batch_id, batch.published_at, batch.run_id from ops.batch as batch
    where batch.source = declared.source and batch.table_name = declared.table_name
        and batch.published_seq is not null
    order by batch.published_seq desc limit 1
) as last on true
left join lateral (
    select batch.batch_id, batch.verdict, batch.run_id from ops.batch as batch
    where batch.source = declared.source and batch.table_name = declared.table_name and {STANDS}
    order by batch.batch_id desc limit 1
) as refused on true
left join (
    select
        source, table_name, sum(rows_read)::bigint as rows_read,
        sum(rows_applied + rows_deleted)::bigint as rows_applied
    from ops.batch where published_at > now() - interval '1 day' group by 1, 2
) as day using (source, table_name)
left join (
    select source, table_name, count(*) as open_rows from ops.quarantine where state = 'open' group by 1, 2
) as waiting using (source, table_name)
"""

_MODELS = """
select
    wanted.model, last.committed_at, last.run_id, last.relation, last.state, last.checks, day.inserted, day.deleted
from unnest(%s::text[]) as wanted (model)
inner join lateral (
    select run.* from ops.model_run as run
    where run.model = wanted.model order by run.model_run_id desc limit 1
) as last on true
left join (
    select model, sum(rows_inserted)::bigint as inserted, sum(rows_deleted)::bigint as deleted
    from ops.model_run where committed_at > now() - interval '1 day' group by 1
) as day on day.model = wanted.model
"""

_TREND = """
select
    source || '.' || table_name, current_date - published_at::date,
    sum(rows_applied + rows_deleted)::bigint
from ops.batch
where published_at >= current_date - 30 and state in ('published', 'superseded') group by 1, 2
union all
select model, current_date - committed_at::date, sum(rows_inserted + rows_deleted)::bigint
from ops.model_run where committed_at >= current_date - 30 group by 1, 2
"""

# The latest result of each check that did not pass and was not judged since; and the latest of all, perhaps a pass.
# Freshness is judged here and now; a deadline speaks of a run.
_GATES = """
select
    wanted.relation, found.gate, found.check_name,
    case when found.severity <> 'block' and found.verdict <> 'pass' then 'warn' else found.verdict end,
    found.message, found.run_id
from unnest(%s::text[]) as wanted (relation)
inner join lateral (
    (
        select result.gate, result.check_name, result.severity, result.verdict, result.message, result.run_id
        from ops.gate_result as result
        where result.object = wanted.relation and result.gate not in ('freshness', 'deadline')
        order by result.gate_result_id desc limit 1
    )
    union all
    (
        select result.gate, result.check_name, result.severity, result.verdict, result.message, result.run_id
        from ops.gate_result as result
        where result.object = wanted.relation and result.verdict <> 'pass'
            and result.gate not in ('freshness', 'deadline')
            and not exists (
                select from ops.gate_result as later
                where later.object = result.object and later.gate = result.gate
                    and later.check_name = result.check_name and later.gate_result_id > result.gate_result_id
            )
        order by result.gate_result_id desc limit 20
    )
) as found on true
"""

_UNREAD_LOGS = """
select wanted.relation, wanted.input, unread.since
from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[]) as wanted (
    relation, input, source, table_name, seq
)
inner join lateral (
    select min(batch.published_at) as since from ops.batch as batch
    where batch.source = wanted.source and batch.table_name = wanted.table_name
        and batch.published_seq > wanted.seq and batch.rows_applied + batch.rows_deleted > 0
) as unread on unread.since is not null
"""

_UNREAD_CHANGES = """
select wanted.relation, wanted.input, unread.since
from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) as wanted (relation, input, given, seq)
inner join lateral (
    select min(change.created_at) as since from ops.change as change
    where change.relation = wanted.given and change.seq > wanted.seq
) as unread on unread.since is not null
"""


# -- what it means ------------------------------------------------------------------------------


def _staging(source: Source, table: Table, facts: _Facts) -> Line:
    name, relation = f"{source.source}.{table.name}", f"staging.{table.log_name}"
    known = facts.tables.get((source.source, table.name), {})
    read_at = known.get("read_at")
    age = None if read_at is None else facts.at - read_at
    dag = f"ingest_{source.source}"
    gate = facts.gates.get(relation)
    line = Line(
        layer="staging",
        name=name,
        relation=relation,
        owner=source.owner,
        tone="good",
        state="fresh" if table.freshness else "read",
        objective=_seconds(table.freshness),
        last_publish=known.get("published_at"),
        age=_seconds(age),
        gate=gate and gate.verdict,
        gate_check=gate.check if gate else "",
        rows_in=known.get("rows_read"),
        rows_out=known.get("rows_applied"),
        open_quarantine=known.get("open_rows", 0),
        trend=tuple(facts.trends.get(name, ())),
        place=Place(dag, known.get("run_id")),
        batch_id=known.get("batch_id"),
    )
    if (refused := known.get("refused_id")) is not None:
        return replace(
            line,
            tone="bad",
            state="refused",
            why=f"batch {refused} was refused: {known['refused_verdict'] or 'see its checks'}; staging keeps its rows",
            todo=f"Look at batch {refused}; mend the source or the declaration, then run {dag} again.",
            runbook="batch-refused",
            place=Place(dag, known["refused_run"], f"{table.name}.audit"),
            batch_id=refused,
        )
    if gate and gate.blocks:
        return _blocked(line, gate)
    if read_at is None:
        if known.get("in_use"):
            return replace(
                line,
                tone="bad",
                state="never read",
                why="its source is read, and this table never was",
                todo=f"Look at {dag}: does {table.name}.wait say what it waits for?",
                runbook="table-late",
                place=Place(dag, None, f"{table.name}.wait"),
            )
        return replace(line, tone="idle", state="not in use", why=f"{source.source} was never read", todo=f"Run {dag}.")
    if table.freshness and age is not None and age > table.freshness:
        return replace(
            line,
            tone="bad",
            state="late",
            why=f"last read {_said(age)} ago; promised: {_said(table.freshness)}",
            todo=f"Look at {dag}, or ask {source.owner}.",
            runbook="table-late",
            place=Place(dag, None, f"{table.name}.wait"),
        )
    if line.open_quarantine:
        rows = f"{line.open_quarantine:,} rejected rows wait" if line.open_quarantine > 1 else "1 rejected row waits"
        return replace(
            line,
            tone="warn",
            state="rows wait",
            why=f"{rows} in quarantine: they are not in the marts",
            todo="Mend the declaration or the rows, then replay; or discard them with a reason.",
            runbook="quarantine-old",
        )
    return line


def _blocked(line: Line, gate: _Gate) -> Line:
    dag = line.place.dag_id if gate.gate == "batch" and line.place else "warehouse"
    return replace(
        line,
        tone="bad",
        state="gate failed",
        why=f"{gate.check}: {gate.verdict}" + (f"; {gate.message}" if gate.message else ""),
        todo="Mend the data or the model, then clear the failed task; readers keep the last good rows.",
        runbook="gate-failed",
        place=Place(dag, gate.run_id, _gate_task(gate.gate)),
    )


def _gate_task(gate: str) -> str | None:
    return f"gate_{gate}" if gate in ("staging", *_LAYERS, "intermediate") else None


def _model(node: Node, facts: _Facts) -> Line:
    known, gate = facts.models.get(node.name, {}), facts.gates.get(node.relation)
    built = known.get("committed_at")
    line = Line(
        layer=node.layer,
        name=node.name,
        relation=node.relation,
        owner=node.owner or "warehouse",
        tone="good",
        state="current",
        objective=_seconds(BEHIND),
        last_publish=built,
        age=_seconds(None if built is None else facts.at - built),
        gate=gate and gate.verdict,
        gate_check=gate.check if gate else "",
        rows_in=known.get("inserted"),
        rows_out=known.get("deleted"),
        trend=tuple(facts.trends.get(node.name, ())),
        place=Place("warehouse", known.get("run_id"), f"{node.layer}.{node.name}"),
    )
    if gate and gate.blocks:
        return _blocked(line, gate)
    if built is None:
        return replace(
            line, tone="idle", state="never built", why="no run has built it yet", todo="Run the DAG warehouse."
        )
    given, since = facts.behind.get(node.relation, ("", facts.at))
    waited = facts.at - since
    if given and waited > BEHIND:
        return replace(
            line,
            tone="bad",
            state="behind",
            why=f"has not read what {given} got {_said(waited)} ago: its task failed, or the warehouse does not run",
            todo="Look at the latest run of the DAG warehouse.",
            runbook="model-lagging",
            place=Place("warehouse", None, f"{node.layer}.{node.name}"),
        )
    if given:
        return replace(line, state="catching up", why=f"the next run reads what {given} got {_said(waited)} ago")
    return line


def _with_consequences(staging: list[Line], models: list[Line], project: Project) -> list[Line]:
    """A table that is not good says what is made from it; what is made from a bad one is affected."""
    causes: dict[str, list[str]] = {}  # by name of a model: the tables upstream that are bad
    found = []
    for line in (*staging, *models):
        start = line.name if line.layer == "staging" else project.by_name[line.name].id
        below = [node for node in project.downstream(start) if not node.is_view]
        if line.tone in ("bad", "warn"):
            made = {start, *(node.id for node in below)}
            exposures = [each.label for each in project.exposures if made & set(each.inputs)]
            line = replace(line, affects=(*(node.name for node in below), *exposures))
        if line.tone == "bad":
            for node in below:
                causes.setdefault(node.name, []).append(line.name)
        found.append(line)
    return [_affected(line, causes[line.name]) if line.name in causes else line for line in found]


def _affected(line: Line, causes: list[str]) -> Line:
    if line.tone == "bad":
        return replace(line, upstream=tuple(causes))
    why = f"is made from {', '.join(causes[:3])}" + (f" and {len(causes) - 3} more" if len(causes) > 3 else "")
    return replace(line, tone="warn", state="affected", why=f"{why}: not good", upstream=tuple(causes))


def _source(source: Source, lines: list[Line], facts: _Facts) -> SourceLine:
    own = [line for line in lines if line.layer == "staging" and line.name.startswith(f"{source.source}.")]
    tone = worst(line.tone for line in own)
    bad = [line.name.split(".", 1)[1] for line in own if line.tone == "bad"]
    state, why = (
        {"bad": "not right", "warn": "rows wait", "good": "answers", "idle": "not in use"}[tone],
        ", ".join(bad),
    )
    if is_open := sorted(source.connections & facts.circuits.keys()):
        tone, state = "bad", "left alone"
        until = facts.circuits[is_open[0]]
        why = f"{is_open[0]} failed again and again" + (f"; it is tried again at {until:%H:%M:%S} UTC" if until else "")
    reads = [
        known["read_at"] for (name, _), known in facts.tables.items() if name == source.source and known["read_at"]
    ]
    return SourceLine(
        source.source,
        source.owner,
        tone,
        state,
        why,
        source.schedule,
        len(own),
        max(reads, default=None),
        sum(line.open_quarantine for line in own),
        Place(f"ingest_{source.source}"),
    )


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


def _said(span: timedelta) -> str:
    """A span as a person says it: 26 h, 3 days."""
    minutes = int(span.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 72 * 60 else f"{minutes // 1440} days"
