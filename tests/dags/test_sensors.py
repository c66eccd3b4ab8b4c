"""Waiting: what is said when it ends without success, how many look at a connection at once, and what is missed at once
rather than in the end."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from sluice.declarations import load_file
from tests.loading.conftest import World, world  # noqa: F401

# ruff: noqa: F811
sys.path.append(str(Path(__file__).resolve().parents[2] / "plugins"))

TABLES = """
orders:
  description: orders
  from: {files: {connection: drop, path: "{name}.csv"}}
  mode: append
  key: [id]
  columns: {id: {type: integer, required: true}}
"""


def _declared(world: World, head: str = "wait: 1s\n"):
    world.declare(TABLES, head=head)
    source = load_file(world.sources / "shop.yml")
    return source, source.tables["orders"]


async def _first(trigger) -> dict:
    return (await anext(aiter(trigger.run()))).payload


def test_a_sensor_that_gives_up_says_what_it_waited_for_and_since_when_and_is_not_tried_again(world):
    from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
    from sluice_airflow.sensors import ReadySensor, ReadyTrigger

    source, table = _declared(world)
    task = ReadySensor(task_id="wait", source=source, table=table, poll=timedelta(milliseconds=100))
    begun = datetime.now(UTC)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({"dag_run": SimpleNamespace(run_type="scheduled")})
    trigger = deferred.value.trigger
    assert isinstance(trigger, ReadyTrigger)
    event = asyncio.run(_first(ReadyTrigger(**trigger.serialize()[1])))
    assert datetime.now(UTC) - begun > timedelta(seconds=1), "it waited as long as is declared"
    with pytest.raises(AirflowFailException) as said:
        task.resume({}, event)
    assert str(said.value) == (
        f"shop__orders: gave up. Waited since {begun:%Y-%m-%d %H:%M} UTC for: a file {{name}}.csv at connection drop. "
        "Nothing was read. Ask tests; then clear this task"
    )
    from sluice_airflow.listener import on_task_instance_failed

    failed = SimpleNamespace(
        dag_id="ingest_shop", task_id="orders.wait", run_id="r", log_url="", try_number=1, max_tries=3,
        task=SimpleNamespace(owner="tests"),
    )  # fmt: skip
    on_task_instance_failed(None, failed, said.value)
    assert world.query("select kind, detail from ops.incident") == [("task_failed", str(said.value))]


def test_in_a_run_of_a_backfill_the_first_task_of_a_table_does_all_its_steps_and_skips_the_others(
    world, warehouse: psycopg.Connection
):
    """And reads its own interval only, also when a circuit made it wait: what else is pending is the schedule's."""
    from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskDeferred
    from sluice_airflow.ingest import ingest_dag

    world.declare(TABLES.replace("{name}.csv", "{date}.csv"))
    source, path = load_file(world.sources / "shop.yml"), world.sources / "shop.yml"
    for day in (4, 5):
        world.deliver(f"2026-01-0{day}.csv", f"id\n{day}\n")
    task = ingest_dag(source, path).get_task("orders.wait")
    context = {
        "dag_run": SimpleNamespace(
            run_id="backfill__4",
            run_type="backfill",
            data_interval_start=datetime(2026, 1, 4, 2, tzinfo=UTC),
            data_interval_end=datetime(2026, 1, 5, 2, tzinfo=UTC),
        ),
        "ti": SimpleNamespace(xcom_push=lambda **_: None, map_index=-1),
    }
    warehouse.execute(
        "insert into ops.circuit (connection, failures, opened_at, next_try_at)"
        " values ('drop', 9, now(), now() + interval '1 hour')"
    )
    with pytest.raises(TaskDeferred):
        task.execute(context)
    warehouse.execute("delete from ops.circuit")
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.resume(context, {"ready": True})
    assert sorted(skipped.value.tasks) == ["orders.audit", "orders.land", "orders.publish"]
    assert world.query("select run_id, unit, state from ops.batch") == [("backfill__4", "2026-01-04.csv", "published")]
    assert world.query("select id from staging.shop__orders") == [(4,)]


def test_a_file_that_comes_while_a_task_waits_ends_the_wait(world):
    from sluice_airflow.sensors import waiting

    source, table = _declared(world, "wait: 1h\n")
    trigger = waiting(source, table, datetime.now(UTC), timedelta(milliseconds=50))
    threading.Timer(0.3, lambda: world.deliver("a.csv", "id\n1\n")).start()
    assert asyncio.run(_first(trigger))["ready"] is True


def test_no_more_look_at_a_connection_at_once_than_its_pool_has_slots(world, monkeypatch):
    """Deferred tasks are in no pool: the triggerer itself must count. Forty wait; two may look."""
    from sluice_airflow import sensors

    source, table = _declared(world, "wait: 1h\nat_once: {drop: 2}\n")
    at_once, most, looks = 0, 0, 0
    lock = threading.Lock()

    def look(*_: str) -> tuple[bool, str]:
        nonlocal at_once, most, looks
        with lock:
            at_once, looks = at_once + 1, looks + 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return True, ""

    monkeypatch.setattr(sensors, "_look", look)
    monkeypatch.setattr(sensors, "_turns", {})

    async def wait_together() -> None:
        triggers = [sensors.waiting(source, table, datetime.now(UTC)) for _ in range(40)]
        await asyncio.gather(*(_first(trigger) for trigger in triggers))

    asyncio.run(wait_together())
    assert (most, looks) == (2, 40)


def test_O7_a_connection_that_a_gate_will_ask_is_missed_by_the_first_task_of_the_warehouse(
    world, warehouse: psycopg.Connection, tmp_path, monkeypatch
):
    from airflow.sdk.exceptions import AirflowFailException
    from sluice_airflow.gates import PendingOperator

    monkeypatch.setenv("SLUICE_EXPECTATIONS_DIR", str(tmp_path))
    (tmp_path / "marts.yml").write_text(
        "reconcile: [{name: x, on: marts.x, severity: block, left: {query: select 1, connection: ledger_of_the_bank},"
        " right: {query: select 1}}]\n"
    )
    task = PendingOperator(task_id="pending", models=[], fingerprint="f", sources=[])
    with pytest.raises(
        AirflowFailException, match=r"the connection 'ledger_of_the_bank' is not set\. Set AIRFLOW_CONN"
    ):
        task.execute({"dag_run": SimpleNamespace(run_id="r1"), "params": {}})
    assert warehouse.execute("select count(*) from ops.gate_result").fetchone() == (0,), "nothing was begun"
