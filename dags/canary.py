"""# canary

A run that must miss its deadline: it has five seconds, and takes twenty. When it does, a row of `ops.deadline_miss`
says so, and with it that deadlines are stored, watched by the scheduler, and their callbacks run by the triggerer.

When for more than a day there is no such row, the alarm **SluiceCanaryAbsent** fires: some part of that chain is
broken, and no deadline of any other DAG can be relied on. What to do then: `docs/runbooks/canary-absent.md`.

The run itself succeeds. It can be triggered at any time; Airflow shows its deadline as missed, which is right.
"""

import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task
from sluice_airflow.deadlines import deadline
from sluice_airflow.steps import DEFAULTS, NO_BACKFILL

with DAG(
    dag_id="canary",
    description="Must miss its deadline: when it does not, deadlines no longer work",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("40 5 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=NO_BACKFILL,
    default_args={**DEFAULTS, "owner": "operations"},
    tags={"operations"},
    deadline=deadline("canary", "operations", timedelta(seconds=5)),
) as dag:

    @task(execution_timeout=timedelta(minutes=5))
    def be_late() -> None:
        """Outlast the deadline, and the scheduler's next look at it."""
        time.sleep(20)

    be_late()
