"""Killed at any statement, overtaken, or run twice at once: the state afterwards is the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from sluice.declarations import load_file
from sluice.errors import LandingLost, LeaseHeld, StaleLease
from sluice.loading import RunContext, audit, land, lease, publish
from tests.loading.conftest import Killed, World
from tests.loading.test_full_extracts import DAYS, THINGS, deliver, meaning_in, meaning_of


def test_L1_a_crash_at_every_statement_leaves_the_same_state_after_the_retry(
    world: World, kill_at: Callable[[int | None], Callable[[], int]]
) -> None:
    world.declare(THINGS)
    extracts = {DAYS[0]: {0: "a", 1: "a", 2: "b"}, DAYS[1]: {0: "a", 1: "c", 3: "x"}, DAYS[2]: {0: "a", 3: "a"}}
    for day in (DAYS[0], DAYS[2]):
        deliver(world, day, extracts[day])
        world.load("things")
    deliver(world, DAYS[1], extracts[DAYS[1]])
    world.warehouse.execute("create table before as select * from ops.batch")
    done, k = False, 0
    while not done:
        k += 1
        statements = kill_at(k)
        try:
            world.load("things", run="the-same-run")
            done = k > statements()
        except Killed:
            pass
        kill_at(None)
        world.load("things", run="the-same-run")
        assert meaning_in(world) == meaning_of(extracts), f"killed at statement {k}"
        assert world.books_balance()
        assert world.query("select count(*) from ops.batch where state in ('landing', 'landed', 'audited')") == [(0,)]
        assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]
        assert world.query(
            "select count(*) from ops.batch where unit = %s and part = 'unit' and state = 'published'",
            f"{DAYS[1]}/things.csv",
        ) == [(1,)]
        # once more from where it was, killed one statement later
        world.warehouse.execute("delete from ops.quarantine")
        world.warehouse.execute("delete from ops.gate_result")
        world.warehouse.execute("delete from ops.schema_event")
        world.warehouse.execute("delete from staging.shop__things where _batch_id not in (select batch_id from before)")
        world.warehouse.execute("delete from ops.batch where batch_id not in (select batch_id from before)")
    assert k > 30, "the sweep went over the whole load"


def test_L3_an_attempt_that_was_overtaken_cannot_publish(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a"})
    source = load_file(world.sources / "shop.yml")
    run = RunContext("run")
    zombie = land(source, source.tables["things"], run)
    audit(zombie)
    world.warehouse.execute("update ops.batch set heartbeat_at = now()")
    retry = land(source, source.tables["things"], run)  # the same run tries again while the first attempt still lives
    world.warehouse.execute("update ops.batch set state = 'audited' where batch_id = any(%s)", [zombie])
    with pytest.raises(StaleLease, match="STALE_LEASE"):
        publish(zombie)
    audit(retry)
    assert [p.state for p in publish(retry)] == ["published"]
    assert [p.state for p in publish(retry)] == ["published"], "publishing again is a no-op"
    assert world.query("select count(*) from staging.shop__things") == [(1,)]


SLOW = """
slow:
  description: a query that lasts until the source lets go of a lock
  from:
    postgres:
      connection: db
      query: "select id, at from things, pg_advisory_xact_lock_shared(1) where at >= {start} and at < {end}"
  mode: append
  key: [id]
  start: %s
  columns: {id: {type: bigint}, at: {type: timestamptz}}
"""


@pytest.fixture
def holder(world: World, postgres: object) -> Iterator[psycopg.Connection]:
    """A session of the source that holds one day's reading up until its transaction ends."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    world.declare(SLOW % yesterday)
    with psycopg.connect(world.source_url) as source:
        source.execute("create table things as select 1::bigint as id, %s::timestamptz as at", [yesterday])
        source.commit()
        source.execute("select pg_advisory_xact_lock(1)")
        yield source


def wait_for_the_reading(holder: psycopg.Connection) -> None:
    wait_until(lambda: holder.execute("select 1 from pg_locks where locktype = 'advisory' and not granted").fetchone())


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_L4_a_reading_that_lasts_longer_than_its_lease_keeps_it(
    world: World, holder: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE", timedelta(seconds=2))
    with ThreadPoolExecutor() as pool, holder:
        reading = pool.submit(world.load, "slow", run="long")
        wait_for_the_reading(holder)
        ((taken_until,),) = world.query("select expires_at from ops.lease")
        wait_until(lambda: world.query("select clock_timestamp() > %s", taken_until) == [(True,)])
        with pytest.raises(LeaseHeld, match="long holds the lease"):
            world.load("slow", run="other")
        holder.rollback()
        assert [p.rows_applied for p in reading.result()] == [1]
    assert world.query("select state, count(*) from ops.batch group by 1") == [("published", 1)]


def test_L3_a_reading_that_was_overtaken_before_it_ended_lands_nothing(
    world: World, holder: psycopg.Connection
) -> None:
    """INV-2: as when a machine slept for longer than the lease."""
    with ThreadPoolExecutor() as pool, holder:
        reading = pool.submit(world.load, "slow", run="zombie")
        wait_for_the_reading(holder)
        world.warehouse.execute("update ops.lease set expires_at = clock_timestamp() - interval '1 second'")
        overtaking = pool.submit(world.load, "slow", run="other")
        # it has the lease, and waits to drop the table into which the first still writes
        wait_until(lambda: world.query("select 1 from pg_locks where locktype = 'relation' and not granted"))
        holder.rollback()
        with pytest.raises(StaleLease, match="STALE_LEASE"):
            reading.result()
        assert [p.rows_applied for p in overtaking.result()] == [1]
    assert world.query("select run_id, state from ops.batch order by 1") == [
        ("other", "published"),
        ("zombie", "abandoned"),
    ]
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]


def test_L4_two_runs_of_one_unit_do_not_overlap_and_say_who_holds_the_lease(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a"})
    source = load_file(world.sources / "shop.yml")
    first = land(source, source.tables["things"], RunContext("scheduled__1"))
    with pytest.raises(LeaseHeld, match="scheduled__1 holds the lease"):
        land(source, source.tables["things"], RunContext("backfill__1"))
    audit(first)
    publish(first)
    assert land(source, source.tables["things"], RunContext("backfill__1")) == []


@pytest.mark.parametrize("at", ["landed", "audited"])
def test_L10_a_server_that_crashed_and_emptied_landing_publishes_nothing(world: World, at: str) -> None:
    """Landing tables are unlogged: crash recovery truncates them, while the ledger says that they are full."""
    world.declare(THINGS)
    deliver(world, DAYS[0], {0: "a", 1: "a"})
    world.load("things")
    deliver(world, DAYS[1], {0: "a", 1: "b"})
    source = load_file(world.sources / "shop.yml")
    ids = land(source, source.tables["things"], RunContext("run"))
    if at == "audited":
        audit(ids)
    for (name,) in world.query("select tablename from pg_tables where schemaname = 'landing'"):
        world.warehouse.execute(f"truncate landing.{name}")
    with pytest.raises(LandingLost, match="nothing was published"):
        (publish if at == "audited" else audit)(ids)
    assert meaning_in(world) == meaning_of({DAYS[0]: {0: "a", 1: "a"}})
    world.load("things")
    assert meaning_in(world) == meaning_of({DAYS[0]: {0: "a", 1: "a"}, DAYS[1]: {0: "a", 1: "b"}})


def test_a_row_that_goes_missing_between_audit_and_publish_is_noticed(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {0: "a", 1: "a"})
    source = load_file(world.sources / "shop.yml")
    ids = land(source, source.tables["things"], RunContext("run"))
    audit(ids)
    world.warehouse.execute(f"delete from landing.b{ids[0]}_typed where id = 1")
    with pytest.raises(LandingLost, match="holds 1 rows of this batch where 2 were landed"):
        publish(ids)
