"""`ops.backfill`: one row per backfill that a person asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg


@dataclass(frozen=True)
class Asked:
    """What was asked, and by whom. `engine_id` is the number that Airflow gave its backfill."""

    dag_id: str
    engine_id: int
    range_start: datetime
    range_end: datetime
    intervals: int
    reprocess: str
    asked_by: str
    reason: str | None = None
    plan: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a backfill came to. Rows are those that its runs applied and deleted in staging."""

    state: str
    runs_succeeded: int
    runs_failed: int
    rows_applied: int
    rows_deleted: int


def start(connection: psycopg.Connection, asked: Asked) -> int:
    """Write down a backfill that has begun. Returns its number in the ledger."""
    row = connection.execute(
        """
        insert into ops.backfill (
            dag_id, engine_id, range_start, range_end, intervals, reprocess, asked_by, reason, plan
        ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s) returning backfill_id
        """,
        [
            asked.dag_id,
            asked.engine_id,
            asked.range_start,
            asked.range_end,
            asked.intervals,
            asked.reprocess,
            asked.asked_by,
            asked.reason,
            asked.plan,
        ],
    ).fetchone()
    connection.commit()
    assert row is not None
    return int(row[0])


def finish(connection: psycopg.Connection, engine_id: int, succeeded: Sequence[str], failed: Sequence[str]) -> Outcome:
    """Write down what became of it; `succeeded` and `failed` are run ids. Asked again, it says the same."""
    state = "failed" if failed else "success"
    row = connection.execute(
        """
        with applied as (
            select coalesce(sum(batch.rows_applied), 0)::bigint as applied,
                coalesce(sum(batch.rows_deleted), 0)::bigint as deleted
            from ops.batch
            inner join ops.backfill as asked on asked.engine_id = %(engine_id)s
            where batch.run_id = any(%(runs)s) and batch.published_at >= asked.asked_at
        )

        update ops.backfill
        set state = %(state)s, runs_succeeded = %(succeeded)s, runs_failed = %(failed)s,
            rows_applied = applied.applied, rows_deleted = applied.deleted,
            finished_at = coalesce(finished_at, clock_timestamp())
        from applied
        where engine_id = %(engine_id)s
        returning applied.applied, applied.deleted
        """,
        {
            "engine_id": engine_id,
            "runs": [*succeeded, *failed],
            "state": state,
            "succeeded": len(succeeded),
            "failed": len(failed),
        },
    ).fetchone()
    connection.commit()
    applied, deleted = row if row else (0, 0)
    return Outcome(state, len(succeeded), len(failed), applied, deleted)


def open_records(connection: psycopg.Connection) -> list[int]:
    """Airflow's numbers of the backfills whose end is not written down yet."""
    rows = connection.execute("select engine_id from ops.backfill where state = 'running' order by 1").fetchall()
    return [engine_id for (engine_id,) in rows]


def records(connection: psycopg.Connection, limit: int = 30) -> list[tuple]:
    """The latest backfills: number, DAG, range, intervals, state, runs, rows, who, when, why."""
    return connection.execute(
        """
        select backfill_id, dag_id, range_start, range_end, intervals, reprocess, state, runs_succeeded, runs_failed,
            rows_applied, rows_deleted, asked_by, asked_at, finished_at, reason
        from ops.backfill order by backfill_id desc limit %s
        """,
        [limit],
    ).fetchall()
