"""Month partitions of a fact, and periods that are closed."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.cli import app
from tests.dbt.conftest import Small
from tests.dbt.test_convergent import customer, edit, state
from tests.dbt.test_ranges import look_up_as_of_the_order


def order(month: int, key: int, amount: float = 5) -> tuple:
    at = f"2026-{month:02}-15"
    return ("upsert", at, key, 1, amount, at)


def monthly(small: Small, correction: str = "refuse") -> None:
    edit(
        small,
        "marts/fct_order.sql",
        "unique_key='order_id'",
        "unique_key=['order_id', 'ordered_at'], recompute_by='order_id',"
        " partition_by={'column': 'ordered_at', 'by': 'month'},"
        f" closed_periods={{'column': 'ordered_at', 'correction': '{correction}'}}",
    )


def amounts(small: Small) -> list[tuple]:
    return small.query(
        "select order_id, extract(month from ordered_at)::int, amount::int from marts.fct_order order by 1, 2"
    )


def sluice(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_a_fact_has_a_partition_per_month_made_beside_it_while_a_reader_reads(small: Small, warehouse_url: str) -> None:
    small.publish("orders", [order(1, 1)])
    small.build()
    monthly(small)
    small.build()
    assert amounts(small) == [(1, 1, 5)], "a table that had none is made anew"
    small.publish("orders", [order(1, 2), order(3, 3)])
    with psycopg.connect(warehouse_url) as reader:
        assert reader.execute("select count(*) from marts.fct_order").fetchone() == (1,)
        small.build()  # the reader's lock is still held
        reader.rollback()
        assert reader.execute("select count(*) from marts.fct_order").fetchone() == (3,)
    parts = small.query("select relid::text from pg_partition_tree('marts.fct_order') where isleaf order by 1")
    assert {("marts.fct_order__2026_01",), ("marts.fct_order__2026_03",)} <= set(parts)
    assert len(parts) >= 4, "this month and the two after it are there ahead"
    assert small.query(
        "select count(*) from pg_indexes where tablename = 'fct_order__2026_03' and indexdef like '%USING brin%'"
    ) == [(1,)]
    small.publish("orders", [("upsert", "2026-03-20", 1, 1, 7, "2026-03-20")])
    small.build()
    assert amounts(small) == [(1, 3, 7), (2, 1, 5), (3, 3, 5)], "an order that moves to another month leaves the first"
    small.build()
    assert state(small) == ("unchanged",)


def test_a_reader_who_planned_before_a_month_was_there_sees_all_of_a_commit_or_nothing(
    small: Small, warehouse_url: str
) -> None:
    """The first late row of a month that has no partition, beside a change in another month. Readers in a loop plan
    slowly (a stable function, which the planner calls) and so are at it while the model runs; they may see the old sum
    or the new."""
    monthly(small)
    small.publish("orders", [order(1, 1)])
    small.build()
    small.warehouse.execute(
        "create function public.slowly() returns numeric language plpgsql stable as"
        " $$ begin perform pg_sleep(0.1); return -1; end $$"
    )
    seen, is_over = [], threading.Event()

    def read() -> None:
        with psycopg.connect(warehouse_url, autocommit=True) as reader:
            while not is_over.is_set():
                query = "select count(*), sum(amount)::int from marts.fct_order where amount > public.slowly()"
                seen.append(reader.execute(query).fetchone())

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
        time.sleep(0.1)
    try:
        for month in range(6, 9):
            late = f"2025-{month:02}-15"
            changed = ("upsert", f"2026-04-{month:02}", 1, 1, month, "2026-01-15")
            small.publish("orders", [changed, ("upsert", late, month, 1, 100, late)])
            small.build("--select", "fct_order")
    finally:
        is_over.set()
        for thread in readers:
            thread.join()
    assert set(seen) <= {(1, 5), (2, 106), (3, 207), (4, 308)}, "a sum without the row of the new month"
    assert amounts(small) == [(1, 1, 8), (6, 6, 100), (7, 7, 100), (8, 8, 100)]


@pytest.mark.parametrize(
    ("correction", "held", "decision"),
    [
        ("refuse", [(1, 1, 5), (3, 3, 9)], "waits"),
        ("restate", [(1, 1, 8), (2, 1, 5), (3, 3, 9)], "restated"),
        ("current_period", [(1, 1, 5), (2, 2, 5), (3, 3, 9)], "moved"),
    ],
)
def test_case_32_a_correction_of_a_closed_period_goes_where_the_model_says(
    small: Small, correction: str, held: list, decision: str
) -> None:
    monthly(small, correction)
    small.publish("orders", [order(1, 1), order(3, 3)])
    small.build()
    assert "would lock" in sluice("period", "lock", "marts.fct_order", "2026-01", "--reason", "reported")
    assert small.query("select count(*) from ops.period_lock") == [(0,)]
    sluice("period", "lock", "marts.fct_order", "2026-01", "--reason", "reported", "--yes")
    # a changed row and a new one in the closed month, a changed one in an open month
    small.publish(
        "orders",
        [("upsert", "2026-04-01", 1, 1, 8, "2026-01-15"), order(1, 2), ("upsert", "2026-04-01", 3, 1, 9, "2026-03-15")],
    )
    small.build()
    assert amounts(small) == held
    assert small.query(f"select count(*) > 0 from ops.period_correction where decision = '{decision}'") == [(True,)]
    small.build()
    assert amounts(small) == held, "and stays there"
    assert "reported" in sluice("period", "list")
    sluice("period", "unlock", "1", "--reason", "audited", "--yes")
    small.build()
    assert amounts(small) == [(1, 1, 8), (2, 1, 5), (3, 3, 9)]
    assert small.query("select count(*) from ops.period_correction where decision <> 'restated'") == [(0,)]


def test_case_32_S10_a_member_that_vanishes_stays_while_a_fact_of_a_closed_month_points_to_it(small: Small) -> None:
    """The fact has read that it is gone, and its row waits: it must not point to nothing."""
    monthly(small)
    look_up_as_of_the_order(small)
    wrong = small.publish("customers", [customer(1, 1, "a"), customer(10, 1, "b")])
    small.publish("orders", [order(1, 1), order(3, 3)])
    small.build()
    sluice("period", "lock", "marts.fct_order", "2026-01", "--reason", "reported", "--yes")
    small.publish("customers", [customer(1, 1, "a")], supersedes=wrong)
    small.build()
    small.build()
    names = "select order_id, name from marts.fct_order left join marts.dim_customer using (customer_key) order by 1"
    assert small.query(names) == [(1, "b"), (3, "a")], "what was reported keeps its member"
    assert small.query("select count(*) from ops.retired_key") == [(1,)]
    edit(small, "marts/fct_order.sql", "['order_id', 'ordered_at']", "['ordered_at', 'order_id']")
    done = small.dbt("run")
    assert not done.success
    assert "marts.fct_order has a locked period, and would be made anew" in done.text
    assert small.query(names) == [(1, "b"), (3, "a")]
    edit(small, "marts/fct_order.sql", "['ordered_at', 'order_id']", "['order_id', 'ordered_at']")
    sluice("period", "unlock", "1", "--reason", "audited", "--yes")
    small.build()
    assert small.query(names) == [(1, "a"), (3, "a")]
    assert small.query("select count(*) from ops.retired_key") == [(0,)]
    assert small.query("select name from marts.dim_customer") == [("a",)]


def test_case_32_two_days_of_a_closed_month_that_would_become_one_are_refused_with_their_key(small: Small) -> None:
    monthly(small, "current_period")
    for old, new in (
        ("['order_id', 'ordered_at']", "['customer_id', 'ordered_at']"),
        ("recompute_by='order_id'", "recompute_by='customer_id'"),
    ):
        edit(small, "marts/fct_order.sql", old, new)
    edit(small, "marts/fct_order.sql", "'stg_shop__orders':'order_id'", "'stg_shop__orders':'customer_id'")
    small.publish("orders", [order(3, 3)])
    small.build()
    sluice("period", "lock", "marts.fct_order", "2026-01", "--reason", "reported", "--yes")
    days = ("2026-01-15", "2026-01-16")
    small.publish("orders", [("upsert", day, key, 2, 5, day) for key, day in enumerate(days, start=4)])
    done = small.dbt("run")
    assert not done.success
    assert "more than one row per (customer_id, ordered_at)" in done.text
    assert amounts(small) == [(3, 3, 5)]


def test_a_row_of_no_month_is_refused_in_words(small: Small) -> None:
    monthly(small)
    edit(small, "marts/m.yml", "          - not_null\n", "")
    small.publish("orders", [("upsert", "2026-01-15", 1, 1, 5, "infinity")])
    done = small.dbt("build")
    assert not done.success
    assert "a value cannot be computed or stored (23514)" in done.text
