"""Cosmos 2698, planted: a run whose model was skipped ends red, and would end green without the rule of its gate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
DAGS = '''"""An Airflow dag whose model is skipped, with the gate's own rule and with Airflow's default."""
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException
from sluice.gates import Model
from sluice_airflow.gates import GateOperator
from sluice_airflow.warehouse import GATE_RULE

for rule in (GATE_RULE, TriggerRule.ALL_SUCCESS):
    with DAG(f"planted_{rule.value}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task(task_id="dim_customer")
        def skipped():
            raise AirflowSkipException("a dbt node that Cosmos shows as skipped")

        skipped() >> GateOperator(
            task_id="gate_marts", layer="marts", models=[Model("dim_customer", "marts.dim_customer", "marts")],
            fingerprint="v1", trigger_rule=rule, retries=0, execution_timeout=timedelta(minutes=5),
        )
    globals()[dag.dag_id] = dag
'''
RUN = """
from airflow.utils.db import initdb
initdb()
import planted
for name in ("planted_none_failed", "planted_all_success"):
    done = getattr(planted, name).test()
    states = {ti.task_id: getattr(ti.state, "value", ti.state) for ti in done.get_task_instances()}
    print("ENDED", name, getattr(done.state, "value", done.state), sorted(states.items()))
"""


def test_a_run_with_a_skipped_model_fails_at_its_gate(warehouse, warehouse_url, tmp_path):
    warehouse.execute("create table marts.dim_customer (customer_key bigint)")
    for name in ("sources", "dags"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "planted.py").write_text(DAGS)
    paths = (HOME / "include", HOME / "plugins", tmp_path / "dags")
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": "0123456789" * 7,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "SLUICE_WAREHOUSE_URL": warehouse_url,
            "SLUICE_SOURCES_DIR": str(tmp_path / "sources"),
            "SLUICE_EXPECTATIONS_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    ended = [line for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert ended == [
        "ENDED planted_none_failed failed [('dim_customer', 'skipped'), ('gate_marts', 'failed')]",
        "ENDED planted_all_success success [('dim_customer', 'skipped'), ('gate_marts', 'skipped')]",
    ], done.stdout[-3000:] + done.stderr[-3000:]
    assert warehouse.execute(
        "select check_name, object, verdict from ops.gate_result where verdict <> 'pass' order by gate_result_id"
    ).fetchall() == [("model_has_a_result", "marts.dim_customer", "missing"), ("layer_is_complete", "marts", "fail")]
