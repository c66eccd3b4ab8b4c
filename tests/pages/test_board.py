"""Is the data right, right now?"""

from __future__ import annotations

import re
from typing import Any

from tests.pages.conftest import EVIL, Company


def lines(visit: Any) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in visit("admin").get("/api/board").json()["lines"]}


def test_each_table_says_what_is_wrong_with_it_and_what_is_affected(company: Company, visit: Any) -> None:
    found = lines(visit)
    told = {name: (line["tone"], line["state"]) for name, line in found.items()}
    assert told["shop.stock"] == ("bad", "refused")
    assert told["shop.prices"] == ("bad", "late")
    assert told["snap_shop__prices"] == ("warn", "affected")
    assert found["shop.prices"]["affects"] == ["snap_shop__prices"]
    assert found["shop.stock"]["batch_id"] in [
        i for (i,) in company.query("select batch_id from ops.batch where state = 'refused'")
    ]


def test_the_page_of_the_board_links_to_task_log_batch_and_runbook_and_shows_names_as_text(visit: Any) -> None:
    html = visit("admin").get("/").text
    assert EVIL not in html
    assert "&lt;script&gt;" in html
    assert re.search(
        r'data-airflow href="[^"]*/dags/ingest_shop/runs/manual__stock_2026-01-01.csv/tasks/stock.audit"', html
    )
    assert re.search(r'href="/batches/\d+"', html)
    assert 'href="/runbooks/batch-refused"' in html


def test_only_the_latest_word_of_a_blocking_check_makes_a_table_red(company: Company, visit: Any) -> None:
    def judged(check: str, severity: str, verdict: str) -> None:
        company.query(
            "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict)"
            " values ('r', 'staging', %s, 'staging.shop__orders', %s, %s)",
            check,
            severity,
            verdict,
        )

    try:
        judged("rows_that_fail_leave", "quarantine", "fail")
        judged("only_counted", "warn", "fail")
        judged("books_balance", "block", "pass")
        assert lines(visit)["shop.orders"]["state"] != "gate failed"
        assert lines(visit)["shop.orders"]["gate"] == "warn"
        judged("books_balance", "block", "missing")  # no result is no pass
        judged("another", "block", "pass")
        broken = lines(visit)["shop.orders"]
        assert (broken["tone"], broken["state"], broken["gate_check"]) == ("bad", "gate failed", "books_balance")
        assert "fct_order" in broken["affects"]
        assert lines(visit)["fct_order"]["upstream"] == ["shop.orders"]
        judged("books_balance", "block", "pass")
        assert lines(visit)["shop.orders"]["state"] != "gate failed"
    finally:
        company.query("delete from ops.gate_result where run_id = 'r'")


def test_a_model_that_has_not_read_what_was_published_is_behind_after_two_hours(company: Company, visit: Any) -> None:
    company.query(
        "insert into ops.model_run (run_id, model, relation, state, started_at)"
        " values ('b', 'fct_order', 'marts.fct_order', 'success', now())"
    )
    company.query(
        "insert into ops.model_watermark (relation, input, seq) values ('marts.fct_order', 'stg_shop__orders', 0)"
    )
    try:
        assert lines(visit)["fct_order"]["state"] == "catching up"
        company.query(
            "update ops.batch set published_at = published_at - interval '3 hours' where table_name = 'orders'"
        )
        behind = lines(visit)["fct_order"]
        assert (behind["tone"], behind["state"]) == ("bad", "behind")
        assert behind["affects"] == [f"Sales {EVIL}"]
        company.query("update ops.model_watermark set seq = 1000")
        assert lines(visit)["fct_order"]["tone"] == "good"
    finally:
        company.query(
            "update ops.batch set published_at = published_at + interval '3 hours' where table_name = 'orders'"
        )
        company.query("delete from ops.model_watermark")
        company.query("delete from ops.model_run where run_id = 'b'")
