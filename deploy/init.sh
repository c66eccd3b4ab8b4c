#!/usr/bin/env bash
# Run once by the service `init` before everything else starts, at every `docker compose up`. Again: changes nothing.
set -euo pipefail

echo "init: Airflow's metadata database"
airflow db migrate

echo "init: the pools of the declarations (a task that names an unknown pool never runs and never fails)"
pools=$(mktemp --suffix=.json)
python >"$pools" <<'PYTHON'
import json

from sluice import settings
from sluice.declarations import load_folder
from sluice.declarations.pools import required_pools

print(json.dumps(required_pools(load_folder(settings.sources_dir()).sources.values())))
PYTHON
airflow pools import "$pools"

echo "init: the warehouse's ledger"
python -c "from sluice import ledger, settings; ledger.migrate(settings.warehouse_url())"

echo "init: done"
