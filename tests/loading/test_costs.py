"""What a batch took is its own, whoever else is at work."""

from __future__ import annotations

import time

import pytest

from sluice.declarations import load_file
from sluice.loading import RunContext, audit, land, publish
from tests.conftest import busy
from tests.loading.conftest import World

TABLE = """
events:
  description: What happened
  mode: append
  key: [id]
  from: {files: {connection: drop, path: "{date}.csv"}}
  columns:
    id: {type: bigint, required: true}
    text: {type: text}
"""


def test_a_batch_is_charged_the_wal_of_its_own_steps_and_not_that_of_others(world: World, warehouse_url: str) -> None:
    def deliver(day: int) -> int:
        rows = "".join(f"{day * 10000 + n},{'x' * 50}{n}\n" for n in range(5000))
        world.deliver(f"2026-01-{day:02}.csv", f"id,text\n{rows}")
        (published,) = world.load("events")
        return world.query("select wal_bytes from ops.batch where batch_id = %s", published.batch_id)[0][0]

    world.declare(TABLE)
    deliver(1)  # makes the log
    alone = deliver(2)
    assert alone > 5000 * 60
    (before,) = world.query("select pg_current_wal_insert_lsn()::text")[0]
    with busy(warehouse_url):
        beside = deliver(3)
    (whole,) = world.query("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", before)[0]
    assert whole > 3 * alone
    assert beside == pytest.approx(alone, rel=0.3)  # a full page here or there


def test_the_time_of_a_batch_is_that_of_its_own_steps(world: World) -> None:
    world.declare(TABLE)
    for day in (1, 2, 3):
        world.deliver(f"2026-01-{day:02}.csv", "id,text\n" + f"{day},x\n" * (200_000 if day == 2 else 1))
    start = time.monotonic()
    world.load("events")
    took = time.monotonic() - start
    first, second, third = (s for (s,) in world.query("select seconds from ops.batch order by effective_at"))
    assert second > max(first, third)
    assert min(first, third) > 0
    assert first + second + third <= took


def test_a_new_log_gets_the_index_of_its_key_after_its_first_rows_and_once(world: World) -> None:
    """One by one the rows of a first load would find their places in it: a fifth more WAL."""

    def indexes() -> list[tuple]:
        definition = "select indexdef from pg_indexes where tablename = 'shop__events' and indexdef like '%effective%'"
        return world.query(definition)

    world.declare(TABLE)
    source = load_file(world.sources / "shop.yml")
    world.deliver("2026-01-01.csv", "id,text\n1,x\n")
    batch_ids = land(source, source.tables["events"], RunContext("first"))
    audit(batch_ids)
    assert world.query("select to_regclass('staging.shop__events') is not null") == [(True,)]
    assert indexes() == []
    publish(batch_ids)
    ((made,),) = indexes()
    assert made.endswith("USING btree (id, _effective_at)")
    world.deliver("2026-01-02.csv", "id,text\n2,x\n")
    world.load("events")
    assert indexes() == [(made,)]
