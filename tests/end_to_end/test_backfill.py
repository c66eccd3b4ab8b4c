"""`airflow dags backfill` on the running pipeline, as a person types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest

from sluice.runtime.airflow_api import AirflowApi
from sluice.runtime.postgres import EmbeddedPostgres
from tests.end_to_end.conftest import ROOT, Running

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]
_DAY = "2026-01-03"


def airflow(running: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in the shell of `make dev`."""
    return subprocess.run(
        [sys.executable, "-m", "sluice.runtime.dev", "airflow", *arguments],
        cwd=ROOT,
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def api(running: Running) -> AirflowApi:
    return AirflowApi(running.web_url, "admin", running.password)


def counted(running: Running) -> list[tuple]:
    """What the mart says of that day in the warehouse of Amsterdam."""
    return running.query(
        f"select sum(on_hand_count) from marts.fct_inventory_daily"
        f" where inventory_date = '{_DAY}' and warehouse_code = 'AMS'"
    )


def wait_until(running: Running, expected: list[tuple]) -> None:
    deadline = time.monotonic() + 240
    while counted(running) != expected:
        assert time.monotonic() < deadline, f"the mart still has {counted(running)}, not {expected}"
        time.sleep(2)


def kill_a_worker(running: Running) -> None:
    """SIGKILL the process of a task that is at work for a backfill."""
    port = int(running.environment["SLUICE_POSTGRES_PORT"])
    server = EmbeddedPostgres(running.state / "postgres", port, state_dir=running.state)
    deadline = time.monotonic() + 120
    with psycopg.connect(server.url("airflow", "airflow"), autocommit=True) as metadata:
        while time.monotonic() < deadline:
            row = metadata.execute(
                "select pid from task_instance where dag_id = 'ingest_shop' and state = 'running'"
                " and run_id like 'backfill%' and task_id like '%.wait' and pid is not null"
            ).fetchone()
            if row:
                with suppress(ProcessLookupError):
                    os.kill(row[0], signal.SIGKILL)
                    return
            time.sleep(0.05)
    pytest.fail("no task of the backfill was seen at work")


def test_o4_o5_o9_a_corrected_past_day_reaches_the_mart_by_one_backfill_and_back_again(running: Running) -> None:
    """Two past days are read again, after newer ones, while another run of the DAG is at work and a worker is killed.
    The day whose file changed supersedes, the other is a no-op, and the warehouse catches up by itself. Then the file
    is put back, and Airflow forgets its runs, as one whose database was restored from a backup: it runs the past
    again, and the mart is what it was. Nobody waits for that: the scheduler writes down its end."""
    before = counted(running)
    file = running.state / "shop" / "files" / "inventory" / _DAY / "AMS.csv"
    original = file.read_text()
    header, *rows = original.splitlines()
    sku, on_hand, rest = rows[0].split(",", 2)
    file.write_text("\n".join([header, f"{sku},{int(on_hand) + 1000},{rest}", *rows[1:]]) + "\n")
    begun = running.query("select clock_timestamp()")[0][0]

    ask = ("dags", "backfill", "ingest_shop", "-s", _DAY, "-e", "2026-01-04", "--reset-dagruns", "--yes")
    with ThreadPoolExecutor(1) as beside, api(running) as client:
        asked = beside.submit(airflow, running, *ask, "--reason", "Amsterdam counted again")
        kill_a_worker(running)
        scheduled = client.trigger("ingest_shop")
        done = asked.result()
        assert client.wait("ingest_shop", scheduled, seconds=240).state == "success"
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 intervals done" in done.stdout
    with api(running) as client:
        for run in client.runs("ingest_shop"):
            if run.run_id.startswith("backfill"):
                states = {task.task_id: task.state for task in client.tasks(run)}
                first = {name for name in states if name.endswith(".wait")}
                assert {states[name] for name in first} == {"success"}, "it does all four steps of its table"
                assert {states[name] for name in states.keys() - first - {"announce"}} == {"skipped"}
    wait_until(running, [(before[0][0] + 1000,)])
    superseded = running.query(
        "select unit from ops.batch where superseded_seq is not null and superseded_by in"
        " (select batch_id from ops.batch where started_at > %s)",
        begun,
    )
    assert superseded == [(f"inventory/{_DAY}/AMS.csv",)]
    # the run beside it may have been the one that read the changed file
    assert running.query(
        "select dag_id, intervals, state, runs_succeeded, reason, rows_applied in (0, %s) from ops.backfill", len(rows)
    ) == [("ingest_shop", 2, "success", 2, "Amsterdam counted again", True)]

    file.write_text(original)
    with api(running) as client:
        for run in client.runs("ingest_shop"):
            if run.run_id.startswith("backfill"):
                client.delete_run(run)
    published = running.query("select max(published_seq) from ops.batch")[0][0]
    plan = running.state / "first-days.yml"
    plan.write_text(f"dag: ingest_shop\nstart: {_DAY}\nend: 2026-01-04\nreason: The old count was right after all\n")
    rehearsed = airflow(running, "dags", "backfill", "--plan", str(plan), "--dry-run")
    printed = re.search("^rehearsed: .*$", rehearsed.stdout, re.MULTILINE)
    assert printed, rehearsed.stdout + rehearsed.stderr
    plan.write_text(f"{plan.read_text()}{printed[0]}\n")
    again = airflow(running, "dags", "backfill", "--plan", str(plan), "--yes", "--detach")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 intervals from" in again.stdout, "Airflow knew of none"
    wait_until(running, before)
    deadline = time.monotonic() + 120
    while running.query("select 1 from ops.backfill where state = 'running'"):
        assert time.monotonic() < deadline, "nobody waits for it, and nobody wrote down its end"
        time.sleep(1)
    assert running.query(
        "select table_name, unit from ops.batch where published_seq > %s and rows_applied + rows_deleted > 0", published
    ) == [("inventory", f"inventory/{_DAY}/AMS.csv")], "of all that was read again only what differs was published"
    assert running.query("select reason, plan, state from ops.backfill order by backfill_id desc limit 1") == [
        ("The old count was right after all", str(plan), "success")
    ]
    assert running.query("select count(*) from ops.batch where state in ('landing', 'landed', 'audited')") == [(0,)]


def test_a_failed_interval_is_run_again_by_the_command_and_a_cleared_task_by_the_web_ui(running: Running) -> None:
    """Airflow 3.3 can't clear a run that failed before its deadline (apache/airflow 70368): ours can, in both."""
    day, ask = "2026-01-09", ("dags", "backfill", "ingest_shop", "-s", "2026-01-09", "--yes")
    file = running.state / "shop" / "files" / "inventory" / day / "BER.csv"
    original = file.read_text()
    file.write_text(original.replace("sku", "article", 1))
    try:
        failed = airflow(running, *ask)
        assert failed.returncode == 1, failed.stdout + failed.stderr
        assert "1 of 1 intervals done, 0 running, 1 failed" in failed.stdout
        assert "--rerun-failed-tasks" in failed.stdout
        with api(running) as client:
            [run] = [run for run in client.runs("ingest_shop") if run.state == "failed"]
            cleared = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": ["inventory.wait"]}
            client._call("POST", "/dags/ingest_shop/clearTaskInstances", json=cleared)
            assert client.wait("ingest_shop", run.run_id, seconds=240).state == "failed", "the file is as it was"
    finally:
        file.write_text(original)
    again = airflow(running, *ask, "--rerun-failed-tasks")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 1 intervals done, 0 running, 0 failed" in again.stdout
    tasks = airflow(running, *ask, "--task-regex", r"^inventory\.", "--reset-dagruns", "--dry-run")
    assert "4 task instances match" in tasks.stdout, tasks.stdout + tasks.stderr


def test_what_would_run_is_said_and_what_has_no_past_is_refused(running: Running) -> None:
    rehearsed = airflow(running, "dags", "backfill", "ingest_shop", "-s", "2026-01-01", "-e", "2026-01-03", "-n")
    assert rehearsed.returncode == 0
    assert "nothing was run" in rehearsed.stdout
    refused = airflow(running, "dags", "backfill", "warehouse", "-s", "2026-01-01")
    assert refused.returncode == 2
    assert "Backfill the DAGs of the sources" in refused.stderr
    unknown = airflow(running, "dags", "backfill", "ingest_nothing", "-s", "2026-01-01")
    assert unknown.returncode == 2
    assert "ingest_shop" in unknown.stderr


def test_a_rebuild_is_rehearsed_from_the_web_ui_and_finds_nothing_to_change(running: Running) -> None:
    """The warehouse equals its logs, whatever the tests before did to it."""
    with api(running) as client:
        done = client.wait("rebuild_models", client.trigger("rebuild_models", {"select": "fct_order"}), seconds=240)
    assert done.state == "success"
    assert running.query(
        "select selection, state, jsonb_path_query_array(plan, '$.changes[*].months') from ops.rebuild"
    ) == [("fct_order", "rehearsed", [[]])]
    with api(running) as client:
        nameless = client.wait("rebuild_models", client.trigger("rebuild_models"), seconds=120)
    assert nameless.state == "failed", "a rehearsal of nothing is no success"
