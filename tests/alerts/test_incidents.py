"""One incident per cause, from a real ledger."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.alerts import Cause, detect, open_incident
from sluice.cli import app
from sluice.errors import GateRefused
from sluice.warehouse import connect
from tests.watch.conftest import SECRET


def _open(warehouse: psycopg.Connection) -> list[tuple]:
    """Kind, subject, count, and of which kind its cause is."""
    return warehouse.execute(
        "select i.kind, i.subject, i.count, c.kind from ops.incident as i left join ops.incident as c"
        " on c.incident_id = i.caused_by where i.resolved_at is null order by i.kind, i.subject"
    ).fetchall()


@pytest.fixture
def read(world, warehouse):
    """The world without its table that was never read: nothing is wrong."""
    path = world.sources / "shop.yml"
    text = path.read_text()
    path.write_text(text[: text.index("  never:")])
    from sluice.watch import record_objectives

    record_objectives(warehouse)
    warehouse.execute(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict) values"
        " ('r1', 'marts', 'layer_is_complete', 'marts', 'block', 'pass')"
    )
    detect.sweep(warehouse)
    assert _open(warehouse) == []
    return world


def _failed(**given) -> Cause:
    job, step = given.pop("job", "ingest_shop"), given.pop("step", "orders.land")
    values = {"source": "shop", "run_id": "r1", **given}
    return Cause("task_failed", f"{job}/{step}", f"{job} {step} failed", job=job, step=step, **values)


def test_l6_a_file_of_nothing_but_poison_publishes_nothing_and_is_one_incident_however_often_it_comes(read, warehouse):
    before = read.query("select count(*) from staging.shop__orders")
    for number in range(3):
        read.deliver("orders.csv", "id,amount,email\n" + "".join(f"{n},x{number},{SECRET}\n" for n in range(20)))
        with pytest.raises(GateRefused):
            read.load("orders")
        detect.sweep(warehouse)
        detect.sweep(warehouse)
    assert _open(warehouse) == [("rejects_exceeded", "shop.orders", 3, None)]
    assert read.query("select count(*) from staging.shop__orders") == before
    assert SECRET not in str(warehouse.execute("select i::text from ops.incident as i").fetchall())
    read.deliver("orders.csv", "id,amount,email\n1,10,a\n2,20,b\n4,41,c\n")
    read.load("orders")
    detect.sweep(warehouse)
    assert _open(warehouse) == []


def test_e9_an_extract_that_is_suddenly_empty_is_one_incident_and_closes_nothing(read, warehouse):
    read.deliver("orders.csv", "id,amount,email\n")
    with pytest.raises(GateRefused):
        read.load("orders")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("batch_refused", "shop.orders", 1, None)]
    assert read.query("select count(*) from staging.shop__orders where _op = 'delete'") == [(0,)]


def test_e10_an_extract_that_lacks_too_many_keys_is_one_incident_with_the_way_out_in_it(read, warehouse):
    read.deliver("orders.csv", "id,amount,email\n1,10,a\n")
    with pytest.raises(GateRefused):
        read.load("orders")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("batch_refused", "shop.orders", 1, None)]
    (detail,) = warehouse.execute("select detail from ops.incident").fetchone()
    assert "sluice batch approve" in detail


def test_the_same_failure_every_hour_is_one_incident_with_a_count(read, warehouse):
    for hour in range(5):
        open_incident(warehouse, _failed(run_id=f"r{hour}"))
    assert _open(warehouse) == [("task_failed", "ingest_shop/orders.land", 5, None)]
    warehouse.execute(
        "insert into ops.step (job, step, run_id, host, pid, ended_at, succeeded)"
        " values ('ingest_shop', 'orders.land', 'r9', 'h', 1, clock_timestamp(), true)"
    )
    detect.sweep(warehouse)
    assert _open(warehouse) == [], "a success ends it"
    open_incident(warehouse, _failed())
    assert _open(warehouse) == [("task_failed", "ingest_shop/orders.land", 1, None)], "the next one is another"


def test_a_failed_run_is_not_also_a_missed_deadline_nor_a_late_source(read, warehouse):
    open_incident(warehouse, _failed())
    _miss_deadline(warehouse)
    warehouse.execute("update ops.table_read set read_at = read_at - interval '1 day'")
    detect.sweep(warehouse)
    assert _open(warehouse) == [
        ("deadline_missed", "ingest_shop", 1, "task_failed"),
        ("source_late", "shop", 1, "task_failed"),
        ("task_failed", "ingest_shop/orders.land", 1, None),
    ]


def test_a_deadline_that_was_missed_before_the_run_failed_belongs_to_the_failure(read, warehouse):
    _miss_deadline(warehouse)
    detect.sweep(warehouse)
    assert _open(warehouse) == [("deadline_missed", "ingest_shop", 1, None)]
    open_incident(warehouse, _failed())
    assert _open(warehouse)[0] == ("deadline_missed", "ingest_shop", 1, "task_failed")


def _miss_deadline(warehouse: psycopg.Connection) -> None:
    warehouse.execute(
        "insert into ops.deadline_miss (subject, run_id, allowed, owner) values ('ingest_shop', 'r1', %s, 'tests')",
        [timedelta(hours=2)],
    )


def test_e9_a_late_source_is_one_incident_for_all_its_tables_with_owner_last_publish_and_what_it_affects(
    world,
    warehouse,
):
    warehouse.execute("update ops.table_read set read_at = read_at - interval '1 day'")
    warehouse.execute("update ops.objective set declared_at = declared_at - interval '1 day' where kind = 'table'")
    warehouse.execute("insert into ops.lineage values ('marts.fct_order', 'marts', 'shop', 'orders')")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("source_late", "shop", 1, None)]
    found = warehouse.execute("select title, owner, affected, last_good_at is not null from ops.incident").fetchone()
    assert found == ("shop is late: 2 of 2 tables are older than was promised", "tests", ["marts.fct_order"], True)


def test_o2_a_killed_step_is_an_incident_and_what_airflow_says_of_it_later_is_the_same_one(read, warehouse):
    warehouse.execute(
        "insert into ops.step (job, step, run_id, host, pid, beat_at)"
        " values ('ingest_shop', 'orders.land', 'r1', 'h', 1, clock_timestamp() - interval '3 minutes')"
    )
    detect.sweep(warehouse)
    open_incident(warehouse, _failed())
    assert _open(warehouse) == [
        ("heartbeat_stale", "ingest_shop/orders.land", 1, None),
        ("task_failed", "ingest_shop/orders.land", 1, "heartbeat_stale"),
    ]


def test_an_open_circuit_is_one_incident_until_it_closes(read, warehouse):
    warehouse.execute("insert into ops.circuit values ('drop', 7, clock_timestamp(), now(), 'HTTP 503', now())")
    warehouse.execute(
        "insert into ops.source_event (code, connection, source, message)"
        " values ('CIRCUIT_OPENED', 'drop', 'shop', 'x')"
    )
    detect.sweep(warehouse)
    warehouse.execute("update ops.circuit set failures = 9")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("circuit_open", "drop", 9, None)]
    warehouse.execute("update ops.table_read set read_at = read_at - interval '1 day'")
    detect.sweep(warehouse)
    assert ("source_late", "shop", 1, "circuit_open") in _open(warehouse)
    warehouse.execute("update ops.circuit set opened_at = null")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("source_late", "shop", 1, None)], "without its cause it stands for itself"


def test_the_daily_look_at_freshness_says_nothing_that_is_not_told_already(read, warehouse):
    warehouse.execute("update ops.table_read set read_at = read_at - interval '1 day'")
    detect.sweep(warehouse)
    open_incident(warehouse, _failed(job="operations", step="freshness", source=None, run_id="o1"))
    assert ("task_failed", "operations/freshness", 1, "source_late") in _open(warehouse)


def test_a_feed_that_brings_nothing_new_and_a_warehouse_that_is_not_built_are_incidents(read, warehouse):
    warehouse.execute("update ops.batch set published_at = published_at - interval '2 days'")
    warehouse.execute("update ops.gate_result set checked_at = checked_at - interval '9 days' where gate = 'marts'")
    warehouse.execute("update ops.objective set declared_at = declared_at - interval '9 days'")
    with connect(autocommit=True) as as_the_watcher:  # its session has another style of intervals
        detect.sweep(as_the_watcher)
    assert _open(warehouse) == [("feed_stopped", "shop.orders", 1, None), ("layer_late", "marts", 1, None)]


def test_a_source_that_is_late_is_not_also_a_stopped_feed(read, warehouse):
    warehouse.execute("update ops.table_read set read_at = read_at - interval '2 days'")
    warehouse.execute("update ops.batch set published_at = published_at - interval '2 days'")
    warehouse.execute("update ops.objective set declared_at = declared_at - interval '2 days' where kind = 'table'")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("feed_stopped", "shop.orders", 1, "source_late"), ("source_late", "shop", 1, None)]


def test_an_override_of_a_gate_is_told_with_who_and_why_once_it_was_used(read, warehouse):
    warehouse.execute(
        "insert into ops.gate_override (run_id, gate, check_name, object, overridden_by, reason) values"
        " ('r1', 'marts', 'unique_x', 'marts.fct_order', 'ann', 'known bad rates')"
    )
    detect.sweep(warehouse)
    assert _open(warehouse) == []
    warehouse.execute("update ops.gate_override set used_at = clock_timestamp(), used_run_id = 'r1'")
    detect.sweep(warehouse)
    assert _open(warehouse) == [("gate_overridden", "marts/unique_x/marts.fct_order", 1, None)]
    title, detail = warehouse.execute("select title, detail from ops.incident").fetchone()
    assert "ann" in title
    assert "known bad rates" in detail


@pytest.mark.parametrize(
    ("step", "affected"),
    [
        ("gate_staging", ["marts.fct_order", "snapshots.snap_customer"]),
        ("snapshots.snap_customer", ["marts.fct_order", "snapshots.snap_customer"]),
        ("marts.fct_order", ["marts.fct_order"]),
        ("test_marts", ["marts.fct_order"]),
        ("pending", ["marts.fct_order", "snapshots.snap_customer"]),
    ],
)
def test_an_incident_of_the_warehouse_names_what_is_affected_and_when_its_marts_were_last_good(
    warehouse, step, affected
):
    warehouse.execute(
        "insert into ops.lineage (relation, layer, source, table_name) values"
        " ('staging.stg_orders', 'staging', 'shop', 'orders'), ('marts.fct_order', 'marts', 'shop', 'orders'),"
        " ('snapshots.snap_customer', 'snapshots', 'shop', 'customers')"
    )
    warehouse.execute(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, checked_at)"
        " values ('r', 'marts', 'layer_is_complete', 'marts', 'block', 'pass', '2026-01-02 03:04Z')"
    )
    open_incident(warehouse, Cause("gate_failed", f"warehouse/{step}", "x", job="warehouse", step=step))
    assert warehouse.execute("select affected, to_char(last_good_at, 'DD HH24:MI') from ops.incident").fetchall() == [
        (affected, "02 03:04")
    ]


def test_a_list_that_no_watcher_keeps_says_so_and_not_that_nothing_is_wrong(read, warehouse):
    def alert(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["alert", *arguments])
        return done.exit_code, done.stdout, done.stderr

    read.deliver("orders.csv", "id,amount,email\n" + "".join(f"{n},x,a\n" for n in range(20)))
    with pytest.raises(GateRefused):
        read.load("orders")
    code, listed, told = alert("list")
    assert (code, listed) == (1, "no incident is known\n")
    assert told.startswith("nobody has ever looked: what is wrong now is not known. Look: sluice alert watch --once;")
    assert alert("watch", "--once")[0] == 0
    code, listed, told = alert("list")
    assert (code, "rejects_exceeded" in listed, told) == (1, True, "")
    read.deliver("orders.csv", "id,amount,email\n1,10,a\n2,20,b\n4,41,c\n")
    read.load("orders")
    alert("watch", "--once")
    assert alert("list") == (0, "nothing is wrong\n", "")
    warehouse.execute("update ops.watcher set beat_at = '2026-01-02 03:04 UTC'")
    code, listed, told = alert("list")
    assert (code, listed) == (1, "no incident is known\n")
    assert told.startswith("nobody has looked since 2026-01-02 03:04 UTC: ")
