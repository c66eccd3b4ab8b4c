"""What Airflow and Cosmos cost beside dbt: the `warehouse` DAG and a bare `dbt build`, in turn, on the same
warehouse.

    make bench-orchestration

Starts a stack of its own (PostgreSQL, the demo shop, Airflow) with its state in
`.sluice/benchmarks/orchestration`, fills it by one pass, then runs both several times. Nothing new is
published in between, so both do the same: visit every model and find nothing to change. `dbt build` also
runs every test; in the DAG a model's tests belong to its transaction. The last line is `orchestration:
ratio=<dag run / dbt build> per_task=<seconds>`, medians over the rounds; per_task is the DAG's seconds
divided by its tasks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sluice import settings
from sluice.runtime.airflow import AirflowStack
from sluice.runtime.airflow_api import AirflowApi
from sluice.runtime.layout import Layout
from sluice.runtime.ports import free_port
from sluice.runtime.progress import Progress
from sluice.runtime.run import Session

_DAG = "warehouse"
_PORTS = (
    "SLUICE_POSTGRES_PORT",
    "SLUICE_WEB_PORT",
    "SLUICE_SHOP_PORT",
    "SLUICE_DELIVERIES_PORT",
    "SLUICE_EXPORTER_PORT",
    "SLUICE_WATCHER_PORT",
)


def main() -> int:
    """Start, fill, measure, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each of the two is run (default 5)")
    rounds = parser.parse_args().rounds
    os.environ.setdefault("SLUICE_STATE_DIR", str(settings.home() / ".sluice" / "benchmarks" / "orchestration"))
    os.environ.setdefault("SLUICE_SHOP_SCALE", "0.2")
    for variable in _PORTS:
        os.environ.setdefault(variable, str(free_port()))
    layout = Layout.from_environment()
    # A target of its own: a `dbt build` must not replace the manifest that the running tasks hold.
    target = str(layout.state / "dbt")
    os.environ.setdefault("DBT_TARGET_PATH", target)
    os.environ.setdefault("SLUICE_DBT_MANIFEST", str(Path(os.environ["DBT_TARGET_PATH"]) / "manifest.json"))

    session = Session(layout, Progress())
    session.claim()
    try:
        stack = session.start()
        if session.run_pass(stack):
            print("the first pass did not succeed, so there is nothing to compare; see above", file=sys.stderr)
            return 1
        measured = measure(stack, layout, rounds)
    finally:
        session.stop()
    show(*measured)
    return 0


def measure(stack: AirflowStack, layout: Layout, rounds: int) -> tuple[list[float], list[float], int]:
    """Seconds of each DAG run and of each `dbt build`, and the number of tasks of the DAG."""
    environment = {**stack.environment(), "DBT_TARGET_PATH": str(layout.state / "dbt-build")}
    runs, builds, tasks = [], [], 0
    bare_build(layout.dbt_project, environment)  # writes its parse cache, as the pass warmed the DAG up
    with stack.api() as api:
        for _ in range(rounds):
            builds.append(bare_build(layout.dbt_project, environment))
            seconds, tasks = dag_run(api)
            runs.append(seconds)
            print(f"dbt build {builds[-1]:.1f} s, DAG run {seconds:.1f} s", flush=True)
    return runs, builds, tasks


def bare_build(project: Path, environment: Mapping[str, str]) -> float:
    """Seconds of `dbt build` from a shell."""
    command = [str(Path(sys.executable).with_name("dbt")), "--quiet", "build", "--profiles-dir", "."]
    command += ["--profile", "sluice", "--target", "prod", "--log-path", environment["DBT_TARGET_PATH"]]
    started = time.monotonic()
    subprocess.run(command, cwd=project, env={**environment}, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def dag_run(api: AirflowApi) -> tuple[float, int]:
    """Seconds from asking for a run of the DAG until it has ended, and its number of tasks."""
    while any(run.is_active for run in api.runs(_DAG)):  # its own hourly run
        time.sleep(1)
    started = time.monotonic()
    run = api.wait(_DAG, api.trigger(_DAG, {"force": True}), seconds=600, poll=0.25)
    seconds = time.monotonic() - started
    tasks = api.tasks(run)
    failed = [task.task_id for task in tasks if task.state != "success"]
    if failed:
        raise SystemExit(f"these tasks of {run.run_id} did not succeed: {', '.join(failed)}")
    return seconds, len(tasks)


def show(runs: list[float], builds: list[float], tasks: int) -> None:
    """The table, and the line that is compared from commit to commit."""
    table = Table(title=f"{tasks} tasks, {len(runs)} rounds, {os.cpu_count()} cores", title_justify="left")
    for heading in ("", "median s", "fastest s", "slowest s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in (("dbt build", builds), ("DAG run", runs)):
        table.add_row(name, *(f"{value:.1f}" for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)
    ratio = statistics.median(runs) / statistics.median(builds)
    print(f"orchestration: ratio={ratio:.2f} per_task={statistics.median(runs) / tasks:.2f}")


if __name__ == "__main__":
    sys.exit(main())
