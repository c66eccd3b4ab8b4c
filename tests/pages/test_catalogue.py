"""What is there, what it looks like, and what it takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from sluice.cli import app
from tests.pages.conftest import EVIL, Company

pytestmark = pytest.mark.usefixtures("measured")


def test_each_column_says_meaning_tests_last_results_and_profile(visit: Any) -> None:
    found = visit("viewer").get("/api/catalogue/marts.fct_order").json()
    order_id = found["columns"][0]
    assert order_id["profile"]["rows"] == 500
    assert (order_id["profile"]["minimum"], order_id["profile"]["maximum"]) == ("1", "500")
    assert len(order_id["profile"]["histogram"]) >= 10
    assert order_id["profile"]["bins"] == pytest.approx([1 / 16] * 16, abs=0.01)
    assert [(t["kind"], t["verdict"]) for t in order_id["tests"]] == [("not_null", "pass")]
    html = visit("viewer").get("/catalogue/marts.fct_order").text
    assert "Twice &lt;script&gt;" in html
    assert 'aria-label="Distribution of order_id in 16 equal steps: 6.' in html
    assert html.count("<rect") == 32  # of two columns: what is personal has none
    assert "values are personal" in html
    assert EVIL not in html


def test_a_test_that_an_idle_run_did_not_ask_keeps_its_last_result(company: Company, visit: Any) -> None:
    company.query(
        "insert into ops.model_run (run_id, model, relation, state, checks, started_at) values"
        " ('idle', 'fct_order', 'marts.fct_order', 'unchanged',"
        """ '[{"name": "grain_is_unique", "verdict": "pass", "failures": 0}]', now())"""
    )
    try:
        found = visit("viewer").get("/api/catalogue/marts.fct_order").json()
        assert [test["verdict"] for test in found["columns"][0]["tests"]] == ["pass"]
        assert [(test["name"], test["verdict"]) for test in found["tests"]] == [("grain_is_unique", "pass")]
    finally:
        company.query("delete from ops.model_run where run_id = 'idle'")


def test_no_value_of_a_personal_column_is_profiled_nor_of_what_is_made_of_it(company: Company) -> None:
    shown = company.query(
        "select relation, column_name from ops.column_profile where minimum is not null or common is not null"
        " or histogram is not null or bins is not null"
    )
    assert ("marts.fct_order", "order_id") in shown
    assert ("staging.shop__orders", "customer_email") not in shown
    assert ("marts.fct_order", "customer_key") not in shown
    assert company.query("select count(*) from ops.column_profile where column_name = 'customer_email'") == [(1,)]


def test_rules_of_the_contract_and_open_rejects_stand_at_their_column(visit: Any) -> None:
    found = visit("viewer").get("/api/catalogue/staging.shop__orders").json()
    amount = next(column for column in found["columns"] if column["name"] == "amount")
    assert [test["name"] for test in amount["tests"]] == ["required", "at least 0"]
    assert amount["open_rejects"] >= 1
    assert amount["tests"][0]["verdict"] == "warn"


def test_tables_are_found_by_name_description_and_column(visit: Any) -> None:
    viewer = visit("viewer")
    assert [each["name"] for each in viewer.get("/api/catalogue", params={"q": "doubled"}).json()] == ["fct_order"]
    assert "Nothing matches" in viewer.get("/catalogue", params={"q": "no such thing"}).text
    assert viewer.get("/catalogue/marts.nix").status_code == 404


def test_cost_names_time_rows_bytes_and_wal_per_model_and_table(visit: Any) -> None:
    found = visit("viewer").get("/api/cost").json()
    by_name = {each["name"]: each for each in found["spent"]}
    assert (by_name["fct_order"]["seconds"], by_name["fct_order"]["wal_bytes"]) == (12.5, 4096)
    assert by_name["shop.orders"]["bytes_read"] > 0
    assert sum(by_name["fct_order"]["trend"]) == 12.5
    grown = {each["relation"]: each for each in found["grown"]}
    assert grown["marts.fct_order"]["rows"] == 500
    assert grown["marts.fct_order"]["projected"] is None  # one day is no line
    assert by_name["fct_order"]["bytes_stored"] == grown["marts.fct_order"]["bytes"] > 0
    parts = {each["name"]: each["seconds"] for each in found["parts"]}
    assert parts["marts"] == 12.5
    assert parts["shop"] == pytest.approx(sum(s["seconds"] for s in found["spent"] if s["kind"] == "source"))
    assert parts["shop"] > 0
    html = visit("viewer").get("/cost").text
    assert "too early" in html
    assert "The ten dearest" in html


def test_growth_is_a_straight_line_once_there_are_seven_days(company: Company, visit: Any) -> None:
    company.query(
        "insert into ops.relation_size select 'snapshots.snap_shop__prices', current_date - n, 1000000 - n * 1000, 1"
        " from generate_series(0, 9) as n"
    )
    grown = {each["relation"]: each for each in visit("viewer").get("/api/cost").json()["grown"]}
    assert grown["snapshots.snap_shop__prices"]["per_day"] == pytest.approx(1000)
    assert grown["snapshots.snap_shop__prices"]["projected"] == pytest.approx(1090000)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (["board"], "/api/board"),
        (["batch", "list"], "/api/batches"),
        (["batch", "show", "1"], "/api/batches/1"),
        (["quarantine", "list"], "/api/quarantine"),
        (["quarantine", "list", "--rows"], "/api/quarantine/rows"),
        (["quarantine", "show", "1"], "/api/quarantine/1"),
        (["catalogue"], "/api/catalogue"),
        (["catalogue", "marts.fct_order"], "/api/catalogue/marts.fct_order"),
        (["cost"], "/api/cost"),
        (["lineage", "shop.orders.amount"], "/api/lineage/shop.orders/amount"),
    ],
)
def test_the_command_line_says_the_same_as_the_pages(
    company: Company, visit: Any, command: list[str], path: str
) -> None:
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    served = visit("admin").get(path).json()
    if isinstance(served, dict):
        told = {name: told[name] for name in served}
        for moving in ("at", "lines", "sources", "line", "landed_at", "audited_at", "effective_at", "columns"):
            told.pop(moving, None), served.pop(moving, None)
    assert len(told) == len(served)
    if command[0] in ("lineage", "catalogue"):
        assert told == served
    plain = CliRunner().invoke(app, command)
    assert plain.exit_code in (0, 1)
    assert "\t" in plain.stdout or command[1] == "show"


def test_the_command_line_adds_up_the_books_of_a_table_as_the_page_does(company: Company, visit: Any) -> None:
    books = visit("viewer").get("/api/batches/totals", params={"table": "shop.orders"}).json()
    assert (
        books["read"] == sum(books[name] for name in ("applied", "unchanged", "duplicate", "quarantined", "late")) > 0
    )
    told = CliRunner().invoke(app, ["batch", "list", "shop.orders", "--day", f"{datetime.now(UTC):%F}"]).stdout
    assert f"the last 30 days: {books['read']} read = {books['applied']} applied" in told
    assert visit("stranger").get("/api/batches/totals", params={"table": "shop.orders"}).status_code == 403


def test_each_table_of_a_lineage_stands_under_its_heading() -> None:
    heads, *rows = CliRunner().invoke(app, ["lineage", "shop.orders"]).stdout.splitlines()
    assert heads == "table\twhere"
    assert "staging.shop__orders\tdownstream" in rows
