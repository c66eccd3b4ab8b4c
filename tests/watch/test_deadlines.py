"""What a missed deadline leaves in `ops`: the callback itself, as the triggerer calls it."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "plugins"))


def test_a_miss_is_recorded_once_and_that_of_a_layer_only_if_its_gate_has_not_judged(warehouse, warehouse_url):
    from sluice_airflow.deadlines import deadline_missed

    warehouse.execute(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict)"
        " values ('r1', 'staging', 'x', 'x', 'block', 'pass')"
    )
    context = {"dag_run": {"dag_run_id": "r1"}, "deadline": {}}
    for layer in (None, None, "staging", "marts"):
        asyncio.run(deadline_missed("warehouse", "someone", 60, layer, context))
    rows = warehouse.execute("select subject, run_id, allowed, owner from ops.deadline_miss order by 1").fetchall()
    assert rows == [
        ("warehouse", "r1", timedelta(minutes=1), "someone"),
        ("warehouse:marts", "r1", timedelta(minutes=1), "someone"),
    ]
