"""Convergent models: equal to a clean rebuild, gated inside their transaction, at the cost of what changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psycopg
import pytest

from sluice.gates import judge_layer, override, pending
from sluice.gates.models import check_of_model
from sluice.gates.results import record
from tests.conftest import busy
from tests.dbt.conftest import Small

AGREE = """
reconcile:
  - name: orders_add_up_to_those_of_staging
    on: marts.fct_order
    severity: block
    left:
      query: |
        select count(*), sum(amount)
        from (
            select distinct on (order_id) amount from staging.stg_shop__orders order by order_id, _batch_id desc
        ) as latest
    right: {query: "select count(*), sum(amount) from marts.fct_order"}
"""


def customer(day: int, key: int, name: str) -> tuple:
    return ("upsert", f"2026-01-{day:02}", key, name, "1")


def order(day: int, key: int, customer_id: int, amount: float = 5, *, ordered: int | None = None) -> tuple:
    return ("upsert", f"2026-01-{day:02}", key, customer_id, amount, f"2026-01-{ordered or day:02}")


def facts(small: Small) -> list[tuple]:
    return small.query(
        "select order_id, name, is_inferred from marts.fct_order inner join marts.dim_customer using (customer_key) "
        "order by 1"
    )


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


def test_a_failed_test_of_a_parent_or_of_uniqueness_names_the_keys_of_the_rows(small: Small) -> None:
    """S8: what dbt's own tests return is a value, or none of the row at all."""
    small.publish("orders", [order(2, key, 1, amount=key) for key in (1, 2, 3)])
    edit(small, "marts/m.yml", "          - is_true", "          - unique\n          - is_true")
    small.build()
    small.publish("orders", [order(3, 4, 1, amount=2)])
    told = small.dbt("run").text
    assert "unique_fct_order_amount found 1 failing rows" in told
    assert "for example (order_id) = [2] [4]" in told or "for example (order_id) = [4] [2]" in told
    small.publish("orders", [order(4, 4, 1, amount=4)])
    edit(small, "marts/fct_order.sql", "dim_customer.customer_key,", "md5(order_id::text)::uuid as customer_key,")
    told = small.dbt("run").text
    assert "relationships_fct_order_customer_key" in told
    assert "found 4 failing rows in marts.fct_order, for example (order_id) = [1]" in told


@pytest.mark.parametrize(("severity", "held"), [("error", [1]), ("warn", [1, 2, 3])])
def test_a_failing_test_holds_a_model_back_or_is_written_down_as_its_severity_says(
    small: Small, severity: str, held: list[int]
) -> None:
    path = small.folder / "models" / "marts" / "m.yml"
    arguments = 'is_true: {arguments: {expression: ">= 0"}'
    path.write_text(path.read_text().replace(arguments, f"{arguments}, config: {{severity: {severity}}}"))
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    small.publish("orders", [order(3, 2, 1, amount=-5), order(3, 3, 1)])
    assert small.dbt("run").success is (severity == "warn")
    assert [row[0] for row in facts(small)] == held
    ((verdicts,),) = small.query(
        "select checks from ops.model_run where model = 'fct_order' order by model_run_id desc limit 1"
    )
    (verdict,) = [each["verdict"] for each in verdicts if each["name"].startswith("is_true_fct_order_amount")]
    assert verdict == ("warn" if severity == "warn" else "pass"), "a run that failed has no row"


def test_an_override_lets_one_run_of_a_model_go_on_over_its_failed_test(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From dbt's own words to a row of the gate, to the override, to the next try of the same run; no further."""
    small.publish("orders", [order(1, 9, 1)])
    small.build()
    small.publish("orders", [order(2, 1, 1, amount=-5), order(2, 2, 1, amount=-6)])
    check = check_of_model("marts.fct_order", "error", small.dbt("run").text)
    assert (check.object, check.outcome, check.failing_rows) == ("marts.fct_order", "fail", 2)
    assert sorted(check.sample_keys or []) == [[1], [2]]
    record(small.warehouse, "test", "marts", [check])
    override.give(small.warehouse, check.name, by="ann", reason="credits, TICKET-7", run="test")

    assert small.dbt("run").success
    assert [row[0] for row in facts(small)] == [1, 2, 9]
    assert small.query(
        "select each ->> 'verdict' from ops.model_run, jsonb_array_elements(checks) as each"
        f" where each ->> 'name' = '{check.name}' order by model_run_id desc limit 1"
    ) == [("warn",)]
    assert small.query("select used_run_id, used_at is not null from ops.gate_override") == [("test", True)]

    monkeypatch.setenv("SLUICE_RUN_ID", "the next")
    small.publish("orders", [order(3, 3, 1, amount=-7)])
    assert check.name in small.dbt("run").text
    assert [row[0] for row in facts(small)] == [1, 2, 9]


def test_a_model_is_charged_the_wal_of_its_own_transaction_and_not_that_of_others(
    small: Small, warehouse_url: str
) -> None:
    def charged(first: int) -> int:
        small.publish("orders", [order(1, first + n, 1) for n in range(2000)])
        done = small.dbt("run")
        assert done.success, done.text
        query = "select wal_bytes from ops.model_run where model = 'fct_order' order by model_run_id desc limit 1"
        return small.query(query)[0][0]

    small.publish("orders", [order(1, 1, 1)])
    small.build()
    alone = charged(10_000)
    assert alone > 2000 * 50
    with busy(warehouse_url):
        beside = charged(20_000)
    assert beside == pytest.approx(alone, rel=0.3)


def test_S6_a_test_that_cannot_run_blocks_too(small: Small) -> None:
    path = small.folder / "models" / "marts" / "m.yml"
    path.write_text(path.read_text().replace('expression: ">= 0"', 'expression: ">= no_such_column"'))
    small.publish("orders", [order(2, 1, 1)])
    done = small.dbt("build")
    assert not done.success
    assert "no_such_column" in done.text
    assert small.query("select to_regclass('marts.dim_customer') is null") == [(False,)]
    assert small.query("select to_regclass('marts.fct_order')") == [(None,)]


def test_a_test_that_fails_on_a_value_is_named_and_the_value_is_not(small: Small) -> None:
    path = small.folder / "models" / "marts" / "m.yml"
    column = "{name: name, data_type: text"
    test = "tests: [{is_true: {arguments: {expression: '::integer > 0'}}}]"
    assert column in path.read_text()
    path.write_text(path.read_text().replace(column, f"{column}, {test}"))
    small.publish("customers", [customer(1, 1, "Jane Canary")])
    done = small.dbt("build", "--exclude-resource-type", "test")
    assert not done.success
    assert "the test is_true_dim_customer_name" in done.text
    assert "22P02" in done.text
    assert "Canary" not in done.text


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


def test_S10_INV4_a_reader_in_a_loop_never_sees_half_of_a_run(small: Small, warehouse_url: str) -> None:
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


def edit(small: Small, path: str, old: str, new: str) -> None:
    file = small.folder / "models" / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def state(small: Small, model: str = "fct_order") -> tuple:
    return small.query(f"select state from ops.model_run where model = '{model}' order by model_run_id desc limit 1")[0]


def with_a_view_between(small: Small) -> None:
    path = small.folder / "models" / "staging" / "int_orders.sql"
    path.write_text("select *, 1 as step from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}")
    edit(
        small,
        "marts/fct_order.sql",
        "{{ current_rows(ref('stg_shop__orders'),'order_id') }}",
        "{{ ref('int_orders') }}",
    )
    edit(small, "marts/fct_order.sql", "orders.amount,", "orders.amount * orders.step as amount,")


def test_a_changed_view_in_between_reaches_the_model(small: Small) -> None:
    with_a_view_between(small)
    small.publish("orders", [order(2, 1, 1, amount=5)])
    small.build()
    small.build()
    assert state(small) == ("unchanged",)
    edit(small, "staging/int_orders.sql", "1 as step", "2 as step")
    small.build()
    assert small.query("select amount from marts.fct_order") == [(10,)]
    edit(
        small,
        "staging/stg_shop__orders.sql",
        "customer_id, amount,",
        "customer_id, (amount + 1)::numeric(12,2) as amount,",
    )
    small.build()
    assert small.query("select amount from marts.fct_order") == [(12,)]
    small.build()
    assert state(small) == ("unchanged",)


def test_a_run_with_unchanged_views_does_not_wait_for_a_reader_that_stays(small: Small, warehouse_url: str) -> None:
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    name = small.warehouse.info.dbname
    with psycopg.connect(warehouse_url) as reader:
        reader.execute("select count(*) from staging.stg_shop__orders")
        small.warehouse.execute(f"alter database \"{name}\" set lock_timeout = '1s'")
        small.publish("orders", [order(3, 2, 1)])
        small.build()
        assert [row[0] for row in facts(small)] == [1, 2]
        edit(
            small,
            "staging/stg_shop__orders.sql",
            "customer_id, amount,",
            "customer_id, (amount * 2)::numeric(12, 2) as amount,",
        )
        assert not small.dbt("run", "--select", "stg_shop__orders").success, "what says something else must wait"
    small.build()
    assert small.query("select sum(amount) from marts.fct_order") == [(20,)]


def test_S11_a_build_waits_for_no_long_query_and_drops_no_view_that_analysts_made_on_a_mart(
    small: Small, warehouse_url: str
) -> None:
    """Neither does a full refresh, nor a new column: dbt's own tables are dropped with all that depends on them."""
    small.publish("customers", [customer(1, 1, "a")])
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    small.warehouse.execute("create schema analysis")
    small.warehouse.execute(
        "create view analysis.totals as select count(*), sum(amount) as amount from marts.fct_order"
    )
    small.warehouse.execute(
        "create view analysis.names as select customer_id, name from snapshots.snap_shop__customers"
    )
    name = small.warehouse.info.dbname
    with psycopg.connect(warehouse_url) as analyst:
        analyst.execute("set transaction isolation level repeatable read")
        assert analyst.execute("select * from analysis.totals").fetchone() == (1, 5)
        analyst.execute("select * from analysis.names")
        small.warehouse.execute(f"alter database \"{name}\" set lock_timeout = '1s'")
        small.publish("customers", [customer(3, 1, "b")])
        small.publish("orders", [order(3, 2, 1, amount=7)])
        small.build()
        small.build("--full-refresh")
        assert small.query("select * from analysis.totals") == [(2, 12)]
        assert analyst.execute("select * from analysis.totals").fetchone() == (1, 5), "a query sees one instant"
    edit(small, "marts/fct_order.sql", "orders.amount,", "orders.amount, orders.amount > 6 as is_large,")
    small.build()
    assert small.query("select amount from analysis.totals") == [(12,)]
    assert small.query("select name from analysis.names order by 1") == [("a",), ("b",)]


def test_an_empty_build_leaves_views_and_watermarks_alone(small: Small) -> None:
    with_a_view_between(small)
    small.build("--empty")
    small.publish("orders", [order(2, 1, 1)])
    assert small.query("select order_id from staging.int_orders") == [(1,)], "a view made by --empty shows rows"
    small.build()
    small.publish("orders", [order(3, 2, 1)])
    small.build("--empty")
    assert small.query("select count(*) from staging.int_orders") == [(2,)]
    done = small.dbt("run", "--select", "dim_customer", "fct_order")
    assert done.success, done.text
    assert [row[0] for row in facts(small)] == [1, 2]
    assert small.query("select count(*) from pg_indexes where indexname = 'fct_order__grain'") == [(1,)]


@pytest.mark.parametrize("column", ["order_id", "customer_id"])
def test_a_row_without_its_key_is_refused(small: Small, column: str) -> None:
    edit(small, "marts/fct_order.sql", "unique_key='order_id'", "unique_key=['order_id','customer_id']")
    edit(small, "marts/fct_order.sql", "touched_by={'stg", "recompute_by='customer_id',touched_by={'stg")
    edit(small, "marts/fct_order.sql", "'stg_shop__orders':'order_id'", "'stg_shop__orders':'customer_id'")
    edit(small, "marts/fct_order.sql", "select orders.order_id", "select nullif(orders.order_id, 9) as order_id")
    small.publish("orders", [order(2, 1, 1), order(2, 2, 1)])
    small.build()
    small.publish("orders", [order(3, 8, None) if column == "customer_id" else order(3, 9, 1)])  # type: ignore[arg-type]
    done = small.dbt("run", "--select", "+fct_order", "--exclude", "dim_customer")
    assert not done.success
    assert "would hold rows with NULL in (order_id, customer_id)" in done.text
    assert small.query("select count(*) from marts.fct_order") == [(2,)]


@pytest.mark.parametrize("kind", ["seed", "table", "incremental", "source"])
def test_an_input_that_leaves_no_trace_of_changes_is_refused(small: Small, kind: str) -> None:
    if kind == "seed":
        (small.folder / "seeds").mkdir()
        (small.folder / "seeds" / "blind.csv").write_text("order_id\n1\n")
    elif kind != "source":
        (small.folder / "models" / "marts" / "blind.sql").write_text(
            "{{ config(materialized='" + kind + "') }} select 1 as order_id"
        )
    reference = "source('shop', 'orders')" if kind == "source" else "ref('blind')"
    path = small.folder / "models" / "marts" / "fct_order.sql"
    path.write_text(path.read_text() + " where orders.order_id in (select order_id from {{ " + reference + " }})")
    small.publish("orders", [order(2, 1, 1)])
    done = small.dbt("build")
    assert not done.success
    assert f"fct_order reads the {kind} {'shop.orders' if kind == 'source' else 'blind'}" in done.text


def test_a_changed_grain_replaces_its_index(small: Small) -> None:
    small.publish("orders", [order(2, 1, 1), order(2, 2, 1)])
    small.build()
    fan = "from orders cross join (values (1), (2)) as twice(part) left join"
    edit(small, "marts/fct_order.sql", "from orders left join", fan)
    edit(small, "marts/fct_order.sql", "orders.amount,", "orders.amount, twice.part,")
    edit(
        small, "marts/fct_order.sql", "unique_key='order_id'", "unique_key=['order_id','part'],recompute_by='order_id'"
    )
    small.build()
    assert small.query("select order_id, part from marts.fct_order order by 1, 2") == [(1, 1), (1, 2), (2, 1), (2, 2)]
    edit(small, "marts/fct_order.sql", fan, "from orders cross join (values (1)) as twice(part) left join")
    edit(
        small, "marts/fct_order.sql", "unique_key=['order_id','part'],recompute_by='order_id'", "unique_key='order_id'"
    )
    small.build()
    assert small.query("select order_id, part from marts.fct_order order by 1, 2") == [(1, 1), (2, 1)]
    small.build()
    assert state(small) == ("unchanged",)


def test_a_changed_type_reaches_the_table(small: Small) -> None:
    def column_type() -> str:
        return str(
            small.query(
                "select format_type(atttypid, atttypmod) from pg_attribute"
                " where attrelid = 'marts.fct_order'::regclass and attname = 'amount'"
            )[0][0]
        )

    small.publish("orders", [order(2, 1, 1, amount=5)])
    small.build()
    assert column_type() == "numeric(12,2)"
    edit(small, "marts/fct_order.sql", "orders.amount,", "(orders.amount / 8)::numeric(12,4) as amount,")
    small.build()
    assert column_type() == "numeric(12,4)"
    assert str(small.query("select amount from marts.fct_order")[0][0]) == "0.6250"
    edit(
        small, "marts/fct_order.sql", "(orders.amount / 8)::numeric(12,4) as amount,", "'x' || orders.amount as amount,"
    )
    edit(small, "marts/m.yml", 'is_true: {arguments: {expression: ">= 0"}}', "not_null")
    small.build()
    edit(small, "marts/fct_order.sql", "'x' || orders.amount as amount,", "orders.amount,")
    small.build()
    assert column_type() == "numeric(12,2)", "also where the values present have no counterpart"
    small.build()
    assert state(small) == ("unchanged",)


def test_a_contract_holds_for_a_table_that_exists(small: Small) -> None:
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    edit(small, "marts/dim_customer.sql", "name, dbt_valid_from", "name, 1 as extra, dbt_valid_from")
    edit(small, "marts/dim_customer.sql", "null, '-infinity'", "null, 1, '-infinity'")
    done = small.dbt("run")
    assert not done.success
    assert "contract" in done.text


def test_two_first_builds_at_once_take_turns(small: Small, warehouse_url: str) -> None:
    small.publish("orders", [order(2, 1, 1)])
    small.build("--exclude", "fct_order")
    with psycopg.connect(warehouse_url) as other:
        other.execute("select pg_advisory_xact_lock(hashtextextended('sluice:marts.fct_order', 0))")
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(small.dbt("run", "--select", "fct_order")))
        thread.start()
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        while small.query(waiting) == [(0,)] and thread.is_alive():
            thread.join(0.05)
        other.execute(
            "create table marts.fct_order (order_id bigint, customer_id bigint, customer_key uuid,"
            " amount numeric(12,2), ordered_at timestamptz)"
        )
    thread.join()
    assert outcome[0].success, outcome[0].text
    assert [row[0] for row in facts(small)] == [1]


def test_a_query_may_end_with_a_comment(small: Small) -> None:
    for name in ("marts/fct_order.sql", "marts/dim_customer.sql", "staging/stg_shop__orders.sql"):
        path = small.folder / "models" / name
        path.write_text(path.read_text().rstrip() + " -- the end")
    small.publish("orders", [order(2, 1, 1)])
    for arguments in ([], [], ["--empty"]):
        small.build(*arguments)
    small.publish("orders", [order(3, 2, 1)])
    small.build()
    assert [row[0] for row in facts(small)] == [1, 2]


_PLAIN = """
{{ config(unique_key='order_id', touched_by={'stg_shop__orders': 'order_id', 'dim_customer': 'customer_id'}) }}
select orders.order_id, int_orders.customer_id, dim_customer.name, orders.amount as wanted, int_orders.amount as present
from {{ current_rows(ref('stg_shop__orders'), 'order_id') }} as orders
inner join {{ ref('int_orders') }} -- each order is there
    on int_orders.order_id = orders.order_id
LEFT JOIN {{ ref('dim_customer') }}
    on dim_customer.customer_id = int_orders.customer_id and dim_customer.valid_to = 'infinity'
"""
_NAMED = """
{{ config(unique_key='customer_id', touched_by={'snap_shop__customers': 'customer_id',
    'stg_shop__orders': {'column': 'customer_id', 'unless_in': 'snap_shop__customers'}}) }}
select distinct stg_shop__orders.customer_id from {{ ref('stg_shop__orders') }}
where not exists (
    select from {{ ref('snap_shop__customers') }} where snap_shop__customers.customer_id = stg_shop__orders.customer_id
)
"""
_ORDERS = """{{ config(unique_key='order_id', materialized='view') }}
select order_id, customer_id, amount from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}"""


def test_a_query_may_join_without_an_alias_and_have_columns_named_as_our_own_rows_are(small: Small) -> None:
    """A later run reads subqueries in the place of relations: what worked in the first build must not fail then."""
    for name, text in (("fct_plain", _PLAIN), ("mart_unknown", _NAMED), ("int_orders", _ORDERS)):
        (small.folder / "models" / "marts" / f"{name}.sql").write_text(text)
    small.publish("customers", [customer(1, 1, "a")])
    small.publish("orders", [order(2, key, key % 7) for key in range(1, 30)])
    small.build()
    small.publish("customers", [customer(1, 2, "b"), customer(3, 1, "c")])
    small.publish("orders", [order(3, 1, 1, amount=7), order(3, 2, 9)])
    small.build()
    assert small.query("select * from marts.fct_plain where order_id < 3 order by 1") == [
        (1, 1, "c", 7, 7),
        (2, 9, None, 5, 5),
    ]
    touched = (
        "select model from ops.model_run where keys_touched between 1 and 20 and model in ('fct_plain', 'mart_unknown')"
    )
    assert len(small.query(touched)) == 2, "neither was computed as a whole"
    small.build("--full-refresh")
    assert small.query(
        "select sum(rows_inserted + rows_deleted) from ops.model_run where run_id = 'test'"
        " and model_run_id > (select max(model_run_id) - 5 from ops.model_run)"
    ) == [(0,)]


def test_a_row_that_stays_under_its_key_is_updated_in_place_and_no_index_is_written(small: Small) -> None:
    small.publish("orders", [order(2, key, 1) for key in range(1, 6)])
    small.build()
    small.publish("orders", [order(3, 2, 1, amount=7, ordered=2), order(3, 6, 1)])
    small.build()
    assert small.query("select order_id, amount::int from marts.fct_order where order_id in (2, 6) order by 1") == [
        (2, 7),
        (6, 5),
    ]
    small.warehouse.execute("select pg_stat_clear_snapshot()")
    counts = "select n_tup_hot_upd, n_tup_upd, n_tup_ins, n_tup_del from pg_stat_user_tables where relid = %s::regclass"
    assert small.warehouse.execute(counts, ["marts.fct_order"]).fetchall() == [(1, 1, 6, 0)]


def test_rows_that_swap_a_value_that_is_to_be_unique_do_not_collide(small: Small) -> None:
    """And `indexes` of a table that exists come and go with the configuration."""
    small.publish("orders", [order(2, 1, 1, amount=5)])
    small.build()
    unique = "unique_key='order_id',indexes=[{'columns':['amount'],'unique':true}],"
    edit(small, "marts/fct_order.sql", "unique_key='order_id',", unique)
    small.publish("orders", [order(2, 2, 1, amount=6)])
    small.build()
    made = "select count(*) from pg_indexes where tablename = 'fct_order' and indexdef ~ 'UNIQUE.*[(]amount[)]'"
    assert small.query(made) == [(1,)]
    small.publish("orders", [order(3, 1, 1, amount=6), order(3, 2, 1, amount=5)])
    small.build()
    assert small.query("select order_id, amount::int from marts.fct_order order by 1") == [(1, 6), (2, 5)]
    edit(small, "marts/fct_order.sql", unique, "unique_key='order_id',")
    small.build()
    assert small.query(made) == [(0,)]


def test_a_test_with_a_threshold_blocks_where_dbt_test_would_and_not_before(small: Small) -> None:
    edit(
        small,
        "marts/m.yml",
        'is_true: {arguments: {expression: ">= 0"}',
        'is_true: {arguments: {expression: ">= 0"}, config: {error_if: ">1"}',
    )
    small.publish("orders", [order(2, 1, 1, amount=-5)])
    small.build()
    assert small.query(
        "select each ->> 'verdict' from ops.model_run, jsonb_array_elements(checks) as each"
        " where model = 'fct_order' and each ->> 'failures' = '1'"
    ) == [("warn",)]
    small.publish("orders", [order(3, 2, 1, amount=-5), order(3, 3, 1, amount=-5)])
    done = small.dbt("run")
    assert not done.success
    assert "found 2 failing rows in marts.fct_order" in done.text
    assert [row[0] for row in facts(small)] == [1]


def test_two_builds_at_once_take_turns_at_a_view_that_is_new(shared: Small) -> None:
    shared.build("--exclude", "stg_shop__orders+")
    with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"]) as other:
        other.execute("select pg_advisory_xact_lock(hashtextextended('sluice:staging.stg_shop__orders', 0))")
        other.execute("create view staging.stg_shop__orders as select 1::bigint as order_id")
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(shared.dbt("run", "--select", "stg_shop__orders")))
        thread.start()
        waiting = "select count(*) from pg_locks where not granted"
        while shared.query(waiting) == [(0,)] and thread.is_alive():
            thread.join(0.05)
        other.execute("drop view staging.stg_shop__orders")
        other.execute("create view staging.stg_shop__orders as select order_id from staging.shop__orders")
    thread.join()
    assert outcome[0].success, outcome[0].text
    assert shared.query("select count(*) from staging.stg_shop__orders") == [(0,)]


def test_a_run_neither_waits_for_a_vacuum_of_its_table_nor_ends_it(shared: Small) -> None:
    shared.publish("orders", [order(2, 1, 1)])
    shared.build()
    shared.publish("orders", [order(3, 1, 1, amount=7), order(3, 2, 1)])
    timeout = f'alter database "{shared.warehouse.info.dbname}" set lock_timeout = %s'
    with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"]) as vacuum:
        vacuum.execute("lock table marts.fct_order in share update exclusive mode")  # as vacuum and analyze take it
        shared.warehouse.execute(timeout % "'2s'")
        done = shared.dbt("run")
        shared.warehouse.execute(timeout % "default")
    assert done.success, done.text
    assert [row[0] for row in facts(shared)] == [1, 2]


def test_models_of_one_run_read_the_same_publications_whatever_is_published_between_them(
    shared: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a fact meets an order whose customer the dimension, built a minute before, has not heard of, and a test or
    gate that compares marts with staging fails a run for what came after it."""
    agree = tmp_path / "marts.yml"
    agree.write_text(AGREE)

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setenv("SLUICE_RUN_ID", name)
        shared.build(*arguments)

    def watermark() -> list[tuple]:
        return shared.query(
            "select seq from ops.model_watermark where (relation, input) = ('marts.fct_order', 'stg_shop__orders')"
        )

    shared.publish("customers", [customer(1, 1, "Ann")])
    replaced = shared.publish("orders", [order(2, 1, 1)])
    pending("one", (), "")
    run("one", "--select", "+dim_customer", "--exclude-resource-type", "test")
    shared.publish("orders", [order(2, 1, 1, amount=6), order(3, 2, 2)], supersedes=replaced)
    run("one", "--select", "fct_order")
    assert shared.query("select order_id, amount from marts.fct_order") == [(1, 5)]
    assert not [
        check for check in judge_layer("marts", "one", (), expectations=agree).checks if check.outcome == "fail"
    ]
    pending("two", (), "")
    run("two")
    assert shared.query("select order_id, amount from marts.fct_order order by 1") == [(1, 6), (2, 5)]
    assert facts(shared) == [(1, "Ann", False), (2, None, True)]

    read = watermark()
    run("one")
    assert (len(facts(shared)), watermark()) == (2, read), "a task of an old run that is cleared takes nothing back"
    shared.publish("orders", [order(4, 3, 1)])
    pending("one", (), "")
    run("one")
    assert len(facts(shared)) == 3, "where `pending` is cleared too, the run begins anew"


def test_models_of_one_dbt_command_read_the_same_publications(small: Small) -> None:
    path = small.folder / "models" / "marts" / "fct_order.sql"
    arrives = (
        "with came as (insert into ops.batch (source, table_name, unit, state, mode, run_id, rows_read, rows_applied, "
        "published_seq) values ('shop', 'orders', 'late', 'published', 'append', 'test', 1, 1, ops.next_seq()) "
        "returning batch_id) insert into staging.shop__orders "
        "select 2, 9, 5, '2026-01-02', batch_id, 1, 'upsert', '2026-01-02', 0, 1, null from came"
    )
    small.publish("orders", [order(2, 1, 1)])
    query = path.read_text()
    path.write_text(query.replace("unique_key=", f'pre_hook="{arrives}", unique_key='))
    small.build()
    assert facts(small) == [(1, None, True)]
    path.write_text(query)
    small.build()
    assert facts(small) == [(1, None, True), (2, None, True)]


def test_a_developers_build_touches_nothing_of_production_and_reads_what_production_has_not(shared: Small) -> None:
    """Neither tables nor watermarks nor logs: also one that fails, refreshes all, or retires keys."""
    wrong = shared.publish("customers", [customer(1, 1, "a"), customer(10, 1, "b")])
    shared.publish("orders", [order(15, 1, 1)])
    shared.build()
    shared.publish("customers", [customer(1, 1, "a")], supersedes=wrong)
    shared.publish("orders", [order(16, 2, 7)])

    def production() -> list[tuple]:
        return shared.query(
            "select 'dim', whole::text from marts.dim_customer as whole union all"
            " select 'fact', whole::text from marts.fct_order as whole union all"
            " select 'snapshot', whole::text from snapshots.snap_shop__customers as whole union all"
            " select 'mark', whole::text from ops.model_watermark as whole where relation !~ '^clean_' union all"
            " select 'change', whole::text from ops.change as whole where relation !~ '^clean_' union all"
            " select 'retired', whole::text from ops.retired_key as whole where relation !~ '^clean_' union all"
            " select 'index', indexname from pg_indexes where schemaname in ('staging', 'snapshots', 'marts') union all"
            " select 'view', oid::text from pg_class where relkind = 'v' and relnamespace = 'staging'::regnamespace"
            " order by 1, 2"
        )

    before = production()
    shared.build(prefix="clean")
    shared.build("--full-refresh", prefix="clean")
    assert production() == before
    assert shared.query("select count(*) from clean_marts.fct_order") == [(2,)]
    shared.build()
    assert facts(shared) == [(1, "a", False), (2, None, True)], "what the developer has read is still to be read"


def test_a_deferred_build_sees_what_changed_where_it_reads(small: Small) -> None:
    """`--defer`: inputs that the developer has not built are read from production, whose changes have other names."""
    small.publish("customers", [customer(1, 1, "a")])
    small.publish("orders", [order(2, 1, 1)])
    small.build()
    state = small.folder.parent / "state"
    state.mkdir()
    (small.folder / "target" / "manifest.json").rename(state / "manifest.json")
    fact = ["run", "--select", "fct_order", "--defer", "--state", str(state)]
    done = small.dbt(*fact, prefix="dev")
    assert done.success, done.text
    small.publish("orders", [order(3, 2, 1)])
    small.build()
    done = small.dbt(*fact, prefix="dev")
    assert done.success, done.text
    assert small.query("select order_id from dev_marts.fct_order order by 1") == [(1,), (2,)]


def test_a_key_of_another_type_takes_everything_along(small: Small) -> None:
    small.publish("customers", [customer(1, 1, "a"), customer(5, 2, "b")])
    small.publish("orders", [order(6, 1, 1), order(6, 2, 2), order(6, 3, 3)])
    small.build()
    edit(small, "staging/stg_shop__customers.sql", "id as customer_id", "'c' || id as customer_id")
    edit(
        small, "staging/stg_shop__orders.sql", "order_id, customer_id,", "order_id, 'c' || customer_id as customer_id,"
    )
    edit(
        small,
        "marts/m.yml",
        "{name: customer_id, data_type: bigint, tests: [not_null]}",
        "{name: customer_id, data_type: text}",
    )
    small.build("--select", "stg_shop__customers+1", "stg_shop__orders", "--exclude", "dim_customer", "fct_order")
    small.publish("customers", [customer(3, 1, "aa"), customer(9, 3, "c")])
    small.build()
    small.publish("orders", [order(9, 2, 3)])
    small.publish("customers", [customer(4, 2, "bb")])
    small.build()
    assert state(small) == ("success",)
    small.build(prefix="clean")
    for table in ("snapshots.snap_shop__customers", "marts.dim_customer", "marts.fct_order"):
        assert small.query(f"table {table} except all table clean_{table}") == []
        assert small.query(f"table clean_{table} except all table {table}") == []
    assert facts(small) == [(1, "aa", False), (2, "c", False), (3, "c", False)]


def test_a_profile_that_commits_each_statement_is_refused(small: Small) -> None:
    profile = (small.profiles / "profiles.yml").read_text()
    (small.folder / "profiles.yml").write_text(
        profile.replace("type: postgres", "type: postgres\n      autocommit: true")
    )
    small.publish("orders", [order(2, 1, 1)])
    small.profiles = small.folder
    done = small.dbt("build")
    assert not done.success
    assert "Nothing was written. Take autocommit out of the profile" in done.text
    assert small.query("select to_regclass('snapshots.snap_shop__customers')") == [(None,)]
