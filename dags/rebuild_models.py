"""# rebuild_models

Builds chosen models and snapshots from the change logs, beside the live ones, and says in its log how many rows of
each month would be added, changed and removed. Nothing that readers see changes, unless a second run is told to
**apply** what the first one rehearsed: all models in one transaction, the old rows kept, with **undo** as the way back
until somebody **accepts** it. Runs only when triggered.

**Parameters**: `action`; for `rehearse` the models in `select`, as dbt selects them (`fct_order`, `dim_customer+`),
and, to rebuild only some rows, `keys` (`order_id=17,18`, `order_id=100..200`, `net_amount_eur=NULL`) or the days
`from` and `to`; for the others the number in `rebuild`, which the rehearsal logged, and a `reason`.

**Connection**: the warehouse. **When it is red**: the log says what was refused; nothing was changed. The same from a
shell: `sluice rebuild --help`. All of it: `docs/reference/rebuild.md`.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param
from sluice_airflow.deadlines import deadline
from sluice_airflow.rebuild import RebuildOperator
from sluice_airflow.steps import DEFAULTS, NO_BACKFILL

_TEXT = ["null", "string"]

with DAG(
    dag_id="rebuild_models",
    description="Chosen models built again from the logs: rehearse, apply, undo, accept",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=NO_BACKFILL,
    default_args={**DEFAULTS, "owner": "warehouse"},
    tags={"warehouse", "dbt"},
    deadline=deadline("rebuild_models", "warehouse", timedelta(hours=4)),
    params={
        "action": Param("rehearse", enum=["rehearse", "apply", "undo", "accept"], description="What to do"),
        "select": Param(None, type=_TEXT, description="rehearse: models, as dbt selects them"),
        "keys": Param(None, type=_TEXT, description="rehearse: only rows with order_id=17,18 or order_id=100..200"),
        "from": Param(None, type=_TEXT, format="date", description="rehearse: only rows from this day on"),
        "to": Param(None, type=_TEXT, format="date", description="rehearse: only rows up to this day"),
        "rebuild": Param(None, type=["null", "integer"], minimum=1, description="the others: number of the rehearsal"),
        "reason": Param(None, type=_TEXT, description="apply, undo: why; kept in ops.rebuild"),
    },
) as dag:
    RebuildOperator(task_id="rebuild", execution_timeout=timedelta(hours=3))
