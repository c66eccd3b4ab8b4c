"""`sluice source add` on real sources: what it writes loads without an edit, and holds what the source holds."""

from __future__ import annotations

import csv
import os
import tarfile
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.profiling.conftest import ROOT, Home, Shop

ARCHIVE = Path(os.environ.get("SLUICE_OURAIRPORTS_ARCHIVE") or ROOT.parent / "shared/data/ourairports-2026.tar.xz")
LOG = {"_batch_id", "_row_number", "_op", "_effective_at", "_sequence", "_row_hash", "_rescued"}

ODD = """\
Kunden-Nr;id;order;user;Größe;größe 2;2020;PLZ;Betrag;desc;date;End Date;flag;_op;sehr langer Name{long}
007;1;a;b;x;y;5;01067;12,50;ä;2026-01-01;01.02.2026;NULL;q;z
008;2;a;b;;y;6;99084;1,00;ö;2026-01-02;03.04.2026;1;q;z
""".replace("{long}", " und noch länger" * 5)


def _staged(home: Home, model: str) -> set[tuple]:
    """The rows of a staging view as text, without the log's own columns."""
    columns = [
        name
        for (name,) in home.rows(
            "select column_name from information_schema.columns where table_schema = 'staging'"
            f" and table_name = '{model}' order by ordinal_position"
        )
        if name not in LOG
    ]
    assert columns, f"there is no view {model}"
    return set(home.rows(f"select {', '.join(f'{name}::text' for name in sorted(columns))} from staging.{model}"))


def test_everything_that_is_added_lints_parses_loads_and_holds_what_the_source_holds(
    home: Home, shop: Shop, tmp_path: Path
) -> None:
    """A table of each kind of origin, as a user adds them, in two sources; one `dbt build` over all of them."""
    home.add("public.orders", "--connection", "shop_db", "--source", "web_shop", "--owner", "sales")
    home.add("public.addresses", "-c", "shop_db", "--source", "web_shop", "--mode", "full")
    home.add("/v1/product-costs", "--connection", "shop_api", "--source", "web_shop")
    home.add(f"{shop.api}/v1/exchange-rates?date=2026-01-02", "-c", "shop_api", "--source", "web_shop")
    home.add(f"{shop.files}/inventory/{{date}}/{{warehouse_code}}.csv")
    home.add(f"{shop.files}/clickstream/2026-01-02/08.jsonl", "--key", "event_id")
    (tmp_path / "odd.csv").write_bytes(ODD.encode("cp1252"))
    home.add(tmp_path / "odd.csv", "--source", "odd")

    assert home.run("validate").exit_code == 0
    assert home.run("generate", "--check").exit_code == 0
    home.lint()
    orders = home.table("web_shop.orders")
    assert (orders.mode, orders.key, orders.cursor.column) == ("cursor", ("order_id",), "updated_at")
    assert orders.columns["status"].accepted == ("placed", "paid", "shipped", "delivered", "cancelled", "returned")
    assert home.table("web_shop.exchange_rates").origin.rest.params == {"date": "{date}"}
    assert home.table("shop.inventory").key == ("inventory_date", "warehouse_code", "sku")

    names = [
        "odd.odd",
        "web_shop.orders",
        "web_shop.addresses",
        "web_shop.product_costs",
        "shop.inventory",
        "shop.clickstream",
    ]
    read = {name: home.load(name) for name in names}
    assert {name: rejected for name, (_, rejected) in read.items() if name.startswith("web_shop")} == {
        "web_shop.orders": 0,
        "web_shop.addresses": 0,
        "web_shop.product_costs": 0,
    }
    assert read["odd.odd"] == (2, 0)
    home.dbt("build", "--exclude", "stg_web_shop__exchange_rates")

    with psycopg.connect(shop.url, options="-c timezone=UTC -c datestyle=ISO") as session:
        for table in ("orders", "addresses"):
            columns = sorted(home.table(f"web_shop.{table}").columns)
            query = f"select {', '.join(f'{name}::text' for name in columns)} from {table}"
            assert _staged(home, f"stg_web_shop__{table}") == set(session.execute(query).fetchall())
    costs = _all_pages(shop, "/v1/product-costs")
    assert len(costs) == home.rows("select count(*) from staging.stg_web_shop__product_costs")[0][0]
    assert {(cost["sku"], cost["currency"], cost["supplier"], cost["valid_from"]) for cost in costs} == set(
        home.rows("select sku, currency, supplier, valid_from::text from staging.stg_web_shop__product_costs")
    )


def _all_pages(shop: Shop, path: str) -> list[dict]:
    items, page, pages = [], 0, 1
    with httpx.Client(base_url=shop.api, headers={"X-API-Key": "shop-demo-key"}) as client:
        while page < pages:
            answer = client.get(path, params={"page": page + 1})
            if answer.status_code in (429, 503):
                continue
            page, pages = page + 1, answer.json()["pages"]
            items += answer.json()["items"]
    return items


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the real deliveries of ourairports are not beside this checkout")
def test_real_files_of_ourairports_load_without_a_rejected_row(home: Home, tmp_path: Path) -> None:
    """Profiled on the newer of two deliveries; every row of both fits what was found."""
    days, tables = ("2026-07-21", "2026-08-18"), ("navaids", "regions")
    wanted = {f"ourairports/{day}/{table}.csv" for day in days for table in tables}
    with tarfile.open(ARCHIVE, "r|xz") as archive:  # they stand at its beginning; the rest stays packed
        while wanted and (member := archive.next()):
            if member.name in wanted:
                archive.extract(member, tmp_path)
                wanted.remove(member.name)
    newest = tmp_path / "ourairports" / days[-1]
    for table in tables:
        said = home.add(newest / f"{table}.csv", "--source", "airports")
        assert "mode full" in said
    assert home.run("validate").exit_code == 0
    for table in tables:
        read, rejected = home.load(f"airports.{table}")
        assert (read > 3000, rejected) == (True, 0)
    assert home.table("airports.navaids").columns["usage_type"].field == "usageType"
    home.dbt("build")
    with (newest / "regions.csv").open(encoding="utf-8") as file:
        expected = {tuple(value or None for value in row.values()) for row in csv.DictReader(file)}
    got = home.rows(
        "select region_id::text, region_code, local_code, region_name, continent, iso_country, wikipedia_link, keywords"
        " from (select distinct on (region_id) * from staging.stg_airports__regions"
        " order by region_id, _effective_at desc) as latest where _op = 'upsert'"
    )
    assert set(got) == expected


@pytest.mark.parametrize("name", ["returns", "rescued", "blank"])
def test_an_odd_file_that_is_added_loads_as_it_was_profiled(home: Home, tmp_path: Path, name: str) -> None:
    body = {
        "returns": b"id,name\r1,Anna\r2,Bert\r3,Cleo\r",
        "rescued": b"id,name,_rescued\n1,Anna,x\n2,Bert,y\n3,Cleo,z\n",
        "blank": b"\n\nid,name\n1,Anna\n2,Bert\n3,Cleo\n",
    }[name]
    (tmp_path / f"{name}.csv").write_bytes(body)
    said = home.add(tmp_path / f"{name}.csv", "--source", "odd", "--key", "id")
    assert list(home.table(f"odd.{name}").columns) == ["id", "name"]
    assert ("_rescued: left out" in said) == (name == "rescued")
    assert home.load(f"odd.{name}") == (3, 0)
