"""`ops.backfill`: one row per backfill that a person asked for, with Airflow or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from sluice import warehouse

_ALIVE = "sluice:backfill:"  # the lock that a process holds while it reads by itself
_FORGET = (
    "update ops.backfill set state = 'forgotten', finished_at = clock_timestamp()"
    " where engine_id = %s and state = 'running'"
)
_END = """
update ops.backfill
set state = case when %(failed)s > 0 then 'failed' else 'success' end,
    runs_succeeded = %(succeeded)s, runs_failed = %(failed)s, finished_at = clock_timestamp(),
    (rows_applied, rows_deleted) = (
        -- of the units that were read; what was asserted once more in later ones is no news
        select coalesce(sum(rows_applied), 0), coalesce(sum(rows_deleted), 0)
        from ops.batch where batch.run_id = backfill.run_id and part = 'unit'
    )
"""


@dataclass(frozen=True)
class Asked:
    """What was asked, and by whom. `engine_id` is Airflow's number of its backfill, which an Airflow whose database was
    made anew, or restored, gives a second time; None without Airflow, where `run_id` names the batches, and `dag_id` is
    the command."""

    dag_id: str
    engine_id: int | None
    range_start: datetime
    range_end: datetime
    intervals: int
    reprocess: str
    asked_by: str
    reason: str | None = None
    plan: str | None = None
    rehearsed: str | None = None  # of a plan that says it: the fingerprint of what its rehearsal found
    run_id: str | None = None
    asked_at: datetime | None = None  # now


@dataclass(frozen=True)
class Outcome:
    """What a backfill came to. Rows are those that its runs applied and deleted in staging, of the units they read."""

    state: str
    runs_succeeded: int
    runs_failed: int
    rows_applied: int
    rows_deleted: int


def start(connection: psycopg.Connection, asked: Asked) -> int:
    """Write down a backfill that has begun. Returns its number in the ledger. Of two that write down the same, the
    second adds what only it knows: the command its reason, the scheduler nothing."""
    connection.execute(  # its number went to this one
        _FORGET + " and (dag_id, range_start) <> (%s, %s)", [asked.engine_id, asked.dag_id, asked.range_start]
    )
    number = _enter(connection, asked)
    connection.commit()
    return number


def _enter(connection: psycopg.Connection, asked: Asked) -> int:
    row = connection.execute(
        """
        insert into ops.backfill as known (
            dag_id, engine_id, run_id, range_start, range_end, intervals, reprocess, asked_by, reason, plan, rehearsed,
            asked_at
        ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))
        on conflict (engine_id) where state = 'running' do update
        set intervals = greatest(excluded.intervals, known.intervals),
            reason = coalesce(excluded.reason, known.reason), plan = coalesce(excluded.plan, known.plan),
            rehearsed = coalesce(excluded.rehearsed, known.rehearsed)
        returning backfill_id
        """,
        [
            asked.dag_id,
            asked.engine_id,
            asked.run_id,
            asked.range_start,
            asked.range_end,
            asked.intervals,
            asked.reprocess,
            asked.asked_by,
            asked.reason,
            asked.plan,
            asked.rehearsed,
            asked.asked_at,
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


@dataclass
class Tally:
    """How many of its parts succeeded and failed so far."""

    succeeded: int = 0
    failed: int = 0


@contextmanager
def without_airflow(asked: Asked) -> Iterator[Tally]:
    """The record of past intervals that this process reads by itself, as the run `asked.run_id`: from when it begins to
    how it ended, also by an error or Ctrl-C. If it is killed, `end_lost` says so."""
    with warehouse.connect() as alive:
        end_lost(alive)
        number = _enter(alive, asked)
        alive.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [f"{_ALIVE}{number}"])
        alive.commit()
        tally = Tally()
        try:
            yield tally
        except BaseException:
            tally.failed += 1
            raise
        finally:
            with warehouse.connect() as connection:  # the other was idle for hours, perhaps
                connection.execute(
                    _END + " where backfill_id = %(number)s",
                    {"number": number, "succeeded": tally.succeeded, "failed": tally.failed},
                )


def end_lost(connection: psycopg.Connection) -> None:
    """Write down the end of those whose process is gone without a word. The caller commits."""
    connection.execute(
        _END + " where state = 'running' and engine_id is null"
        " and pg_try_advisory_xact_lock(hashtextextended(%(alive)s || backfill_id, 0))",
        {"alive": _ALIVE, "succeeded": 0, "failed": 1},
    )


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
            where batch.run_id = any(%(runs)s) and part = 'unit' and batch.published_at >= latest.asked_at
        )

        update ops.backfill
        set state = %(state)s, runs_succeeded = %(succeeded)s, runs_failed = %(failed)s,
            rows_applied = applied.applied, rows_deleted = applied.deleted,
            intervals = greatest(intervals, %(succeeded)s + %(failed)s), -- it had none yet when it was found
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
    connection.execute(_FORGET, [engine_id])


def open_records(connection: psycopg.Connection) -> list[tuple[int, str, datetime]]:
    """Airflow's number, DAG and start of the backfills whose end is not written down yet."""
    return connection.execute(
        "select engine_id, dag_id, range_start from ops.backfill"
        " where state = 'running' and engine_id is not null order by 1"
    ).fetchall()


def recorded(connection: psycopg.Connection) -> set[tuple[int, str, datetime]]:
    """Airflow's number, DAG and start of every backfill of its that has a row."""
    return set(
        connection.execute(
            "select engine_id, dag_id, range_start from ops.backfill where engine_id is not null"
        ).fetchall()
    )


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
