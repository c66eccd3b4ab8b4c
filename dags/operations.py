"""# operations

Looks every morning at how old each table is, and compares it with the `freshness` that its declaration
promises. The results are rows of the gate `freshness` in `ops.gate_result`; a stale or never-read table
fails the task.

**Connection**: the warehouse. **When it is red**: the log names the table, its age and whom to ask; run the
table's ingest DAG, then clear the task. `sluice gate show --gate freshness` prints the same. It can be
triggered at any time.

`reports` builds what the pages under *Sluice* show: dbt's docs, the lineage by column, profiles of columns (from
Postgres' own statistics) and sizes. When it is red, the pages show what was built before; the log has dbt's words.

Once a week, `verify` rebuilds all snapshots and marts from the change logs beside the live ones and compares them
row for row, while normal runs go on. It is skipped on the other days, unless the parameter `verify` is set. When it is
red, its log names the table, the rows and what to do; `sluice gate show --gate verify` prints the same.

`prune` forgets which keys models changed more than 30 days ago. A model that had not read them by then recomputes all
its rows in its next run; the log names it.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable, Param
from sluice_airflow.deadlines import deadline
from sluice_airflow.gates import FreshnessOperator, PruneOperator, ReportsOperator, VerifyOperator
from sluice_airflow.steps import DEFAULTS, NO_BACKFILL

with DAG(
    dag_id="operations",
    description="Is everything as fresh as was promised, and what its change logs say?",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 7 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=NO_BACKFILL,
    default_args={**DEFAULTS, "owner": "operations"},
    tags={"operations"},
    params={"verify": Param(False, type="boolean", description="Verify now, though the last time is not a week ago")},
    deadline=deadline("operations", "operations", timedelta(hours=4)),
) as dag:
    FreshnessOperator(task_id="freshness", execution_timeout=timedelta(minutes=15))
    ReportsOperator(task_id="reports", execution_timeout=timedelta(minutes=30))
    VerifyOperator(task_id="verify", every=timedelta(days=7), execution_timeout=timedelta(hours=3))
    PruneOperator(task_id="prune", execution_timeout=timedelta(minutes=15))
