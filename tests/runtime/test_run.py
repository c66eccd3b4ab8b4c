"""`make run` on a real PostgreSQL and a real Airflow, over a small project of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sluice import settings
from sluice.runtime.ports import free_port, is_free

pytestmark = pytest.mark.timeout(600)
PORTS = (
    "SLUICE_POSTGRES_PORT",
    "SLUICE_WEB_PORT",
    "SLUICE_SHOP_PORT",
    "SLUICE_DELIVERIES_PORT",
    "SLUICE_EXPORTER_PORT",
    "SLUICE_WATCHER_PORT",
)
# The good one publishes a batch as an ingest does; the bad one fails; neither emits an asset event.
DAGS = """
from datetime import datetime
from airflow.sdk import dag, task

@dag(schedule=None, start_date=datetime(2026, 1, 1))
def ingest_good():
    @task(pool="dbt")
    def publish():
        import psycopg
        from sluice import settings
        with psycopg.connect(settings.warehouse_url()) as connection:
            connection.execute(
                "insert into ops.batch"
                " (source, table_name, unit, state, mode, run_id, rows_read, rows_applied, published_seq)"
                " values ('good', 'rows', 'u', 'published', 'append', 'r', 7, 7, ops.next_seq())"
            )
    publish()

@dag(schedule=None, start_date=datetime(2026, 1, 1))
def warehouse():
    @task
    def build(): ...
    build()

ingest_good()
warehouse()
"""
BAD = """
@dag(schedule=None, start_date=datetime(2026, 1, 1))
def ingest_bad():
    @task
    def land():
        raise ValueError("the source is broken")
    land()

ingest_bad()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a small project; its state is kept between the tests, as between two `make run`."""
    home = Path(f"/tmp/sluice-run-{os.getpid()}")
    (home / "dags").mkdir(parents=True)
    (home / "include" / "sources").mkdir(parents=True)
    shutil.copytree(settings.home() / "config", home / "config")
    (home / "dags" / "all.py").write_text(DAGS)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "SLUICE_"))},
        **{name: str(free_port()) for name in PORTS},
        "SLUICE_HOME": str(home),
        "SLUICE_STATE_DIR": str(home / "state"),
        "SLUICE_SHOP_SCALE": "0.05",
        "SLUICE_SHOP_DAYS": "1",
        "SLUICE_PRELOAD": "0",
        "AIRFLOW_CONN_OURAIRPORTS": "http://127.0.0.1:1/",
    }
    yield environment
    subprocess.run([sys.executable, "-m", "sluice.runtime.down"], env=environment, check=True)
    shutil.rmtree(home, ignore_errors=True)


def run(project: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sluice.runtime.run", *arguments]
    return subprocess.run(command, env=project, capture_output=True, text=True, timeout=570)


def said(project: dict[str, str], done: subprocess.CompletedProcess) -> str:
    """What the run and its tasks wrote: for the message of a test that fails."""
    logs = Path(project["SLUICE_STATE_DIR"], "logs", "tasks").rglob("*.log")
    return "\n".join([done.stdout, done.stderr, *(log.read_text()[-2000:] for log in logs)])


def left_behind(project: dict[str, str]) -> list[str]:
    """Commands of processes that work in the project's state directory."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.cwd().startswith(project["SLUICE_STATE_DIR"]):
                found.append(" ".join(process.info["cmdline"]))
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.end_to_end
def test_once_succeeds_and_leaves_nothing_running(project: dict[str, str]) -> None:
    done = run(project, "--once")
    assert done.returncode == 0, said(project, done)
    assert "good.rows" in done.stdout
    assert "SUCCEEDED: every task and every gate passed; 7 changed rows" in done.stdout
    assert "warehouse" in done.stdout
    assert left_behind(project) == []
    assert all(is_free(int(project[name])) for name in PORTS)


@pytest.mark.end_to_end
def test_a_failed_task_fails_the_run_and_names_its_log(project: dict[str, str]) -> None:
    file = Path(project["SLUICE_HOME"], "dags", "all.py")
    file.write_text(DAGS + BAD)
    done = run(project, "--once")
    file.write_text(DAGS)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "task ingest_bad.land is failed" in line]
    assert "the source is broken" in Path(line.rsplit(": ", 1)[1].strip()).read_text()
    assert left_behind(project) == []


@pytest.mark.end_to_end
def test_a_dag_that_cannot_be_loaded_ends_the_run_with_its_error(project: dict[str, str]) -> None:
    broken = Path(project["SLUICE_HOME"], "dags", "broken.py")
    broken.write_text("from airflow.sdk import dag\nraise RuntimeError('no such table')\n")
    done = run(project, "--once")
    broken.unlink()
    assert done.returncode == 1
    assert "could not load" in done.stderr
    assert "no such table" in done.stderr
    assert left_behind(project) == []


@pytest.mark.end_to_end
def test_ctrl_c_while_airflow_starts_stops_everything(project: dict[str, str]) -> None:
    command = [sys.executable, "-m", "sluice.runtime.run"]
    with subprocess.Popen(command, env=project, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stdout:
            if line.startswith("begin  Airflow") and "metadata" not in line:
                break
        time.sleep(3)
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 130
    assert left_behind(project) == []
