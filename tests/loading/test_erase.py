"""`sluice erase` in change logs and quarantine. What snapshots and marts make of it: tests/dbt/test_verify.py."""

from __future__ import annotations

import pytest
from psycopg import sql
from typer.testing import CliRunner

from sluice.cli import app
from sluice.declarations import load_file
from sluice.errors import SluiceError
from sluice.loading import RunContext, land
from sluice.verify.logs import verify_logs
from tests.loading.conftest import World

PEOPLE = """
people:
  description: who bought
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: full
  key: [id]
  max_reject_share: 1
  deletes: {max_share: 1}
  columns:
    id: {type: integer, required: true}
    email: {type: text, required: true, personal: true, pattern: ".+@.+"}
    born: {type: date, personal: true}
    segment: {type: text}
letters:
  description: what was written
  from: {files: {connection: drop, path: "letters/{date}.csv"}}
  mode: append
  key: [letter]
  columns:
    letter: {type: integer, required: true}
    id: {type: integer}
    body: {type: text, personal: true}
"""
CANARIES = ("canary", "Canary", "1990-01-07")


@pytest.fixture
def people(world: World) -> World:
    """Person 7 with two addresses, a rejected row, one letter and one delivery that was superseded; person 8 stays."""
    world.declare(PEOPLE)
    world.deliver(
        "2026-01-01.csv", "id,email,born,segment\n7,old.canary@x.nl,1990-01-07,a\n8,stays@x.nl,1980-02-02,a\n"
    )
    world.deliver("letters/2026-01-01.csv", "letter,id,body\n1,7,Dear Canary\n2,8,Dear other\n")
    world.load("people")
    world.load("letters")
    world.deliver(
        "2026-01-02.csv", "id,email,born,segment\n7,wrong.canary@x.nl,1990-01-07,a\n8,stays@x.nl,1980-02-02,a\n"
    )
    world.load("people")
    world.deliver(
        "2026-01-02.csv",
        "id,email,born,segment\n7,new.canary@x.nl,1990-01-07,b\n8,stays@x.nl,1980-02-02,a\n9,no address,1991-01-07,\n",
    )
    world.load("people")
    world.deliver(
        "2026-01-03.csv", "id,email,born,segment\n7,canary without address,1990-01-07,b\n8,stays@x.nl,1980-02-02,a\n"
    )
    world.load("people")
    assert holds_a_canary(world) == {"ops.quarantine", "staging.shop__letters", "staging.shop__people"}
    return world


def holds_a_canary(world: World) -> set[str]:
    """Every relation of the warehouse in which a value of person 7 stands."""
    relations = world.query(
        "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
    )
    found = set()
    for schema, name in relations:
        statement = sql.SQL("select t::text from {} as t").format(sql.Identifier(schema, name))
        for (row,) in world.warehouse.execute(statement):
            if any(canary in row for canary in CANARIES):
                found.add(f"{schema}.{name}")
    return found


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["erase", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def meaning(world: World) -> list[tuple]:
    """What the logs say of everything that is not personal."""
    return world.query(
        "select distinct id, _effective_at, _op, segment from staging.shop__people as log where not exists"
        " (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null) order by 1, 2, 3, 4"
    )


def test_case_35_a_person_leaves_logs_and_quarantine_after_a_rehearsal_and_with_a_trace(people: World) -> None:
    before, seq = meaning(people), people.query("select seq from ops.clock")
    assert "rehearsal" in run("shop", "id=7", "--reason", "request 12")
    assert len(holds_a_canary(people)) == 3, "a rehearsal changes nothing"
    assert people.query("select seq from ops.clock") == seq

    run("shop", "id=7", "--reason", "request 12", "--yes")
    assert holds_a_canary(people) == set()
    assert meaning(people) == before, "keys, times and other values stay"
    assert people.query(
        "select distinct email from staging.shop__people where id = 7 and _op <> 'delete' order by 1"
    ) == [("erased 1",), ("erased 2",), ("erased 3",)], "as many values as there were"
    assert people.query("select distinct email from staging.shop__people where id = 8") == [("stays@x.nl",)]
    assert people.query("select state, raw is null from ops.quarantine order by quarantine_id") == [
        ("open", False),
        ("discarded", True),
    ]
    assert people.query("select source, column_name, key, rows, reason from ops.erasure") == [
        ("shop", "id", "7", {"staging.shop__people": 3, "staging.shop__letters": 1, "ops.quarantine": 1}, "request 12")
    ]
    assert verify_logs("v").passed, "books and hashes agree with the logs"
    assert people.books_balance()
    assert people.query("select max(published_seq) from ops.batch") > seq, "models see her as touched"
    assert "nothing left" in run("shop", "id=7", "--reason", "again", "--yes")


def test_case_35_nothing_is_erased_while_a_batch_waits_that_may_hold_the_person(people: World) -> None:
    people.deliver("2026-01-04.csv", "id,email,born,segment\n7,late.canary@x.nl,1990-01-07,a\n")
    source = load_file(people.sources / "shop.yml")
    land(source, source.tables["people"], RunContext("waits", None))
    with pytest.raises(SluiceError, match="not published"):
        run("shop", "id=7", "--reason", "r", "--yes")
    assert "staging.shop__people" in holds_a_canary(people)
    with pytest.raises(SluiceError, match="no table of shop has a column nobody"):
        run("shop", "nobody=7", "--reason", "r")


def test_case_35_an_erased_person_leaves_with_the_unit_that_is_superseded(people: World) -> None:
    run("shop", "id=7", "--reason", "r", "--yes")
    people.deliver("2026-01-02.csv", "id,email,born,segment\n8,stays@x.nl,1980-02-02,a\n")
    people.load("people")
    assert people.query(
        "select count(*) from staging.shop__people as log inner join ops.batch on batch_id = _batch_id"
        " where superseded_seq is null and unit = '2026-01-02.csv' and id = 7 and _op = 'upsert'"
    ) == [(0,)]
