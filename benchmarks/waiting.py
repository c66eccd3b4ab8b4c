"""`make bench-waiting`: many tasks wait in a real scheduler and hold no slot; one announcement starts a run.

Starts PostgreSQL and Airflow (four components, four workers) in a directory of its own. One DAG has N sensors, each for
a file of its own that is not there; when all are deferred, the files come. Then a NOTIFY starts the DAG of a source
that announces itself. The last line is `waiting: tasks=… deferred_after=… slots_held=… done_after=… failed=… retried=…
announced_after=…`, seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psycopg

from sluice import settings
from sluice.ledger import migrate
from sluice.runtime.airflow import AirflowStack
from sluice.runtime.airflow_api import AirflowApi, Run
from sluice.runtime.layout import Layout
from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres
from sluice.runtime.processes import Supervisor

DAGS = '''"""Sensors that wait, and a source that announces itself."""
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG
from sluice.declarations import load_file
from sluice_airflow.ingest import ingest_dag
from sluice_airflow.sensors import ReadySensor

FOLDER = Path("{folder}")
many = load_file(FOLDER / "many.yml")
with DAG("waiting", schedule=None, start_date=datetime(2026, 1, 1), max_active_tasks=500) as waiting:
    for table in many.tables.values():
        ReadySensor(
            task_id=table.name, source=many, table=table, poll=timedelta(seconds=5), pool="drop",
            retries=3, retry_delay=timedelta(seconds=2), execution_timeout=timedelta(hours=1),
        )
announced = ingest_dag(load_file(FOLDER / "bell.yml"), FOLDER / "bell.yml")
'''
TABLE = """\
  t{n}:
    description: one of many
    from: {{files: {{connection: drop, path: "{n}-*.csv"}}}}
    mode: append
    key: [id]
    columns: {{id: {{type: integer, required: true}}}}
"""
BELL = """\
source: bell
description: announces itself
owner: tests
start: 2026-01-01
announced_by: {notify: {connection: db, channel: bell}}
tables:
  rung:
    description: one file
    from: {files: {connection: drop, path: "bell.csv"}}
    mode: append
    key: [id]
    columns: {id: {type: integer, required: true}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=200)
    tasks = parser.parse_args().tasks
    root = Path(tempfile.mkdtemp(prefix="sluice-waiting-"))
    root.chmod(0o755)
    for name in ("sources", "files", "dags"):
        (root / name).mkdir()
    declared = "".join(TABLE.format(n=n) for n in range(tasks))
    head = "source: many\ndescription: many\nowner: tests\nwait: 30m\nat_once: {drop: 4}\ntables:\n"
    (root / "sources" / "many.yml").write_text(head + declared)
    (root / "sources" / "bell.yml").write_text(BELL)
    (root / "dags" / "waiting.py").write_text(DAGS.replace("{folder}", str(root / "sources")))
    server = EmbeddedPostgres(root / "postgres", free_port(), durable=False)
    supervisor = Supervisor(root / "run.json", root / "logs")
    try:
        server.start()
        server.create_role("sluice", member_of=("pg_monitor",))
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for name in ("warehouse", "airflow"):
                connection.execute(f"create database {name} owner sluice")  # type: ignore[arg-type]
        warehouse = server.url("warehouse", "sluice")
        migrate(warehouse)
        os.environ.update(
            SLUICE_STATE_DIR=str(root),
            SLUICE_SOURCES_DIR=str(root / "sources"),
            SLUICE_WAREHOUSE_URL=warehouse,
            SLUICE_WEB_PORT=str(free_port()),
            AIRFLOW_CONN_DROP=f"file://{root / 'files'}",
            AIRFLOW_CONN_DB=warehouse,
            AIRFLOW__CORE__DAGS_FOLDER=str(root / "dags"),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            SLUICE_PRELOAD="0",
            PYTHONPATH=os.pathsep.join([str(settings.home() / "include"), str(settings.home() / "plugins")]),
        )
        stack = AirflowStack(Layout.from_environment(), server.url("airflow", "sluice"), {})
        stack.prepare()
        stack.start(supervisor, lambda note: None)
        with stack.api() as api:
            print(measure(api, root, tasks, warehouse), flush=True)
        return 0
    finally:
        supervisor.stop()
        server.destroy()
        if not os.environ.get("SLUICE_KEEP"):
            shutil.rmtree(root, ignore_errors=True)


def measure(api: AirflowApi, root: Path, tasks: int, warehouse: str) -> str:
    while not {"waiting", "ingest_bell"} <= {dag["dag_id"] for dag in api.dags()}:
        if errors := api.import_errors():
            raise SystemExit(str(errors))
        time.sleep(0.5)
    began = time.monotonic()
    run = next(run for run in _runs(api, "waiting", api.trigger("waiting")))
    deferred = _wait(api, run, lambda states: states["deferred"] == tasks, began, 600)
    print(f"{tasks} tasks deferred after {deferred:.1f} s", flush=True)
    time.sleep(12)  # more than two looks of each
    states = Counter(task.state for task in api.tasks(run))
    held = states["running"] + states["queued"]
    for number in range(tasks):
        (root / "files" / f"{number}-a.csv").write_text("id\n1\n")
    began = time.monotonic()
    done = _wait(api, run, lambda states: states["success"] + states["failed"] == tasks, began, 900)
    ended = api.tasks(run)
    failed = sum(task.state != "success" for task in ended)
    retried = sum(task.try_number > 1 for task in ended)
    print(f"all done {done:.1f} s after the files came, {failed} failed, {retried} retried", flush=True)
    (root / "files" / "bell.csv").write_text("id\n1\n")
    with psycopg.connect(warehouse, autocommit=True) as connection:
        while not connection.execute(
            "select 1 from pg_stat_activity where application_name = 'sluice listen'"
        ).fetchone():
            time.sleep(0.2)
        rung = time.monotonic()
        connection.execute("notify bell")
        while not any(run.start for run in api.runs("ingest_bell")):
            time.sleep(0.1)
            if time.monotonic() - rung > 60:
                raise SystemExit("the announcement started no run")
        announced = time.monotonic() - rung
    return (
        f"waiting: tasks={tasks} deferred_after={deferred:.1f} slots_held={held} done_after={done:.1f} failed={failed} "
        f"retried={retried} announced_after={announced:.1f}"
    )


def _runs(api: AirflowApi, dag: str, run_id: str) -> list[Run]:
    return [run for run in api.runs(dag) if run.run_id == run_id]


def _wait(api: AirflowApi, run: Run, enough: object, began: float, patience: float) -> float:
    while True:
        states = Counter(task.state for task in api.tasks(run))
        if enough(states):  # type: ignore[operator]
            return time.monotonic() - began
        if time.monotonic() - began > patience:
            raise SystemExit(f"after {patience:.0f} s: {dict(states)}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
