"""The summary shows the ledger's truth: quarantine, refusals, repeated checks, and that nothing is new."""

import io
from datetime import UTC, datetime

import psycopg
import pytest
from rich.console import Console

from sluice.runtime import results, summary
from sluice.runtime.airflow_api import Run, Task
from sluice.runtime.pipeline import Pass, news

START = datetime(2000, 1, 1, tzinfo=UTC)


def task(name: str, state: str | None, dag: str = "ingest_shop") -> Task:
    return Task(dag, "manual__1", name, -1, state, 1, None)


def shown(found: results.Results, done: Pass, problems: list[str]) -> str:
    out = io.StringIO()
    summary.show(Console(file=out, width=160), found, done, {"Airflow": 9.0}, problems)
    return out.getvalue()


def batch(warehouse: psycopg.Connection, table: str, **books: int) -> None:
    columns = {"source": "shop", "table_name": table, "unit": "u", "mode": "append", "run_id": "r", **books}
    names = ", ".join(columns)
    values = ", ".join(["%s"] * len(columns))
    warehouse.execute(
        f"insert into ops.batch (state, published_seq, {names}) values ('published', ops.next_seq(), {values})",
        list(columns.values()),
    )


def gate(warehouse: psycopg.Connection, check: str, verdict: str, severity: str = "block") -> None:
    warehouse.execute(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed, bound)"
        " values ('r', 'marts', %s, 'fct_order', %s, %s, '3', '0')",
        [check, severity, verdict],
    )


def test_rows_are_summed_per_table_and_declared_tables_without_news_are_shown(
    warehouse: psycopg.Connection, warehouse_url: str
) -> None:
    batch(warehouse, "orders", rows_read=10, rows_applied=7, rows_quarantined=3)
    batch(warehouse, "orders", rows_read=5, rows_applied=5, rows_deleted=2)
    found = results.read(warehouse_url, START, [("shop", "orders"), ("shop", "payments")])
    orders, payments = found.tables
    assert (orders["batches"], orders["read"], orders["applied"], orders["quarantined"]) == (2, 15, 12, 3)
    assert (payments["table_name"], payments["states"], payments["read"]) == ("payments", "nothing new", 0)
    assert found.applied == 14
    text = shown(found, Pass(START), [])
    assert "shop.payments" in text
    assert "SUCCEEDED: every task and every gate passed; 14 changed rows" in text


def test_nothing_new_is_said(warehouse_url: str) -> None:
    text = shown(results.read(warehouse_url, START, [("shop", "orders")]), Pass(START), [])
    assert "0 changed rows: nothing new at the sources" in text


@pytest.mark.parametrize("verdict", ["fail", "error", "missing"])
def test_a_blocking_check_without_a_pass_is_a_problem(
    verdict: str, warehouse: psycopg.Connection, warehouse_url: str
) -> None:
    gate(warehouse, "keys are unique", verdict)
    gate(warehouse, "amounts look usual", "fail", severity="warn")
    found = results.read(warehouse_url, START, [])
    assert [row["verdict"] for row in found.gates] == ["blocked"]
    (problem,) = found.problems()
    assert "keys are unique on fct_order" in problem
    assert "FAILED: 1 things" in shown(found, Pass(START), [problem])


def test_a_check_that_was_repeated_counts_as_it_ended(warehouse: psycopg.Connection, warehouse_url: str) -> None:
    gate(warehouse, "keys are unique", "fail")
    gate(warehouse, "keys are unique", "pass")
    found = results.read(warehouse_url, START, [])
    assert found.problems() == []
    assert [row["verdict"] for row in found.gates] == ["passed"]


def test_marts_are_counted(warehouse: psycopg.Connection, warehouse_url: str) -> None:
    warehouse.execute("create table marts.dim_date as select generate_series(1, 3) as day")
    warehouse.execute(
        "insert into ops.model_run (run_id, model, relation, state, rows_inserted, seconds, started_at)"
        " values ('r', 'dim_date', 'marts.dim_date', 'success', 3, 0.5, now())"
    )
    (mart,) = results.read(warehouse_url, START, []).marts
    assert (mart["name"], mart["rows"], mart["inserted"], mart["seconds"]) == ("dim_date", 3, 3, 0.5)


def test_what_was_not_run_is_loud(warehouse_url: str) -> None:
    done = Pass(START, not_run={"ingest_ourairports": "the address does not answer"})
    assert "NOT RUN: ingest_ourairports: the address" in shown(results.read(warehouse_url, START, []), done, [])


def test_a_failed_task_is_named_with_its_log_and_a_run_that_failed_without_one_too(tmp_path) -> None:
    runs = [
        Run("ingest_shop", "manual__1", "failed", None, None),
        Run("warehouse", "w", "failed", None, None),
    ]
    done = Pass(START, runs, [task("land", "failed"), task("publish", "upstream_failed"), task("wait", "skipped")])
    land, publish, run = done.problems(tmp_path)
    log = tmp_path / "dag_id=ingest_shop/run_id=manual__1/task_id=land/attempt=1.log"
    assert land == f"task ingest_shop.land is failed: {log}"
    assert "publish is upstream_failed" in publish
    assert run == "run w of warehouse is failed"


def test_news_in_one_line() -> None:
    tasks = [
        task("wait", "success"),
        task("land", "running"),
        task("audit", None),
        task("load", "up_for_retry"),
    ]
    queued = Run("warehouse", "w", "queued", None, None)
    assert news(tasks, [queued]) == (
        "1 of 4 tasks done; running ingest_shop.land; to be tried again ingest_shop.load; queued warehouse"
    )
