"""# warehouse

Builds the warehouse from the change logs: **staging** (views) → **snapshots** (one history per entity) →
**intermediate** (views) → **marts** (dimensions and facts). One task is one dbt model; its tests run inside
the transaction that builds it; `test_staging` and `test_marts` run the tests that belong to no such model. A
gate stands after each layer and fails when a model has no result in this run, or a blocking check did not pass.

It starts when a source announces new rows, and every hour, because announcements can be lost. A run reads
everything that is published and not yet read. When nothing is, `pending` skips the rest and says so in
`ops.gate_result`.

**Connection**: the warehouse (`SLUICE_WAREHOUSE_URL`). **Parameter**: `force` runs every task although
nothing is pending.

**When it is red**: the log of the failed task names the check, the table and keys of failing rows; `sluice
gate show` prints all results. Readers still have the last good rows. Correct the model or the data, then
clear the failed task. Asked when it is red: **warehouse**. Built by Airflow and Cosmos in
`plugins/sluice_airflow/warehouse.py`.
"""

from sluice_airflow.warehouse import warehouse_dag

from sluice import settings
from sluice.declarations import load_folder

dag = warehouse_dag(load_folder(settings.sources_dir()).sources.values(), __doc__)
