"""Where did the rows go?"""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from sluice.cli import app
from tests.pages.conftest import Company


def batch_of(company: Company, table: str) -> int:
    return company.query("select min(batch_id) from ops.batch where table_name = %s", table)[0][0]


def test_the_books_of_a_batch_add_up_and_say_where_each_row_went(company: Company, visit: Any) -> None:
    batch_id = batch_of(company, "orders")
    found = visit("viewer").get(f"/api/batches/{batch_id}").json()
    assert found["wal_bytes"] > 0
    books = found["line"]["books"]
    assert (books["read"], books["applied"], books["quarantined"]) == (3, 2, 1)
    assert [hop["model"] for hop in found["hops"]] == ["fct_order"]  # what is made from it, and has not read it
    html = visit("viewer").get(f"/batches/{batch_id}").text
    assert "adds up" in html
    assert "has not run since" in html


def test_a_model_that_ran_after_the_batch_is_a_hop_with_its_rows(company: Company, visit: Any) -> None:
    batch_id = batch_of(company, "orders")
    company.query(
        "insert into ops.model_run (run_id, model, relation, state, rows_inserted, started_at)"
        " values ('scheduled__x', 'fct_order', 'marts.fct_order', 'success', 2, clock_timestamp())"
    )
    try:
        hop = visit("viewer").get(f"/api/batches/{batch_id}").json()["hops"][0]
        assert (hop["run_id"], hop["inserted"]) == ("scheduled__x", 2)
    finally:
        company.query("delete from ops.model_run where run_id = 'scheduled__x'")


def test_batches_are_found_by_table_state_and_day_and_older_ones_by_page(company: Company, visit: Any) -> None:
    viewer = visit("viewer")
    refused = viewer.get("/api/batches", params={"table": "shop.stock", "state": "refused"}).json()
    assert [each["table_name"] for each in refused] == ["stock"]
    assert viewer.get("/api/batches", params={"day": "1999-01-01"}).json() == []
    every = [each["batch_id"] for each in viewer.get("/api/batches").json()]
    first = viewer.get("/api/batches", params={"limit": 1}).json()[0]["batch_id"]
    assert [each["batch_id"] for each in viewer.get("/api/batches", params={"before": first}).json()] == every[1:]


def test_rows_of_a_refused_batch_are_not_called_lost(company: Company, visit: Any) -> None:
    ((batch_id, read),) = company.query("select batch_id, rows_read from ops.batch where state = 'refused'")
    html = visit("viewer").get(f"/batches/{batch_id}").text
    assert "nothing was published" in html
    told = CliRunner().invoke(app, ["batch", "show", str(batch_id)]).stdout
    assert f"{read} read: nothing of it was published" in told
    assert "nowhere" not in html + told


def test_a_batch_that_is_not_there_and_a_filter_that_is_none_say_so(visit: Any) -> None:
    viewer = visit("viewer")
    assert viewer.get("/batches/999999").status_code == 404
    assert "there is no batch 999999" in viewer.get("/batches/999999").text
    for wrong in ({"state": "lost"}, {"day": "monday"}, {"before": "x"}):
        answer = viewer.get("/batches", params=wrong)
        assert answer.status_code == 404
        assert 'role="alert"' in answer.text
    assert "No batch matches" in viewer.get("/batches", params={"day": "1999-01-01"}).text
