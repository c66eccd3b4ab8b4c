"""A source that announces itself: each announcement is one event, and none is waited for in vain."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

HOME = Path(__file__).resolve().parents[2]
sys.path.append(str(HOME / "plugins"))

DECLARED = """
source: shop
description: a test
owner: tests
schedule: "0 4 * * *"
announced_by: {BY}
tables:
  orders:
    description: orders
    from: {files: {connection: drop, path: "{date}/orders.csv"}}
    mode: append
    key: [id]
    columns: {id: {type: integer, required: true}}
"""


@pytest.fixture
def declare(tmp_path, monkeypatch):
    (tmp_path / "sources").mkdir()
    (tmp_path / "files").mkdir()
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path / "sources"))
    monkeypatch.setenv("AIRFLOW_CONN_DROP", f"file://{tmp_path / 'files'}")

    def write(by: str) -> Path:
        (tmp_path / "sources" / "shop.yml").write_text(textwrap.dedent(DECLARED.replace("{BY}", by)))
        return tmp_path

    return write


async def _events(trigger, act, count, seconds=8.0):
    """What a trigger says while `act` goes on beside it; fewer than `count` when the time is over."""
    heard = []

    async def listen():
        async for event in trigger.run():
            heard.append(event.payload)
            if len(heard) == count:
                return

    listening = asyncio.create_task(listen())
    await asyncio.wait_for(act(heard), seconds)
    try:
        await asyncio.wait_for(listening, seconds)
    except TimeoutError:
        listening.cancel()
    return heard


def _trigger(monkeypatch):
    from sluice_airflow import announcements

    monkeypatch.setattr(announcements, "_FIRST_PAUSE", 0.2)
    monkeypatch.setattr(announcements, "_TOGETHER", 0.3)
    made = announcements.AnnouncementTrigger(source="shop")
    path, arguments = made.serialize()
    assert (path, arguments) == ("sluice_airflow.announcements.AnnouncementTrigger", {"source": "shop"})
    return made


def test_notify_starts_the_source_and_several_at_once_are_one_announcement(
    declare, warehouse, warehouse_url, monkeypatch
):
    declare("{notify: {connection: db, channel: ready}}")
    monkeypatch.setenv("AIRFLOW_CONN_DB", warehouse_url)
    trigger = _trigger(monkeypatch)

    async def act(heard):
        await _until(lambda: _listening(warehouse))
        for _ in range(5):
            warehouse.execute("notify ready")
        await _until(lambda: heard)
        await asyncio.sleep(0.5)
        assert len(heard) == 1
        warehouse.execute("notify ready, 'again'")

    events = asyncio.run(_events(trigger, act, 2))
    assert [event["announced_by"] for event in events] == ["notify ready"] * 2


def test_what_was_announced_while_the_connection_was_broken_is_not_lost(declare, warehouse, warehouse_url, monkeypatch):
    declare("{notify: {connection: db, channel: ready}}")
    monkeypatch.setenv("AIRFLOW_CONN_DB", warehouse_url)
    trigger = _trigger(monkeypatch)

    async def act(heard):
        await _until(lambda: _listening(warehouse))
        warehouse.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sluice listen'"
        )
        warehouse.execute("notify ready")

    events = asyncio.run(_events(trigger, act, 1))
    assert [event["announced_by"] for event in events] == ["connection opened again"]


def test_a_marker_file_starts_the_source_when_it_appears_and_when_it_is_written_again(declare, monkeypatch):
    place = declare("{marker: {connection: drop, path: READY, every: 1s}}") / "files" / "READY"
    place.write_text("old: it was there before anybody looked")
    trigger = _trigger(monkeypatch)

    async def act(heard):
        await asyncio.sleep(1.3)
        assert heard == []
        place.write_text("today")
        await _until(lambda: heard)

    events = asyncio.run(_events(trigger, act, 1))
    assert [event["announced_by"] for event in events] == ["file READY"]


def test_the_dag_of_such_a_source_starts_by_announcement_and_still_by_the_clock(declare, monkeypatch):
    place = declare("{notify: {connection: db, channel: ready}}")
    from sluice_airflow.ingest import ingest_dag

    from sluice.declarations import load_file

    path = place / "sources" / "shop.yml"
    dag = ingest_dag(load_file(path), path)
    assert type(dag.timetable).__name__ == "AssetOrTimeSchedule"
    assert type(dag.timetable.timetable).__name__ == "CronDataIntervalTimetable"
    (asset,) = dag.timetable.asset_condition.objects
    (watcher,) = asset.watchers
    assert (asset.name, watcher.trigger.serialize()[1]) == ("announced.shop", {"source": "shop"})


def _listening(warehouse: psycopg.Connection) -> bool:
    return bool(
        warehouse.execute(
            "select 1 from pg_stat_activity where application_name = 'sluice listen' and query like 'listen%'"
        ).fetchone()
    )


async def _until(condition, seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to pass")
