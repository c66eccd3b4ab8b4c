"""The real rule file in a real Prometheus that scrapes the real exporter, and Alertmanager with the real routes."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from sluice.alerts import watcher
from sluice.runtime.ports import free_port
from tests.alerts.conftest import hook  # noqa: F401

# ruff: noqa: F811
from tests.monitoring.test_rules import DASHBOARDS


@pytest.fixture
def lively(world, warehouse):
    """A warehouse as the demo leaves it: read, built, judged; nothing has gone wrong beyond its quarantine."""
    world.load("orders")
    warehouse.execute(
        """
        insert into ops.watermark (source, table_name, value) values ('shop', 'orders', '2026-01-01');
        insert into ops.lineage values ('marts.fct_order', 'marts', 'shop', 'orders');
        insert into ops.model_watermark (relation, input, seq) values ('marts.fct_order', 'stg_shop__orders', 1);
        insert into ops.step (job, step, run_id, host, pid) values ('ingest_shop', 'orders.land', 'r1', 'h', 1);
        insert into ops.step (job, step, run_id, host, pid, ended_at, succeeded)
            values ('ingest_shop', 'orders.audit', 'r1', 'h', 1, clock_timestamp(), true);
        insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict)
            values ('r1', 'marts', 'layer_is_complete', 'marts', 'block', 'pass');
        insert into ops.deadline_miss (subject, run_id, allowed, owner) values ('canary', 'r0', '5 seconds', 'x')
        """
    )
    watcher.once(warehouse)
    return world


def test_every_panel_of_every_dashboard_returns_data(lively, exporting, prometheus):
    server = prometheus(exporting)
    server.wait(lambda: server.query("sluice:table_late"))
    asked = 0
    empty = []
    for path in DASHBOARDS:
        tree = json.loads(path.read_text())
        for variable in tree["templating"]["list"]:  # what its list of choices is made from
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            if not all(label in row["metric"] for row in server.query(metric) or [{"metric": {}}]):
                empty.append(f"{path.stem}: ${variable['name']}")
        for panel in tree["panels"]:
            for target in panel["targets"]:
                asked += 1
                if not server.query(target["expr"].replace("$source", ".*")):
                    empty.append(f"{path.stem}: {panel['title']}: {target['expr']}")
    assert asked > 35
    assert empty == []


def test_o1_a_source_that_nobody_reads_any_more_is_an_alarm_within_two_minutes_of_being_late(
    world, warehouse, exporting, prometheus, alertmanager, hook
):
    """Nothing runs that reads: as with a scheduler that is dead. Time runs 60 times as fast: a minute is a second."""
    am_port, am = alertmanager(f"http://127.0.0.1:{hook.port}/alertmanager")
    warehouse.execute("update ops.objective set freshness = '3 seconds', declared_at = now()")
    warehouse.execute("update ops.table_read set read_at = now()")
    warehouse.execute("insert into ops.lineage values ('marts.fct_order', 'marts', 'shop', 'orders')")
    warehouse.execute(
        "update ops.objective set freshness = '3 seconds' where kind = 'layer';"
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, checked_at) values"
        " ('r1', 'marts', 'layer_is_complete', 'marts', 'block', 'pass', now() + interval '1 hour')"
    )
    server = prometheus(exporting, alertmanager=am_port)
    assert "SluiceSourceLate shop" not in server.firing()
    begun = time.monotonic()
    server.wait(lambda: "SluiceSourceLate shop" in server.firing(), 20)
    # 3 s until it is late; 5 minutes, 60 times as fast, until it is told; the machine may stand still for seconds
    assert time.monotonic() - begun < 3 + 5 + 5
    server.wait(lambda: "SluiceMartLate shop" in server.firing(), 20)
    wanted = {"SluiceSourceLate", "SluiceTableLate", "SluiceMartLate"}
    am.wait(lambda: wanted <= {a["labels"]["alertname"] for a in am.get("/alerts")})
    am.wait(lambda: all(a["status"]["state"] != "unprocessed" for a in am.get("/alerts")))
    states = am.get("/alerts")
    active = {a["labels"]["alertname"] for a in states if a["status"]["state"] == "active"}
    assert "SluiceSourceLate" in active
    assert not active & {"SluiceTableLate", "SluiceMartLate"}, "what the late source causes is inhibited"


def test_alarms_reach_the_watcher_by_the_real_routes_and_the_watcher_tells_them(
    world, warehouse, exporting, prometheus, alertmanager, hook
):
    """A rule without a cause that the watcher sees itself (the canary): Prometheus, Alertmanager, watcher, webhook."""
    server = watcher.listen("127.0.0.1", free_port())
    over = threading.Event()
    thread = threading.Thread(target=watcher.run, args=(over, 0.3))
    thread.start()
    try:
        am_port, _ = alertmanager(f"http://127.0.0.1:{server.server_port}/alertmanager")
        warehouse.execute(
            "insert into ops.deadline_miss (subject, run_id, allowed, owner, missed_at) values"
            " ('canary', 'r0', '5 seconds', 'x', %s)",
            [datetime.now(UTC) - timedelta(hours=30)],
        )
        prom = prometheus(exporting, factor=6000, alertmanager=am_port)
        prom.wait(lambda: any("The canary did not miss" in title for title in hook.titles()), 30)
    finally:
        over.set()
        thread.join()
        server.shutdown()
        server.server_close()


def test_o2_the_heartbeat_alarm_fires_for_a_killed_step_and_not_for_one_that_lives(
    world, warehouse, exporting, prometheus
):
    warehouse.execute(
        "insert into ops.step (job, step, run_id, host, pid, beat_at) values"
        " ('ingest_shop', 'dead', 'r1', 'h', 1, now() - interval '118 seconds'),"
        " ('ingest_shop', 'alive', 'r1', 'h', 2, now() + interval '1 hour')"
    )
    server = prometheus(exporting)
    server.wait(lambda: "SluiceHeartbeatStale dead" in server.firing(), 20)
    assert "SluiceHeartbeatStale alive" not in server.firing()


def test_an_exporter_that_cannot_read_silences_what_it_cannot_know(world, prometheus, alertmanager, hook):
    from sluice.watch import exporter, metrics

    port = free_port()
    dead, _ = exporter.start("127.0.0.1", port, metrics.Ledger("postgresql://nobody@127.0.0.1:1/nothing").read)
    try:
        am_port, am = alertmanager(f"http://127.0.0.1:{hook.port}/alertmanager")
        server = prometheus(port, factor=600, alertmanager=am_port)
        server.wait(lambda: "SluiceLedgerUnreadable" in server.firing(), 20)
        am.wait(lambda: "SluiceLedgerUnreadable" in str(am.get("/alerts")))
    finally:
        dead.shutdown()
        dead.server_close()
