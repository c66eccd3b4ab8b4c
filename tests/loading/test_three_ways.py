"""O4: the shop loaded day by day, by one backfill, and at random with all that may go wrong: one warehouse.

The real sources, loader, and dbt project; five days, since an hour of the clickstream is a unit. Through the real
scheduler: `tests/end_to_end/test_three_ways.py`; ninety days of that: `make bench-backfill`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn

from sluice import shop
from sluice.declarations import Source, load_folder
from sluice.errors import LeaseHeld
from sluice.loading import RunContext, load
from sluice.runtime.ports import free_port
from sluice.runtime.surroundings import dbt_environment
from sluice.shop.api import create_app
from tests.prove.warehouses import empty, tables

ROOT = Path(__file__).resolve().parents[2]
DAYS = 5
Interval = tuple[datetime, datetime]


@pytest.fixture
def company(
    postgres: Any, warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Source, Any]]:
    """A small company of some days, its services, and the project's own declarations and models over an empty
    warehouse."""
    url, port = postgres.database(name="shop"), free_port()
    shop.init(url, tmp_path / "files", shop.Params(scale=0.2), DAYS)
    server = uvicorn.Server(uvicorn.Config(create_app(url, flaky=False), port=port, log_level="error", lifespan="off"))
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    api = {"base_url": f"http://127.0.0.1:{port}/", "headers": {"X-API-Key": "shop-demo-key"}}
    project = ROOT / "dbt_project"
    for name, value in {
        **dbt_environment(project, warehouse_url),
        "SLUICE_SOURCES_DIR": str(ROOT / "include" / "sources"),
        "SLUICE_SCHEMA_PREFIX": "",
        "SLUICE_RUN_ID": "test",
        "AIRFLOW_CONN_SHOP_DB": url,
        "AIRFLOW_CONN_SHOP_FILES": (tmp_path / "files").as_uri(),
        "AIRFLOW_CONN_SHOP_API": json.dumps({"conn_type": "http", "extra": api}),
    }.items():
        monkeypatch.setenv(name, value)
    options = ["--project-dir", str(project), "--target-path", str(tmp_path / "target"), "--quiet", "--threads", "2"]
    options += ["--log-level-file", "none"]

    from dbt.cli.main import dbtRunner

    manifest = dbtRunner().invoke(["parse", *options]).result

    def build() -> None:
        done = dbtRunner(manifest=manifest).invoke(
            ["build", "--exclude-resource-type", "unit_test", "--exclude-resource-type", "test", *options]
        )
        assert done.success, [str(each.message) for each in getattr(done.result, "results", []) if each.message]

    yield load_folder(ROOT / "include" / "sources").sources["shop"], build
    server.should_exit = True
    serving.join(10)
    postgres.drop(url)


def day(number: int) -> Interval:
    """A day of January; the first holds what was there before the shop opened."""
    first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    return first if number else datetime(2020, 1, 1, tzinfo=UTC), first + timedelta(days=1)


def load_all(source: Source, run: str, interval: Interval | None = None) -> None:
    """One run of the ingest DAG. A unit that another run is at is tried again, as Airflow does."""
    for table in source.tables.values():
        for _ in range(100):
            try:
                load(source, table, RunContext(run, interval))
                break
            except LeaseHeld:
                time.sleep(0.2)
        else:
            pytest.fail(f"{table.name} was held for 20 seconds")


def test_o4_in_order_by_one_backfill_and_at_random_with_a_worker_killed_are_one_warehouse(
    company: tuple[Source, Any], warehouse_url: str
) -> None:
    source, build = company
    found = {}

    def settled(way: str) -> None:
        load_all(source, "scheduled__last")
        build()
        with psycopg.connect(warehouse_url) as connection:
            found[way] = tables(connection)
            assert connection.execute(
                "select count(*) from ops.batch where state in ('landing', 'landed', 'audited')"
            ).fetchone() == (0,), "no batch was left half way"

    empty(warehouse_url)
    for number in range(DAYS):
        load_all(source, f"scheduled__{number}", day(number))
        if number == DAYS // 2:
            build()
    settled("day by day")

    empty(warehouse_url)
    load_all(source, "backfill__all", (day(0)[0], day(DAYS)[0]))
    settled("one backfill")

    empty(warehouse_url)
    numbers = [*range(DAYS), 1, 3]
    random.Random(4).shuffle(numbers)
    half = len(numbers) // 2
    for number in numbers[:half]:
        load_all(source, f"backfill__{number}", day(number))
    killed = subprocess.Popen(
        [sys.executable, "-m", "sluice.cli", "load", "shop.clickstream"],
        env={**os.environ, "SLUICE_WAREHOUSE_URL": warehouse_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with psycopg.connect(warehouse_url, autocommit=True) as looking:
        while not looking.execute(
            "select 1 from ops.batch where state = 'landing' and run_id not like 'b%'"
        ).fetchone():
            assert killed.poll() is None, "it ended before it could be killed"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with psycopg.connect(warehouse_url) as connection:  # what the scheduler waits for in ten minutes
        connection.execute("update ops.lease set expires_at = clock_timestamp() - interval '1 second'")
    scheduled = threading.Thread(target=load_all, args=(source, "scheduled__now"))
    scheduled.start()
    build()
    for number in numbers[half:]:
        load_all(source, f"backfill__{number}", day(number))
    scheduled.join(120)
    assert not scheduled.is_alive()
    settled("at random")

    assert len(found["one backfill"]) > 30
    assert found["one backfill"]["marts.fct_session"][0] > 50
    assert found["one backfill"]["marts.fct_order_line"][0] > 20
    for way in ("day by day", "at random"):
        other = {name for name in found[way] if found[way][name] != found["one backfill"][name]}
        assert not other, {name: (found[way][name], found["one backfill"][name]) for name in other}
