"""Who tells the warehouse that something new was published: whoever ends next, by what the ledger says."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from sluice.declarations import load_file
from tests.loading.conftest import World, world  # noqa: F401

# ruff: noqa: F811
sys.path.append(str(Path(__file__).resolve().parents[2] / "plugins"))

TABLES = """
stock:
  description: stock
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: append
  key: [id]
  columns: {id: {type: integer, required: true}}
"""
_DAY = (datetime(2026, 1, 3, tzinfo=UTC), datetime(2026, 1, 4, tzinfo=UTC))


@pytest.fixture
def shop(world: World) -> World:
    world.declare(TABLES)
    world.deliver("2026-01-03.csv", "id\n1\n2\n")
    return world


def wakes(world: World, run_id: str, run_type: str = "scheduled", waiting: int = 0) -> bool:
    """Whether the last task of a run ends as a success, whose event starts the warehouse, and not as skipped."""
    from airflow.sdk.exceptions import AirflowSkipException
    from sluice_airflow.batches import AnnounceOperator

    task = AnnounceOperator(task_id="announce", source=load_file(world.sources / "shop.yml"))
    ti = SimpleNamespace(get_dr_count=lambda dag_id, states: waiting)
    try:
        task.step({"dag_run": SimpleNamespace(run_id=run_id, run_type=run_type), "ti": ti})
    except AirflowSkipException:
        return False
    return True


def test_what_the_last_run_of_a_backfill_published_is_announced_by_the_scheduled_run_queued_behind_it(shop):
    assert shop.load("stock", run="backfill__1", interval=_DAY)[0].rows_applied == 2
    assert not wakes(shop, "backfill__1", "backfill", waiting=1), "it leaves it to those behind"
    assert shop.load("stock", run="scheduled__1") == [], "which has nothing of its own"
    assert wakes(shop, "scheduled__1")
    assert not wakes(shop, "scheduled__2"), "once"


def test_what_a_person_published_without_airflow_is_announced_by_the_next_run(shop):
    shop.load("stock", run="cli:1")
    assert wakes(shop, "scheduled__1")


def test_a_killed_announcement_is_made_again_by_its_own_retry_and_by_nobody_else(shop):
    """The worker died after the ledger had it and before Airflow did."""
    shop.load("stock", run="scheduled__1")
    assert wakes(shop, "scheduled__1")
    assert not wakes(shop, "scheduled__2")
    assert wakes(shop, "scheduled__1")


def test_of_runs_of_a_backfill_that_end_at_once_one_announces(shop):
    shop.load("stock", run="backfill__1", interval=_DAY)
    with ThreadPoolExecutor(4) as beside:
        told = list(beside.map(lambda number: wakes(shop, f"backfill__{number}", "backfill"), range(4)))
    assert sum(told) == 1


def test_a_unit_that_came_again_empty_is_announced_too_since_its_rows_are_gone(shop):
    shop.load("stock", run="scheduled__1")
    assert wakes(shop, "scheduled__1")
    shop.deliver("2026-01-03.csv", "id\n")
    assert shop.load("stock", run="scheduled__2")[0].rows_applied == 0
    assert wakes(shop, "scheduled__2")
