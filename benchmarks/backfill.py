"""Ninety past days of the shop by one backfill through the real scheduler, beside the same days one after the other.

    make bench-backfill                   # ARGS='--days 30' for fewer

Starts a stack of its own (PostgreSQL, a small demo shop, Airflow) in `.sluice/benchmarks/backfill`, and loads its first
day. Then some days as they would have come: a day passes at the shop, its ingest DAG runs, the warehouse follows; one
day's median seconds, times the number of days, are the *sequential* time (so many days one by one would take hours).
Then all remaining days pass at the shop at once, and one `airflow dags backfill` reads the whole range while a run of
the schedule goes on beside it and a worker is killed. Its time ends when the warehouse has read everything.

Last: `sluice verify` must find every table equal to a clean rebuild, and the books of every batch must balance. The
last line is `backfill: <days>_days=<seconds> versus_sequential=<ratio> warehouse_runs=<n>`.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import psycopg

from sluice import settings, shop
from sluice.runtime.airflow import AirflowStack
from sluice.runtime.airflow_api import AirflowApi, Run
from sluice.runtime.layout import Layout
from sluice.runtime.ports import free_port
from sluice.runtime.progress import Progress
from sluice.runtime.run import Session

_PORTS = ("SLUICE_POSTGRES_PORT", "SLUICE_WEB_PORT", "SLUICE_SHOP_PORT", "SLUICE_DELIVERIES_PORT")
_FIRST = date(2026, 1, 1)
_LONGEST = 2 * 3600.0


def main() -> int:
    """Start, load, measure, verify, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=90, help="how many past days (default 90)")
    parser.add_argument("--one-by-one", type=int, default=4, help="how many of them to load as they come (default 4)")
    parser.add_argument("--at-once", type=int, default=6, help="runs of the backfill at once (default 6)")
    asked = parser.parse_args()
    os.environ.setdefault("SLUICE_STATE_DIR", str(settings.home() / ".sluice" / "benchmarks" / "backfill"))
    os.environ.setdefault("SLUICE_SHOP_SCALE", "0.2")
    os.environ["SLUICE_SHOP_DAYS"] = "1"
    os.environ["SLUICE_OURAIRPORTS_ARCHIVE"] = ""
    for variable in _PORTS:
        os.environ.setdefault(variable, str(free_port()))
    session = Session(Layout.from_environment(), Progress())
    session.claim()
    try:
        stack = session.start()
        if session.run_pass(stack):
            print("the first pass did not succeed, so there is nothing to compare; see above", file=sys.stderr)
            return 1
        with stack.api() as api:
            one = statistics.median(_one_day(api) for _ in range(asked.one_by_one))
            print(f"a day by itself: {one:.1f} s", flush=True)
            seconds, runs = _backfill(api, stack, asked.days, asked.at_once)
        if not _verified(stack):
            return 1
    finally:
        session.stop()
    ratio = one * asked.days / seconds
    print(f"backfill: {asked.days}_days={seconds:.0f} versus_sequential={ratio:.2f} warehouse_runs={runs}")
    return 0


def _pass(days: int) -> int:
    """Let days pass at the shop; how many it has then."""
    environ = os.environ
    return shop.advance(environ["SLUICE_SHOP_DATABASE_URL"], environ["SLUICE_SHOP_FILES"], days).days_done


def _one_day(api: AirflowApi) -> float:
    """A day passes, is read, and reaches the marts: seconds."""
    _pass(1)
    started = time.monotonic()
    done = api.wait("ingest_shop", api.trigger("ingest_shop"), seconds=600)
    if done.state != "success":
        raise SystemExit(f"{done.run_id} of ingest_shop is {done.state}")
    _settled(api, since=done.end or datetime.now(UTC))
    return time.monotonic() - started


def _backfill(api: AirflowApi, stack: AirflowStack, days: int, at_once: int) -> tuple[float, int]:
    """Seconds from the command until the warehouse has read everything, and how often the warehouse ran."""
    while (done := _pass(1)) < days:
        print(f"\rday {done} of {days} at the shop", end="", flush=True)
    print()
    known = {run.run_id for run in api.runs("warehouse")}
    started, last = time.monotonic(), _FIRST + timedelta(days=days)
    command = [sys.executable, "-m", "sluice.runtime.dev", "airflow", "dags", "backfill", "ingest_shop"]
    command += ["-s", f"{_FIRST}", "-e", f"{last}", "--reset-dagruns", "--yes", "--max-active-runs", str(at_once)]
    with subprocess.Popen([*command, "--reason", "bench-backfill"], cwd=settings.home()) as process:
        _until(lambda: any(run.state == "running" and "backfill" in run.run_id for run in api.runs("ingest_shop")))
        api.trigger("ingest_shop")  # as the schedule does
        _kill_a_worker(stack)
        if process.wait() != 0:
            raise SystemExit(f"the backfill ended with {process.returncode}")
    ended = [run.end for run in api.runs("ingest_shop") if run.end]
    _settled(api, since=max(ended))
    return time.monotonic() - started, len({run.run_id for run in api.runs("warehouse")} - known)


def _kill_a_worker(stack: AirflowStack) -> None:
    """SIGKILL the process of a task of the backfill."""
    deadline = time.monotonic() + 120
    with psycopg.connect(stack.metadata_url.replace("+psycopg2", ""), autocommit=True) as metadata:
        while time.monotonic() < deadline:
            row = metadata.execute(
                "select pid, task_id, run_id from task_instance where dag_id = 'ingest_shop' and state = 'running'"
                " and run_id like 'backfill%' and task_id like '%.land' and pid is not null"
            ).fetchone()
            if row:
                with suppress(ProcessLookupError):
                    os.kill(row[0], signal.SIGKILL)
                    print(f"killed the worker of {row[1]} in {row[2]}", flush=True)
                    return
            time.sleep(0.05)
    raise SystemExit("no task of the backfill was seen running")


def _settled(api: AirflowApi, since: datetime) -> None:
    """Wait for a run of the warehouse that began after `since` and so reads everything; ask for one if none comes."""

    def ended() -> bool:
        runs = api.runs("warehouse")
        return not any(run.is_active for run in runs) and any(_after(run, since) for run in runs)

    with suppress(TimeoutError):
        _until(lambda: any(_after(run, since) for run in api.runs("warehouse")), 15)
    if not any(_after(run, since) or run.state == "queued" for run in api.runs("warehouse")):
        api.trigger("warehouse")
    _until(ended)
    if failed := [run.run_id for run in api.runs("warehouse") if run.state == "failed"]:
        raise SystemExit(f"these runs of warehouse failed: {', '.join(failed)}")


def _after(run: Run, since: datetime) -> bool:
    return bool(run.start and run.start >= since)


def _until(condition: Callable[[], bool], seconds: float = _LONGEST) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def _verified(stack: AirflowStack) -> bool:
    """Whether every table equals a clean rebuild, and every book balances."""
    verify = subprocess.run(
        [sys.executable, "-m", "sluice.cli", "verify", "--staging"], env={**os.environ, **stack.environment()}
    )
    with psycopg.connect(settings.warehouse_url()) as connection:
        open_batches, late = connection.execute(
            "select count(*) filter (where state in ('landing', 'landed', 'audited')), count(*) from ops.batch"
        ).fetchone()  # type: ignore[misc]
    print(f"{late} batches, {open_batches} of them left half way", flush=True)
    return verify.returncode == 0 and open_batches == 0


if __name__ == "__main__":
    sys.exit(main())
