"""Who may come in, and what every answer carries."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from sluice.reports import artefacts
from tests.pages.conftest import Company

PAGES = ["/", "/batches", "/quarantine", "/lineage", "/catalogue", "/catalogue/marts.fct_order", "/cost"]


@pytest.mark.parametrize(
    "path", [*PAGES, "/docs/how-to/when-something-is-red.md", "/runbooks/x", "/built/dbt-docs/", "/built/data-docs/"]
)
def test_nobody_who_has_not_signed_in_sees_anything(visit: Any, path: str) -> None:
    answer = visit().get(path)
    assert answer.status_code == 401
    assert "Sign in to Airflow" in answer.text
    assert "shop" not in answer.text


def test_every_route_asks_who_it_is(visit: Any) -> None:
    """Also the ones that are added later: only style and script are for everybody."""
    app = visit().app
    for route in app.routes:
        path = getattr(route, "path", "")
        if path == "/static":
            continue
        for method in route.methods - {"HEAD", "OPTIONS"}:
            filled = path.replace("{batch_id}", "1").replace("{quarantine_id}", "1").replace("{path:path}", "x")
            assert visit().request(method, filled, json={"table": "shop"}).status_code == 401, (method, path)


def test_somebody_whose_role_may_not_look_is_refused(visit: Any) -> None:
    stranger = visit("stranger")
    assert stranger.get("/").status_code == 403
    assert stranger.get("/batches", params={"table": "shop.orders"}).status_code == 403
    assert stranger.get("/api/batches").json() == []
    assert stranger.get("/api/batches/1").status_code == 403
    assert stranger.get("/api/quarantine/rows").json() == []
    assert stranger.get("/quarantine/1").status_code == 403


@pytest.mark.parametrize("path", PAGES)
def test_no_page_may_load_or_be_shown_by_another_host(visit: Any, path: str) -> None:
    answer = visit("admin").get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "http://" not in answer.text.replace("http://testserver", "")
    assert "style=" not in answer.text


def test_documents_are_served_from_their_folder_only(company: Company, visit: Any) -> None:
    with psycopg.connect(company.url) as connection:
        artefacts.write(connection, "dbt-docs", b"<h1>dbt</h1>")
    viewer = visit("viewer")
    answer = viewer.get("/built/dbt-docs/")
    assert answer.text == "<h1>dbt</h1>"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert viewer.get("/built/secrets/x").status_code == 404
    assert viewer.get("/docs/%2e%2e/pyproject.toml").status_code == 404
    assert "When something is red" in viewer.get("/runbooks/no-such-alert").text
    assert visit("stranger").get("/built/dbt-docs/").status_code == 403


def test_data_docs_are_read_from_the_ledger_and_can_run_and_load_nothing(company: Company, visit: Any) -> None:
    company.query(
        "insert into ops.data_doc (layer, relation, run_id, passed, html) values"
        " ('marts', 'marts.fct_order', 'r1', true, '<h1>orders</h1>')"
    )
    viewer = visit("viewer")
    index = viewer.get("/built/data-docs/")
    assert "href='marts__marts.fct_order.html'" in index.text
    answer = viewer.get("/built/data-docs/marts__marts.fct_order.html")
    assert answer.text == "<h1>orders</h1>"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'; base")
    assert viewer.get("/built/data-docs/marts__none.html").status_code == 404
    assert visit("stranger").get("/built/data-docs/").status_code == 403


def test_a_warehouse_that_is_down_is_said_with_what_to_do(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql://nobody:secret@127.0.0.1:1/none")
    answer = visit("viewer").get("/")
    assert answer.status_code == 503
    assert "Is PostgreSQL running" in answer.text
    assert "secret" not in answer.text
    assert visit("viewer").get("/api/board").status_code == 503
