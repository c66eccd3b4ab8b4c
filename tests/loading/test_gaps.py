"""Intervals that were never loaded are found, with the reason, and one command fills them."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from sluice import warehouse as sessions
from sluice.backfill.gaps import gaps
from sluice.cli import app
from sluice.declarations import load_file
from sluice.errors import GateRefused
from tests.loading.conftest import World
from tests.loading.test_full_extracts import DAYS, THINGS, deliver

STOCK = """
stock:
  description: a daily list
  from: {files: {connection: drop, path: "stock/{date}.csv"}}
  mode: append
  key: [sku]
  start: 2026-01-01
  columns:
    sku: {type: text, required: true}
    pieces: {type: integer, required: true}
live:
  description: has no intervals
  from: {files: {connection: drop, path: "live.csv"}}
  mode: full
  key: [sku]
  columns: {sku: {type: text, required: true}}
"""
CLOCK = f"clock: {{connection: db, query: \"select timestamptz '{datetime(2026, 1, 8, 1, tzinfo=UTC)}'\"}}\n"


def found(world: World, table: str = "stock") -> list[tuple[str, str, int, str]]:
    source = load_file(world.sources / "shop.yml")
    with sessions.connect() as connection:
        return [
            (f"{gap.start:%m-%d}", f"{gap.end:%m-%d}", gap.intervals, gap.why)
            for gap in gaps(connection, source, source.tables[table])
        ]


@pytest.fixture
def delivered(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """It is the 8th; of the seven days before, three were delivered, and one of them is broken."""
    world.declare(STOCK, head=CLOCK)
    for day, body in (("01", "sku,pieces\na,1\n"), ("04", "sku,pieces\na,2\n"), ("05", "sku\na\n")):
        world.deliver(f"stock/2026-01-{day}.csv", body)
    with pytest.raises(GateRefused):
        world.load("stock")
    return world


def test_gaps_are_ranges_with_their_reason(delivered: World) -> None:
    assert found(delivered) == [
        ("01-02", "01-04", 2, "never read"),
        ("01-05", "01-06", 1, "refused"),
        ("01-06", "01-08", 2, "never read"),
    ]
    assert found(delivered, "live") == []


def test_one_command_fills_what_was_delivered_meanwhile_and_says_what_is_left(delivered: World) -> None:
    for day in ("02", "03", "05", "06"):
        delivered.deliver(f"stock/2026-01-{day}.csv", f"sku,pieces\na,1{day}\n")
    rehearsed = CliRunner().invoke(app, ["gaps", "--fill"])
    assert rehearsed.exit_code == 1
    assert "nothing was loaded" in rehearsed.stderr
    assert len(found(delivered)) == 3
    half_said = CliRunner().invoke(app, ["gaps", "--yes"])
    assert half_said.exit_code == 2
    assert "goes with --fill" in half_said.stderr
    filled = CliRunner().invoke(app, ["gaps", "shop.stock", "--fill", "--yes"])
    assert filled.exit_code == 1, filled.output
    assert "1 intervals are still missing" in filled.stdout
    delivered.deliver("stock/2026-01-07.csv", "sku,pieces\na,107\n")
    last = CliRunner().invoke(app, ["gaps", "shop.stock", "--fill", "--yes"])
    assert last.exit_code == 0
    assert "no gap is left" in last.stdout
    assert delivered.query("select count(distinct unit) from ops.batch where state = 'published'") == [(7,)]


def test_a_late_unit_that_is_held_for_a_persons_word_is_not_filled_on_the_way(delivered: World) -> None:
    delivered.declare(STOCK.replace("  start:", "  late: {horizon: 1d, beyond: hold}\n  start:"), head=CLOCK)
    delivered.deliver("stock/2026-01-02.csv", "sku,pieces\na,102\n")
    with pytest.raises(GateRefused, match="LATE"):
        delivered.load("stock")
    held = ("01-02", "01-03", 1, "held")
    assert held in found(delivered)
    filled = CliRunner().invoke(app, ["gaps", "--fill", "--yes"])
    assert filled.exit_code == 1
    assert "from 2026-01-02: held, since it came late; nothing was loaded" in filled.stderr
    assert held in found(delivered)


def test_a_unit_that_covers_only_a_part_of_an_interval_leaves_a_gap(world: World) -> None:
    """A source that sent hours, and now sends days."""
    world.declare(STOCK.replace("{date}.csv", "{date}/{hour}.csv"), head=CLOCK)
    for hour in range(24):
        world.deliver(f"stock/2026-01-01/{hour:02}.csv", f"sku,pieces\na,{hour}\n")
    world.deliver("stock/2026-01-03/05.csv", "sku,pieces\na,1\n")
    world.load("stock")
    world.declare(STOCK, head=CLOCK)
    assert found(world) == [("01-02", "01-08", 6, "never read")]
    world.deliver("stock/2026-01-03.csv", "sku,pieces\na,3\n")
    world.load("stock")
    assert found(world) == [("01-02", "01-03", 1, "never read"), ("01-04", "01-08", 4, "never read")]


def records(world: World) -> list[tuple]:
    return world.query(
        "select dag_id, range_start::date::text, range_end::date::text, intervals, state, runs_succeeded, runs_failed,"
        " rows_applied, asked_by, reason, finished_at is not null from ops.backfill order by backfill_id"
    )


def test_filling_gaps_and_loading_past_days_are_backfills_with_who_what_why_and_how_they_ended(
    delivered: World,
) -> None:
    who = getpass.getuser()
    delivered.deliver("stock/2026-01-02.csv", "sku,pieces\nb,1\nc,1\n")
    again = CliRunner().invoke(app, ["gaps", "shop", "--fill", "--yes", "--reason", "the second came at last"])
    assert again.exit_code == 1, "the fifth is still broken"
    past = ["load", "shop.stock", "--from", "2026-01-01", "--to", "2026-01-02"]
    assert CliRunner().invoke(app, past).exit_code == 0
    assert records(delivered) == [
        ("sluice gaps shop", "2026-01-02", "2026-01-07", 5, "failed", 2, 1, 2, who, "the second came at last", True),
        ("sluice load shop.stock", "2026-01-01", "2026-01-02", 2, "success", 1, 0, 0, who, None, True),
    ]
    assert CliRunner().invoke(app, ["load", "shop.stock"]).exit_code in (0, 1)
    assert len(records(delivered)) == 2, "what is merely pending is no backfill"


def test_a_backfill_counts_the_rows_that_its_load_told_of_and_none_that_later_extracts_had_asserted_again(
    world: World,
) -> None:
    world.declare(THINGS)
    for day in (DAYS[0], DAYS[2]):
        deliver(world, day, {1: "a"})
        world.load("things")
    deliver(world, DAYS[1], {1: "b", 2: "c"})
    load = CliRunner().invoke(app, ["load", "shop.things", "--from", DAYS[1], "--to", DAYS[1]])
    told = dict(zip(*(line.split("\t") for line in load.stdout.splitlines()), strict=True))
    listed = CliRunner().invoke(app, ["backfill", "list"]).stdout
    kept = dict(zip(*(line.split("\t") for line in listed.splitlines()), strict=True))
    assert world.query("select sum(rows_applied) from ops.batch where part = 'supplement'") == [(2,)]
    assert (told["applied"], kept["applied"]) == ("2", "2")


def test_a_load_of_past_days_that_is_killed_is_at_work_until_then_and_failed_afterwards(delivered: World) -> None:
    reads = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from sluice.cli import load\n"
            "load.load_table = lambda *_: time.sleep(60)\n"
            "from sluice.cli import app; app(['load', 'shop.stock', '--from', '2026-01-01', '--to', '2026-01-01'])",
        ],
        env=os.environ,
    )
    try:
        deadline = time.monotonic() + 90
        while not records(delivered):
            delivered.warehouse.rollback()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert CliRunner().invoke(app, ["backfill", "list"]).exit_code == 0
        assert [row[4] for row in records(delivered)] == ["running"]
    finally:
        reads.kill()
        reads.wait()
    deadline = time.monotonic() + 30
    while [row[4] for row in records(delivered)] != ["failed"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        assert CliRunner().invoke(app, ["backfill", "list"]).exit_code == 0


def test_a_backfill_that_the_scheduler_wrote_down_before_the_command_is_one_record_with_the_commands_reason(
    world: World,
) -> None:
    from sluice.backfill import Asked, finish, start

    at = datetime(2026, 1, 1, tzinfo=UTC)
    seen = Asked("ingest_shop", 7, at, at, 0, "none", "ann")
    with sessions.connect() as connection:
        first = start(connection, seen)
        assert start(connection, replace(seen, intervals=3, reason="they came again")) == first
        assert start(connection, seen) == first
        finish(connection, 7, ["a", "b"], ["c"])
    assert [row[3:10] for row in records(world)] == [(3, "failed", 2, 1, 0, "ann", "they came again")]
