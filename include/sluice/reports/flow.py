"""Where did the rows go? The books of a batch, hop by hop, to the models that read it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from sluice.errors import SluiceError
from sluice.loading.batch import STATES
from sluice.reports.project import Project
from sluice.warehouse import reading


@dataclass(frozen=True)
class Books:
    """What became of rows that were read. Always `read = applied + unchanged + duplicate + quarantined + late`.

    `deleted` stands beside them: keys that vanished at the source, written as tombstones.
    """

    read: int = 0
    applied: int = 0
    unchanged: int = 0
    duplicate: int = 0
    quarantined: int = 0
    late: int = 0
    deleted: int = 0

    @property
    def parts(self) -> list[tuple[str, int]]:
        """The five places that a row can go to."""
        return [(name, getattr(self, name)) for name in ("applied", "unchanged", "duplicate", "quarantined", "late")]

    @property
    def missing(self) -> int:
        """Rows that were read and are nowhere; 0 in books that add up."""
        return self.read - sum(rows for _, rows in self.parts)


@dataclass(frozen=True)
class BatchLine:
    """A batch in a list."""

    batch_id: int
    source: str
    table_name: str
    unit: str
    state: str
    part: str
    started_at: datetime
    published_at: datetime | None
    run_id: str
    verdict: str | None
    books: Books


@dataclass(frozen=True)
class Checked:
    """One check of a batch and its verdict."""

    check: str
    severity: str
    verdict: str
    observed: str | None
    bound: str | None
    failing_rows: int | None
    message: str | None


@dataclass(frozen=True)
class Reasoned:
    """Rejected rows of a batch, by code and state."""

    code: str
    column: str | None
    reason: str
    state: str
    rows: int


@dataclass(frozen=True)
class Hop:
    """A model's first run after the batch was published: what it wrote then, from all its inputs."""

    model: str
    layer: str
    run_id: str | None
    committed_at: datetime | None
    state: str
    inserted: int | None
    deleted: int | None


@dataclass(frozen=True)
class Batch:
    """One batch, what was decided about it, and where its rows went."""

    line: BatchLine
    mode: str
    effective_at: datetime | None
    landed_at: datetime | None
    audited_at: datetime | None
    published_seq: int | None
    superseded_by: int | None
    replay_of: int | None
    replays: tuple[int, ...]
    bytes_read: int | None
    wal_bytes: int | None
    seconds: float | None
    approved_by: str | None
    approved_reason: str | None
    landed_rows: int | None
    checks: tuple[Checked, ...]
    rejected: tuple[Reasoned, ...]
    events: tuple[str, ...]
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class Wanted:
    """Which batches. Each field that is given narrows; `before` is the batch id at which the next page begins."""

    source: str = ""
    table: str = ""
    state: str = ""
    day: date | None = None
    before: int | None = None
    sources: Collection[str] | None = None  # only these, where not all may be seen

    def __post_init__(self) -> None:
        if self.state and self.state not in STATES:
            raise SluiceError(f"{self.state} is not a state of a batch; those are {', '.join(STATES)}")


_BOOKS = "rows_read, rows_applied, rows_unchanged, rows_duplicate, rows_quarantined, rows_late, rows_deleted"


def batches(wanted: Wanted, *, limit: int = 50) -> list[BatchLine]:
    """The latest batches first."""
    conditions, parameters = _conditions(wanted)
    with reading() as connection:
        rows = connection.execute(
            f"""
            select batch_id, source, table_name, unit, state, part, started_at, published_at, run_id, verdict, {_BOOKS}
            from ops.batch where {conditions} order by batch_id desc limit %(limit)s
            """,
            parameters | {"limit": limit},
        ).fetchall()
    return [BatchLine(*row[:10], Books(*row[10:])) for row in rows]


def totals(source: str, table: str, *, days: int = 30) -> Books:
    """The books of a table over all batches that were published in the last `days` days."""
    sums = ", ".join(f"coalesce(sum({name.strip()}), 0)::bigint" for name in _BOOKS.split(","))
    with reading() as connection:
        row = connection.execute(
            f"""
            select {sums} from ops.batch
            where source = %s and table_name = %s and published_seq is not null
                and published_at >= clock_timestamp() - make_interval(days => %s)
            """,
            [source, table, days],
        ).fetchone()
    return Books(*row)  # type: ignore[misc]


def _conditions(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """Texts of our own; the values are parameters."""
    given = {
        "source = %(source)s": wanted.source,
        "table_name = %(table)s": wanted.table,
        "state = %(state)s": wanted.state,
        "started_at >= %(day)s and started_at < %(day)s::date + 1": wanted.day,
        "batch_id < %(before)s": wanted.before,
    }
    used = [text for text, value in given.items() if value not in ("", None)]
    parameters: dict[str, Any] = {
        "source": wanted.source, "table": wanted.table, "state": wanted.state, "day": wanted.day,
        "before": wanted.before,
    }  # fmt: skip
    if wanted.sources is not None:
        used.append("source = any(%(sources)s)")
        parameters["sources"] = list(wanted.sources)
    return " and ".join(used) or "true", parameters


def batch(batch_id: int, project: Project) -> Batch:
    """One batch with all that is known of it. Raises `SluiceError` where there is none of this number."""
    with reading() as connection:
        row = connection.execute(
            f"""
            select batch_id, source, table_name, unit, state, part, started_at, published_at, run_id, verdict, {_BOOKS},
                mode, effective_at, landed_at, audited_at, published_seq, superseded_by, replay_of, bytes_read,
                wal_bytes, seconds, approved_by, approved_reason, (details ->> 'text_rows')::bigint
                + coalesce((details ->> 'typed_rows')::bigint, 0)
            from ops.batch where batch_id = %s
            """,
            [batch_id],
        ).fetchone()
        if row is None:
            raise SluiceError(f"there is no batch {batch_id}; `sluice batch list` names those there are")
        line, rest = BatchLine(*row[:10], Books(*row[10:17])), row[17:]
        replays = connection.execute("select batch_id from ops.batch where replay_of = %s order by 1", [batch_id])
        replayed = tuple(found for (found,) in replays)
        return Batch(
            line=line,
            mode=rest[0],
            effective_at=rest[1],
            landed_at=rest[2],
            audited_at=rest[3],
            published_seq=rest[4],
            superseded_by=rest[5],
            replay_of=rest[6],
            replays=replayed,
            bytes_read=rest[7],
            wal_bytes=rest[8],
            seconds=rest[9],
            approved_by=rest[10],
            approved_reason=rest[11],
            landed_rows=rest[12],
            checks=tuple(_rows(connection, Checked, _CHECKS, batch_id)),
            rejected=tuple(_rows(connection, Reasoned, _REJECTED, batch_id)),
            events=tuple(text for (text,) in connection.execute(_EVENTS, [batch_id]).fetchall()),
            hops=_hops(connection, line, project),
        )


_CHECKS = """
select check_name as check, severity, verdict, observed, bound, failing_rows, message
from ops.gate_result where batch_id = %s order by gate_result_id
"""
_REJECTED = """
select code, column_name as column, reason, state, count(*) as rows
from ops.quarantine where batch_id = %s group by 1, 2, 3, 4 order by rows desc, 1, 2, 3, 4 limit 50
"""
_EVENTS = "select kind || ': ' || message from ops.schema_event where batch_id = %s order by schema_event_id limit 50"


def _rows(connection: psycopg.Connection, kind: type, query: str, batch_id: int) -> list[Any]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, [batch_id]).fetchall()


def _hops(connection: psycopg.Connection, line: BatchLine, project: Project) -> tuple[Hop, ...]:
    """Each model below the log, in the order in which they are built."""
    below = {node.id for node in project.downstream(f"{line.source}.{line.table_name}")}
    models = [node for node in project.nodes.values() if node.id in below and not node.is_view]
    if not models or line.published_at is None or line.books.applied + line.books.deleted == 0:
        return ()
    found = {
        row[0]: row[1:]
        for row in connection.execute(
            """
            select wanted.model, first.run_id, first.committed_at, first.state, first.rows_inserted, first.rows_deleted
            from unnest(%s::text[]) as wanted (model)
            inner join lateral (
                select * from ops.model_run as run
                where run.model = wanted.model and run.committed_at >= %s and run.started_at >= %s
                order by run.committed_at limit 1
            ) as first on true
            """,
            [[node.name for node in models], line.published_at, line.published_at],
        )
    }
    waiting = (None, None, "has not run since", None, None)
    return tuple(Hop(node.name, node.layer, *found.get(node.name, waiting)) for node in models)
