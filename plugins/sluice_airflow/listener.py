"""Hears of every task that failed for good, whichever DAG it is of, and opens its incident. Hears of every run that
ended, too: it may be the last of a backfill."""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl
from airflow.sdk.exceptions import AirflowFailException

log = logging.getLogger("sluice.alerts")


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """Runs in the task's own process, which it must not fail again. A try that is followed by another is no failure."""
    if not isinstance(error, AirflowFailException) and task_instance.try_number <= (task_instance.max_tries or 0):
        return
    try:
        _tell(task_instance, error)
    except Exception as problem:
        log.warning("no incident was opened: %s", type(problem).__name__)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Runs in the scheduler, which it must not hold up."""
    _settle()


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """As above."""
    _settle()


def _settle() -> None:
    from sluice_airflow.backfill.settle import settle_soon

    settle_soon()


def _tell(task: Any, error: Any) -> None:
    import psycopg

    from sluice import settings
    from sluice.alerts import Cause, open_incident
    from sluice_airflow.connections import use_airflow_connections

    told = getattr(error, "sluice_kind", "task_failed")
    if told is None:
        return  # the ledger says it, and the watcher reads that: a refused batch, an open circuit
    is_ours = hasattr(error, "sluice_kind")
    source = task.dag_id.removeprefix("ingest_") if task.dag_id.startswith("ingest_") else None
    cause = Cause(
        told,
        f"{task.dag_id}/{task.task_id}",
        f"{task.dag_id} {task.task_id} failed",
        # Another's error may quote a row: its kind is enough here, its text is in the log.
        str(error) if is_ours else f"{type(error).__name__}; what it says is in the log",
        owner=getattr(task.task, "owner", "") or "",
        source=source,
        job=task.dag_id,
        step=task.task_id,
        run_id=task.run_id,
        log_url=task.log_url,
    )
    use_airflow_connections()
    with psycopg.connect(settings.warehouse_url(), connect_timeout=5) as connection:
        connection.execute("set statement_timeout = '10s'")
        open_incident(connection, cause)
