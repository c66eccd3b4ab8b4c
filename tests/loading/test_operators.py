"""What an operator types: wrong words are named, and nobody is told the same name twice."""

from __future__ import annotations

from typer.testing import CliRunner

from sluice.cli import app
from sluice.declarations import load_file
from sluice.loading import RunContext, land
from tests.loading.conftest import World
from tests.loading.test_full_extracts import DAYS, THINGS, deliver

run = CliRunner().invoke


def test_a_word_that_is_no_state_of_a_batch_is_answered_with_those_that_are(world: World) -> None:
    result = run(app, ["batch", "list", "--state", "rejected"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "rejected is not a state of a batch" in result.output
    assert "refused" in result.output
    assert run(app, ["batch", "list", "--state", "refused"]).exit_code == 0


def test_L4_the_message_of_a_held_lease_names_the_table_once(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a"})
    source = load_file(world.sources / "shop.yml")
    land(source, source.tables["things"], RunContext("scheduled__1"))
    result = run(app, ["load", "shop.things"])
    assert result.exit_code == 1
    assert result.output.count("shop.things") == 1
    assert "scheduled__1 holds the lease" in result.output
