"""The pages over a small company that was really loaded: a good table, one with rejects, one refused, one late."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from fastapi import HTTPException, Request
from starlette.testclient import TestClient

from sluice import settings
from sluice.declarations import Source, load_file, load_folder
from sluice.errors import SluiceError
from sluice.loading import RunContext, load
from sluice.reports import lineage
from sluice.reports.build import measure
from sluice.reports.project import read_project
from tests.conftest import PostgresForTests
from tests.pages.projects import exposure, model, write

EVIL = "<script>document.title='owned'</script>"
DECLARATION = f"""
source: shop
description: a shop
owner: "team {EVIL}"
start: 2026-01-01
tables:
  orders:
    description: "One row per order {EVIL}"
    from: {{files: {{connection: drop, path: "orders_{{date}}.csv", format: csv}}}}
    mode: append
    key: [order_id]
    freshness: 2d
    max_reject_share: 0.5
    columns:
      order_id: {{type: bigint, required: true, description: "The order {EVIL}"}}
      customer_email: {{type: text, personal: true, description: Who}}
      amount: {{type: "numeric(12,2)", required: true, minimum: 0, description: What it costs}}
      note: {{type: text, description: Free text}}
  stock:
    description: Stock, broken beyond the declared share.
    from: {{files: {{connection: drop, path: "stock_{{date}}.csv", format: csv}}}}
    mode: append
    key: [sku]
    columns:
      sku: {{type: text, required: true}}
      pieces: {{type: bigint, required: true}}
  prices:
    description: Prices, not read for long.
    from: {{files: {{connection: drop, path: "prices_{{date}}.csv", format: csv}}}}
    mode: append
    key: [sku]
    freshness: 1h
    columns:
      sku: {{type: text, required: true}}
      price: {{type: "numeric(12,2)", required: true}}
"""
FILES = {
    "orders_2026-01-01.csv": "order_id,customer_email,amount,note\n1,a@example.org,1.50,\n2,b@example.org,2.50,fine\n"
    f'3,c@example.org,many,"{EVIL}"\n',
    "stock_2026-01-01.csv": "sku,pieces\na,1\nb,none\nc,none\n",
    "prices_2026-01-01.csv": "sku,price\na,9.50\n",
}
ORDERS_SQL = """
select order_id, customer_email, amount as order_amount, note, _batch_id, _op
from (select log.* from (select * from "warehouse"."staging"."shop__orders") as log) as change_log
"""
PRICES_SQL = 'select sku, price as list_price from "warehouse"."staging"."shop__prices"'
FACT_SQL = """
with orders as (select * from "warehouse"."staging"."stg_shop__orders"),

final as (
    select orders.order_id, orders.order_amount * 2 as doubled_amount, md5(orders.customer_email) as customer_key
    from orders
)

select * from final
"""
MODELS = [
    model(
        "stg_shop__orders",
        "staging",
        logs=["shop.orders"],
        sql=ORDERS_SQL,
        columns=["order_id", "customer_email", "order_amount", "note"],
    ),
    model("stg_shop__prices", "staging", logs=["shop.prices"], sql=PRICES_SQL, columns=["sku", "list_price"]),
    model(
        "snap_shop__prices",
        "snapshots",
        inputs=["stg_shop__prices"],
        sql='select * from "warehouse"."staging"."stg_shop__prices"',
    ),
    model(
        "fct_order",
        "marts",
        inputs=["stg_shop__orders"],
        sql=FACT_SQL,
        description=f"One row per order {EVIL}",
        columns={"order_id": "The order", "doubled_amount": f"Twice {EVIL}", "customer_key": "Who"},
        tests=[("not_null", "order_id")],
        personal=["customer_key"],
    ),
]
EXPOSURES = [exposure("sales", ["fct_order"], label=f"Sales {EVIL}", url="https://bi.example.org/sales")]


@dataclass(frozen=True)
class Person:
    """A viewer of the tests: what they may do is said by their name."""

    name: str

    def may_read(self, source: str | None = None) -> bool:
        return self.name != "stranger"

    def may_change(self, source: str) -> bool:
        return self.name in ("admin", "user")

    def may_see_personal(self, source: Source) -> bool:
        return self.name == "admin"


async def access(request: Request) -> Person:
    """Whoever the cookie names."""
    name = request.cookies.get("who")
    if not name:
        raise HTTPException(401, "Not authenticated")
    return Person(name)


@dataclass
class Company:
    """What was loaded, and how to look at it."""

    root: Path
    url: str
    clients: dict[str, TestClient] = field(default_factory=dict)

    def query(self, statement: str, *parameters: object) -> list[tuple]:
        """Rows of the warehouse."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(statement, parameters or None)
            return found.fetchall() if found.description else []

    def deliver(self, name: str, content: str) -> None:
        """A file, which is read at once. A refusal is what the pages are to show."""
        (self.root / "files" / name).write_text(content)
        source = load_file(self.root / "sources" / "shop.yml")
        with suppress(SluiceError):
            load(source, source.tables[name.split("_")[0]], RunContext(f"manual__{name}"))


@pytest.fixture(scope="module")
def company(postgres: PostgresForTests, _ledger_template: str) -> Iterator[Company]:
    """Loaded once; a test that changes it says so by loading a day of its own."""
    root = Path(tempfile.mkdtemp(prefix="sluice-test-pages-"))
    for name in ("sources", "files", "state"):
        (root / name).mkdir()
    (root / "sources" / "shop.yml").write_text(DECLARATION)
    url = postgres.database(_ledger_template, "pages")
    given = {
        "SLUICE_WAREHOUSE_URL": url,
        "SLUICE_SOURCES_DIR": str(root / "sources"),
        "SLUICE_STATE_DIR": str(root / "state"),
        "SLUICE_DBT_MANIFEST": str(write(root / "manifest.json", MODELS, EXPOSURES)),
        "AIRFLOW_CONN_DROP": f"file://{root / 'files'}",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        found = Company(root, url)
        for name, content in FILES.items():
            found.deliver(name, content)
        found.query("update ops.table_read set read_at = now() - interval '3 days' where table_name = 'prices'")
        yield found
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        postgres.drop(url)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def visit(company: Company) -> object:
    """`visit(name)`: a client in which this person has signed in; without a name, nobody has."""
    from sluice_airflow.pages.app import create_app

    app = create_app(access, "a secret of the tests")

    def of(name: str = "") -> TestClient:
        return TestClient(app, cookies={"who": name} if name else {}, raise_server_exceptions=True)

    return of


@pytest.fixture(scope="module")
def measured(company: Company) -> None:
    """A model that ran, lineage, profiles and sizes: as `operations` takes them, without dbt."""
    company.query(
        "create table marts.fct_order as select n as order_id, n * 2.0 as doubled_amount, md5(n::text) as customer_key"
        " from generate_series(1, 500) as n"
    )
    company.query("analyze staging.shop__orders")
    company.query("analyze marts.fct_order")
    sources = load_folder(settings.sources_dir()).sources.values()
    lineage.write(lineage.build(read_project(), sources))
    with psycopg.connect(company.url) as connection:
        assert measure(connection, read_project(), sources) > 5
        measure(connection, read_project(), sources)  # again, on the same day
    company.query(
        "insert into ops.model_run"
        " (run_id, model, relation, state, rows_inserted, checks, seconds, started_at, wal_bytes) values"
        " ('r', 'fct_order', 'marts.fct_order', 'success', 500,"
        """ '[{"name": "not_null_order_id_shortened", "verdict": "pass", "failures": 0}]', 12.5, now(), 4096)"""
    )
