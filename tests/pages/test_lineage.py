"""What feeds what, by column."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from sluice import settings
from sluice.declarations import load_folder
from sluice.reports import artefacts, lineage
from sluice.reports.project import read_project
from tests.pages.conftest import EVIL, Company

KNOWN_VALUES = {"a.t.x", "a.t.y", "a.u.z"}
KNOWN = {"a.t": ["id", "x", "y"], "a.u": ["id", "z"]}


@pytest.fixture(scope="module")
def built(company: Company) -> lineage.Lineage:
    return lineage.read() or pytest.fail("no lineage")


@pytest.fixture(scope="module", autouse=True)
def _build(company: Company) -> None:
    sources = load_folder(settings.sources_dir()).sources.values()
    lineage.write(lineage.build(read_project(), sources))


@pytest.mark.parametrize(
    ("sql", "column", "into"),
    [
        ("select x + y as s from a.t", "s", {"a.t.x", "a.t.y"}),
        ("select 1 as s, x from a.t where y > 0", "s", set()),  # a row is chosen by y, and holds nothing of it
        ("select t.x as s from a.t as t join a.u as u on u.id = t.id", "s", {"a.t.x"}),
        ("with c as (select * from a.t) select y as s from c", "s", {"a.t.y"}),
        ("select x as s from a.t union all select z from a.u", "s", {"a.t.x", "a.u.z"}),
        ("select (select max(z) from a.u where u.id = t.id) as s from a.t as t", "s", {"a.u.z"}),
        (
            "select n.total as s from a.t as t cross join lateral (select sum(u.z) as total, count(*) as many"
            " from a.u as u where u.id = t.id) as n",
            "s",
            {"a.u.z"},
        ),
        ("select row_number() over (partition by x order by y) as s from a.t", "s", {"a.t.x", "a.t.y"}),
        ("select v as s from a.t cross join lateral unnest(string_to_array(t.x, ',')) as each (v)", "s", {"a.t.x"}),
        ("select case when x > 0 then y else z end as s from a.t join a.u using (id)", "s", KNOWN_VALUES),
        ("with recursive c as (select id, x from a.t union all select c.id, u.z from c join a.u as u on u.id = c.id)"
         " select x as s from c", "s", {"a.t.x", "a.u.z"}),
    ],
)  # fmt: skip
def test_the_columns_whose_values_go_into_a_column_are_found(sql: str, column: str, into: set[str]) -> None:
    assert {f"{table}.{name}" for table, name in lineage.follow(sql, KNOWN)[column]} == into


def test_a_field_of_a_source_is_followed_to_the_mart_and_to_who_reads_it(built: lineage.Lineage) -> None:
    traced = lineage.trace(built, "shop.orders", "amount")
    assert traced is not None
    assert list(traced.downstream) == [
        "staging.shop__orders.amount",
        "staging.stg_shop__orders.order_amount",
        "marts.fct_order.doubled_amount",
    ]
    assert traced.exposures == (f"Sales {EVIL}",)
    back = lineage.trace(built, "marts.fct_order", "customer_key")
    assert back is not None
    assert "shop.orders.customer_email" in back.upstream
    assert not any("amount" in each for each in back.upstream)


def test_a_snapshot_has_the_columns_of_its_view_and_those_of_its_history(built: lineage.Lineage) -> None:
    assert built.edges["snapshots.snap_shop__prices.list_price"] == ("staging.stg_shop__prices.list_price",)
    assert "dbt_valid_from" in built.by_id["snapshots.snap_shop__prices"].columns


def test_sql_that_cannot_be_followed_is_named_and_takes_nothing_else_along(company: Company) -> None:
    from dataclasses import replace

    project = read_project()
    broken = {
        **project.nodes,
        "model.sluice.fct_order": replace(project.by_name["fct_order"], compiled="select from where"),
    }
    found = lineage.build(replace(project, nodes=broken), load_folder(settings.sources_dir()).sources.values())
    assert [each.table for each in found.unknown] == ["marts.fct_order"]
    assert "staging.stg_shop__orders.order_amount" in found.edges


def test_the_page_follows_a_clicked_column_and_keeps_names_as_text(visit: Any) -> None:
    viewer = visit("viewer")
    html = viewer.get("/lineage", params={"table": "shop.orders", "column": "amount"}).text
    assert "doubled_amount" in html
    assert "snap_shop__prices" not in html
    assert EVIL not in html
    assert "snap_shop__prices" in viewer.get("/lineage").text
    assert viewer.get("/lineage", params={"table": "shop.orders", "column": "nix"}).status_code == 404
    assert viewer.get("/lineage", params={"table": "shop.nix"}).status_code == 404
    assert viewer.get("/api/lineage/shop.orders/amount").json()["downstream"][-1] == "marts.fct_order.doubled_amount"
    assert visit("stranger").get("/lineage").status_code == 403


def test_without_a_lineage_it_is_said_how_to_get_one(company: Company, visit: Any) -> None:
    kept = artefacts.read("lineage")
    company.query("delete from ops.artefact where name = 'lineage'")
    try:
        assert "Trigger operations" in visit("viewer").get("/lineage").text
        assert visit("viewer").get("/api/lineage").status_code == 404
    finally:
        with psycopg.connect(company.url) as connection:
            artefacts.write(connection, "lineage", kept or b"")
