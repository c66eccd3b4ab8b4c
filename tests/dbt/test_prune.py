"""What models changed long ago is forgotten, and no model misses it."""

from __future__ import annotations

import os
from datetime import timedelta

import psycopg

from sluice.gates.pending import Model, unread
from sluice.ledger.prune import Pruned, prune
from tests.dbt.conftest import Small
from tests.dbt.test_convergent import customer, facts, order

FACT = Model("fct_order", "marts.fct_order", "marts")


def forget(small: Small, url: str) -> Pruned:
    """Prune sixty days later."""
    small.warehouse.execute("update ops.change set created_at = created_at - interval '60 days'")
    with psycopg.connect(url) as connection:
        return prune(connection, timedelta(days=30))


def test_a_model_that_lags_recomputes_all_and_loses_no_change_that_was_forgotten(
    shared: Small,
) -> None:
    url = os.environ["SLUICE_WAREHOUSE_URL"]
    shared.publish("customers", [customer(1, 1, "a")])
    shared.publish("orders", [order(9, 1, 1), order(10, 2, 7)])
    shared.build()
    shared.publish("customers", [customer(5, 1, "b"), customer(5, 7, "c")])
    shared.build("--select", "snap_shop__customers", "dim_customer", "--indirect-selection", "cautious")
    assert [name for _, name, _ in facts(shared)] != ["b", "c"], "the fact has not read it"

    with psycopg.connect(url) as writer:
        writer.execute("select pg_advisory_lock(hashtextextended('sluice:marts.fct_order', 0))")
        assert forget(shared, url).recompute == (), "a fact that is being written is left alone"
        assert shared.query("select count(*) from ops.change where relation = 'marts.dim_customer'") == [(2,)]

    assert forget(shared, url).recompute == ("marts.fct_order",)
    assert shared.query("select count(*) from ops.change") == [(0,)]
    assert shared.query("select count(*) from ops.changed_key") == [(0,)]
    assert unread(shared.warehouse, [FACT]) == ["fct_order was never built, or must be built anew"], (
        "the fact is pending, though no change is left"
    )
    shared.build()
    assert [name for _, name, _ in facts(shared)] == ["b", "c"]

    shared.publish("customers", [customer(8, 1, "d")])
    shared.build()
    assert forget(shared, url).recompute == (), "all have read all"
    assert [name for _, name, _ in facts(shared)] == ["d", "c"]
    shared.build()
    assert shared.query("select state, keys_touched from ops.model_run order by model_run_id desc limit 1") == [
        ("unchanged", 0)
    ]
