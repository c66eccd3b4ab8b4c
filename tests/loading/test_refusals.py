"""A refusal is told until its unit is judged otherwise or a person has declined it: everywhere, or nowhere."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.alerts import detect
from sluice.cli import app
from sluice.cli.batch import approve, decline
from sluice.declarations import load_folder
from sluice.errors import GateRefused
from sluice.gates import override
from sluice.reports.board import board
from sluice.reports.project import Project
from sluice.watch import metrics, record_objectives
from tests.loading.conftest import World

LIVE = """
things:
  description: read as it is now
  from: {postgres: {connection: db, table: public.things}}
  mode: %s
  key: [id]
  columns:
    id: {type: bigint, required: true}
    changed_at: {type: timestamptz, required: true}
"""
CURSOR = LIVE % "cursor\n  cursor: {column: changed_at}\n  deletes: {detect: key_scan}"
FILES = """
things:
  description: files
  from: {files: {connection: drop, path: "%s"}}
  mode: full
  key: [id]
  max_reject_share: 0
  columns:
    id: {type: bigint, required: true}
    value: {type: text, accepted: [a, b], severity: {accepted: block}}
"""
DAY_2 = (datetime(2026, 11, 2, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))
HEADER = "id,value\n"
WHOLE = HEADER + "".join(f"{number},a\n" for number in range(20))


def told(world: World) -> int | None:
    """The batch whose refusal is told: by the board, the incidents, the metric and `gate show --failed` alike."""
    (line,) = board(load_folder(world.sources).sources.values(), Project()).lines
    found = line.batch_id if line.state == "refused" else None
    detect.sweep(world.warehouse)
    title = "select title from ops.incident where resolved_at is null and kind in ('batch_refused', 'rejects_exceeded')"
    assert [title.split()[1] for (title,) in world.query(title)] == ([str(found)] if found else [])
    record_objectives(world.warehouse)
    (metric,) = (q for q in metrics.QUERIES if q.families[0].name == "sluice_table_last_batch_refused")
    assert world.query(metric.sql) == [("shop", "things", int(found is not None))]
    shown = CliRunner().invoke(app, ["gate", "show", "--failed", "--on", "shop.things"])
    assert shown.exit_code == int(found is not None), shown.output
    return found


def refused(world: World, because: str, **given: object) -> int:
    """Load, be refused, and say which batch it was."""
    with pytest.raises(GateRefused, match=because):
        world.load("things", **given)  # type: ignore[arg-type]
    ((batch,),) = world.query("select max(batch_id) from ops.batch where state = 'refused'")
    return batch


@pytest.fixture
def source(world: World) -> psycopg.Connection:
    world.source_url  # noqa: B018
    with psycopg.connect(world.source_url, autocommit=True) as connection:
        connection.execute("create table things (id bigint, changed_at timestamptz default clock_timestamp())")
        connection.execute("insert into things select generate_series(1, 20)")
        yield connection


def test_E10_a_refused_reading_of_a_cursor_is_history_once_a_later_one_is_published(
    world: World, source: psycopg.Connection
) -> None:
    """Each reading is a unit of its own: the next one takes up what this one would have read."""
    world.declare(CURSOR)
    world.load("things")
    source.execute("delete from things where id > 2")
    first = refused(world, "MASS_DELETE")
    assert told(world) == first
    second = refused(world, "MASS_DELETE")
    assert told(world) == second
    approve(first, "the range was cut")
    assert world.load("things")[0].rows_deleted == 18
    assert told(world) is None
    source.execute("insert into things values (21)")
    world.load("things")
    assert told(world) is None
    source.execute("delete from things where id < 3")
    assert refused(world, "MASS_DELETE") == told(world)


@pytest.mark.parametrize("place", ["a table", "an undated file"])
def test_E9_a_refused_extract_of_what_is_read_as_it_is_now_is_history_once_a_later_one_is_published(
    world: World, request: pytest.FixtureRequest, place: str
) -> None:
    if place == "a table":
        source = request.getfixturevalue("source")
        world.declare(LIVE % "full")
    else:
        world.declare(FILES % "things.csv")
        world.deliver("things.csv", WHOLE)
    world.load("things")
    if place == "a table":
        source.execute("alter table things rename to elsewhere; create table things (like elsewhere)")
    else:
        world.deliver("things.csv", HEADER)
    assert refused(world, "EMPTY_SOURCE") == told(world)
    if place == "a table":
        source.execute("drop table things; alter table elsewhere rename to things")
    else:
        world.deliver("things.csv", WHOLE)
    world.load("things")
    assert told(world) is None
    assert world.query("select count(*) from staging.shop__things") == [(20,)]


def test_D6_a_refused_day_is_told_until_that_day_is_loaded_however_many_others_are(world: World) -> None:
    """And no longer, though the check that refused it has no later result."""
    world.declare(FILES % "{date}.csv")
    world.deliver("2026-11-01.csv", WHOLE.replace("\n7,a", "\n7,q"))
    world.deliver("2026-11-02.csv", WHOLE)
    first = refused(world, "rule accepted of value, whose severity is block")
    assert world.query("select state from ops.batch order by 1") == [("published",), ("refused",)]
    assert told(world) == first
    world.deliver("2026-11-03.csv", WHOLE)
    assert refused(world, "severity is block") == told(world), "the same day, read again beside the third"
    world.deliver("2026-11-01.csv", WHOLE)
    world.load("things")
    assert told(world) is None


@pytest.fixture
def declined(world: World) -> World:
    """Two days, of which the second was refused, and a person has said that it is rightly so."""
    world.declare(FILES % "{date}.csv")
    world.deliver("2026-11-01.csv", WHOLE)
    world.load("things")
    world.deliver("2026-11-02.csv", HEADER)
    decline(refused(world, "EMPTY_SOURCE"), "a holiday")
    return world


def read_again_stays_declined(world: World, path: Path) -> None:
    """A file that was only touched is read, and found to hold what was declined."""
    path.touch()
    assert world.load("things") == []
    assert world.query("select state, verdict from ops.batch order by batch_id desc limit 1") == [
        ("unchanged", "the same content as was declined")
    ]


def test_E9_a_decline_holds_until_the_content_changes_whoever_reads_the_unit_meanwhile(declined: World) -> None:
    world, batches = declined, "select count(*) from ops.batch"
    assert told(world) is None
    assert world.load("things") == []
    for count in (3, 5):
        refused(world, "EMPTY_SOURCE", interval=DAY_2)
        assert world.query(batches) == [(count,)]
        assert world.load("things") == []
        assert world.load("things") == []
        assert world.query(batches) == [(count,)], "it is not so much as read"
        assert told(world) is None
        read_again_stays_declined(world, world.files / "2026-11-02.csv")
    world.deliver("2026-11-02.csv", HEADER + "1,a\n")
    assert refused(world, "MASS_DELETE") == told(world)
    world.deliver("2026-11-02.csv", HEADER)
    assert refused(world, "EMPTY_SOURCE") == told(world), "it has changed, and changed again"


def test_E9_a_declined_state_of_an_undated_file_stays_declined_when_the_file_is_only_touched(world: World) -> None:
    """Each state of such a file is a unit of its own, named by the time of its last change."""
    world.declare(FILES % "things.csv")
    path = world.deliver("things.csv", WHOLE)
    world.load("things")
    world.deliver("things.csv", HEADER)
    decline(refused(world, "EMPTY_SOURCE"), "a holiday")
    for _ in range(2):
        read_again_stays_declined(world, path)
        assert told(world) is None
    world.deliver("things.csv", HEADER + "1,a\n")
    assert refused(world, "MASS_DELETE") == told(world)
    world.deliver("things.csv", HEADER)
    assert refused(world, "EMPTY_SOURCE") == told(world), "it has changed, and changed again"


def test_E9_who_declined_may_think_better_of_it(declined: World) -> None:
    again = refused(declined, "EMPTY_SOURCE", interval=DAY_2)
    approve(again, "they are gone indeed")
    assert declined.load("things")[0].rows_deleted == 20


def test_a_declined_unit_is_read_again_once_the_check_that_refused_it_is_overridden(world: World) -> None:
    world.declare(FILES.replace(", severity: {accepted: block}", "") % "{date}.csv")
    world.deliver("2026-11-02.csv", WHOLE.replace("\n7,a", "\n7,q"))
    decline(refused(world, "break the contract"), "let it be")
    os.utime(world.files / "2026-11-02.csv", (1_790_000_000, 1_790_000_000))
    assert world.load("things") == []
    last = "select state, rows_read, rows_unchanged from ops.batch order by batch_id desc limit 1"
    assert world.query(last) == [("unchanged", 20, 0)], "the log has none of them"
    again = refused(world, "break the contract", interval=DAY_2)
    assert world.load("things") == []
    override.give(world.warehouse, "contract", by="ann", reason="one row", batch=again)
    assert world.load("things")[0].rows_applied == 19
    assert told(world) is None


def test_a_declined_batch_whose_check_is_overridden_is_no_longer_declined(world: World) -> None:
    world.declare(FILES.replace(", severity: {accepted: block}", "") % "{date}.csv")
    world.deliver("2026-11-02.csv", WHOLE.replace("\n7,a", "\n7,q"))
    batch = refused(world, "break the contract")
    decline(batch, "let it be")
    override.give(world.warehouse, "contract", by="ann", reason="one row", batch=batch)
    assert world.load("things")[0].rows_applied == 19
    assert told(world) is None


def test_a_refused_extract_that_is_read_again_with_every_load_is_history_once_a_later_file_is_taken(
    world: World,
) -> None:
    world.declare(FILES % "export_*.csv")
    first, second = world.files / "export_1.csv", world.files / "export_2.csv"
    world.deliver("export_1.csv", WHOLE.replace("\n7,a", "\n7,q"))
    world.deliver("export_2.csv", WHOLE)
    os.utime(first, (1_790_000_000, 1_790_000_000))
    os.utime(second, (1_790_100_000, 1_790_100_000))
    for _ in range(2):
        refused(world, "severity is block")
        assert told(world) is None, "what it would have said, export_2 has said since"
    world.deliver("export_2.csv", WHOLE.replace("\n8,a", "\n8,q"))
    refused(world, "severity is block")
    assert told(world) is not None
