"""The measuring of `make bench-load`: what it reports must be what happened."""

import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from loadbench.measure import Meter, Phase, Run
from loadbench.report import Results, Row, markdown

_PHASES = Path(__file__).resolve().parents[2] / "benchmarks" / "loadbench"
_BUSY = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"


@pytest.fixture
def meter(postgres, warehouse_url):
    server = postgres.server
    pid = int((server.data_dir / "postmaster.pid").read_text().splitlines()[0])
    return Meter(psutil.Process(pid), server.url("postgres"))


def test_cpu_and_memory_of_processes_that_a_client_starts_are_its_own(meter):
    child = f"held = bytearray(80_000_000)\n{_BUSY}"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    run = meter.run([sys.executable, "-c", parent], scripted=False, limit=30)
    assert not run.fault
    assert run.phase().client_cpu >= 0.2
    assert run.peak_bytes > 80_000_000


def test_a_scripts_start_is_left_out_and_its_phases_are_told_apart(meter):
    script = f"{_BUSY}from phases import reached\nreached('started')\nreached('landed')\n{_BUSY}reached('audited')"
    run = meter.run([sys.executable, "-c", script], scripted=True, limit=30, env={"PYTHONPATH": str(_PHASES)})
    assert [phase.name for phase in run.phases] == ["landed", "audited"]
    assert run.phase("landed").client_cpu < 0.2
    assert run.phase("audited").client_cpu >= 0.2


def test_work_that_the_server_does_is_the_servers(meter, warehouse_url):
    work = "select count(*) from generate_series(1, 3000000)"
    script = f"import psycopg; psycopg.connect({warehouse_url!r}).execute({work!r})"
    run = meter.run([sys.executable, "-c", script], scripted=False, limit=30)
    assert run.phase().server_cpu > 0.1


@pytest.mark.parametrize(
    ("script", "fault"),
    [("raise SystemExit('no such table')", "failed: no such table"), ("import time; time.sleep(60)", "more than 1 s")],
)
def test_a_load_that_fails_or_takes_too_long_is_a_fault_and_no_number(meter, script, fault):
    run = meter.run([sys.executable, "-c", script], scripted=False, limit=1)
    assert run.fault == fault


def _row(name, rows, *seconds, loaded=()):
    runs = [Run(tuple(Phase(p, s, 0, 0, 0, 0) for p in loaded or ("loaded",)), peak_bytes=10) for s in seconds]
    return Row(name, rows, runs, tuple(loaded))


def test_ratios_are_of_medians_scaled_to_the_same_rows_and_a_dash_where_nothing_was_measured():
    raw, ours = _row("raw", 600, 2.0, 4.0, 9.0), _row("ours", 600, 1.0, 2.0, 3.0, loaded=("landed", "audited"))
    part = _row("slow", 60, 4.0)
    results = Results(600, formats={"csv": [raw, ours, part]}, small={"csv": _row("ours", 100, 1.0)})
    assert results.last_line() == "load: csv=1.00 jsonl=- parquet=- postgres=- rss_growth=1.00"
    assert "| slow | ~10.00 | ~40.0 |" in markdown(results, {})


def test_a_contender_without_a_good_run_is_shown_with_its_reason():
    broken = Row("broken", 600, [Run(fault="loaded 599 rows of 600")])
    page = markdown(Results(600, formats={"csv": [_row("raw", 600, 1.0), broken]}), {})
    assert "| broken | loaded 599 rows of 600 |" in page
    assert "csv=- " in page
