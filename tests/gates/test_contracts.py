"""What is in staging is judged once more from outside, and counts and sums of two places are compared."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from sluice.declarations import load_file
from sluice.declarations.expectations import load_expectations
from sluice.gates import Check, Model, judge_layer
from sluice.gates.contracts import expectations_of
from sluice.gates.reconcile import check_reconciliations
from tests.loading.conftest import World

TABLE = """
orders:
  description: orders
  from: {files: {connection: drop, path: "{name}.csv"}}
  mode: append
  key: [id]
  columns:
    id: {type: integer, required: true}
    email: {type: text, personal: true, pattern: "@"}
    status: {type: text, accepted: [new, paid], severity: {accepted: warn}}
    amount: {type: "numeric(12,2)", minimum: 0}
"""
VIEW = Model("stg_shop__orders", "staging.stg_shop__orders", "staging", is_view=True, log=("shop", "orders"))


def deliver(world: World, name: str, rows: str) -> None:
    world.deliver(f"{name}.csv", "id,email,status,amount\n" + rows)
    world.load("orders")


def gate(world: World, run: str) -> list[tuple]:
    """The gate of staging, and what it says of contracts."""
    judge_layer("staging", run, [VIEW], tables=[("shop", "orders")], expectations=Path("none.yml"))
    return world.query(
        "select check_name, verdict, observed, failing_rows, sample_keys from ops.gate_result"
        " where run_id = %s and (check_name = 'contract_holds' or check_name like 'expect%%') order by gate_result_id",
        run,
    )


def test_a_contract_compiles_to_expectations_with_the_severity_of_its_rules(world: World) -> None:
    world.declare(TABLE)
    table = load_file(world.sources / "shop.yml").tables["orders"]
    assert {(e.name, e.severity) for e in expectations_of(table)} == {
        ("expect_column_values_to_not_be_null(id)", "block"),
        ("expect_column_values_to_match_regex(email)", "block"),
        ("expect_column_values_to_be_in_set(status)", "warn"),
        ("expect_column_values_to_be_between(amount)", "block"),
    }


def test_what_was_newly_published_is_judged_from_outside_and_only_that(world: World) -> None:
    world.declare(TABLE)
    world.warehouse.execute("create view staging.stg_shop__orders as select 1 as id")
    deliver(world, "a", "1,a@x,new,5\n2,b@x,odd,6\n")
    told = [("contract_holds", "pass", "3 of 4 expectations", None, None)]
    warned = [("expect_column_values_to_be_in_set(status)", "warn", "1 of 2 rows", 1, [[2]])]
    assert gate(world, "r1") == told + warned
    assert [row[1:3] for row in gate(world, "r2")] == [("pass", "nothing new")]

    deliver(world, "b", "3,c@x,new,7\n")
    # a hole in the loader: a row that breaks the contract is in the log all the same
    world.warehouse.execute("update staging.shop__orders set amount = -1, email = 'mallory' where id = 3")
    found = {row[0]: row[1:] for row in gate(world, "r3")}
    assert found["contract_holds"][:2] == ("fail", "2 of 4 expectations")
    assert found["expect_column_values_to_be_between(amount)"][0] == "fail"
    assert found["expect_column_values_to_match_regex(email)"][2:] == (1, [[3]])
    page = world.query("select html, passed from ops.data_doc where layer = 'staging'")[0]
    assert "mallory" not in page[0]
    assert page[1] is False
    assert gate(world, "r4")[0][1] == "fail", "what failed is looked at again"


RECONCILE = """
reconcile:
  - name: orders_reach_the_mart
    on: marts.fct_order
    severity: {severity}
    tolerance: {tolerance}
    left: {{query: "select 10, 100.00{left}"}}
    right: {{query: "select count(*), sum(amount) from marts.fct_order"}}
"""


def compared(connection: psycopg.Connection, path: Path) -> list[Check]:
    return check_reconciliations(connection, "r1", load_expectations(path).reconcile)


@pytest.fixture
def mart(warehouse: psycopg.Connection) -> psycopg.Connection:
    """Ten orders of 10.00."""
    warehouse.execute("create table marts.fct_order as select n as id, 10.00 as amount from generate_series(1, 10) n")
    return warehouse


@pytest.mark.parametrize(
    ("sql", "severity", "tolerance", "outcome", "blocks"),
    [
        ("select 1", "block", 0, "pass", False),
        ("delete from marts.fct_order where id = 1", "block", 0, "fail", True),
        ("delete from marts.fct_order where id = 1", "warn", 0, "fail", False),
        ("delete from marts.fct_order where id = 1", "block", 0.2, "pass", False),
        ("update marts.fct_order set amount = amount + 0.01 where id = 1", "block", 0, "fail", True),
        ("insert into marts.fct_order select * from marts.fct_order", "block", 0, "fail", True),
        ("drop table marts.fct_order", "block", 0, "error", True),
    ],
)
def test_S8_counts_and_sums_that_differ_do_what_is_declared(mart, tmp_path, sql, severity, tolerance, outcome, blocks):
    mart.execute(sql)
    (tmp_path / "marts.yml").write_text(RECONCILE.format(severity=severity, tolerance=tolerance, left=""))
    (check,) = compared(mart, tmp_path / "marts.yml")
    assert (check.outcome, check.blocks) == (outcome, blocks), check
    assert mart.execute("select 1").fetchone() == (1,), "the session is alive"


def test_a_value_that_can_not_be_computed_with_is_not_repeated(mart, tmp_path):
    path = tmp_path / "marts.yml"
    path.write_text(
        "reconcile: [{name: agree, on: marts.fct_order, severity: block, left: {query: select 1},"
        " right: {query: \"select sum(('ann@x' || id)::int) from marts.fct_order\"}}]"
    )
    (check,) = compared(mart, path)
    assert check.outcome == "error"
    assert "invalid input syntax for type integer" in str(check.message)
    assert "ann@x" not in str(check)


def test_a_side_of_another_shape_is_an_error(mart, tmp_path):
    path = tmp_path / "marts.yml"
    path.write_text(RECONCILE.format(severity="block", tolerance=0, left=", 3"))
    (check,) = compared(mart, path)
    assert (check.outcome, check.message) == ("error", "left has 3 columns and right 2")


def test_a_source_is_asked_as_far_as_it_was_read(world: World, tmp_path) -> None:
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute(
            "create table orders as select n as id, timestamptz '2026-01-01' + n * interval '1d' as at"
            " from generate_series(1, 5) n"
        )
    world.warehouse.execute("create table staging.mine as select 1 as id from generate_series(1, 3)")
    path = tmp_path / "staging.yml"
    path.write_text(
        "reconcile:\n  - name: all_came\n    on: staging.mine\n    severity: warn\n"
        '    left: {connection: db, query: "select count(*) from orders where at < {watermark:shop.orders}"}\n'
        "    right: {query: select count(*) from staging.mine}\n"
    )
    (check,) = compared(world.warehouse, path)
    assert (check.outcome, check.message) == ("error", "the left side could not be asked: shop.orders was never read")
    world.warehouse.execute(
        "insert into ops.watermark (source, table_name, value) values ('shop', 'orders', '2026-01-05 00:00:00+00')"
    )
    (check,) = compared(world.warehouse, path)
    assert (check.outcome, check.observed, check.bound) == ("pass", "3", "3")
    world.warehouse.execute("delete from staging.mine")
    (check,) = compared(world.warehouse, path)
    assert check.outcome == "fail"


def test_a_log_is_compared_again_when_something_was_published_and_both_sides_mean_the_same_watermark(
    world: World, tmp_path
) -> None:
    world.declare(TABLE)
    deliver(world, "a", "1,a@x,new,5\n2,b@x,new,6\n")
    world.warehouse.execute(
        "insert into ops.watermark (source, table_name, value) values ('shop', 'orders', '2026-01-05 00:00:00+00')"
    )
    path = tmp_path / "staging.yml"
    mark = "{watermark:shop.orders}::timestamptz"
    path.write_text(
        "reconcile:\n  - name: agree\n    on: staging.shop__orders\n    severity: block\n    when_changed: true\n"
        f'    left: {{query: "select 2, {mark}"}}\n'
        f'    right: {{query: "select count(*), {mark} from staging.shop__orders"}}\n'
    )
    world.warehouse.execute("create view staging.stg_shop__orders as select 1 as id")

    def judged(run: str) -> list[tuple]:
        judge_layer("staging", run, [VIEW], tables=[("shop", "orders")], expectations=path)
        return world.query("select verdict from ops.gate_result where check_name = 'agree' and run_id = %s", run)

    assert judged("r1") == [("pass",)]
    world.warehouse.execute("update ops.batch set published_at = published_at - interval '2 hours'")
    assert judged("r2") == [("pass",)], "nothing was published since, which is a result of this run, too"
    ((told,),) = world.query("select message from ops.gate_result where check_name = 'agree' and run_id = 'r2'")
    assert told.startswith("unchanged since this passed by rule ")
    text = path.read_text()
    path.write_text(text.replace("select 2,", "select 3,"))
    assert judged("other") == [("fail",)], "what passed by another rule is no pass of this one"
    path.write_text(text)
    deliver(world, "b", "3,c@x,new,7\n")
    assert judged("r3") == [("fail",)]
    assert judged("r4") == [("fail",)], "what failed is asked again"
