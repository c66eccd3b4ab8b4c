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
python <<'PYTHON'
from sluice import ledger, settings, warehouse
from sluice.watch import access, record_objectives

ledger.migrate(settings.warehouse_url())
access.grant(settings.warehouse_url())  # what the exporter's own role may read, where there is that role
with warehouse.connect() as connection:
    record_objectives(connection)
PYTHON

echo "init: done"
