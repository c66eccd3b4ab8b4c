"""`airflow dags backfill` on the running pipeline, as a person types it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

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


def test_a_corrected_past_day_reaches_the_mart_by_one_backfill_and_back_again(running: Running) -> None:
    """Two past days are read again; the one whose file changed supersedes, the others are no-ops, and the warehouse
    catches up by itself. The file is put back, the past is read once more, and the mart is what it was."""
    before = counted(running)
    file = running.state / "shop" / "files" / "inventory" / _DAY / "AMS.csv"
    original = file.read_text()
    header, *rows = original.splitlines()
    sku, on_hand, rest = rows[0].split(",", 2)
    file.write_text("\n".join([header, f"{sku},{int(on_hand) + 1000},{rest}", *rows[1:]]) + "\n")
    begun = running.query("select clock_timestamp()")[0][0]

    ask = ("dags", "backfill", "ingest_shop", "-s", _DAY, "-e", "2026-01-04", "--reset-dagruns", "--yes")
    done = airflow(running, *ask, "--reason", "Amsterdam counted again")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 intervals done" in done.stdout
    wait_until(running, [(before[0][0] + 1000,)])
    superseded = running.query(
        "select unit from ops.batch where superseded_seq is not null and superseded_by in"
        " (select batch_id from ops.batch where started_at > %s)",
        begun,
    )
    assert superseded == [(f"inventory/{_DAY}/AMS.csv",)]
    assert running.query(
        "select dag_id, intervals, state, runs_succeeded, reason, rows_applied = %s from ops.backfill", len(rows)
    ) == [("ingest_shop", 2, "success", 2, "Amsterdam counted again", True)]

    file.write_text(original)
    again = airflow(running, "dags", "backfill", "ingest_shop", "-s", _DAY, "--reset-dagruns", "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    wait_until(running, before)


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
