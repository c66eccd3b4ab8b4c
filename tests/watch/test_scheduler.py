"""A real Airflow: a task is killed, a DAG is edited, the scheduler is killed; and what is told then without it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import pytest

from sluice import ledger, settings
from sluice.runtime import ports
from sluice.runtime.airflow import AirflowStack
from sluice.runtime.airflow_api import AirflowApi
from sluice.runtime.layout import Layout
from sluice.runtime.processes import Supervisor
from sluice.watch import exporter, record_objectives
from tests.monitoring.conftest import prometheus, spawn  # noqa: F401
from tests.monitoring.test_runbooks import RUNBOOKS, blocks
from tests.watch.conftest import scrape

# ruff: noqa: F811

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

SOURCE = """
source: drops
description: A file.
owner: tests
schedule: "* * * * *"
tables:
  rows:
    description: Rows.
    from: {files: {connection: drop, path: "rows.csv"}}
    mode: full
    key: [id]
    freshness: 70s
    columns: {id: {type: bigint}}
"""
DAGS = """
from sluice import settings
from sluice.declarations import load_folder
from sluice_airflow.ingest import ingest_dag

found = load_folder(settings.sources_dir())
globals()["ingest_drops"] = ingest_dag(found.sources["drops"], found.paths["drops"])
"""
# So many tables that are waited for, at a connection that takes four at once.
WAITING = 200
MANY = """
source: many
description: Files that are late.
owner: tests
wait: 1h
at_once: {drop: 4}
tables:
"""
TABLE = """
  t{n}:
    description: One of them.
    from: {{files: {{connection: drop, path: "many/{n}.csv"}}}}
    mode: append
    key: [id]
    columns: {{id: {{type: integer}}}}
"""
SENSORS = """
from datetime import UTC, datetime, timedelta
from airflow.sdk import DAG
from sluice import settings
from sluice.declarations import load_file
from sluice_airflow.sensors import ReadySensor

many = load_file(settings.sources_dir() / "many.yml")
with DAG("waiting", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_tasks=500):
    for table in many.tables.values():
        ReadySensor(task_id=table.name, source=many, table=table, pool="drop", poll=timedelta(seconds=5), retries=3,
                    retry_delay=timedelta(seconds=2), execution_timeout=timedelta(hours=2))
"""
HANGING = """
from datetime import UTC, datetime, timedelta
import time
from airflow.sdk import DAG
from sluice_airflow.deadlines import deadline
from sluice_airflow.steps import EngineOperator

class Hang(EngineOperator):
    def step(self, context):
        time.sleep(300)

with DAG("hanging", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args={"retries": 0},
         deadline=deadline("hanging", "tests", timedelta(seconds=3))):
    Hang(task_id="hang")

class Fail(EngineOperator):
    def step(self, context):
        raise ValueError("the row of canary-person@example.org is broken")

with DAG("failing", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args={"retries": 0}):
    Fail(task_id="fail")
"""

# As `warehouse`: after an asset event, a gate after each layer. That of staging judges at once; the marts take long.
LAYERED = """
import time
from datetime import UTC, datetime, timedelta
from airflow.sdk import Asset, DAG
from sluice.declarations.layers import Layers
from sluice.gates import Model
from sluice_airflow.deadlines import layer_deadlines
from sluice_airflow.gates import GateOperator
from sluice_airflow.steps import EngineOperator

class Build(EngineOperator):
    def step(self, context):
        time.sleep(75)

promised = Layers.model_validate({"owner": "tests", "deadline": "1h", "staging": {"deadline": "40s"},
                                  "marts": {"deadline": "45s"}})
view = Model("stg_rows", "staging.stg_rows", "staging", is_view=True)
with DAG("layered", schedule=[Asset("announced.rows")], start_date=datetime(2026, 1, 1, tzinfo=UTC),
         default_args={"retries": 0}, deadline=layer_deadlines("layered", promised)):
    staging = GateOperator(task_id="gate_staging", layer="staging", models=[view], fingerprint="f")
    marts = GateOperator(task_id="gate_marts", layer="marts", models=[view], fingerprint="f")
    staging >> Build(task_id="build") >> marts
"""


@dataclass
class Stack:
    """Airflow with a few DAGs, over a warehouse of the test's."""

    home: Path
    warehouse: psycopg.Connection
    supervisor: Supervisor
    airflow: AirflowStack
    exporter: int

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 60, every: float = 0.3) -> object:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
            time.sleep(every)
        return found

    def row(self, statement: str, *parameters: object) -> tuple | None:
        return self.warehouse.execute(statement, parameters or None).fetchone()

    def trigger(self, api: AirflowApi, dag_id: str) -> None:
        self.wait(f"{dag_id} is read", lambda: dag_id in {dag["dag_id"] for dag in api.dags()})
        api.set_paused(dag_id, False)
        api.trigger(dag_id)


@pytest.fixture(scope="module")
def stack(postgres, _ledger_template, tmp_path_factory) -> Iterator[Stack]:
    """Scheduler, triggerer, dag-processor and api-server, without preloading; the exporter beside them."""
    home = Path(tempfile.mkdtemp(prefix="sluice-watch-"))
    for name in ("include/sources", "dags", "files"):
        (home / name).mkdir(parents=True)
    for name in ("config", "plugins"):
        (home / name).symlink_to(settings.home() / name)
    (home / "include/sources/drops.yml").write_text(SOURCE)
    (home / "files/rows.csv").write_text("id\n1\n2\n")
    (home / "files/many").mkdir()
    (home / "include/sources/many.yml").write_text(MANY + "".join(TABLE.format(n=n) for n in range(WAITING)))
    (home / "dags/sensors.py").write_text(SENSORS)
    (home / "dags/ingest.py").write_text(DAGS)
    (home / "dags/hanging.py").write_text(HANGING)
    (home / "dags/layered.py").write_text(LAYERED)
    shutil.copy(settings.home() / "dags/canary.py", home / "dags")
    warehouse = postgres.database(_ledger_template)
    metadata = postgres.database()
    root = Path(__file__).resolve().parents[2]
    given = {
        "SLUICE_HOME": str(home),
        "SLUICE_STATE_DIR": str(home / "state"),
        "SLUICE_WAREHOUSE_URL": warehouse,
        "SLUICE_PRELOAD": "0",
        "AIRFLOW_CONN_DROP": (home / "files").as_uri(),
        "AIRFLOW_CONN_WAREHOUSE": warehouse,
        "PYTHONPATH": f"{root / 'include'}{os.pathsep}{root / 'plugins'}",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    }
    before = dict(os.environ)
    os.environ.update(given)
    layout = Layout(home, home / "state", 0, ports.free_port(), 0, 0, ports.free_port(), 0)
    supervisor = Supervisor(layout.run_file, layout.logs)
    airflow = AirflowStack(layout, metadata, given)
    server = None
    try:
        ledger.migrate(warehouse)
        with psycopg.connect(warehouse, autocommit=True) as connection:
            record_objectives(connection)
            airflow.prepare()
            airflow.start(supervisor, lambda _: None)
            server, _ = exporter.start("127.0.0.1", layout.exporter_port)
            yield Stack(home, connection, supervisor, airflow, layout.exporter_port)
    finally:
        supervisor.stop()
        if server:
            server.shutdown()
            server.server_close()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)


def test_the_deadline_of_a_layer_fires_in_a_run_after_an_asset_event_and_that_of_a_layer_that_was_judged_does_not(
    stack: Stack,
):
    """Counted from when the run was queued: one after an asset event has no interval to count from."""
    stack.warehouse.execute("create view staging.stg_rows as select 1 as id")
    with stack.airflow.api() as api:
        stack.wait("layered is read", lambda: "layered" in {dag["dag_id"] for dag in api.dags()})
        api.set_paused("layered", False)
        (asset,) = api._call("GET", "/assets", params={"name_pattern": "announced.rows"})["assets"]
        api._call("POST", "/assets/events", json={"asset_id": asset["id"]})
        judged = "select run_id from ops.gate_result where gate = 'staging' and check_name = 'layer_is_complete'"
        (run_id,) = stack.wait("staging is judged", lambda: stack.row(judged), 90)
        assert str(run_id).startswith("asset_triggered__")
        missed = "select subject, run_id, allowed from ops.deadline_miss where subject like 'layered%' order by 1"
        stack.wait("the marts are late", lambda: stack.row(missed), 90)
        assert stack.warehouse.execute(missed).fetchall() == [("layered:marts", run_id, timedelta(seconds=45))], (
            "neither that of staging, which came before and was judged in time, nor that of the whole run"
        )


def test_two_hundred_waiting_tasks_hold_no_slot_and_all_of_them_end_well_when_their_files_come(stack: Stack):
    """Airflow 3.3 fails a deferred task now and then whose trigger fires early: it is tried again."""
    with stack.airflow.api() as api:
        stack.trigger(api, "waiting")
        (run,) = api.runs("waiting")

        def states() -> Counter:
            return Counter(task.state for task in api.tasks(run))

        stack.wait("all are deferred", lambda: states()["deferred"] == WAITING, 300, every=3)
        time.sleep(6)  # each is looked at again
        assert states() == {"deferred": WAITING}, "none runs, none is queued"
        for number in range(WAITING):
            (stack.home / f"files/many/{number}.csv").write_text("id\n1\n")
        stack.wait(
            "all are done", lambda: sum(states()[each] for each in ("success", "failed")) == WAITING, 300, every=3
        )
        assert states() == {"success": WAITING}


def test_the_deadline_still_fires_after_its_dag_was_edited_and_a_task_that_is_killed_is_an_alarm(stack: Stack):
    """S: a missed deadline of a run by hand, before and after an edit; O2: `kill -9` of the task of the second run."""
    with stack.airflow.api() as api:
        stack.trigger(api, "failing")
        stack.wait("canary is read", lambda: "canary" in {dag["dag_id"] for dag in api.dags()})
        api.set_paused("canary", False)  # its run on the schedule begins at once
        stack.trigger(api, "hanging")
        missed = "select count(*) from ops.deadline_miss where subject = 'hanging'"
        stack.wait("the first miss", lambda: stack.row(missed) == (1,))
        pid = _kill_hanging(stack)
        stack.wait("the incident", lambda: stack.row("select 1 from ops.incident where kind = 'task_failed'"))
        subject, detail, url = stack.row("select subject, detail, log_url from ops.incident where kind = 'task_failed'")
        assert (subject, detail) == ("failing/fail", "ValueError; what it says is in the log")
        assert "/dags/failing/runs/" in url
        path = stack.home / "dags/hanging.py"
        path.write_text(HANGING.replace('task_id="hang")', 'task_id="hang")\n    Hang(task_id="another")'))
        stack.wait("the edit is read", lambda: len(api._call("GET", "/dags/hanging/tasks")["tasks"]) == 2)
        api.trigger("hanging")
        stack.wait("the miss after the edit", lambda: stack.row(missed) == (2,))
        run_id = stack.row("select run_id from ops.deadline_miss where subject = 'hanging' order by missed_at desc")[0]
        assert run_id.startswith("manual__")
    late = stack.wait("the canary", lambda: stack.row("select run_id from ops.deadline_miss where subject = 'canary'"))
    assert str(late[0]).startswith("scheduled__"), "deadlines hold for runs on a schedule, too"
    assert pid
    killed = stack.row(
        "select beat_at, ended_at from ops.step where job = 'hanging' and step = 'hang' and pid = %s", pid
    )
    assert killed is not None, "the row of the killed task stays"
    assert killed[1] is None
    labels = {"job": "hanging", "step": "hang"}
    assert scrape(stack.exporter).of("sluice_step_heartbeat_timestamp_seconds", **labels) == pytest.approx(
        killed[0].timestamp(), abs=1
    )


def _kill_hanging(stack: Stack) -> int:
    found = stack.wait("the task beats", lambda: stack.row("select pid from ops.step where job = 'hanging'"))
    os.kill(found[0], signal.SIGKILL)  # type: ignore[index]
    return int(found[0])  # type: ignore[index]


def test_what_the_runbooks_ask_of_airflow_is_answered(stack: Stack):
    """The rest of each runbook is followed in tests/monitoring/test_runbooks.py."""
    commands = {
        part.replace("ingest_shop", "ingest_drops").replace("warehouse", "layered")
        for page in RUNBOOKS.glob("*.md")
        for _, _, parts in blocks(page)
        for part in parts
        if part.startswith("airflow ")
    }
    assert len(commands) >= 8
    for command in sorted(commands, key=lambda each: ("trigger" in each, each)):  # what is paused can't be triggered
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            env=stack.airflow.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def test_o1_the_scheduler_is_killed_while_a_source_is_due_and_prometheus_says_that_it_is_late(stack: Stack, prometheus):
    """The real rule file, 60 times as fast: 70 s of freshness stand for 70 minutes, 5 s for the five minutes."""
    server = prometheus(stack.exporter)
    (begun_at,) = stack.row("select clock_timestamp()")
    with stack.airflow.api() as api:
        stack.wait("ingest_drops is read", lambda: "ingest_drops" in {dag["dag_id"] for dag in api.dags()}, 180)
        api.set_paused("ingest_drops", False)
        stack.wait("rows", lambda: stack.row("select 1 from ops.table_read where read_at > %s", begun_at), 120)
    labels = {"source": "drops", "table": "rows"}

    def late() -> bool:
        found = scrape(stack.exporter)
        age = time.time() - found.of("sluice_table_known_current_timestamp_seconds", **labels)
        return age > found.of("sluice_table_freshness_objective_seconds", **labels)

    stack.wait("the exporter knows it", lambda: not late(), 10)
    scheduler = next(child for child in stack.supervisor.children if child.name == "scheduler")
    parent = psutil.Process(scheduler.process.pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # a task that has ended meanwhile
            process.kill()
    assert not late(), "it is due, and not late yet"
    assert server.firing() & {"SluiceSourceLate drops"} == set()
    stack.wait("it is late", late, 90)
    begun = time.monotonic()
    server.wait(lambda: "SluiceSourceLate drops" in server.firing(), 20)
    assert time.monotonic() - begun < 10  # exact times are promtool's; here the machine may stand still for seconds
