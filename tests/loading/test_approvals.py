"""A person's word is for what the person was shown: the check, the content, the count."""

from __future__ import annotations

import pytest

from sluice.alerts import detect
from sluice.cli.batch import approve
from sluice.errors import GateRefused, SluiceError
from sluice.gates import override
from tests.loading.conftest import World

THINGS = """
things:
  description: things
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: full
  key: [id]
  late: {horizon: 1d, beyond: hold}
  columns: {id: {type: bigint, required: true}, value: {type: text}}
"""


def deliver(world: World, day: int, count: int) -> None:
    world.deliver(f"2026-11-{day:02}.csv", "id,value\n" + "".join(f"{key},x\n" for key in range(count)))


def refused(world: World) -> int:
    return world.query("select max(batch_id) from ops.batch where state = 'refused'")[0][0]


@pytest.fixture
def late(world: World) -> World:
    """An extract that came late, and lacks most keys."""
    world.declare(THINGS)
    for day in (1, 10):
        deliver(world, day, 100)
        world.load("things")
    deliver(world, 5, 5)
    with pytest.raises(GateRefused, match="LATE"):
        world.load("things")
    return world


def test_E10_who_approves_that_a_unit_comes_late_has_approved_no_mass_delete(
    late: World, capsys: pytest.CaptureFixture[str]
) -> None:
    approve(refused(late), "it may come late")
    assert "approved: that the unit comes late (5 rows)." in capsys.readouterr().out
    with pytest.raises(GateRefused, match=r"95 of 100 keys vanished.*MASS_DELETE"):
        late.load("things")
    assert late.query("select count(*) from staging.shop__things where _op = 'delete'") == [(0,)]
    approve(refused(late), "the range was cut")
    assert "approved: that 95 keys vanished." in capsys.readouterr().out
    assert late.query("select check_name from ops.gate_override where used_at is not null") == [("late",)]
    assert [published.rows_deleted for published in late.load("things")] == [95]
    assert late.books_balance()
    detect.sweep(late.warehouse)
    told = late.query("select subject, detail from ops.incident where kind = 'gate_overridden' order by 1")
    assert [subject for subject, _ in told] == ["batch/deletes/shop.things", "batch/late/shop.things"]
    assert "reason: the range was cut; used" in told[0][1]


def test_E10_an_approval_of_some_deletes_covers_no_more_of_the_same_content(world: World) -> None:
    world.declare(THINGS.replace("  late: {horizon: 1d, beyond: hold}\n", ""))
    deliver(world, 1, 100)
    world.load("things")
    deliver(world, 10, 5)
    with pytest.raises(GateRefused, match="95 of 100 keys vanished"):
        world.load("things")
    approve(refused(world), "95 may go")
    deliver(world, 5, 150)  # of which nobody knew then
    with pytest.raises(GateRefused, match="145 of 150 keys vanished"):
        world.load("things")
    approve(refused(world), "all of them")
    assert [published.rows_deleted for published in world.load("things")] == [145]


def test_deletes_are_not_overridden_past_the_count_that_was_shown(late: World) -> None:
    """One way for a guard: what is lifted at the audit would be judged again, and refused, at the publication."""
    approve(refused(late), "it may come late")
    with pytest.raises(GateRefused, match="MASS_DELETE"):
        late.load("things")
    with pytest.raises(SluiceError, match=f"sluice batch approve {refused(late)} --reason"):
        override.give(late.warehouse, "deletes", by="ann", reason="cleanup", batch=refused(late))


def test_what_refused_a_batch_and_cannot_be_approved_is_named(world: World) -> None:
    world.declare(THINGS)
    world.deliver("2026-11-01.csv", "id,value\nx,x\n")
    with pytest.raises(GateRefused, match="break the contract"):
        world.load("things")
    with pytest.raises(SluiceError, match="was refused by contract, and only deletes and a unit that came late"):
        approve(refused(world), "it will do")
    with pytest.raises(SluiceError, match="is not a refused batch"):
        approve(4711, "it will do")
