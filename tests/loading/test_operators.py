"""What an operator types: wrong words are named, and nobody is told the same name twice."""

from __future__ import annotations

import subprocess
import sys

from psycopg.conninfo import conninfo_to_dict
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
    none = run(app, ["batch", "list", "--state", "refused"])
    assert (none.exit_code, none.output) == (0, "no batch is refused\n")


def test_a_source_or_table_that_nobody_knows_is_misuse_and_is_answered_with_those_that_are(world: World) -> None:
    world.declare(THINGS)
    for command in (["batch", "list"], ["quarantine", "list"], ["quarantine", "replay"]):
        nobody = run(app, [*command, "nosuch"], env={"COLUMNS": "200"})
        assert (nobody.exit_code, "known: shop" in nobody.output) == (2, True), command
        nothing = run(app, [*command, "shop.nosuch"], env={"COLUMNS": "200"})
        assert (nothing.exit_code, "it has things" in nothing.output) == (2, True), command
    assert run(app, ["batch", "list", "shop"]).output.startswith("no batch of shop yet; `sluice load shop`")
    assert run(app, ["quarantine", "list", "shop.things"]).exit_code == 0


def test_a_table_that_is_declared_no_more_is_still_known_by_its_batches(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a"})
    world.load("things")
    world.declare(THINGS, name="other")
    (world.sources / "shop.yml").unlink()
    assert "published" in run(app, ["batch", "list", "shop.things"]).output
    assert run(app, ["quarantine", "list", "shop"]).exit_code == 0


def test_sql_is_psql_in_the_warehouse_and_only_reads(world: World, warehouse_url: str) -> None:
    def sql(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sluice.cli", "sql", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    asked = sql("--csv", "-c", "select count(*) as batches from ops.batch")
    assert (asked.returncode, asked.stdout) == (0, "batches\n0\n"), asked.stderr
    assert "read-only transaction" in sql("-c", "create table public.x (a int)").stderr
    told = sql("--where").stdout
    parts = conninfo_to_dict(warehouse_url)
    assert told.splitlines()[:4] == [
        f"host      {parts['host']}", f"port      {parts['port']}", f"database  {parts['dbname']}", "role      sluice",
    ]  # fmt: skip
    assert str(parts["password"]) not in told


def test_L4_the_message_of_a_held_lease_names_the_table_once(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a"})
    source = load_file(world.sources / "shop.yml")
    land(source, source.tables["things"], RunContext("scheduled__1"))
    result = run(app, ["load", "shop.things"])
    assert result.exit_code == 1
    assert result.output.count("shop.things") == 1
    assert "scheduled__1 holds the lease" in result.output
