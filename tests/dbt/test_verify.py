"""`sluice verify`: finds and names what differs from a rebuild, raises no false alarm, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from sluice.declarations import load_file
from sluice.loading.erase import erase
from sluice.verify import Budget, verify
from sluice.verify.shadow import OverBudget, shadow_schemas
from tests.dbt.conftest import Small, as_the_project
from tests.dbt.test_convergent import customer, edit, order

NOW = Budget(wait=timedelta(0))
PEOPLE = """
source: shop
description: a test
owner: tests
tables:
  customers:
    description: who bought
    from: {files: {connection: drop, path: "{date}.csv"}}
    mode: append
    key: [id]
    columns:
      id: {type: bigint, required: true}
      name: {type: text, personal: true}
      phone: {type: text, personal: true}
"""


@pytest.fixture
def built(small: Small, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A small warehouse that has run, with a history that was corrected."""
    as_the_project(small, monkeypatch)
    wrong = small.publish("customers", [customer(1, 1, "wrong"), customer(2, 9, "nobody")])
    small.publish("customers", [customer(4, 2, "bea"), customer(8, 2, "Bea")])
    small.publish("orders", [order(2, key, key % 3 + 1) for key in range(1, 30)])
    small.build()
    small.publish("customers", [customer(1, 1, "ann"), customer(6, 1, "anna")], supersedes=wrong)
    small.build()
    return small


def publishing_meanwhile(small: Small) -> Callable[[str], None]:
    """Something that hears of the progress and, once the rebuild is under way, publishes, corrects and runs."""
    heard: list[str] = []

    def note(text: str) -> None:
        heard.append(text)
        if sum("tables rebuilt" in each for each in heard) == 1 and "tables rebuilt" in text:
            small.publish("customers", [customer(3, 1, "andrea"), customer(5, 77, "new")])
            small.publish("orders", [order(9, 2, 77), order(9, 99, 1)])
            (first,) = small.query("select min(batch_id) from ops.batch where table_name = 'orders'")[0]
            small.publish("orders", [order(2, 1, 1)], supersedes=first)
            small.build("--exclude-resource-type", "test")  # they would find what was planted

    return note


def test_case_35_an_erased_person_is_in_no_snapshot_and_no_mart_and_all_equal_a_rebuild(built: Small) -> None:
    (built.folder / "sources" / "shop.yml").write_text(PEOPLE)
    built.publish("customers", [("delete", "2026-01-09", 2, "Bea", None)])
    built.build()
    shape = (
        "select dbt_scd_id, customer_id, dbt_valid_from::text, dbt_valid_to::text, dbt_is_deleted"
        " from snapshots.snap_shop__customers order by 1"
    )
    before, keys = built.query(shape), built.query("select order_id, customer_key from marts.fct_order order by 1")
    source = load_file(built.folder / "sources" / "shop.yml")
    for person in ("1", "2"):
        erase(source, "id", person, reason="request 12", by="tests", rehearse=False)
    built.build()
    assert built.query("select state, keys_touched from ops.model_run where model = 'snap_shop__customers'")[-1] == (
        "success",
        2,
    ), "two people, and not all"
    named = (
        "select distinct name from snapshots.snap_shop__customers union select name from marts.dim_customer order by 1"
    )
    assert built.query(named) == [("erased 1",), ("erased 2",), (None,)], "each value its own, and an inferred member"
    assert built.query(shape) == before, "the chains keep their shape, and the keys"
    assert built.query("select order_id, customer_key from marts.fct_order order by 1") == keys
    verdict = verify("v", NOW)
    assert verdict.passed, [str(check) for check in verdict.blocking]


def left_behind(small: Small) -> list[tuple]:
    return small.query(
        "select nspname::text from pg_namespace where nspname like 'sluice\\_verify%' union all"
        " select relation from ops.model_run where relation like 'sluice\\_verify%' union all"
        " select relation from ops.model_watermark where relation like 'sluice\\_verify%' union all"
        " select relation from ops.change where relation like 'sluice\\_verify%'"
    )


def test_an_untouched_warehouse_passes_while_a_run_commits(built: Small) -> None:
    before = built.query("select count(*) from marts.fct_order")
    verdict = verify("v", NOW, publishing_meanwhile(built))
    assert verdict.passed, [str(check) for check in verdict.blocking]
    assert built.query("select count(*) from marts.fct_order") != before, "a run did commit meanwhile"
    compared = [check for check in verdict.checks if check.name == "equals_rebuild"]
    assert {check.object for check in compared} == {
        "snapshots.snap_shop__customers",
        "marts.dim_customer",
        "marts.fct_order",
    }
    assert all(check.observed == check.bound and check.observed.split()[0] != "0" for check in compared)  # type: ignore[union-attr]
    recorded = built.query(
        "select count(*) from ops.gate_result where run_id = 'v' and gate = 'verify' and verdict = 'pass'"
        " and observed = bound"
    )
    assert recorded == [(3,)]
    assert left_behind(built) == []


def test_H1_rows_changed_deleted_and_added_by_hand_are_found_and_named_though_a_run_commits_meanwhile(
    built: Small,
) -> None:
    built.warehouse.execute(
        "update snapshots.snap_shop__customers set phone = '2' where customer_id = 2 and name = 'Bea'"
    )
    built.warehouse.execute("update marts.dim_customer set name = 'SECRET' where customer_id = 1 and name = 'anna'")
    built.warehouse.execute("update marts.fct_order set amount = 7 where order_id = 3")
    built.warehouse.execute("delete from marts.fct_order where order_id = 17")
    built.warehouse.execute("insert into marts.fct_order (order_id, amount) values (-5, 1)")
    built.warehouse.execute("create table marts.by_hand (id int)")
    verdict = verify("v", NOW, publishing_meanwhile(built))
    assert not verdict.passed
    checks = {check.object: check for check in verdict.checks}
    snapshot, dim, fact = (
        checks[name] for name in ("snapshots.snap_shop__customers", "marts.dim_customer", "marts.fct_order")
    )
    assert (snapshot.failing_rows, dim.failing_rows, fact.failing_rows) == (1, 1, 3)
    assert 'phone is "2", rebuilt "1"' in (snapshot.message or "")
    assert "[2, " in (snapshot.message or ""), "the key of the row"
    assert "name is ***, rebuilt ***" in (dim.message or "")
    assert "SECRET" not in str(dim), "a personal value is never shown"
    assert "[3] differs: amount is 7.00, rebuilt 5.00" in (fact.message or "")
    assert "[17] is missing; rebuilt: {" in (fact.message or "")
    assert "[-5] has no origin in the change logs" in (fact.message or "")
    assert sorted(fact.sample_keys or []) == [[-5], [3], [17]]
    assert checks["marts.by_hand"].outcome == "fail"
    assert not checks["marts.by_hand"].blocks
    assert built.query("select observed <> bound from ops.gate_result where object = 'marts.fct_order'") == [(True,)]
    assert left_behind(built) == []


def test_retired_rows_and_slices_whose_period_is_closed_are_left_out_and_said(built: Small) -> None:
    built.warehouse.execute(
        "create table if not exists ops.retired_key (relation text, key text, seq bigint, retired_at timestamptz)"
    )
    built.warehouse.execute(
        "create table if not exists ops.period_correction (relation text, key text, decision text, period date,"
        " rows bigint, run_id text)"
    )
    built.warehouse.execute(
        "insert into marts.dim_customer (customer_key, customer_id, valid_from, valid_to, is_inferred)"
        " values (md5('gone')::uuid, 55, '2026-01-01', '2026-01-01', false)"
    )
    built.warehouse.execute(
        "insert into ops.retired_key (relation, key, seq) values ('marts.dim_customer', md5('gone')::uuid::text, 1)"
    )
    built.warehouse.execute("update marts.fct_order set amount = 7 where order_id = 3")
    built.warehouse.execute(
        "insert into ops.period_correction (relation, key, decision, period, rows, run_id)"
        " values ('marts.fct_order', '[3]', 'waits', '2026-01-01', 1, 'r')"
    )
    verdict = verify("v", NOW)
    assert verdict.passed, [str(check) for check in verdict.blocking]
    (fact,) = (check for check in verdict.checks if check.object == "marts.fct_order")
    assert "1 slices are left out" in (fact.message or "")
    assert (fact.observed or "").startswith("28 rows")


def test_what_is_published_and_not_read_yet_is_on_neither_side(built: Small) -> None:
    """So sources may publish without pause."""
    built.publish("orders", [order(20, 500, 1)])
    assert verify("v", NOW).passed
    built.query("update marts.fct_order set amount = 7 where order_id = 3 returning 1")
    assert not verify("v", NOW).passed


def test_models_that_have_not_read_the_same_are_not_compared_and_that_is_no_pass(built: Small) -> None:
    """A run is under way, or one of its models failed."""
    built.publish("orders", [order(20, 500, 1)])
    assert built.dbt("run", "--select", "dim_customer").success
    verdict = verify("v", NOW)
    assert not verdict.passed
    assert [check.outcome for check in verdict.checks] == ["missing"]
    assert "has read more of shop.orders than others" in (verdict.checks[0].message or "")


def test_more_than_the_budget_is_refused_before_anything_is_built(built: Small) -> None:
    for budget, unit in ((Budget(time=timedelta(seconds=8)), "--budget"), (Budget(space=10), "--space")):
        with pytest.raises(OverBudget, match=f"nothing was built.*{unit}"):
            verify("v", budget)
    assert built.query("select verdict from ops.gate_result where gate = 'verify'") == [("error",), ("error",)]
    assert left_behind(built) == []


def test_S4_a_killed_verification_is_cleared_away_by_the_next(built: Small, warehouse_url: str) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-m", "sluice.cli", "verify", "--wait", "0s"],
        env={**os.environ, "SLUICE_WAREHOUSE_URL": warehouse_url},
        stderr=subprocess.DEVNULL,
    )
    ours = "select pid from pg_stat_activity where application_name = 'sluice verify'"
    deadline = time.monotonic() + 60
    while not built.query("select 1 from pg_namespace where nspname like 'sluice\\_verify%'"):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left_behind(built) != []
    with shadow_schemas():
        assert left_behind(built) == []
        assert built.query(ours) == [], "its dbt has no session any more"
    time.sleep(0.5)
    assert left_behind(built) == []


def test_a_rebuild_that_fails_on_a_value_does_not_show_it(built: Small) -> None:
    """The rebuild's schemas have a prefix, as a developer's have; what is said of it is kept in the ledger."""
    edit(
        built,
        "marts/dim_customer.sql",
        "customer_id, name, dbt_valid_from",
        "customer_id, name::int::text as name, dbt_valid_from",
    )
    verdict = verify("v", NOW)
    (dim,) = (check for check in verdict.checks if check.object == "marts.dim_customer")
    assert "22P02" in (dim.message or "")
    kept = built.query("select string_agg(whole::text, '') from ops.gate_result as whole")[0][0]
    for value in ("ann", "anna", "bea", "Bea"):
        assert f'"{value}' not in kept
        assert f'"{value}' not in str(verdict.checks)
