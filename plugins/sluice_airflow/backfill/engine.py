"""Airflow's own backfill, as few of its functions as will do: rehearse, create, look at the runs, clear tasks.

They are private to Airflow (`airflow.models.backfill`), and have no public counterpart outside its REST API; the
version is pinned, and `tests/dags/test_backfill_command.py` fails when one of them moves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

from sluice.backfill import Asked
from sluice.errors import SluiceError
from sluice_airflow.backfill.request import Misuse, Request

ENDED = ("success", "failed")
POLL = 2.0  # seconds
_CLOSES_WITHIN = 60.0  # seconds; the scheduler closes a finished backfill up to half a minute later


class Planned(NamedTuple):
    """A run that Airflow would make: its logical date, and the interval that it reads."""

    when: datetime
    interval: tuple[datetime, datetime] | None


def rehearse(request: Request) -> list[Planned]:
    """The runs that Airflow would make. Raises `Misuse` where some lie before the DAG's start, for
    which Airflow would make runs that have nothing to read: 46,000 for a year that was mistyped as 1900."""
    from airflow.models.backfill import ReprocessBehavior, _do_dry_run
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    with create_session() as session, _engine_errors(request.dag_id):
        dag = SerializedDagModel.get_dag(request.dag_id, session=session)
        if dag is not None and dag.start_date and dag.timetable.periodic:
            earliest = next(iter(dag.iter_dagrun_infos_between(request.start, request.end)), None)
            if earliest is not None and (earliest.logical_date or dag.start_date) < dag.start_date:
                raise Misuse(
                    f"{request.dag_id} begins on {dag.start_date:%Y-%m-%d %H:%M} UTC, and that range before; nothing "
                    "was run"
                )
        infos = list(
            _do_dry_run(
                dag_id=request.dag_id,
                from_date=request.start,
                to_date=request.end,
                reverse=request.backwards,
                reprocess_behavior=ReprocessBehavior(request.reprocess),
                dag_run_conf=request.conf,
                session=session,
            )
        )
    return [
        Planned(info.logical_date or info.partition_date, info.data_interval and tuple(info.data_interval))
        for info in infos
    ]


def create(request: Request) -> int:
    """Make the backfill, and return Airflow's number of it. Waits for the scheduler to close one that has ended."""
    _quiet()
    from airflow.models.backfill import AlreadyRunningBackfill, ReprocessBehavior, _create_backfill

    deadline = time.monotonic() + _CLOSES_WITHIN
    while True:
        try:
            with _engine_errors(request.dag_id):
                made = _create_backfill(
                    dag_id=request.dag_id,
                    from_date=request.start,
                    to_date=request.end,
                    max_active_runs=request.max_active_runs,
                    reverse=request.backwards,
                    dag_run_conf=request.conf,
                    triggering_user_name=user(),
                    reprocess_behavior=ReprocessBehavior(request.reprocess),
                    run_on_latest_version=True,
                )
                return int(made.id)
        except AlreadyRunningBackfill:
            active, unfinished = _active(request.dag_id)
            if unfinished or time.monotonic() > deadline:
                raise SluiceError(
                    f"backfill {active} of {request.dag_id} is still at work ({unfinished} runs left), and Airflow "
                    "allows one at a time; nothing was made. Wait for it, or cancel it in the web UI"
                ) from None
            time.sleep(POLL)  # it has ended; the scheduler closes it within half a minute


def _quiet() -> None:
    """Airflow logs two lines for each run it makes; for ninety of them the progress would be out of sight."""
    with suppress(ImportError, AttributeError):
        from airflow._shared.logging.structlog import PER_LOGGER_LEVELS

        for name in ("airflow.models.backfill", "airflow.serialization.definitions.dag"):
            PER_LOGGER_LEVELS[name] = logging.WARNING


def _active(dag_id: str) -> tuple[int | None, int]:
    """The backfill that Airflow holds open, and how many of its runs have not ended."""
    from airflow.models.backfill import Backfill
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(Backfill.id).where(Backfill.dag_id == dag_id, Backfill.completed_at.is_(None))
        active = session.scalar(query)
    return active, sum(state not in ENDED for _, state in runs(active)) if active else 0


def runs(engine_id: int) -> list[tuple[str, str]]:
    """(run id, state) of a backfill's runs, in its order."""
    from airflow.models import DagRun
    from airflow.models.backfill import BackfillDagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = (
        select(DagRun.run_id, DagRun._state)
        .join(BackfillDagRun, BackfillDagRun.dag_run_id == DagRun.id)
        .where(BackfillDagRun.backfill_id == engine_id)
        .order_by(BackfillDagRun.sort_ordinal)
    )
    with create_session() as session:
        return [(run_id, str(state)) for run_id, state in session.execute(query)]


def known() -> list[Asked]:
    """Every backfill that Airflow knows, whoever made it, as the ledger has it; the earliest first."""
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    intervals = select(func.count()).where(BackfillDagRun.backfill_id == Backfill.id).scalar_subquery()
    with create_session() as session:
        return [
            Asked(
                dag_id=made.dag_id,
                engine_id=made.id,
                range_start=made.from_date,
                range_end=made.to_date,
                intervals=count,
                reprocess=str(made.reprocess_behavior),
                asked_by=made.triggering_user_name or "unknown",
                asked_at=made.created_at,
            )
            for made, count in session.execute(select(Backfill, intervals).order_by(Backfill.id))
        ]


def is_open(engine_id: int) -> bool:
    """Whether Airflow has not closed it: for its first moments it has no runs yet."""
    from airflow.models.backfill import Backfill
    from airflow.utils.session import create_session

    with create_session() as session:
        made = session.get(Backfill, engine_id)
        return made is not None and made.completed_at is None


def refuse_if_paused(dag_id: str) -> None:
    """A backfill of a paused DAG would be made, and never begin."""
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        model = session.get(DagModel, dag_id)
        if model is not None and model.is_paused:
            raise Misuse(
                f"{dag_id} is paused, so that none of its runs would begin. First: airflow dags unpause {dag_id}"
            )


def user() -> str | None:
    """Who asks: the user of this machine."""
    from airflow.exceptions import AirflowConfigException
    from airflow.utils.platform import getuser

    try:
        return getuser()
    except AirflowConfigException:
        return None


@contextmanager
def _engine_errors(dag_id: str) -> Iterator[None]:
    """Airflow's own refusals, as sentences."""
    from airflow.exceptions import DagNotFound, DagRunTypeNotAllowed
    from airflow.models import backfill as engine

    try:
        yield
    except (engine.DagNonPeriodicScheduleException, DagRunTypeNotAllowed):
        if dag_id.startswith("ingest_"):
            source = dag_id.removeprefix("ingest_")
            raise Misuse(
                f"{dag_id} runs when {source} announces something, or by hand: Airflow knows no intervals of it. "
                f"Its past is read again by: sluice load {source} --from 2026-01-01 --to 2026-01-31"
            ) from None
        raise Misuse(
            f"{dag_id} reads everything that is there in each run, so that it has no past to run. Backfill the DAGs "
            "of the sources (ingest_<source>); it catches up by itself"
        ) from None
    except engine.NoBackfillRunsToCreate:
        raise Misuse(f"{dag_id} has no interval in that range") from None
    except (
        engine.InvalidBackfillDate,
        engine.InvalidBackfillDateRange,
        engine.InvalidBackfillDirection,
        engine.InvalidReprocessBehavior,
        engine.InvalidBackfillConf,
    ) as error:
        raise Misuse(f"{error}") from None
    except DagNotFound:
        raise Misuse(f"Airflow knows no DAG {dag_id}; those that it knows: airflow dags list") from None
