"""One Airflow DAG per declaration in `include/sources`. A file with faults has none: see
`declaration_faults.py`.
"""

from sluice_airflow.ingest import ingest_dag

from sluice import settings
from sluice.declarations import load_folder

found = load_folder(settings.sources_dir())
for name, source in found.sources.items():
    globals()[f"ingest_{name}"] = ingest_dag(source, found.paths[name])
