"""What runs beside Airflow in `make run`: the exporter, the watcher, and dashboards that have something to show.

Before all others, which break things on purpose.
"""

from __future__ import annotations

import json
import time

import pytest

from sluice.runtime.airflow_api import AirflowApi
from tests.end_to_end.conftest import ROOT, Running
from tests.monitoring.conftest import prometheus, spawn  # noqa: F401
from tests.watch.conftest import scrape

# ruff: noqa: F811

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]


def test_the_exporter_shows_every_table_as_read_and_enters_by_a_role_that_may_only_read(running: Running):
    found = scrape(int(running.environment["SLUICE_EXPORTER_PORT"]))
    assert found.of("sluice_exporter_up") == 1
    read = {labels: value for (name, labels), value in found.items() if name == "sluice_table_was_read"}
    assert len(read) >= 11
    assert all(value == 1 for labels, value in read.items() if ("source", "shop") in labels)
    assert running.query("select count(*) > 0 from pg_stat_activity where usename = 'sluice_exporter'") == [(True,)]


def test_the_canary_misses_its_deadline(running: Running):
    misses = "select count(*) > 0 from ops.deadline_miss where subject = 'canary'"
    with AirflowApi(running.web_url, "admin", running.password) as api:
        api.set_paused("canary", False)
        api.trigger("canary")
        until = time.monotonic() + 120
        while running.query(misses) != [(True,)]:
            assert time.monotonic() < until, [run for run in api.runs("canary")]
            time.sleep(1)


def test_the_first_pass_left_no_incident(running: Running):
    assert running.query("select kind, subject from ops.incident where source = 'shop'") == []
    assert running.query("select clock_timestamp() - beat_at < interval '2 minutes' from ops.watcher") == [(True,)]
    listed = running.sluice("alert", "list")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert running.query("select count(*) from ops.step where ended_at is null") == [(0,)]


def test_the_source_staging_and_the_marts_agree_in_counts_and_sums(running: Running):
    found = running.query(
        "select distinct on (check_name) check_name, verdict, observed = bound, observed ~ '^[1-9]'"
        " from ops.gate_result where check_name like 'orders_of%' or check_name like 'payments_%'"
        " order by check_name, gate_result_id desc"
    )
    names = (
        "orders_of_the_source_are_in_staging",
        "payments_add_up_to_those_of_staging",
        "payments_of_the_source_are_in_staging",
    )
    assert found == [(name, "pass", True, True) for name in names]


def test_every_panel_of_every_dashboard_shows_something_of_the_demo(running: Running, prometheus):
    server = prometheus(int(running.environment["SLUICE_EXPORTER_PORT"]))
    server.wait(lambda: server.query("sluice:mart_age_seconds"))
    empty = [
        f"{path.stem}: {panel['title']}"
        for path in sorted((ROOT / "monitoring/grafana/dashboards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
        if not server.query(target["expr"].replace("$source", ".*"))
    ]
    assert empty == []
