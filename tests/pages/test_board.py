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
