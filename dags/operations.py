"""# operations

Looks every morning at how old each table is, and compares it with the `freshness` that its declaration
promises. The results are rows of the gate `freshness` in `ops.gate_result`; a stale or never-read table
fails the task.

**Connection**: the warehouse. **When it is red**: the log names the table, its age and whom to ask; run the
table's ingest DAG, then clear the task. `sluice gate show --gate freshness` prints the same. It can be
triggered at any time.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable
from sluice_airflow.deadlines import deadline
from sluice_airflow.gates import FreshnessOperator
from sluice_airflow.steps import DEFAULTS

with DAG(
    dag_id="operations",
    description="Is everything as fresh as was promised?",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 7 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={**DEFAULTS, "owner": "operations"},
    tags={"operations"},
    deadline=deadline("operations", "operations", timedelta(hours=1)),
) as dag:
    FreshnessOperator(task_id="freshness", execution_timeout=timedelta(minutes=15))
