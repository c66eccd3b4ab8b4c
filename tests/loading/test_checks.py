"""Severities and references: what warns, what blocks, what is put aside. Codes are those of faults.md."""

from __future__ import annotations

import re

import psycopg
import pytest

from sluice.declarations import load_file
from sluice.declarations.load import DeclarationError
from sluice.declarations.patterns import must_be_readable
from sluice.errors import GateRefused, SluiceError
from sluice.loading import replay
from sluice.loading.quarantine import Where
from tests.loading.conftest import World

TABLES = """
customers:
  description: customers
  from: {files: {connection: drop, path: "{date}/customers.csv"}}
  mode: full
  key: [id]
  deletes: {max_share: 1}
  columns:
    id: {type: integer, required: true}
    name: {type: text}
orders:
  description: orders
  from: {files: {connection: drop, path: "{name}.csv"}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns:
    id: {type: integer, required: true}
    customer_id: {type: integer, references: {table: shop.customers, column: id}}
    status: {type: text, accepted: [new, paid]}
"""
CHECKS = "select check_name, severity, verdict, failing_rows, sample_keys from ops.gate_result where check_name = %s"


def deliver_customers(world: World, day: int, *ids: int) -> None:
    world.deliver(f"2026-01-0{day}/customers.csv", "id,name\n" + "".join(f"{i},x\n" for i in ids))
    world.load("customers")


def deliver_orders(world: World, name: str, rows: str) -> None:
    world.deliver(f"{name}.csv", "id,customer_id,status\n" + rows)
    world.load("orders")


def test_a_reference_without_a_parent_is_published_and_counted_with_its_keys(world: World) -> None:
    world.declare(TABLES)
    deliver_customers(world, 1, 1, 2, 3)
    deliver_customers(world, 2, 1, 3)  # 2 is deleted
    deliver_orders(world, "a", "10,1,new\n11,2,new\n12,9,new\n13,,new\n")
    assert world.query("select count(*) from staging.shop__orders") == [(4,)]
    ((check, severity, verdict, failing, keys),) = world.query(CHECKS, "references:customer_id")
    assert (check, severity, verdict, failing) == ("references:customer_id", "warn", "warn", 2)
    assert sorted(keys) == [[11], [12]], "the deleted parent and the unknown one; NULL refers to nothing"


def test_a_reference_that_cannot_be_checked_is_missing_and_no_pass(world: World) -> None:
    world.declare(TABLES)
    deliver_orders(world, "a", "10,1,new\n")
    assert [row[2] for row in world.query(CHECKS, "references:customer_id")] == ["missing"]


def test_a_reference_may_block_the_batch_until_its_parents_are_loaded(world: World) -> None:
    world.declare(TABLES.replace("column: id}", "column: id, severity: block}"))
    deliver_customers(world, 1, 1)
    with pytest.raises(GateRefused, match=r"1 rows have a customer_id that shop\.customers does not hold"):
        deliver_orders(world, "a", "10,1,new\n11,2,new\n")
    assert world.query("select count(*) from staging.shop__orders") == [(0,)]
    deliver_customers(world, 2, 1, 2)
    assert [done.rows_applied for done in world.load("orders")] == [2]


def test_a_reference_within_a_source_is_checked_when_the_declaration_is_read(world: World) -> None:
    world.declare(TABLES.replace("column: id}", "column: name}"))
    with pytest.raises(
        DeclarationError, match=r"columns\.customer_id\.references: name is not the key of shop\.customers"
    ):
        load_file(world.sources / "shop.yml")


WAITING = TABLES.replace("column: id}", "column: id, severity: quarantine}")


def test_rows_without_a_parent_wait_in_quarantine_and_are_replayed_when_it_came(world: World) -> None:
    """INV-1: the others go on."""
    world.declare(WAITING)
    deliver_customers(world, 1, 1)
    deliver_orders(world, "a", "10,1,new\n11,9,new\n12,,new\n")
    assert world.query("select id from staging.shop__orders order by 1") == [(10,), (12,)]
    assert world.query("select key, column_name, code, reason from ops.quarantine") == [
        ("[11]", "customer_id", "REFERENCE", "customer_id has no row in shop.customers")
    ]
    assert [row[1:4] for row in world.query(CHECKS, "references:customer_id")] == [("quarantine", "warn", 1)]
    where = Where(source="shop", table="orders")
    (early,) = replay.replay(where, by="t", reason="r", rehearse=False)
    assert (early.passed, early.still[0].code) == (0, "REFERENCE")
    deliver_customers(world, 2, 1, 9)
    (done,) = replay.replay(where, by="t", reason="the customer came", rehearse=False)
    assert done.applied == 1
    assert world.query("select id from staging.shop__orders order by 1") == [(10,), (11,), (12,)]
    assert world.books_balance()


def test_a_parent_that_waits_itself_makes_its_children_wait(world: World) -> None:
    world.declare(WAITING.replace("shop.customers", "shop.orders").replace("customer_id: {type", "parent_id: {type"))
    world.deliver("a.csv", "id,parent_id,status\n1,,new\n2,1,new\n3,2,new\n4,99,new\n5,4,new\n6,5,new\n")
    world.load("orders")
    assert world.query("select id from staging.shop__orders order by 1") == [(1,), (2,), (3,)]


def test_a_batch_whose_rows_would_wait_is_refused_while_the_parents_were_never_loaded(world: World) -> None:
    world.declare(WAITING)
    with pytest.raises(GateRefused, match="it was never loaded; nothing was published"):
        deliver_orders(world, "a", "10,1,new\n")
    assert world.query("select count(*) from ops.quarantine") == [(0,)]


# -- patterns -----------------------------------------------------------------------------------

READ = [
    r"\yx\Y",
    r"\mx\M",
    r"[[:alpha:]]+",
    r"(?i)abc",
    r"(?<=a)b",
    r"(?<!a)b",
    r"(?:ab)+?",
    r"a{0,255}",
    r"\++",
    r"[+*]+",
]
NOT_READ = [
    r"(?P<x>a+)",
    r"a{1,300}",
    r"a++",
    r"a{2}+",
    r"(?i:a)",
    r"(?-i:a)",
    r"(?>a)",
    r"(a)(?(1)b|c)",
    r"(?a)x",
    r"\N{DASH}",
]
MEANT_OTHERWISE = {r"\bx\b": "x", r"^a{,3}$": "aa", r"x\By": "xy"}


def test_validate_refuses_the_patterns_that_this_server_refuses_or_takes_for_something_else(world: World) -> None:
    for pattern in READ:
        must_be_readable(pattern)
        world.query("select '' ~ %s", pattern)
    for pattern in NOT_READ:
        with pytest.raises(ValueError, match="pattern can't be used"):
            must_be_readable(pattern)
        with pytest.raises(psycopg.errors.InvalidRegularExpression):
            world.query("select '' ~ %s", pattern)
    for pattern, text in MEANT_OTHERWISE.items():
        with pytest.raises(ValueError, match="pattern can't be used"):
            must_be_readable(pattern)
        assert re.search(pattern, text)
        assert world.query("select %s ~ %s", text, pattern) == [(False,)]


def test_a_pattern_that_only_the_server_refuses_is_a_verdict_that_names_its_field_and_the_unit_is_let_go(
    world: World,
) -> None:
    world.declare(TABLES.replace("name: {type: text}", 'name: {type: text, pattern: "(?=x)*"}'))
    for _ in range(2):
        with pytest.raises(GateRefused, match=r"Postgres can't read this regular expression .* nothing was published"):
            deliver_customers(world, 1, 1)
    where = f"{world.sources}/shop.yml:14: tables.customers.columns.name.pattern: Postgres can't read"
    assert world.query(
        "select batch_id, starts_with(message, %s) from ops.gate_result"
        " where check_name = 'pattern' and verdict = 'fail' order by 1",
        where,
    ) == [(1, True), (2, True)]
    assert world.query("select state, count(*) from ops.batch group by 1") == [("refused", 2)]
    assert world.query("select count(*) from ops.lease where expires_at > now()") == [(0,)]
    world.declare(TABLES)
    deliver_customers(world, 1, 1)
    assert world.query("select id from staging.shop__customers") == [(1,)]


def test_a_replay_names_the_field_of_a_pattern_that_the_server_refuses(world: World) -> None:
    world.declare(TABLES)
    deliver_orders(world, "a", "10,1,new\n11,1,odd\n")
    world.declare(TABLES.replace("accepted: [new, paid]", 'pattern: "(?=x)*"'))
    with pytest.raises(SluiceError, match=r"tables\.orders\.columns\.status\.pattern: Postgres .* batch 1 stay open"):
        replay.replay(Where(source="shop"), by="ann", reason="x")
    assert world.query("select state from ops.quarantine") == [("open",)]


def test_an_audit_goes_on_beside_a_declaration_that_holds_a_day_that_is_not_there(world: World) -> None:
    world.declare(TABLES)
    (world.sources / "other.yml").write_text("source: other\ndescription: x\nowner: x\nstart: 2026-02-30\ntables: {}\n")
    deliver_customers(world, 1, 1)
    assert world.query("select id from staging.shop__customers") == [(1,)]
