"""A connection that fails again and again is asked rarely, and says so once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from sluice import warehouse
from sluice.declarations import Source, Table, load_file
from sluice.errors import CircuitOpen, SourceRefused, SourceUnavailable
from sluice.loading import circuit, ready
from sluice.readers import Readiness
from tests.loading.conftest import World
from tests.loading.server import Server, serving

TWO = """
one: &table
  description: one
  from: {rest: {connection: api, path: /one, retries: 0}}
  mode: full
  key: [code]
  max_reject_share: 0
  columns: {code: {type: integer, required: true}}
two:
  <<: *table
  from: {rest: {connection: api, path: /two, retries: 0}}
other:
  <<: *table
  from: {rest: {connection: elsewhere, path: /, retries: 0}}
"""
HEAD = "circuit: {api: {failures: 3, wait: 1m}}\n"
UP = (200, {}, {"items": [{"code": 1}]})


@pytest.fixture
def api(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        monkeypatch.setenv("AIRFLOW_CONN_API", server.url)
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", "http://127.0.0.1:1")
        world.declare(TWO, head=HEAD)
        server.answer = lambda request: (503, {}, {})
        yield server


def declared(world: World, table: str = "one") -> tuple[Source, Table]:
    source = load_file(world.sources / "shop.yml")
    return source, source.tables[table]


def fail(world: World, times: int, *tables: str) -> None:
    for table in (tables or ("one",)) * times:
        with pytest.raises(SourceUnavailable, match="status 503"):
            world.load(table)


def make_due(world: World) -> None:
    world.query("update ops.circuit set next_try_at = clock_timestamp() - interval '1 second' returning 1")


def events(world: World) -> list[str]:
    return [code for (code,) in world.query("select code from ops.source_event order by source_event_id")]


def test_E11_a_dead_source_is_left_alone_after_so_many_failures_and_says_so_once(world: World, api: Server) -> None:
    fail(world, 1, "one", "two", "one")
    assert events(world) == ["CIRCUIT_OPENED"]
    api.asked.clear()
    for table in ("one", "two", "one"):
        with pytest.raises(CircuitOpen, match=r"connection api failed 3 times in a row \(last: status 503\)") as error:
            world.load(table)
        assert error.value.retryable
    found = ready(*declared(world))
    assert not found.ready
    assert "is left alone since" in found.waiting_for
    assert api.asked == [], "nobody asked"
    assert events(world) == ["CIRCUIT_OPENED"], "said once, not once per task"
    with pytest.raises(SourceUnavailable, match="ConnectError"):
        world.load("other")  # another connection has a circuit of its own
    assert world.query("select connection, opened_at is not null from ops.circuit order by 1") == [
        ("api", True),
        ("elsewhere", False),
    ]


def test_one_try_is_let_through_when_it_is_due_and_waits_longer_each_time_it_fails(world: World, api: Server) -> None:
    fail(world, 3)
    waits = "select round(extract(epoch from next_try_at - last_failure_at)) from ops.circuit"
    assert world.query(waits) == [(60,)]
    for expected in (120, 240):
        make_due(world)
        api.asked.clear()
        fail(world, 1)
        with pytest.raises(CircuitOpen):
            world.load("two")
        assert len(api.asked) == 1
        assert world.query(waits) == [(expected,)]
    world.query("update ops.circuit set failures = 40 returning 1")
    make_due(world)
    fail(world, 1)
    assert world.query(waits) == [(1800,)]
    assert events(world) == ["CIRCUIT_OPENED"]


def test_the_circuit_closes_when_something_was_read_and_says_so_once(world: World, api: Server) -> None:
    fail(world, 3)
    api.answer = lambda request: UP
    make_due(world)
    for _ in range(2):
        assert world.load("two")[0].rows_applied <= 1
    assert events(world) == ["CIRCUIT_OPENED", "CIRCUIT_CLOSED"]
    assert world.query("select failures, opened_at, next_try_at from ops.circuit") == [(0, None, None)]


def test_a_success_between_failures_keeps_the_circuit_closed(world: World, api: Server) -> None:
    fail(world, 2)
    api.answer = lambda request: UP
    world.load("two")
    api.answer = lambda request: (503, {}, {})
    fail(world, 2)
    assert events(world) == []


def test_an_open_circuit_makes_the_task_land_wait_as_its_sensor_does_and_uses_up_no_retry(
    world: World, api: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "plugins"))
    from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
    from sluice_airflow.batches import LandOperator
    from sluice_airflow.sensors import ReadyTrigger, _look

    fail(world, 3)
    api.asked.clear()
    source, table = declared(world)
    task = LandOperator(task_id="land", source=source, table=table)
    context = {"dag_run": SimpleNamespace(run_type="scheduled", run_id="scheduled__1")}
    with pytest.raises(TaskDeferred) as waits:
        task.step(context)
    assert isinstance(waits.value.trigger, ReadyTrigger)
    assert api.asked == []
    assert not _look("shop", "one")[0], "what the trigger asks; it asks nobody until the next try is due"
    with pytest.raises(AirflowFailException, match=r"gave up\. Waited since 2026-01-01 00:00 UTC for: it"):
        task.resume(context, {"ready": False, "since": "2026-01-01T00:00:00", "waiting_for": "it"})
    make_due(world)
    api.answer = lambda request: UP
    assert _look("shop", "one")[0]
    assert len(task.resume(context, {"ready": True})) == 1


def test_a_sensor_that_finds_the_server_alive_lets_the_next_reading_try(world: World, api: Server) -> None:
    fail(world, 3)
    assert not ready(*declared(world)).ready
    make_due(world)
    assert ready(*declared(world)).ready, "it answers, if only with an error"
    api.answer = lambda request: UP
    assert world.load("one")[0].rows_applied == 1


def test_a_warehouse_that_is_down_is_one_more_thing_to_wait_for(
    world: World, api: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert ready(*declared(world)) == Readiness(False, "the warehouse, which does not answer")


def test_only_one_of_many_tasks_is_the_try_that_is_due(world: World, api: Server) -> None:
    fail(world, 3)
    make_due(world)
    source, table = declared(world)
    admitted = 0
    with warehouse.connect() as one, warehouse.connect() as other:
        for connection in (one, other, one):
            try:
                with circuit.watched(connection, source, table):
                    admitted += 1
            except CircuitOpen:
                pass
    assert admitted == 1


def test_E20_refused_credentials_count_and_a_refused_batch_does_not(world: World, api: Server) -> None:
    api.answer = lambda request: (200, {}, {"items": [{"code": "not a number"}]})
    for _ in range(4):
        with pytest.raises(Exception, match="break the contract"):
            world.load("one")
    assert world.query("select coalesce(sum(failures), 0) from ops.circuit") == [(0,)]
    api.answer = lambda request: (401, {}, {})
    for _ in range(3):
        with pytest.raises(SourceRefused):
            world.load("one")
    assert world.query("select failures, last_error from ops.circuit") == [(3, "credentials refused")]
    assert events(world) == ["CIRCUIT_OPENED"]


def test_every_kind_of_source_has_a_circuit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", "postgresql://nobody:hunter2@127.0.0.1:1/none")
    monkeypatch.setenv("AIRFLOW_CONN_DROP", "http://127.0.0.1:1")
    world.declare(
        """
        rows:
          description: rows
          from: {postgres: {connection: db, table: public.t}}
          mode: full
          key: [id]
          columns: {id: {type: integer}}
        lines:
          description: lines
          from: {files: {connection: drop, path: "a.csv"}}
          mode: full
          key: [id]
          columns: {id: {type: integer}}
        """,
        head="circuit: {db: {failures: 2}, drop: {failures: 2}}\n",
    )
    for table in ("rows", "lines"):
        for _ in range(2):
            assert not ready(*declared(world, table)).ready
        with pytest.raises(CircuitOpen) as error:
            world.load(table)
        assert "hunter2" not in str(error.value)
    assert events(world) == ["CIRCUIT_OPENED"] * 2
    assert world.query("select count(*) from ops.batch") == [(0,)]


def test_a_warehouse_that_fails_is_not_held_against_the_source(world: World, api: Server) -> None:
    api.answer = lambda request: UP
    world.warehouse.execute("revoke create on schema landing from public, current_user")
    try:
        with pytest.raises((SourceUnavailable, psycopg.Error)):
            world.load("one")
    finally:
        world.warehouse.execute("grant create on schema landing to current_user")
    assert world.query("select coalesce(sum(failures), 0) from ops.circuit") == [(0,)]


FILES = """
orders:
  description: orders
  from: {files: {connection: drop, path: a.csv}}
  mode: append
  key: [id]
  columns: {id: {type: integer, required: true}}
"""


@pytest.mark.parametrize("there", [False, True], ids=["no file", "one that was read before"])
def test_a_place_of_files_that_is_listed_and_holds_nothing_new_closes_its_circuit(
    world: World, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """No reading follows that could: the page would stay open until the next delivery."""
    world.declare(FILES, head="circuit: {drop: {failures: 2, wait: 1m}}\n")
    if there:
        world.deliver("a.csv", "id\n1\n")
        world.load("orders")
    alive = os.environ["AIRFLOW_CONN_DROP"]
    monkeypatch.setenv("AIRFLOW_CONN_DROP", "http://127.0.0.1:1")
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            world.load("orders")
    assert events(world) == ["CIRCUIT_OPENED"]
    monkeypatch.setenv("AIRFLOW_CONN_DROP", alive)
    make_due(world)
    if there:
        assert world.load("orders") == []
    else:
        assert not ready(*declared(world, "orders")).ready
    assert events(world) == ["CIRCUIT_OPENED", "CIRCUIT_CLOSED"]
    assert world.query("select failures, opened_at from ops.circuit") == [(0, None)]
