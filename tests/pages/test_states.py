"""What a page says when there is nothing to show, and when the warehouse gives no answer; what a program gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from sluice.ledger import migrate
from tests.conftest import PostgresForTests
from tests.pages.conftest import Company

TOLD = {
    "/": ("No source is declared.", "sluice source add"),
    "/batches": ("No batch matches.", "sluice load"),
    "/quarantine": ("Quarantine is empty", "Widen the filter"),
    "/lineage": ("No lineage was built yet.", "Trigger operations"),
    "/catalogue": ("No table is declared.", "include/sources"),
    "/cost": ("Nothing was loaded or built", "Run an ingest DAG"),
}


@pytest.fixture(scope="module")
def new_warehouse(postgres: PostgresForTests) -> str:
    url = postgres.database(name="pages_new")
    migrate(url)
    return url


@pytest.mark.parametrize("path", TOLD)
def test_a_page_without_history_says_so_and_what_to_do(
    path: str, new_warehouse: str, tmp_path: Path, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", new_warehouse)
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path))
    monkeypatch.setenv("SLUICE_DBT_MANIFEST", str(tmp_path / "none.json"))
    answer = visit("viewer").get(path)
    assert answer.status_code == 200
    empty = answer.text.split('class="empty"', 1)[1]
    assert all(words in empty for words in TOLD[path])


@pytest.mark.parametrize("path", TOLD)
def test_a_page_of_a_warehouse_that_is_down_says_what_to_look_at(
    path: str, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql://nobody:secret@127.0.0.1:1/none")
    answer = visit("viewer").get(path)
    assert answer.status_code == 503
    assert 'role="alert"' in answer.text
    assert "Is PostgreSQL running" in answer.text
    assert "secret" not in answer.text


def test_a_query_that_takes_too_long_is_given_up_and_said(
    company: Company, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.warehouse._READING_SECONDS", 1)
    with psycopg.connect(company.url) as other:
        other.execute("lock table ops.batch, ops.quarantine, ops.artefact, ops.relation_size in access exclusive mode")
        for path in TOLD:
            answer = visit("viewer").get(path)
            assert (answer.status_code, "took too long" in answer.text) == (503, True), path
            assert "narrow the filter" in answer.text


def test_everything_that_is_shown_is_described_for_programs(visit: Any) -> None:
    described = visit("viewer").get("/api/openapi.json").json()
    read = {path for path, methods in described["paths"].items() if "get" in methods}
    assert read == {
        "/api/board", "/api/batches", "/api/batches/totals", "/api/batches/{batch_id}", "/api/quarantine",
        "/api/quarantine/rows", "/api/quarantine/{quarantine_id}", "/api/lineage", "/api/lineage/{table}/{column}",
        "/api/catalogue", "/api/catalogue/{relation}", "/api/cost",
    }  # fmt: skip
    for path, methods in described["paths"].items():
        for method in methods.values():
            answer = method["responses"]["200"]["content"]["application/json"]["schema"]
            assert answer.keys() & {"$ref", "items"}, path
            assert method["description"], path


@pytest.mark.parametrize(
    "path", ["/quarantine?code=a%00b", "/api/quarantine/rows?column=%00", "/built/data-docs/a%00b"]
)
def test_an_address_that_no_text_can_be_is_not_found_and_no_fault_of_the_page(visit: Any, path: str) -> None:
    answer = visit("admin").get(path)
    assert answer.status_code == 404
    assert "a character that no text may have" in answer.text
