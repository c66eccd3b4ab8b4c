"""One complete pass through Airflow's own scheduler: every ingest DAG, then the warehouse DAG."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sluice.runtime.airflow_api import DONE_WELL, AirflowApi, Run, Task
from sluice.runtime.faults import RuntimeFault
from sluice.runtime.layout import number

WAREHOUSE_DAG = "warehouse"
OWN_DAGS = frozenset({WAREHOUSE_DAG, "operations", "canary", "rebuild_models"})  # those of no declaration
INGEST = "ingest_"
_PARSED_WITHIN_SECONDS = 180
_ASSET_EVENT_SECONDS = 8.0  # how long the scheduler may take to turn an asset event into a run
_DUE_SECONDS = 5.0  # how long the scheduler may take to start a run that is due
_POLL_SECONDS = 2.0

Note = Callable[[str], None]
Check = Callable[[], None]


@dataclass
class Pass:
    """What happened: every run that anything happened to since `since`, with its tasks."""

    since: datetime
    runs: list[Run] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)  # DAG → why

    def problems(self, task_logs: Path) -> list[str]:
        """One line for each thing that did not succeed; empty is success."""
        found = [
            f"task {task.dag_id}.{task.task_id} is {task.state}: {task_logs / task.log_path()}"
            for task in self.tasks
            if task.state not in DONE_WELL
        ]
        named = {(task.dag_id, task.run_id) for task in self.tasks if task.state not in DONE_WELL}
        return found + [
            f"run {run.run_id} of {run.dag_id} is {run.state}"
            for run in self.runs
            if run.state != "success" and (run.dag_id, run.run_id) not in named
        ]


class Pipeline:
    """Drives Airflow over its API. `check` raises when a component died; `note` shows what goes on."""

    def __init__(self, api: AirflowApi, check: Check, note: Note) -> None:
        self._api = api
        self._check = check
        self._note = note
        self._finished: dict[tuple[str, str], list[Task]] = {}
        self._deadline = time.monotonic() + number("SLUICE_PASS_TIMEOUT", 3600)

    def wait_for_dags(self, expected: set[str], since: datetime) -> list[str]:
        """Wait until the dag-processor has read all of `expected` since `since`; returns the ids of all
        DAGs."""
        deadline = time.monotonic() + _PARSED_WITHIN_SECONDS
        while True:
            self._check()
            if errors := self._api.import_errors():
                raise RuntimeFault(_import_errors(errors))
            parsed = {dag["dag_id"] for dag in self._api.dags() if _parsed_since(dag, since)}
            if not (missing := expected - parsed):
                return sorted(parsed)
            if time.monotonic() > deadline:
                raise RuntimeFault(
                    f"Airflow shows no DAG {', '.join(sorted(missing))} after {_PARSED_WITHIN_SECONDS} "
                    "seconds, and no "
                    "import error either. See the log of the dag-processor, and the files in dags/."
                )
            self._note(f"{len(expected) - len(missing)} of {len(expected)} DAGs read")
            time.sleep(1)

    def check_pools(self, dag_ids: Iterable[str]) -> None:
        """A task in a pool that does not exist would wait for ever without a word."""
        known = self._api.pools()
        for dag_id in dag_ids:
            if unknown := self._api.task_pools(dag_id) - known:
                raise RuntimeFault(
                    f"the DAG {dag_id} uses the pool {', '.join(sorted(unknown))}, which does not exist, "
                    "so its tasks "
                    "would never run. Add it to config/pools.json."
                )

    def run(self, dag_ids: list[str], not_run: dict[str, str]) -> Pass:
        """Unpause everything, ingest, build the warehouse; returns what happened."""
        since = datetime.now(UTC)
        ingests = [dag_id for dag_id in dag_ids if dag_id.startswith(INGEST) and dag_id not in not_run]
        for dag_id in dag_ids:  # what works on the result, or looks at it, waits until there is one
            self._api.set_paused(dag_id, dag_id not in ingests)
        self._start(since, ingests)
        done = self._wait_for_runs(since, ingests, at_least=len(ingests))
        if WAREHOUSE_DAG in dag_ids:
            self._api.set_paused(WAREHOUSE_DAG, False)
            ends = [task.end for run in done for task in self._tasks(run) if task.end]
            self._wait_for_warehouse(since, ingested=max(ends, default=since))
        others = [dag_id for dag_id in dag_ids if dag_id not in {*ingests, WAREHOUSE_DAG, *not_run}]
        for dag_id in others:
            self._api.set_paused(dag_id, False)
        by_hand = {dag["dag_id"] for dag in self._api.dags() if dag["timetable_summary"] in (None, "None")}
        due = [dag_id for dag_id in others if dag_id not in by_hand]  # what only a person starts is theirs to start
        self._start(since, due)
        self._wait_for_runs(since, due, at_least=len(due))
        runs = [run for run in self._api.runs(since=since) if not run.is_active]
        return Pass(since, runs, [task for run in runs for task in self._tasks(run)], dict(not_run))

    def _start(self, since: datetime, dag_ids: list[str]) -> None:
        """See to it that each has a run. One that is due gets it from the scheduler as soon as it is unpaused."""
        ask_at = time.monotonic() + _DUE_SECONDS
        waiting = set(dag_ids)
        while waiting and time.monotonic() < ask_at:
            self._check()
            time.sleep(_POLL_SECONDS / 2)
            waiting -= {run.dag_id for run in self._api.runs(since=since)}
        for dag_id in sorted(waiting):
            self._api.trigger(dag_id)

    def _wait_for_warehouse(self, since: datetime, ingested: datetime) -> None:
        """Wait for a warehouse run that began after the last ingest task ended, and so drains all of it.

        Asset events usually start it. They can be lost, and there is none when nothing changed: then start it
        here.
        """
        ask_at = time.monotonic() + _ASSET_EVENT_SECONDS
        while True:
            runs = self._wait_for_runs(since, [WAREHOUSE_DAG])
            if any(run.start and run.start >= ingested for run in runs):
                return
            if time.monotonic() >= ask_at:
                self._api.trigger(WAREHOUSE_DAG)
                ask_at = float("inf")
            time.sleep(_POLL_SECONDS / 2)

    def _wait_for_runs(self, since: datetime, dag_ids: list[str], at_least: int = 0) -> list[Run]:
        """Wait until no run of `dag_ids` is active and at least so many were seen; returns them."""
        while True:
            self._check()
            runs = [run for run in self._api.runs(since=since) if run.dag_id in dag_ids]
            active = [run for run in runs if run.is_active]
            if not active and len(runs) >= at_least:
                return runs
            self._note(news([task for run in runs for task in self._tasks(run)], active))
            if time.monotonic() > self._deadline:
                raise RuntimeFault(
                    "the pass has taken longer than SLUICE_PASS_TIMEOUT seconds allow; still active: "
                    + ", ".join(f"{run.dag_id} ({run.state})" for run in active)
                )
            time.sleep(_POLL_SECONDS)

    def _tasks(self, run: Run) -> list[Task]:
        """The run's tasks; those of a run that is over are asked for once."""
        key = (run.dag_id, run.run_id)
        if key in self._finished:
            return self._finished[key]
        tasks = self._api.tasks(run)
        if not run.is_active:
            self._finished[key] = tasks
        return tasks


def news(tasks: list[Task], active: list[Run]) -> str:
    """What runs and how far it is, in one line."""
    done = sum(task.is_finished for task in tasks)
    running = [f"{task.dag_id}.{task.task_id}" for task in tasks if task.state == "running"]
    again = [f"{task.dag_id}.{task.task_id}" for task in tasks if task.state == "up_for_retry"]
    waiting = [run.dag_id for run in active if run.state == "queued"]
    parts = [f"{done} of {len(tasks)} tasks done"]
    parts += [f"running {_few(running)}"] if running else []
    parts += [f"to be tried again {_few(again)}"] if again else []
    parts += [f"queued {_few(waiting)}"] if waiting else []
    return "; ".join(parts)


def _few(names: list[str], limit: int = 3) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def _parsed_since(dag: dict, since: datetime) -> bool:
    parsed = dag["last_parsed_time"]
    return bool(parsed) and datetime.fromisoformat(parsed) >= since


def _import_errors(errors: list[dict]) -> str:
    texts = [f"{each['filename']}:\n{each['stack_trace'].strip()}" for each in errors]
    return "Airflow could not load these DAG files; nothing was run.\n" + "\n".join(texts)
