"""Parents that are keyed by the slice are read for the touched slices only, and no version is hidden by it."""

from __future__ import annotations

from tests.dbt.conftest import Small
from tests.dbt.test_convergent import order

_VIEW = """{{ config(unique_key='order_id', materialized='view') }}
select order_id, amount, public.count_read() as counted
from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}
"""
_BY_ORDER = """{{ config(unique_key='order_id', touched_by={'stg_shop__orders': 'order_id'}) }}
with orders as (select * from {{ current_rows(ref('stg_shop__orders'), 'order_id') }})
select orders.order_id, orders.customer_id, parents.amount, parents.counted > 0 as was_read
from orders left join {{ ref('int_orders') }} as parents on parents.order_id = orders.order_id
"""
_BY_CUSTOMER = """{{ config(unique_key='order_id', recompute_by='customer_id',
    touched_by={'stg_shop__orders': 'customer_id'}) }}
select order_id, customer_id, amount from {{ current_rows(ref('stg_shop__orders'), 'order_id') }}
"""


def test_a_parent_is_read_for_the_touched_slices_only_and_a_row_that_moved_stays_where_it_went(small: Small) -> None:
    """E: 300 orders are known and one changes. A model sliced by customer must see the version that took an order away
    from a customer, also when that customer alone is recomputed."""
    small.warehouse.execute(
        "create sequence public.reads; create function public.count_read() returns bigint language sql volatile"
        " as $$ select nextval('public.reads') $$"
    )
    marts = small.folder / "models" / "marts"
    for name, text in (("int_orders", _VIEW), ("fct_by_order", _BY_ORDER), ("fct_by_customer", _BY_CUSTOMER)):
        (marts / f"{name}.sql").write_text(text)
    (marts / "n.yml").write_text(
        "models:\n  - name: fct_by_order\n    config: {contract: {enforced: false}}\n"
        "  - name: fct_by_customer\n    config: {contract: {enforced: false}}\n"
    )
    select = ("--select", "stg_shop__orders", "int_orders", "fct_by_order", "fct_by_customer")
    small.publish("orders", [order(2, key, 1 + key % 3) for key in range(1, 301)])
    small.build(*select)

    small.warehouse.execute("alter sequence public.reads restart")
    small.publish("orders", [order(3, 7, 3, amount=9)])  # was customer 2's
    small.build(*select)
    assert small.query("select amount, was_read from marts.fct_by_order where order_id = 7") == [(9, True)]
    (read,) = small.query("select last_value from public.reads")[0]
    assert read <= 10, "the other 299 orders have not changed"

    small.publish("orders", [order(4, 10, 2, amount=8)])  # customer 2 alone
    small.build(*select)
    assert small.query("select customer_id from marts.fct_by_customer where order_id = 7") == [(3,)]
    small.build(*select, "--full-refresh")
    assert small.query("select rows_inserted + rows_deleted from ops.model_run order by model_run_id desc limit 2") == [
        (0,),
        (0,),
    ]
