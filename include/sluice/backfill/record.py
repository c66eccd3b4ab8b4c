"""`ops.backfill`: one row per backfill that a person asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg


@dataclass(frozen=True)
class Asked:
    """What was asked, and by whom. `engine_id` is Airflow's number of its backfill, which an Airflow whose database was
    made anew, or restored, gives a second time."""

    dag_id: str
    engine_id: int
    range_start: datetime
    range_end: datetime
    intervals: int
    reprocess: str
    asked_by: str
    reason: str | None = None
    plan: str | None = None
    asked_at: datetime | None = None  # now


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
    forget(connection, asked.engine_id)  # its number went to this one
    row = connection.execute(
        """
        insert into ops.backfill (
            dag_id, engine_id, range_start, range_end, intervals, reprocess, asked_by, reason, plan, asked_at
        ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp())) returning backfill_id
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
            asked.asked_at,
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
        with latest as (
            select * from ops.backfill where engine_id = %(engine_id)s order by backfill_id desc limit 1
        ),

        applied as (
            select coalesce(sum(batch.rows_applied), 0)::bigint as applied,
                coalesce(sum(batch.rows_deleted), 0)::bigint as deleted
            from ops.batch
            inner join latest on true
            where batch.run_id = any(%(runs)s) and batch.published_at >= latest.asked_at
        )

        update ops.backfill
        set state = %(state)s, runs_succeeded = %(succeeded)s, runs_failed = %(failed)s,
            rows_applied = applied.applied, rows_deleted = applied.deleted,
            finished_at = coalesce(finished_at, clock_timestamp())
        from applied
        where backfill_id = (select backfill_id from latest)
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


def forget(connection: psycopg.Connection, engine_id: int) -> None:
    """Write down that Airflow knows no run of it any more: what it came to can't be told. The caller commits."""
    connection.execute(
        "update ops.backfill set state = 'forgotten', finished_at = clock_timestamp()"
        " where engine_id = %s and state = 'running'",
        [engine_id],
    )


def open_records(connection: psycopg.Connection) -> list[tuple[int, str, datetime]]:
    """Airflow's number, DAG and start of the backfills whose end is not written down yet."""
    return connection.execute(
        "select engine_id, dag_id, range_start from ops.backfill where state = 'running' order by 1"
    ).fetchall()


def is_recorded(connection: psycopg.Connection, engine_id: int, dag_id: str, range_start: datetime) -> bool:
    """Whether this backfill of Airflow's has a row."""
    row = connection.execute(
        "select 1 from ops.backfill where (engine_id, dag_id, range_start) = (%s, %s, %s)",
        [engine_id, dag_id, range_start],
    ).fetchone()
    return row is not None


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
