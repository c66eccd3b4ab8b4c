"""Ninety past days of the shop three ways, two of them through the real scheduler: three times the same warehouse.

    make bench-backfill                   # ARGS='--days 30' for fewer

Starts a stack of its own (PostgreSQL, a small demo shop, Airflow) in `.sluice/benchmarks/backfill`. First some days as
they come: a day passes at the shop, its ingest DAG runs, the warehouse follows; one day's median seconds times the
number of days are the *sequential* time (so many days one by one would take hours). Then all days pass at the shop, and
each way begins with an empty warehouse and reads the same days:

1. **day by day**: the call that the task of a backfill makes, here, one interval after the other;
2. **one backfill**: `airflow dags backfill`; its seconds end when the warehouse has read everything;
3. **at random**: ranges in random order, some forwards, some backwards, one of them twice, while the schedule's runs
   go on beside them, and a worker is killed.

Each ends with a run of the schedule, as the next morning has it. Every table must be equal in all three, `sluice
verify` must find it equal to a clean rebuild, and no batch may be left half way; else the exit code is 1, and the
tables that differ are named. What was found goes to `benchmarks/results/backfill.md`; with fewer than 90 days, and
where something differs, to `backfill.md` beside the stack. The last line is `backfill: <days>_days=<seconds>
versus_sequential=<ratio> warehouse_runs=<n>`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sluice import settings, shop
from sluice.declarations import load_folder
from sluice.loading import RunContext, load
from sluice.runtime.airflow import AirflowStack
from sluice.runtime.airflow_api import AirflowApi, Run
from sluice.runtime.layout import Layout
from sluice.runtime.pipeline import Pipeline
from sluice.runtime.ports import free_port
from sluice.runtime.progress import Progress
from sluice.runtime.run import Session
from tests.prove.warehouses import empty, tables

RESULTS = Path(__file__).parent / "results" / "backfill.md"
_PORTS = ("POSTGRES", "WEB", "SHOP", "DELIVERIES", "EXPORTER", "WATCHER")
_FIRST = date(2026, 1, 1)
_OPENS = timedelta(hours=2)  # an interval of ingest_shop begins at 02:00 UTC
_LONGEST = 2 * 3600.0
_INGEST, _WAREHOUSE = "ingest_shop", "warehouse"


@dataclass(frozen=True)
class Way:
    """What one way of loading came to."""

    seconds: float
    warehouse_runs: int
    found: dict[str, tuple[int, str]]  # rows and a hash of all values, per table

    @property
    def rows(self) -> int:
        return sum(count for count, _ in self.found.values())


@dataclass
class Bench:
    """A running stack, and how to ask it."""

    api: AirflowApi
    stack: AirflowStack
    days: int
    at_once: int

    # -- the three ways ---------------------------------------------------------------------------

    def one_day(self) -> float:
        """A day passes, is read, and reaches the marts: seconds."""
        started = time.monotonic()
        _pass(1)
        self.scheduled()
        self.settled()
        return time.monotonic() - started

    def day_by_day(self) -> float:
        """Each interval by the engine's own call, without a scheduler; the models twice."""
        started = time.monotonic()
        source = load_folder(settings.sources_dir()).sources["shop"]
        for number in range(self.days):
            begin = datetime.combine(_FIRST + timedelta(number), datetime.min.time(), UTC) + _OPENS
            run = RunContext(f"scheduled__{begin:%F}", (begin, begin + timedelta(days=1)))
            with ThreadPoolExecutor(2) as beside:  # tables, as in a run of the DAG
                list(beside.map(lambda table, run=run: load(source, table, run), source.tables.values()))
            if number == self.days // 2:
                _build()
        _build()
        return time.monotonic() - started

    def one_backfill(self) -> float:
        """One command, until the warehouse has read everything."""
        started = time.monotonic()
        self.backfill(0, self.days - 1)
        self.settled()
        return time.monotonic() - started

    def at_random(self) -> float:
        """Ranges in random order, one of them twice, beside the schedule's runs and with a worker killed."""
        started, order = time.monotonic(), random.Random(4)
        length = max(self.days // 6, 2)
        ranges = [(first, min(first + length, self.days) - 1) for first in range(0, self.days, length)]
        ranges.append(order.choice(ranges))
        order.shuffle(ranges)
        with self.schedule() as goes_on:
            killer = threading.Thread(target=self.kill_a_worker)
            killer.start()
            for number, (first, last) in enumerate(ranges):
                self.backfill(first, last, *(["--run-backwards"] if number % 2 else []))
                if number == len(ranges) // 2:
                    goes_on.set()
            killer.join()
        self.settled()
        return time.monotonic() - started

    # -- what they do -----------------------------------------------------------------------------

    def backfill(self, first: int, last: int, *options: str) -> None:
        """The command, as a person types it, for the days with these numbers."""
        command = [sys.executable, "-m", "sluice.runtime.dev", "airflow", "dags", "backfill", _INGEST, "--yes"]
        command += ["-s", f"{_FIRST + timedelta(first)}", "-e", f"{_FIRST + timedelta(last)}", "--reset-dagruns"]
        command += ["--max-active-runs", str(self.at_once), "--reason", "bench-backfill", *options]
        done = subprocess.run(command, cwd=settings.home(), timeout=_LONGEST)
        if done.returncode:
            raise SystemExit(f"the backfill of days {first} to {last} ended with {done.returncode}")

    def scheduled(self) -> None:
        """A run as the schedule makes it, to its end."""
        run = self.api.wait(_INGEST, self.api.trigger(_INGEST), seconds=_LONGEST)
        if run.state != "success":
            raise SystemExit(f"{run.run_id} of {_INGEST} is {run.state}")

    @contextmanager
    def schedule(self) -> Iterator[threading.Event]:
        """Runs of the schedule, one after the other, from the moment at which the event is set."""
        goes_on, over, problems = threading.Event(), threading.Event(), []

        def keep_running() -> None:
            goes_on.wait()
            try:
                while not over.is_set():
                    self.scheduled()
            except BaseException as problem:
                problems.append(problem)

        thread = threading.Thread(target=keep_running, daemon=True)
        thread.start()
        yield goes_on
        over.set()
        thread.join()
        if problems:
            raise problems[0]

    def kill_a_worker(self) -> None:
        """SIGKILL the process of a task of a backfill that reads."""
        with self.metadata() as metadata:

            def found() -> Any:
                return metadata.execute(
                    "select pid, task_id, run_id from task_instance where dag_id = %s and state = 'running'"
                    " and run_id like 'backfill%%' and task_id = 'clickstream.wait' and pid is not null"
                    " and start_date < clock_timestamp() - interval '0.5 s'",
                    [_INGEST],
                ).fetchone()

            pid, task, run = _until(found, 600, every=0.05)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            print(f"killed the worker of {task} in {run}", flush=True)

    def settled(self) -> None:
        """Wait for a run of the warehouse that began after the last publication, and so read everything."""
        with psycopg.connect(settings.warehouse_url()) as connection:
            (since,) = connection.execute("select max(published_at) from ops.batch").fetchone()  # type: ignore[misc]

        def came() -> bool:
            return any(run.start and run.start >= since for run in self.api.runs(_WAREHOUSE))

        def active() -> bool:
            return any(run.is_active for run in self.api.runs(_WAREHOUSE))

        _until(lambda: not active())
        while not came():
            try:
                _until(lambda: active() or came(), 20)
            except TimeoutError:  # the announcement was lost, or there was nothing to announce
                self.api.trigger(_WAREHOUSE)
            _until(lambda: not active())
        if failed := [run for run in self.api.runs(_WAREHOUSE) if run.state == "failed"]:
            raise SystemExit("\n".join(self.why(run) for run in failed))

    def why(self, run: Run) -> str:
        """A run that failed, and the end of the log of each of its tasks that did."""
        told = [f"{run.run_id} of {run.dag_id} failed"]
        for task in self.api.tasks(run):
            if task.state == "failed":
                log = Layout.from_environment().logs / "tasks" / task.log_path()
                told += [f"{task.task_id}, attempt {task.try_number}:", log.read_text()[-4000:] if log.exists() else ""]
        return "\n".join(told)

    def lanes(self) -> list[tuple[str, int, int]]:
        """Pools of which a backfill's tasks ever held more slots than there are: (pool, held, slots)."""
        with self.metadata() as metadata:
            return metadata.execute(
                """
                with edges as (
                    select pool, at, step from task_instance
                    cross join lateral (values (start_date, 1), (end_date, -1)) as edge (at, step)
                    where run_id like 'backfill%' and start_date is not null and end_date is not null
                ),

                held as (
                    select pool, sum(step) over (partition by pool order by at, step) as slots from edges
                )

                select pool, max(held.slots), slot_pool.slots from held inner join slot_pool using (pool)
                group by pool, slot_pool.slots having max(held.slots) > slot_pool.slots
                """
            ).fetchall()

    def metadata(self) -> psycopg.Connection:
        """Airflow's own database."""
        return psycopg.connect(self.stack.metadata_url.replace("+psycopg2", ""), autocommit=True)

    def from_nothing(self) -> None:
        """Pause what would build, and empty the warehouse."""
        self.api.set_paused(_WAREHOUSE, True)
        _until(lambda: not any(run.state == "running" for run in self.api.runs()))
        empty(settings.warehouse_url())
        self.api.set_paused(_WAREHOUSE, False)


def main() -> int:
    """Start, load three ways, compare, verify, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=90, help="how many past days (default 90)")
    parser.add_argument(
        "--one-by-one", type=int, default=3, help="how many to load as they come (default 3; 0: the first)"
    )
    parser.add_argument("--at-once", type=int, default=4, help="runs of a backfill at once (default 4)")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started ends too
    state = os.environ.setdefault("SLUICE_STATE_DIR", str(settings.home() / ".sluice" / "benchmarks" / "backfill"))
    shutil.rmtree(state, ignore_errors=True)
    os.environ["SLUICE_SOURCES_DIR"] = str(_sources(Path(state)))
    os.environ.setdefault("SLUICE_SHOP_SCALE", "0.2")
    os.environ["SLUICE_SHOP_DAYS"] = "1"
    os.environ["SLUICE_OURAIRPORTS_ARCHIVE"] = ""
    for name in _PORTS:
        os.environ.setdefault(f"SLUICE_{name}_PORT", str(free_port()))
    session = Session(Layout.from_environment(), Progress())
    session.claim()
    try:
        stack = session.start()
        with stack.api() as api:
            bench = Bench(api, stack, asked.days, asked.at_once)
            one, ways = _measured(bench, session, asked.one_by_one)
            problems = [*_unlike(ways), *(f"pool {pool} held {held} of {has}" for pool, held, has in bench.lanes())]
        problems += _not_verified(stack)
    finally:
        session.stop()
    for problem in problems:
        print(problem, flush=True)
    took = ways["one_backfill"]
    line = (
        f"backfill: {asked.days}_days={took.seconds:.0f} versus_sequential={one * asked.days / took.seconds:.2f}"
        f" warehouse_runs={took.warehouse_runs}"
    )
    place = RESULTS if asked.days >= 90 and not problems else Path(state) / RESULTS.name
    place.write_text(_page(asked, one, ways, problems, line))
    print(f"written to {place}")
    if problems:
        return 1
    print(f"{len(took.found)} tables are equal in all three")
    print(line)
    return 0


def _sources(state: Path) -> Path:
    """The declarations, but in a shop this small an hour of the night has five events: one torn line is no refusal."""
    place = state / "sources"
    shutil.copytree(settings.sources_dir(), place)
    declared = (place / "shop.yml").read_text()
    (place / "shop.yml").write_text(declared.replace("max_reject_share: 0.05", "max_reject_share: 0.5"))
    return place


def _measured(bench: Bench, session: Session, one_by_one: int) -> tuple[float, dict[str, Way]]:
    """Load in all ways; returns the seconds of one day by itself, and what each way came to."""
    api = bench.api
    Pipeline(api, session.supervisor.check, session.progress.note).wait_for_dags({_INGEST, _WAREHOUSE}, session.begun)
    began = time.monotonic()
    api.set_paused(_WAREHOUSE, False)
    api.set_paused(_INGEST, False)  # the scheduler makes the run that is due
    _until(lambda: any(run.end for run in api.runs(_INGEST)))
    bench.settled()
    first_day = time.monotonic() - began
    one = statistics.median([bench.one_day() for _ in range(one_by_one)] or [first_day])
    print(f"a day by itself: {one:.1f} s", flush=True)
    while (done := _pass(1)) < bench.days:
        print(f"\rday {done} of {bench.days} at the shop", end="", flush=True)
    print()
    ways = {}
    for load_all in (bench.one_backfill, bench.day_by_day, bench.at_random):
        name = load_all.__name__
        bench.from_nothing()
        known = {run.run_id for run in api.runs(_WAREHOUSE)}
        seconds = load_all()
        runs = len({run.run_id for run in api.runs(_WAREHOUSE)} - known)
        bench.scheduled()
        bench.settled()
        with psycopg.connect(settings.warehouse_url()) as connection:
            way = ways[name] = Way(seconds, runs, tables(connection))
        print(f"{name}: {seconds:.0f} s, {runs} runs of the warehouse; {way.rows} rows", flush=True)
    return one, ways


def _unlike(ways: dict[str, Way]) -> list[str]:
    """One sentence for each way that is not the warehouse of day by day."""
    first, problems = ways["day_by_day"].found, []
    for name, way in ways.items():
        other = way.found
        if unlike := sorted(table for table in first.keys() | other.keys() if first.get(table) != other.get(table)):
            problems.append(f"{name} is another warehouse than day_by_day: {', '.join(unlike)}")
    return problems


def _page(asked: argparse.Namespace, one: float, ways: dict[str, Way], problems: list[str], line: str) -> str:
    """For a reader in a year."""
    took = ways["one_backfill"].seconds
    rows = [f"| a day by itself, until the marts have it | {one:.1f} | | |"]
    rows += [f"| {asked.days} days one by one, from that | {one * asked.days:,.0f} | | |"]
    rows += [
        f"| {name.replace('_', ' ')} | {way.seconds:,.0f} | {way.warehouse_runs} | {way.rows:,} |"
        for name, way in ways.items()
    ]
    compared = [f"* {problem}" for problem in problems] or [
        f"{len(ways['day_by_day'].found)} tables, by every value: equal in all three ways, two of them through the "
        "scheduler. `sluice verify` found",
        "the last equal to a clean rebuild, and no batch was left half way.",
    ]
    return "\n".join(
        [
            f"# {asked.days} past days by one backfill",
            "",
            "`make bench-backfill` (`benchmarks/backfill.py`) wrote this page.",
            "",
            f"* date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"* machine: {os.cpu_count()} processors, load average {os.getloadavg()[2]:.1f} of the last 15 minutes",
            f"* `--days {asked.days} --one-by-one {asked.one_by_one} --at-once {asked.at_once}`, the shop at scale "
            f"{os.environ['SLUICE_SHOP_SCALE']}",
            "",
            "| | seconds | runs of the warehouse | rows in the end |",
            "|---|--:|--:|--:|",
            *rows,
            f"| **one backfill against one by one** | **{one * asked.days / took:.1f} times as fast** | | |",
            "",
            "Day by day is without a scheduler: the call that a task makes, for one interval after the other.",
            "",
            "## Three warehouses",
            "",
            *compared,
            "",
            f"    {line}",
            "",
        ]
    )


def _pass(days: int) -> int:
    """Let days pass at the shop; how many it has then."""
    environ = os.environ
    return shop.advance(environ["SLUICE_SHOP_DATABASE_URL"], environ["SLUICE_SHOP_FILES"], days).days_done


def _build() -> None:
    """Every model, by dbt itself."""
    layout = Layout.from_environment()
    command = [str(Path(sys.executable).with_name("dbt")), "build", "--quiet", "--profiles-dir", "."]
    command += ["--exclude-resource-type", "unit_test", "--exclude-resource-type", "test"]
    environment = {**os.environ, "DBT_TARGET_PATH": str(layout.state / "by-hand"), "SLUICE_RUN_ID": "day_by_day"}
    subprocess.run(command, cwd=layout.dbt_project, env=environment, check=True)


def _until(condition: Callable[[], Any], seconds: float = _LONGEST, every: float = 0.5) -> Any:
    """What `condition` says at last."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(every)
    return found


def _not_verified(stack: AirflowStack) -> list[str]:
    """Where the last warehouse is not what a clean rebuild would be, or a book is open."""
    verify = subprocess.run(
        [sys.executable, "-m", "sluice.cli", "verify", "--staging"], env={**os.environ, **stack.environment()}
    )
    with psycopg.connect(settings.warehouse_url()) as connection:
        left, known = connection.execute(
            "select count(*) filter (where state in ('landing', 'landed', 'audited')), count(*) from ops.batch"
        ).fetchone()  # type: ignore[misc]
    print(f"{known} batches, {left} of them left half way", flush=True)
    problems = [] if verify.returncode == 0 else ["`sluice verify` found another warehouse than a clean rebuild is"]
    return problems + ([f"{left} batches were left half way"] if left else [])


if __name__ == "__main__":
    sys.exit(main())
