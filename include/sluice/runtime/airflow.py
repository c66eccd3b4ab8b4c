"""The Airflow stack on one machine: its settings, its metadata database, and its four components."""

import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sluice import settings
from sluice.declarations import load_folder
from sluice.declarations.pools import required_pools
from sluice.runtime import ports
from sluice.runtime.airflow_api import AirflowApi
from sluice.runtime.faults import RuntimeFault, last_lines
from sluice.runtime.layout import Layout
from sluice.runtime.processes import Supervisor
from sluice.runtime.secretstore import SecretStore, write_private

ADMIN = "admin"
VIEWER = "viewer"
# The log servers of scheduler and triggerer are off: everything is on this machine, so the api-server reads
# the files.
_COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
_HEALTHY_WITHIN_SECONDS = 240
_NO_TELEMETRY = {
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "true",
    "GX_ANALYTICS_ENABLED": "false",
}

Note = Callable[[str], None]


class AirflowStack:
    """Airflow 3 as four processes, with users `admin` and `viewer`.

    Every setting here is a default: an AIRFLOW__… variable that is set already wins.
    """

    def __init__(self, layout: Layout, metadata_url: str, environment: Mapping[str, str]) -> None:
        self.layout = layout
        self.secrets = SecretStore(layout.state)
        self.metadata_url = metadata_url
        self._environment = dict(environment)

    def environment(self) -> dict[str, str]:
        """What every component, and any `airflow` command beside them, must have set."""
        defaults = {**_NO_TELEMETRY, **self._paths(), **self._core(), **self._web()}
        inherited = {**os.environ, **self._environment}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
        python_path = os.pathsep.join(filter(None, [str(self.layout.home / "config"), inherited.get("PYTHONPATH")]))
        return {**defaults, **inherited, "PATH": path, "PYTHONPATH": python_path}

    def _paths(self) -> dict[str, str]:
        return {
            "AIRFLOW_HOME": str(self.layout.airflow_home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.layout.dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.layout.home / "plugins"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.layout.logs / "tasks"),
            "AIRFLOW__COSMOS__CACHE_DIR": str(self.layout.state / "cosmos"),
            # the provider's own default: cosmos warns where it finds none
            "AIRFLOW__OPENLINEAGE__NAMESPACE": os.environ.get("OPENLINEAGE_NAMESPACE") or "default",
            "SLUICE_HOME": str(self.layout.home),
            "SLUICE_STATE_DIR": str(self.layout.state),
            # of its own, so that a `dbt build` from a shell can't replace the manifest under running tasks
            "SLUICE_DBT_MANIFEST": str(self.layout.dbt_target / "manifest.json"),
            "SLUICE_PRELOAD": "1",  # see config/airflow_local_settings.py
        }

    def _core(self) -> dict[str, str]:
        fernet = self.secrets.get("airflow_fernet_key", lambda: base64.urlsafe_b64encode(os.urandom(32)).decode())
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy(self.metadata_url),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": fernet,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.layout.web_url}/execution/",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",  # the default hides a new file for five minutes
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",  # the default adds a second to each level of a DAG
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",  # the default sees a failed task 5 seconds late
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        }

    def _web(self) -> dict[str, str]:
        return {
            "AIRFLOW__API__HOST": ports.LOCAL,
            "AIRFLOW__API__PORT": str(self.layout.web_port),
            "AIRFLOW__API__BASE_URL": self.layout.web_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": self.secrets.get("airflow_secret_key", lambda: secrets.token_hex(32)),
            # one for all components, and long enough for HS512
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secrets.get("airflow_jwt_secret", lambda: secrets.token_hex(64)),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin,{VIEWER}:viewer",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords_file),
        }

    @property
    def _passwords_file(self) -> Path:
        return self.layout.airflow_home / "passwords.json"

    def password(self, user: str) -> str:
        """The generated password of a user of the web UI."""
        return self.secrets.get(f"airflow_{user}")

    def prepare(self) -> None:
        """Create or upgrade the metadata database, and write the passwords where Airflow looks for them."""
        write_private(self._passwords_file, {user: self.password(user) for user in (ADMIN, VIEWER)})
        log = self.layout.logs / "db-migrate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            done = subprocess.run(
                _airflow("db", "migrate"),
                env=self.environment(),
                cwd=self.layout.state,
                stdout=output,
                stderr=output,
            )
        if done.returncode:
            raise RuntimeFault(f"Airflow's metadata database could not be prepared; {log} ends:\n{last_lines(log)}")

    def start(self, supervisor: Supervisor, note: Note) -> None:
        """Start the four components and return when all are healthy; `note` hears what is still awaited."""
        if not ports.is_free(self.layout.web_port):
            raise ports.busy(self.layout.web_port, "Airflow's web UI", "SLUICE_WEB_PORT")
        environment = self.environment()
        for name, arguments in _COMPONENTS.items():
            supervisor.spawn(name, _airflow(*arguments), environment, self.layout.state)
        self._wait_until_healthy(supervisor, note)
        with self.api() as api:
            api.write_pools(required_pools(load_folder(settings.sources_dir()).sources.values()))

    def _wait_until_healthy(self, supervisor: Supervisor, note: Note) -> None:
        needed = {"metadatabase", "scheduler", "dag_processor", "triggerer"}
        started = time.monotonic()
        with self.api() as api:
            while missing := sorted(needed - {name for name, state in api.health().items() if state == "healthy"}):
                supervisor.check()
                waited = time.monotonic() - started
                if waited > _HEALTHY_WITHIN_SECONDS:
                    raise RuntimeFault(
                        f"Airflow is not healthy after {waited:.0f} seconds; still missing: "
                        f"{', '.join(missing)}. "
                        f"See the logs in {self.layout.logs}"
                    )
                awaited = "api-server" if missing == sorted(needed) else ", ".join(missing)
                note(f"waiting for {awaited}")
                time.sleep(0.5)

    def api(self) -> AirflowApi:
        """A client with the administrator's rights."""
        return AirflowApi(self.layout.web_url, ADMIN, self.password(ADMIN))


def given_metadata_url() -> str:
    """The metadata database that the user named; empty means that ours is to be used."""
    return os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "")


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def sqlalchemy(url: str) -> str:
    """Airflow's own tables are used through psycopg2."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)
