"""Shows faults of declarations as an Airflow DAG import error, so that the DAGs of all other sources live.

Each line names file, line and field. The error goes away when the file is corrected.
"""

from sluice import settings
from sluice.declarations import DeclarationError, load_folder

faults = load_folder(settings.sources_dir()).faults
if faults:
    raise DeclarationError(faults)
