"""The heartbeat of a running step, in processes that are really killed."""

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from sluice.watch import beating, steps
from tests.watch.conftest import scrape

_STEP = """
import sys, time
from sluice.watch import beating
with beating("ingest_shop", "orders.land", "r1", every=0.1):
    print("begun", flush=True)
    time.sleep(60)
"""


def _rows(warehouse: psycopg.Connection) -> list[tuple]:
    return warehouse.execute("select run_id, ended_at is not null, succeeded from ops.step order by 1").fetchall()


def _wait(warehouse: psycopg.Connection, condition: str) -> None:
    for _ in range(600):
        if warehouse.execute(f"select from ops.step where {condition}").fetchone() is not None:
            return
        time.sleep(0.05)
    pytest.fail(f"no step became: {condition}")


def test_a_step_beats_while_it_runs_and_says_how_it_ended(warehouse, warehouse_url):
    with beating("ingest_shop", "orders.land", "r1", every=0.05):
        _wait(warehouse, "beat_at > started_at and ended_at is null")
    assert _rows(warehouse) == [("r1", True, True)]
    with pytest.raises(ValueError, match="broken"), beating("ingest_shop", "orders.land", "r2", every=0.05):
        raise ValueError("broken")
    assert _rows(warehouse) == [("r2", True, False)], "one ended row of each step is kept"


def test_o2_a_step_that_is_killed_stops_beating_and_the_exporter_shows_since_when(warehouse, warehouse_url, exporting):
    process = subprocess.Popen([sys.executable, "-c", _STEP], env=os.environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        _wait(warehouse, "beat_at > started_at")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.3)
    first = scrape(exporting).of("sluice_step_heartbeat_timestamp_seconds", job="ingest_shop", step="orders.land")
    time.sleep(0.3)
    again = scrape(exporting)
    assert again.of("sluice_step_heartbeat_timestamp_seconds", job="ingest_shop", step="orders.land") == first
    assert again.of("sluice_step_running", job="ingest_shop", step="orders.land") == 1
    warehouse.execute("update ops.step set beat_at = beat_at - interval '10 minutes'")
    with beating("ingest_shop", "orders.land", "r2"):
        pass
    assert _rows(warehouse) == [("r2", True, True)], "a success clears what a killed attempt left"


def test_a_step_is_not_disturbed_by_a_ledger_that_is_away(monkeypatch):
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    with beating("ingest_shop", "orders.land", "r1", every=0.05):
        time.sleep(0.1)


def test_a_beat_comes_often_enough_for_the_alarm():
    """The rule waits two minutes: several beats must be missed, not one."""
    assert steps.EVERY * 5 <= 120
