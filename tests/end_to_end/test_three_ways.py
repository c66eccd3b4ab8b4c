"""O4 through the real scheduler: `make bench-backfill` with fewer days, on a stack of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1500)]


def test_o4_days_in_order_by_one_backfill_and_at_random_with_a_worker_killed_are_one_warehouse() -> None:
    """The program compares every table and fails on the first that differs; ninety days of it are the benchmark."""
    state = Path(tempfile.mkdtemp(prefix="sluice-three-ways-"))
    state.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "AIRFLOW_", "DBT_"))}
    try:
        done = subprocess.run(
            [sys.executable, "benchmarks/backfill.py", "--days", "4", "--one-by-one", "0"],
            cwd=ROOT,
            env={**kept, "SLUICE_STATE_DIR": str(state)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1400,
        )
    finally:
        shutil.rmtree(state, ignore_errors=True)
    told = done.stdout
    assert done.returncode == 0, told[-12000:]
    assert "killed the worker of" in told
    compared = re.search(r"^(\d+) tables are equal in all three$", told, re.MULTILINE)
    assert compared, told[-12000:]
    assert int(compared[1]) > 30
    line = re.fullmatch(r"backfill: 4_days=\d+ versus_sequential=[\d.]+ warehouse_runs=(\d+)", told.splitlines()[-1])
    assert line, told[-12000:]
    assert int(line[1]) <= 3, "the warehouse runs a few times, not once per interval"
