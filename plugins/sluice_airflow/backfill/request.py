"""What was asked for: the options, or a plan, as one value per backfill."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

_NO_EFFECT = {
    "verbose": "--verbose has no effect: the logs of the tasks are in the web UI",
    "local": "--local has no effect: the scheduler runs the tasks, with its own executor",
    "donot_pickle": "--donot-pickle has no effect: Airflow 3 does not pickle DAGs",
    "subdir": "--subdir has no effect: the DAG is read from Airflow's database, as the scheduler knows it",
    "delay_on_limit": "--delay-on-limit has no effect: the scheduler waits for a free slot by itself",
    "continue_on_failures": "--continue-on-failures has no effect: a failed run never stops the others",
}
_REFUSED = {
    "ignore_dependencies": "--ignore-dependencies is gone. To run single tasks of past runs again: --task-regex",
    "ignore_first_depends_on_past": "--ignore-first-depends-on-past is gone: a first run has no past to wait for",
    "mark_success": "--mark-success is gone. Mark runs in the web UI, or PATCH /api/v2/dags/{dag}/dagRuns/{run}",
    "pool": "--pool is gone. A task's pool is in the DAG; `airflow pools set` changes how much of it there is",
    "disable_retry": "--disable-retry is gone. Retries are in the DAG; mark a run as failed in the web UI to stop it",
}
# What a reviewed plan says, or would have to.
_IN_A_PLAN = {
    "dag_id": "the DAG",
    "start_date": "--start-date",
    "end_date": "--end-date",
    "reset_dagruns": "--reset-dagruns",
    "rerun_failed_tasks": "--rerun-failed-tasks",
    "run_backwards": "--run-backwards",
    "conf": "--conf",
    "max_active_runs": "--max-active-runs",
    "reason": "--reason",
    "task_regex": "--task-regex",
    "treat_dag_id_as_regex": "--treat-dag-id-as-regex",
}
_NOT_FOR_TASKS = {
    "run_backwards": "--run-backwards",
    "conf": "--conf",
    "max_active_runs": "--max-active-runs",
    "detach": "--detach",
    "reason": "--reason",
}


class Misuse(Exception):
    """The command was called in a way that has no meaning. The text says what to write instead."""


@dataclass(frozen=True)
class Request:
    """One backfill to make."""

    dag_id: str
    start: datetime
    end: datetime
    reprocess: str = "none"
    backwards: bool = False
    conf: dict[str, Any] | None = None
    max_active_runs: int = 3
    reason: str | None = None
    plan: str | None = None
    rehearsed: str | None = None  # what a plan says that its rehearsal found


def requests_of(args: Namespace) -> list[Request]:
    """The backfills that a command line means. Raises `Misuse` for what has no meaning; says what has no effect."""
    for name, sentence in _REFUSED.items():
        if getattr(args, name):
            raise Misuse(sentence)
    for name, sentence in _NO_EFFECT.items():
        if getattr(args, name):
            print(f"note: {sentence}")
    if args.task_regex:
        for name, flag in _NOT_FOR_TASKS.items():
            if getattr(args, name):
                print(f"note: {flag} has no effect with --task-regex: tasks are cleared, and no backfill is made")
    return _requests(args)


def _requests(args: Namespace) -> list[Request]:
    if args.plan:
        given = [flag for name, flag in _IN_A_PLAN.items() if getattr(args, name)]
        if given:
            raise Misuse(f"the plan was reviewed and says all; leave out of the command: {', '.join(given)}")
        return [_planned(Path(args.plan))]
    if not args.dag_id:
        raise Misuse("name the DAG: airflow dags backfill <dag> -s 2026-01-01 -e 2026-01-31")
    if not (args.start_date or args.end_date):
        raise Misuse("give a range: -s 2026-01-01 -e 2026-01-31 (one of the two alone means that day)")
    if args.reset_dagruns and args.rerun_failed_tasks:
        raise Misuse(
            "--reset-dagruns runs every interval again, --rerun-failed-tasks only failed ones: give one of them"
        )
    request = Request(
        dag_id=args.dag_id,
        start=_instant(args.start_date or args.end_date, "--start-date"),
        end=_instant(args.end_date or args.start_date, "--end-date", is_end=True),
        reprocess="completed" if args.reset_dagruns else "failed" if args.rerun_failed_tasks else "none",
        backwards=args.run_backwards,
        conf=_conf(args.conf),
        max_active_runs=args.max_active_runs or 3,
        reason=args.reason,
    )
    if request.start > request.end:
        raise Misuse(f"--start-date {args.start_date} is after --end-date {args.end_date}")
    return [replace(request, dag_id=dag_id) for dag_id in _dags(args)]


def _planned(path: Path) -> Request:
    from sluice.backfill import PlanError, load_plan

    try:
        plan = load_plan(path)
    except PlanError as error:
        raise Misuse(f"{error}") from None
    return Request(
        dag_id=plan.dag,
        start=plan.start,
        end=plan.end,
        reprocess=plan.reprocess,
        backwards=plan.run_backwards,
        conf=plan.conf or None,
        max_active_runs=plan.max_active_runs,
        reason=plan.reason,
        plan=str(path),
        rehearsed=plan.rehearsed,
    )


def _instant(text: str, name: str, *, is_end: bool = False) -> datetime:
    from sluice.backfill.plan import instant

    try:
        return instant(text, is_end=is_end)
    except ValueError as error:
        raise Misuse(f"{name} {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is none of its values")  # Python would take NaN and Infinity; no database does


def _conf(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        conf = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise Misuse(f"--conf is not JSON: {error}") from None
    if not isinstance(conf, dict):
        raise Misuse("--conf must be a JSON object, such as '{\"name\": 1}'")
    return conf


def _dags(args: Namespace) -> list[str]:
    """The DAGs meant: the one named, or every active one whose whole id matches."""
    from airflow.models import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        known = sorted(session.scalars(select(DagModel.dag_id).where(DagModel.is_stale.is_(False))))
    if not args.treat_dag_id_as_regex:
        if args.dag_id not in known:
            raise Misuse(f"Airflow knows no DAG {args.dag_id}. It knows: {', '.join(known) or 'none'}")
        return [args.dag_id]
    try:
        found = [dag_id for dag_id in known if re.fullmatch(args.dag_id, dag_id)]
    except re.error as error:
        raise Misuse(f"{args.dag_id!r} is not a regular expression: {error}") from None
    if not found:
        raise Misuse(f"no DAG matches {args.dag_id!r}. Airflow knows: {', '.join(known) or 'none'}")
    return found
