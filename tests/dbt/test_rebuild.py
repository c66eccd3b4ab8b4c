"""`sluice rebuild`: what would change is said first; readers see all of it or nothing; there is a way back."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from typer.testing import CliRunner

from sluice import rebuild
from sluice.cli import app
from sluice.errors import SluiceError
from sluice.rebuild import Rows
from sluice.verify import Budget
from tests.dbt.conftest import Small, as_the_project
from tests.dbt.test_convergent import customer, edit

sys.path.append(str(Path(__file__).resolve().parents[2] / "plugins"))
NOW = Budget()
FACTS = "select order_id, customer_id, customer_key, amount, ordered_at from marts.fct_order order by 1, 5"
DIM = "select whole::text from marts.dim_customer as whole order by 1"
SNAP = "select whole::text from snapshots.snap_shop__customers as whole order by 1"


def order(month: int, key: int, customer_id: int, amount: float = 5) -> tuple:
    at = f"2026-{month:02}-15"
    return ("upsert", at, key, customer_id, amount, at)


@pytest.fixture
def built(small: Small, monkeypatch: pytest.MonkeyPatch) -> Small:
    """Three months of orders in a fact with month partitions, and customers with a history."""
    as_the_project(small, monkeypatch)
    edit(
        small,
        "marts/fct_order.sql",
        "unique_key='order_id'",
        "unique_key=['order_id', 'ordered_at'], recompute_by='order_id',"
        " partition_by={'column': 'ordered_at', 'by': 'month'},"
        " closed_periods={'column': 'ordered_at', 'correction': 'refuse'}",
    )
    small.publish("customers", [customer(1, 1, "ann"), customer(1, 2, "bea"), customer(9, 2, "Bea")])
    small.publish("orders", [order(key % 3 + 1, key, key % 2 + 1, key) for key in range(1, 31)])
    small.build()
    return small


def by_hand(small: Small, *statements: str) -> None:
    for statement in statements:
        small.warehouse.execute(statement)


def months(plan: rebuild.Plan) -> dict[str, list[tuple]]:
    return {change.relation: change.months for change in plan.changes if change.months}


def test_what_would_change_is_said_by_month_applied_as_one_and_taken_back_byte_for_byte(
    built: Small, warehouse_url: str
) -> None:
    """Three tables damaged by hand, one partition gone; a reader in a loop sees the damage or the cure, never a mix."""
    right = [built.query(each) for each in (SNAP, DIM, FACTS)]
    by_hand(
        built,
        "update marts.fct_order set amount = 99 where order_id in (3, 6)",  # January
        "delete from marts.fct_order where order_id = 7",  # February
        "insert into marts.fct_order select 77, customer_id, customer_key, 1, ordered_at from marts.fct_order"
        " where order_id = 1",
        "drop table marts.fct_order__2026_03",
        "update marts.dim_customer set name = 'SECRET' where name = 'Bea'",
        "update snapshots.snap_shop__customers set phone = '5' where name = 'ann'",
    )
    wrong = [built.query(each) for each in (SNAP, DIM, FACTS)]
    done = CliRunner().invoke(app, ["rebuild", "rehearse", "snap_shop__customers+"])
    assert done.exit_code == 0, (done.output, done.exception)
    told = [line.split("\t") for line in done.stdout.splitlines()]
    assert told[0] == ["model", "month", "added", "changed", "removed"]
    assert sorted(told[1:]) == [
        ["marts.dim_customer", "", "0", "1", "0"],
        ["marts.fct_order", "2026-01", "0", "2", "0"],
        ["marts.fct_order", "2026-02", "1", "0", "1"],
        ["marts.fct_order", "2026-03", "10", "0", "0"],
        ["snapshots.snap_shop__customers", "always", "0", "1", "0"],
    ]
    assert "amount is 99.00, rebuilt 3.00" in done.stderr
    assert "name is ***, rebuilt ***" in done.stderr
    assert "SECRET" not in done.output + done.stderr
    assert [built.query(each) for each in (SNAP, DIM, FACTS)] == wrong, "a rehearsal changes nothing"
    assert built.query("select count(*) from pg_namespace where nspname like 'sluice\\_verify%'") == [(0,)]
    ((number,),) = built.query("select rebuild_id from ops.rebuild")

    seen, stop = set(), threading.Event()

    def read() -> None:
        with psycopg.connect(warehouse_url, autocommit=True) as reader:
            while not stop.is_set():
                seen.add(
                    reader.execute(
                        "select (select count(*) from marts.fct_order), (select sum(amount) from marts.fct_order),"
                        " (select count(*) from marts.dim_customer where name = 'SECRET'),"
                        " (select count(*) from snapshots.snap_shop__customers where phone = '5')"
                    ).fetchone()
                )

    reader = threading.Thread(target=read)
    reader.start()
    while not seen:
        time.sleep(0.01)
    applied = CliRunner().invoke(app, ["rebuild", "apply", str(number), "--reason", "mended"])
    time.sleep(0.2)
    stop.set()
    reader.join()
    assert applied.exit_code == 0, (applied.output, applied.exception)
    assert "15 rows inserted, 5 deleted, in one transaction" in applied.stdout
    assert [built.query(each) for each in (SNAP, DIM, FACTS)] == right
    assert len(seen) == 2, f"before and after, nothing between: {seen}"

    changed = built.query("select relation, count(key) from ops.change inner join ops.changed_key using (change_id)"
                          f" where run_id = 'rebuild:{number}' group by 1 order by 1")  # fmt: skip
    assert changed == [("marts.dim_customer", 1), ("marts.fct_order", 14), ("snapshots.snap_shop__customers", 1)]
    built.build()
    assert [built.query(each) for each in (SNAP, DIM, FACTS)] == right, "the next run agrees"

    with pytest.raises(SluiceError, match="is applied, not rehearsed; nothing was changed"):
        rebuild.apply(number, reason="twice")
    by_hand(built, "alter table marts.dim_customer add column colour text")
    with pytest.raises(
        SluiceError, match=r"of marts.dim_customer have changed since the rehearsal \(colour\); nothing"
    ):
        rebuild.undo(number, reason="its rows would have no colour")
    by_hand(built, "alter table marts.dim_customer drop column colour",
            "insert into ops.period_lock (relation, period_from, period_to, locked_by, reason)"
            " values ('marts.fct_order', '2026-01-01', '2026-02-01', 'auditor', 'reported')")  # fmt: skip
    with pytest.raises(SluiceError, match=r"a period of marts.fct_order was closed since the rehearsal; nothing"):
        rebuild.undo(number, reason="January was reported meanwhile")
    by_hand(built, "update ops.period_lock set unlocked_at = now(), unlocked_by = 'auditor'")
    outcome = rebuild.undo(number, reason="to see it")
    assert (outcome.inserted, outcome.deleted, outcome.left_out) == (5, 15, 0)
    assert [built.query(each) for each in (SNAP, DIM, FACTS)] == wrong
    assert built.query("select state, reason, ended_reason from ops.rebuild") == [("undone", "mended", "to see it")]
    assert built.query("select count(*) from pg_class where relnamespace = 'rebuild'::regnamespace") == [(0,)]


def test_only_the_slices_that_were_asked_for_and_that_no_run_has_written_since(
    built: Small, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(built, "update marts.fct_order set amount = amount + 100 where order_id between 3 and 12")
    plan = rebuild.rehearse(["fct_order"], Rows.of("order_id=3..6"), NOW, by="ann")
    assert months(plan) == {"marts.fct_order": [("2026-01", 0, 2, 0), ("2026-02", 0, 1, 0), ("2026-03", 0, 1, 0)]}
    built.publish("orders", [("upsert", "2026-03-20", 5, 1, 1000, "2026-03-15")])
    built.build()  # a run writes order 5 by itself
    with psycopg.connect(warehouse_url) as run, monkeypatch.context() as patience:
        run.execute("select pg_advisory_xact_lock(hashtextextended('sluice:marts.fct_order', 0))")
        patience.setenv("PGOPTIONS", "-c lock_timeout=100ms")
        with pytest.raises(SluiceError, match=r"nothing was changed\. As of now session (\d+) holds it") as said:
            rebuild.apply(plan.rebuild_id, reason="wrong prices", by="ann")
        assert f"select pg_terminate_backend({run.info.backend_pid}). Then try again" in str(said.value)
    outcome = rebuild.apply(plan.rebuild_id, reason="wrong prices", by="ann")
    assert (outcome.inserted, outcome.deleted, outcome.left_out) == (3, 3, 1)
    amounts = "select order_id, amount::int from marts.fct_order where order_id between 2 and 8 order by 1"
    assert built.query(amounts) == [(2, 2), (3, 3), (4, 4), (5, 1000), (6, 6), (7, 107), (8, 108)]
    assert built.query(
        "select bool_and(seq <= as_of_seq) from ops.model_watermark, ops.rebuild"
        " where relation = 'marts.fct_order' and not starts_with(input, 'code:')"
    ) == [(True,)], "the next run looks again at what came since the rehearsal"
    built.build()
    assert built.query(amounts) == [(2, 2), (3, 3), (4, 4), (5, 1000), (6, 6), (7, 107), (8, 108)]
    # docs/how-to/erase.md has people drop differences
    by_hand(built, "drop table rebuild.r1__1__marts__fct_order")
    with pytest.raises(
        SluiceError, match=r"difference of marts.fct_order was dropped from the schema rebuild; nothing"
    ):
        rebuild.undo(plan.rebuild_id, reason="its rows are gone")
    from sluice_airflow.rebuild import RebuildOperator

    task = RebuildOperator(task_id="rebuild")
    asked = {"action": "accept", "rebuild": plan.rebuild_id, "reason": None}
    run = {"params": asked, "dag_run": SimpleNamespace(triggering_user_name="bea")}
    for number in (1, 2):  # the first was killed when it had committed
        assert task.step({**run, "ti": SimpleNamespace(try_number=number)}) == plan.rebuild_id
    with pytest.raises(SluiceError, match="is accepted, not applied"):
        task.step({**run, "ti": SimpleNamespace(try_number=1)})
    applied = {**asked, "action": "apply", "reason": "wrong prices"}
    with pytest.raises(SluiceError, match="is accepted, not rehearsed"):
        task.step({**run, "params": applied, "ti": SimpleNamespace(try_number=2)})
    assert built.query("select selection, state, asked_by, applied_by, ended_by from ops.rebuild") == [
        ("fct_order order_id=3..6", "accepted", "ann", "ann", "bea")
    ]
    assert built.query("select count(*) from pg_class where relnamespace = 'rebuild'::regnamespace") == [(0,)]
    with pytest.raises(SluiceError, match="is accepted, not applied"):
        rebuild.undo(plan.rebuild_id, reason="too late")


def test_a_key_that_facts_point_to_is_not_taken_from_under_them(built: Small) -> None:
    """A dimension under a key of its own making, to which the facts were turned: alone it may not be rebuilt."""
    by_hand(
        built,
        "create temporary table was as select customer_key from marts.dim_customer where name = 'ann'",
        "update marts.dim_customer set customer_key = md5('mine')::uuid where name = 'ann'",
        "update marts.fct_order set customer_key = md5('mine')::uuid where customer_key = (table was)",
    )
    before = built.query(DIM), built.query(FACTS)
    alone = rebuild.rehearse(["dim_customer"], Rows.of("name=ann"), NOW)
    assert built.query("select selection from ops.rebuild") == [("dim_customer name=***",)], "whom it was about"
    with pytest.raises(
        SluiceError, match=r"15 rows of marts.fct_order would point by customer_key to no row of marts.d"
    ):
        rebuild.apply(alone.rebuild_id, reason="alone")
    assert (built.query(DIM), built.query(FACTS)) == before
    assert built.query("select state from ops.rebuild") == [("rehearsed",)]
    both = rebuild.rehearse(["dim_customer+"], budget=NOW)
    assert built.query("select state from ops.rebuild order by 1") == [("dropped",), ("rehearsed",)]
    rebuild.apply(both.rebuild_id, reason="with its facts")
    assert built.query("select count(*) from marts.fct_order inner join marts.dim_customer using (customer_key)") == [
        (30,)
    ]
    assert built.query("select count(*) from marts.dim_customer where customer_key = md5('mine')::uuid") == [(0,)]


def test_a_range_of_days_without_closed_periods_and_new_code_is_said(built: Small) -> None:
    by_hand(
        built,
        "update marts.fct_order set amount = 500",
        "insert into ops.period_lock (relation, period_from, period_to, locked_by, reason)"
        " values ('marts.fct_order', '2026-01-01', '2026-02-01', 'auditor', 'reported')",
    )
    edit(built, "marts/fct_order.sql", "orders.amount,", "(orders.amount + 1)::numeric(12, 2) as amount,")
    done = CliRunner().invoke(
        app, ["rebuild", "rehearse", "fct_order", "--from", "2026-01-10", "--to", "2026-02-15", "--show", "0"]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.splitlines()[1:] == ["marts.fct_order\t2026-02\t0\t10\t0"]
    assert "10 slices are left out: they have rows in a closed period" in done.stderr
    assert "other code built it" in done.stderr
    edit(
        built, "marts/fct_order.sql", "(orders.amount + 1)::numeric(12, 2) as amount,", "orders.amount, true as is_new,"
    )
    other = CliRunner().invoke(app, ["rebuild", "rehearse", "fct_order", "--show", "0"])
    assert "its columns would be others: is_new boolean" in other.stderr
    refused = CliRunner().invoke(app, ["rebuild", "apply", "2", "--reason", "columns"])
    assert "marts.fct_order would get other columns (is_new boolean); nothing was changed" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fct_order", "--keys", "order_id"], "say <column>=<a>,<b>"),
        (["fct_order", "--keys", "order_id=1..2..3"], "say <column>=<a>,<b>"),
        (["fct_order", "--keys", "order_id=1.."], "say <column>=<a>,<b>"),
        (["fct_order", "--keys", "order_id=1,,2"], "say <column>=<a>,<b>"),
        (["--", "fct_order", "--profiles-dir=/tmp"], "--profiles-dir=/tmp is an option and no model"),
        (["fct_order", "--from", "2026-02-01", "--to", "2026-01-01"], "is before"),
    ],
)
def test_what_is_misunderstood_is_refused_before_anything_is_built(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["rebuild", "rehearse", *arguments])
    assert isinstance(done.exception, SluiceError)
    assert says in str(done.exception)
    assert "nothing was built" in str(done.exception)


def test_a_model_without_what_was_asked_for_is_refused_not_ignored(built: Small) -> None:
    with pytest.raises(SluiceError, match=r"marts\.fct_order has no column colour; nothing was built"):
        rebuild.rehearse(["fct_order"], Rows.of("colour=red"))
    with pytest.raises(SluiceError, match=r"order_id=10\.\.9: the first is after the last; nothing was built"):
        rebuild.rehearse(["fct_order"], Rows.of("order_id=10..9"))  # as texts they would be in order
    with pytest.raises(SluiceError, match=r"order_id=1\.\.NULL': no range begins or ends at NULL; nothing was built"):
        rebuild.rehearse(["fct_order"], Rows.of("order_id=1..NULL"))
    assert built.query("select count(*) from ops.rebuild") == [(0,)]


def test_rows_that_have_no_value_are_meant_by_null(built: Small) -> None:
    by_hand(
        built,
        "update marts.fct_order set amount = null where order_id in (3, 4)",
        "update marts.fct_order set amount = 500 where order_id = 5",
        "update marts.fct_order set amount = 600 where order_id = 6",
    )
    plan = rebuild.rehearse(["fct_order"], Rows.of("amount=NULL,600"), NOW)
    assert sum(changed for _, _, changed, _ in months(plan)["marts.fct_order"]) == 3
    rebuild.apply(plan.rebuild_id, reason="what was lost")
    amounts = "select order_id, amount::int from marts.fct_order where order_id between 3 and 6 order by 1"
    assert built.query(amounts) == [(3, 3), (4, 4), (5, 500), (6, 6)]
