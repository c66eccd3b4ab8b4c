"""What every container starts with: derives what follows from the settings, then becomes its command.

The warehouse is named once, by SLUICE_WAREHOUSE_URL; dbt wants it in parts. The api-server reads the
passwords of the web UI from a file, which is written here, inside its own container.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sluice import settings
from sluice.runtime.airflow import ADMIN, VIEWER
from sluice.runtime.secretstore import write_private
from sluice.runtime.surroundings import dbt_environment

_PASSWORDS = {ADMIN: "SLUICE_ADMIN_PASSWORD", VIEWER: "SLUICE_VIEWER_PASSWORD"}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """`given`, with what follows from it; what is set already stays."""
    derived: dict[str, str] = {}
    if given.get("SLUICE_WAREHOUSE_URL"):
        derived = dbt_environment(settings.home() / "dbt_project", settings.warehouse_url())
    return {**derived, **{name: value for name, value in given.items() if name not in _PASSWORDS.values()}}


def write_passwords(given: Mapping[str, str]) -> None:
    """The passwords of the web UI's users, where Airflow looks for them. A missing one ends the start."""
    if missing := [name for name in _PASSWORDS.values() if not given.get(name)]:
        sys.exit(f"the web UI was not started: set {' and '.join(missing)} (in .env; deploy/new-env.sh makes one)")
    path = Path(given["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    write_private(path, {user: given[name] for user, name in _PASSWORDS.items()})


def forget_killed_processes(given: Mapping[str, str]) -> None:
    """Remove pid files: this is the container's first process, so whoever wrote them is dead.

    A worker that was killed would else find its own number taken after a restart, and never start again.
    """
    for path in Path(given["AIRFLOW_HOME"]).glob("*.pid"):
        path.unlink(missing_ok=True)


def main(command: list[str]) -> None:
    """Become `command`."""
    if not command:
        sys.exit("nothing to run: name a command, for example: sluice --help")
    forget_killed_processes(os.environ)
    if command[:2] == ["airflow", "api-server"]:
        write_passwords(os.environ)
    os.execvpe(command[0], command, environment(os.environ))


if __name__ == "__main__":
    main(sys.argv[1:])
