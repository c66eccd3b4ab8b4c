"""Late data: how late is known, what becomes of it is declared, and nothing is dropped in silence."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice import warehouse as sessions
from sluice.cli import app
from sluice.errors import GateRefused, LedgerError
from sluice.watch import record_lineage
from tests.loading.conftest import World

EVENTS = """
events:
  description: events in a file a day; some happened long before
  from: {{files: {{connection: drop, path: "events/{{date}}.jsonl", format: jsonl}}}}
  mode: append
  key: [id]
  effective_at: at
  max_reject_share: 0
  late: {{horizon: 7d, beyond: {beyond}}}
  columns:
    id: {{type: bigint, required: true}}
    at: {{type: timestamptz, required: true}}
"""
STOCK = """
stock:
  description: a list a day
  from: {{files: {{connection: drop, path: "stock/{{date}}.csv"}}}}
  mode: append
  key: [sku, day]
  late: {{horizon: 7d, beyond: {beyond}}}
  columns:
    sku: {{type: text, required: true}}
    day: {{type: date, required: true, from_path: date}}
    pieces: {{type: integer, required: true}}
"""
BOOKS = "rows_read, rows_applied, rows_duplicate, rows_quarantined, rows_late"


def deliver_events(world: World, file: int, *events: tuple[int, int]) -> None:
    """A file of one day of January, of events (id, day)."""
    lines = (json.dumps({"id": key, "at": f"2026-01-{day:02}T12:00:00Z"}) for key, day in events)
    world.deliver(f"events/2026-01-{file:02}.jsonl", "\n".join(lines) + "\n")


def sluice(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def report(table: str) -> dict[str, str]:
    header, *lines = sluice("lateness", f"shop.{table}").splitlines()
    assert len(lines) == 1
    return dict(zip(header.split("\t"), lines[0].split("\t"), strict=True))


def readers_have(world: World, log: str, columns: str) -> list[tuple]:
    return world.query(
        f"select {columns} from staging.{log} where _batch_id in"
        " (select batch_id from ops.batch where superseded_seq is null) order by 1, 2"
    )


@pytest.fixture
def events(world: World, request: pytest.FixtureRequest) -> World:
    """Twenty days in order, then a file with one event of the day, one of yesterday and two of long ago."""
    world.declare(EVENTS.format(beyond=getattr(request, "param", "restate")))
    deliver_events(world, 1, (1, 1), (2, 1))
    deliver_events(world, 20, (20, 20))
    world.load("events")
    deliver_events(world, 21, (21, 21), (22, 20), (23, 3), (24, 2))
    world.load("events")
    return world


def test_lateness_is_measured_against_what_was_published_before_and_not_by_a_clock(events: World) -> None:
    """K5: the first days are not late, however long ago they are; a past day that was asked for is not counted."""
    assert report("events") == {
        **{"table": "shop.events", "rows": "7", "in order": "4", "1 h": "0", "1 d": "1", "7 d": "0", "30 d": "2"},
        **{"more": "0", "usual": "18 days, 12:00:00", "latest": "18 days, 12:00:00", "horizon": "7 days, 0:00:00"},
        **{"beyond": "restate", "share": "28.57%", "went in": "2", "waiting": "0", "left out": "0"},
    }
    deliver_events(events, 4, (41, 4))
    events.load("events", interval=(datetime(2026, 1, 4, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)))
    assert report("events")["rows"] == "7"
    assert events.books_balance()


def test_the_share_that_came_after_a_model_was_taken_for_complete(events: World, tmp_path: Path) -> None:
    """K5: each model says after how long; one that says nothing is not judged."""

    def node(name: str, horizon: str | None) -> dict:
        return {
            **{"resource_type": "model", "schema": "marts", "alias": name, "name": name},
            "original_file_path": f"models/marts/{name}.sql",
            "depends_on": {"nodes": ["source.events"]},
            "config": {"meta": {"horizon": horizon} if horizon else {}},
        }

    def built_from(*models: tuple[str, str | None]) -> None:
        tree = {"sources": {"source.events": {"source_name": "shop", "name": "events"}}}
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({**tree, "nodes": {name: node(name, horizon) for name, horizon in models}}))
        with sessions.connect() as connection:
            record_lineage(connection, path)

    built_from(("fct_daily", "1d"), ("fct_monthly", "30d"), ("fct_hourly", "6h"), ("dim_any", None))
    header, *lines = [line.split("\t") for line in sluice("lateness", "--models", "shop.events").splitlines()]
    assert header == ["model", "horizon", "table", "rows", "came later", "share"]
    assert lines == [
        ["marts.fct_daily", "1 day, 0:00:00", "shop.events", "7", "2", "28.57%"],
        ["marts.fct_hourly", "6:00:00", "shop.events", "7", "3", "42.86%"],
        ["marts.fct_monthly", "30 days, 0:00:00", "shop.events", "7", "0", "0.00%"],
    ]
    with pytest.raises(LedgerError, match=r"fct_daily.sql: config.meta.horizon .* is no length of time"):
        built_from(("fct_daily", "soon"))


@pytest.mark.parametrize("events", ["hold"], indirect=True)
def test_held_rows_wait_are_in_the_books_as_late_and_go_in_by_a_persons_word(events: World) -> None:
    """K5: beyond the horizon they are held, and counted; rejects are others, of which the contract allows none."""
    assert events.query(f"select {BOOKS} from ops.batch order by batch_id desc limit 1") == [(4, 2, 0, 0, 2)]
    assert events.query("select key, code, state from ops.quarantine order by 1") == [
        ("[23]", "LATE", "open"),
        ("[24]", "LATE", "open"),
    ]
    assert [key for key, _ in readers_have(events, "shop__events", "id, 1")] == [1, 2, 20, 21, 22]
    before = report("events")
    assert (before["share"], before["went in"], before["waiting"]) == ("28.57%", "0", "2")
    events.load("events")
    assert report("events") == before, "nothing is read or held twice"
    sluice("quarantine", "replay", "shop.events", "--code", "LATE", "--reason", "the app was offline", "--yes")
    assert [key for key, _ in readers_have(events, "shop__events", "id, 1")] == [1, 2, 20, 21, 22, 23, 24]
    assert report("events")["waiting"] == "0"
    assert events.books_balance()


@pytest.mark.parametrize("events", ["count"], indirect=True)
def test_rows_that_are_only_counted_stay_out_and_can_be_looked_at(events: World) -> None:
    assert events.query(f"select {BOOKS} from ops.batch order by batch_id desc limit 1") == [(4, 2, 0, 0, 2)]
    assert events.query("select key, state, state_reason from ops.quarantine order by 1") == [
        ("[23]", "discarded", "the declaration says: count"),
        ("[24]", "discarded", "the declaration says: count"),
    ]
    assert (report("events")["waiting"], report("events")["left out"]) == ("0", "2")
    events.load("events", interval=(datetime(2026, 1, 21, tzinfo=UTC), datetime(2026, 1, 22, tzinfo=UTC)))
    assert len(readers_have(events, "shop__events", "id, 1")) == 5, "its content is published as it is"
    deliver_events(events, 21, (21, 21), (22, 20), (23, 3), (24, 2), (25, 2))
    events.load("events", interval=(datetime(2026, 1, 21, tzinfo=UTC), datetime(2026, 1, 22, tzinfo=UTC)))
    assert len(readers_have(events, "shop__events", "id, 1")) == 8, "what a backfill asks for goes in"
    assert events.books_balance()


@pytest.mark.parametrize("events", ["hold"], indirect=True)
def test_a_late_correction_of_a_unit_that_readers_have_waits_whole(events: World) -> None:
    """Its rows have instants of their own; were only the late ones held, readers would lose those they replace."""
    deliver_events(events, 1, (1, 1), (2, 1), (3, 1))
    with pytest.raises(GateRefused, match="LATE"):
        events.load("events")
    assert [key for key, _ in readers_have(events, "shop__events", "id, 1")] == [1, 2, 20, 21, 22]


@pytest.mark.parametrize(("events", "beyond"), [("hold", "hold"), ("count", "count")], indirect=["events"])
def test_what_lies_behind_by_exactly_the_horizon_is_not_late(events: World, beyond: str) -> None:
    """Rows, units and the report draw the line at the same instant."""
    ((newest,),) = events.query("select max(effective_at) from ops.batch")
    at = (newest - timedelta(days=7), newest - timedelta(days=7, microseconds=1))
    lines = (json.dumps({"id": 30 + number, "at": instant.isoformat()}) for number, instant in enumerate(at))
    events.deliver("events/2026-01-22.jsonl", "\n".join(lines) + "\n")
    events.load("events")
    assert events.query(f"select {BOOKS} from ops.batch order by batch_id desc limit 1") == [(2, 1, 0, 0, 1)]
    assert [key for key, _ in readers_have(events, "shop__events", "id, 1")][-1] == 30
    told = report("events")
    assert (told["went in"], told["waiting" if beyond == "hold" else "left out"]) == ("0", "3")

    events.declare(STOCK.format(beyond=beyond))
    for day in (12, 13, 20):
        stock(events, day, day)
    events.load("stock")
    stock(events, 13, 1013)
    events.load("stock")
    assert [pieces for pieces, _ in readers_have(events, "shop__stock", "pieces, 1")] == [12, 20, 1013]
    assert (report("stock")["waiting"], report("stock")["left out"]) == ("0", "0")


def stock(world: World, day: int, pieces: int) -> None:
    world.deliver(f"stock/2026-01-{day:02}.csv", f"sku,pieces\na,{pieces}\n")


@pytest.mark.parametrize("beyond", ["hold", "count"])
def test_a_late_correction_never_takes_away_what_it_would_replace(world: World, beyond: str) -> None:
    """A unit that readers have is replaced whole or not at all: held rows of it would leave a hole."""
    world.declare(STOCK.format(beyond=beyond))
    for day in (3, 4, 20):
        stock(world, day, day)
    world.load("stock")
    stock(world, 3, 1003)
    stock(world, 19, 19)  # within the horizon
    have = [(3,), (4,), (19,), (20,)]
    if beyond == "hold":
        with pytest.raises(GateRefused, match=r"lies 17 days.* behind what is published, more than 7 days.*\(LATE\)"):
            world.load("stock")
        assert readers_have(world, "shop__stock", "pieces, 1")[0] == (3, 1)
        assert [row[:1] for row in readers_have(world, "shop__stock", "pieces, 1")] == have
        assert report("stock")["waiting"] == "1"
        ((batch,),) = world.query("select batch_id from ops.batch where state = 'refused'")
        sluice("batch", "approve", str(batch), "--reason", "counted again")
        world.load("stock")
        assert [row[:1] for row in readers_have(world, "shop__stock", "pieces, 1")] == [*have[1:], (1003,)]
        assert report("stock")["waiting"] == "0"
    else:
        world.load("stock")
        assert [row[:1] for row in readers_have(world, "shop__stock", "pieces, 1")] == have
        assert world.query("select rows_late, state from ops.batch where rows_late > 0") == [(1, "unchanged")]
        assert report("stock")["left out"] == "1"
        assert world.query("select verdict, severity from ops.gate_result where check_name = 'late' and batch_id ="
                           " (select batch_id from ops.batch where rows_late > 0)") == [("warn", "warn")]  # fmt: skip
        assert world.load("stock") == [], "it is not read again and again"
    assert world.books_balance()


def test_a_refused_unit_that_is_declined_is_not_read_again_until_it_changes(world: World) -> None:
    world.declare(STOCK.format(beyond="hold"))
    for day in (3, 20):
        stock(world, day, day)
    world.load("stock")
    stock(world, 3, 1003)
    for _ in range(2):
        with pytest.raises(GateRefused):
            world.load("stock")
    ((batch,),) = world.query("select max(batch_id) from ops.batch where state = 'refused'")
    assert report("stock")["waiting"] == "1"
    sluice("batch", "decline", str(batch), "--reason", "the old count was right")
    assert report("stock")["waiting"] == "0"
    assert world.load("stock") == []
    stock(world, 3, 2003)
    with pytest.raises(GateRefused):
        world.load("stock")


VERSIONS = """
prices:
  description: prices, which may be entered for the past
  from: {postgres: {connection: db, table: prices}}
  mode: cursor
  cursor: {column: entered_at, overlap: 30d}
  key: [sku]
  effective_at: valid_from
  late: {horizon: 7d, beyond: hold}
  columns:
    sku: {type: text, required: true}
    price: {type: bigint, required: true}
    valid_from: {type: timestamptz, required: true}
    entered_at: {type: timestamptz, required: true}
"""


def test_a_backdated_version_that_is_read_again_in_the_overlap_waits_once(world: World) -> None:
    import psycopg

    world.declare(VERSIONS)
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table prices (sku text, price bigint, valid_from timestamptz, entered_at timestamptz)")
        source.execute("insert into prices values ('a', 1, now() - interval '400 days', now())")
        world.load("prices")
        assert world.query("select count(*) from staging.shop__prices") == [(1,)], "the first reading is not late"
        source.execute("insert into prices values ('b', 2, now() - interval '300 days', now()), ('c', 3, now(), now())")
        for _ in range(3):
            world.load("prices")
        assert world.query("select sku from staging.shop__prices order by 1") == [("a",), ("c",)]
        assert world.query("select count(*) from ops.quarantine where state = 'open'") == [(1,)]
        sluice("quarantine", "replay", "shop.prices", "--code", "LATE", "--reason", "entered late", "--yes")
        assert world.query("select sku from staging.shop__prices order by 1") == [("a",), ("b",), ("c",)]
        world.load("prices")
        assert world.query("select count(*) from ops.quarantine where state = 'open'") == [(0,)]
        assert world.query("select count(*) from staging.shop__prices") == [(3,)]
    assert world.books_balance()
