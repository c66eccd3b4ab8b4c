"""Convergent models: equal to a clean rebuild, gated inside their transaction, at the cost of what changed."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest

from tests.dbt.conftest import Small


def customer(day: int, key: int, name: str) -> tuple:
    return ("upsert", f"2026-01-{day:02}", key, name, "1")


def order(day: int, key: int, customer_id: int, amount: float = 5, *, ordered: int | None = None) -> tuple:
    return ("upsert", f"2026-01-{day:02}", key, customer_id, amount, f"2026-01-{ordered or day:02}")


def facts(small: Small) -> list[tuple]:
    return small.query(
        "select order_id, name, is_inferred from marts.fct_order inner join marts.dim_customer using (customer_key) "
        "order by 1"
    )


def test_case_15_S9_an_early_fact_gets_an_inferred_member_that_keeps_its_key(small: Small) -> None:
    small.publish("orders", [order(2, 1, 7)])
    small.build()
    assert facts(small) == [(1, None, True)]
    before = small.query("select customer_key from marts.fct_order")
    small.publish("customers", [customer(4, 7, "late")])
    small.build()
    assert facts(small) == [(1, "late", False)]
    assert small.query("select customer_key from marts.fct_order") == before


def test_case_1_33_a_late_dimension_version_moves_the_facts_in_its_interval(small: Small) -> None:
    small.publish("customers", [customer(1, 1, "a"), customer(20, 1, "c")])
    small.publish("orders", [order(5, 1, 1), order(15, 2, 1), order(25, 3, 1)])
    small.build()
    small.publish("customers", [customer(10, 1, "b")])
    small.build()
    assert facts(small) == [(1, "a", False), (2, "b", False), (3, "c", False)]
    assert small.query(
        "select rows_inserted, rows_deleted from ops.model_run where model = 'fct_order' order by model_run_id desc "
        "limit 1"
    ) == [(1, 1)], "only the fact that moved was written"


def test_case_17_the_boundary_belongs_to_the_later_version(small: Small) -> None:
    small.publish("customers", [customer(1, 1, "a"), customer(5, 1, "b")])
    small.publish("orders", [order(5, 1, 1)])
    small.build()
    assert facts(small) == [(1, "b", False)]


def test_case_28_a_row_that_vanished_at_the_source_vanishes_from_the_fact(small: Small) -> None:
    first = small.publish("orders", [order(2, 1, 1), order(2, 2, 1)])
    small.build()
    small.publish("orders", [order(2, 1, 1)], supersedes=first)
    small.build()
    assert [row[0] for row in facts(small)] == [1]
    small.publish("orders", [("delete", "2026-01-09", 1, None, None, None)])
    small.build()
    assert facts(small) == []


def test_a_failed_test_rolls_back_and_names_test_and_key(small: Small) -> None:
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    small.publish("orders", [order(3, 2, 1, amount=-5), order(3, 3, 1)])
    done = small.dbt("run")
    assert not done.success
    assert "is_true_fct_order_amount" in done.text
    assert "(order_id) = [2]" in done.text
    assert "Nothing was written" in done.text
    assert small.query("select order_id from marts.fct_order") == [(1,)]
    small.publish("orders", [order(4, 2, 1, amount=6)])
    small.build()
    assert [row[0] for row in facts(small)] == [1, 2, 3], "what was held back arrives with the correction"


def test_S6_a_test_that_cannot_run_blocks_too(small: Small) -> None:
    path = small.folder / "models" / "marts" / "m.yml"
    path.write_text(path.read_text().replace('expression: ">= 0"', 'expression: ">= no_such_column"'))
    small.publish("orders", [order(2, 1, 1)])
    done = small.dbt("build")
    assert not done.success
    assert "no_such_column" in done.text
    assert small.query("select to_regclass('marts.dim_customer') is null") == [(False,)]
    assert small.query("select to_regclass('marts.fct_order')") == [(None,)]


def test_S8_a_join_that_fans_out_is_refused_before_anything_is_written(small: Small) -> None:
    path = small.folder / "models" / "marts" / "fct_order.sql"
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    path.write_text(
        path.read_text().replace("from orders left join", "from orders cross join (values (1), (2)) as twice left join")
    )
    done = small.dbt("run")
    assert not done.success
    assert "more than one row per (order_id)" in done.text
    assert small.query("select count(*) from marts.fct_order") == [(1,)]


def test_an_input_that_is_not_listed_is_an_error_and_not_a_silent_divergence(small: Small) -> None:
    path = small.folder / "models" / "marts" / "fct_order.sql"
    path.write_text(path.read_text().replace(",'dim_customer':'customer_id'", ""))
    small.publish("orders", [order(2, 1, 1)])
    done = small.dbt("build")
    assert not done.success
    assert "touched_by does not list" in done.text


def test_a_changed_query_recomputes_what_it_changes_and_adds_its_column(small: Small) -> None:
    small.publish("orders", [order(2, 1, 1), order(2, 2, 1, amount=7)])
    small.build()
    path = small.folder / "models" / "marts" / "fct_order.sql"
    path.write_text(path.read_text().replace("orders.amount,", "orders.amount, orders.amount > 6 as is_large,"))
    small.build()
    assert small.query("select order_id, is_large from marts.fct_order order by 1") == [(1, False), (2, True)]


def test_INV4_a_reader_in_a_loop_never_sees_half_of_a_run(small: Small, warehouse_url: str) -> None:
    small.publish("orders", [order(2, key, 1, amount=1) for key in range(1, 50)])
    small.build()
    seen: set[tuple] = set()
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(warehouse_url, autocommit=True) as reader:
            while not stop.is_set():
                seen.add(reader.execute("select count(*), sum(amount) from marts.fct_order").fetchone())  # type: ignore[arg-type]

    thread = threading.Thread(target=read)
    thread.start()
    small.publish("orders", [order(3, key, 1, amount=2) for key in range(1, 50)])
    small.build()
    stop.set()
    thread.join()
    assert seen <= {(49, 49), (49, 98)}, seen
    assert (49, 98) in seen


@pytest.mark.parametrize("seed", range(3))
def test_runs_after_any_history_equal_a_build_from_nothing(small: Small, seed: int) -> None:
    """Late, corrected, deleted, returned, moved and superseded rows in random batches; then everything in other
    schemas."""
    draw = random.Random(seed)
    batches: list[tuple[str, int]] = []
    for _ in range(5):
        for _ in range(draw.randint(1, 4)):
            table = draw.choice(["customers", "orders"])
            rows: list[tuple] = []
            for _ in range(draw.randint(1, 6)):
                day, key = draw.randint(1, 28), draw.randint(1, 6)
                if draw.random() < 0.2:
                    width = 2 if table == "customers" else 3
                    rows.append(("delete", f"2026-01-{day:02}", key, *[None] * width))
                elif table == "customers":
                    rows.append(customer(day, key, draw.choice("abc")))
                else:
                    rows.append(order(day, key, draw.randint(1, 6), draw.randint(0, 9), ordered=draw.randint(1, 28)))
            old = [batch for name, batch in batches if name == table]
            supersedes = draw.choice(old) if old and draw.random() < 0.3 else None
            if supersedes:
                batches.remove((table, supersedes))
            batches.append((table, small.publish(table, rows, supersedes=supersedes)))
        small.build()
    small.build(prefix="clean")
    for schema, table in (("snapshots", "snap_shop__customers"), ("marts", "dim_customer"), ("marts", "fct_order")):
        one, two = f"{schema}.{table}", f"clean_{schema}.{table}"
        assert (
            small.query(f"(table {one} except all table {two}) union all (table {two} except all table {one})") == []
        ), table
