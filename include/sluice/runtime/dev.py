"""`make dev`: a shell for dbt, `sluice` and `airflow` beside the running stack, with schemas of your own for dbt."""

import getpass
import os
import re
import sys
from pathlib import Path

import psycopg

from sluice import settings
from sluice.errors import SluiceError
from sluice.runtime import processes, surroundings
from sluice.runtime.airflow import AirflowStack, given_metadata_url
from sluice.runtime.faults import RuntimeFault
from sluice.runtime.layout import Layout
from sluice.runtime.surroundings import dbt_environment


def speak_of_what_runs() -> None:
    """Take ports and addresses from the running stack: this shell may never have been told of them."""
    if processes.running_pid(Layout.from_environment().run_file):
        os.environ.update(settings.written_environment())
    elif not os.environ.get("SLUICE_WAREHOUSE_URL"):  # a warehouse of one's own needs no stack
        raise RuntimeFault(
            f"nothing runs here: no `make run` keeps its state in {settings.state_dir()}. Start one in another "
            "terminal with: make run"
        )


def environment(layout: Layout) -> dict[str, str]:
    """The variables of the shell: dbt finds profile and warehouse, and builds into `dev_<user>_<layer>`."""
    url = settings.warehouse_url()
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        raise RuntimeFault(
            "the warehouse does not answer. Is make run still starting, in the other terminal?"
        ) from None
    user = re.sub(r"\W", "_", os.environ.get("USER") or getpass.getuser()).lower()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {
        **os.environ,
        **_airflow(layout),
        **dbt_environment(layout.dbt_project, url),
        "PATH": path,
        "SLUICE_SCHEMA_PREFIX": os.environ.get("SLUICE_SCHEMA_PREFIX") or f"dev_{user}",
        # tests that need models which were not selected wait until those are built
        "DBT_INDIRECT_SELECTION": os.environ.get("DBT_INDIRECT_SELECTION") or "buildable",
        "DBT_TARGET_PATH": f"target/dev_{user}",  # Airflow's tasks go on using target/manifest.json
        # every `airflow dags …` says so, and none of ours draws with it
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS") or "ignore:Could not import graphviz",
    }


def _airflow(layout: Layout) -> dict[str, str]:
    """What the `airflow` command needs to speak of the same Airflow as the running one."""
    metadata = given_metadata_url() or surroundings.embedded_postgres(layout).url("airflow", "airflow")
    mine = AirflowStack(layout, metadata, {}).environment()
    return {name: value for name, value in mine.items() if name.startswith(("AIRFLOW", "SLUICE_", "PYTHONPATH"))}


def main() -> int:
    """The command: replaces itself with the shell, or with the command given as arguments."""
    try:
        speak_of_what_runs()
        layout = Layout.from_environment()
        variables = environment(layout)
    except SluiceError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    os.chdir(layout.dbt_project)
    command = sys.argv[1:] or [os.environ.get("SHELL") or "/bin/sh"]
    if not sys.argv[1:]:
        prefix = variables["SLUICE_SCHEMA_PREFIX"]
        print(
            f"dbt builds into the schemas {prefix}_<layer>. Try: dbt build --select staging. Ask the warehouse in SQL: "
            "sluice sql. Leave: exit",
            flush=True,
        )
    os.execvpe(command[0], command, variables)


if __name__ == "__main__":
    sys.exit(main())
