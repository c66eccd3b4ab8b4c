"""Where everything of one local installation lies, and which ports it takes."""

import os
from dataclasses import dataclass
from pathlib import Path

from sluice import settings
from sluice.runtime.faults import RuntimeFault


@dataclass(frozen=True)
class Layout:
    """Paths and ports, each with the variable that moves it."""

    home: Path
    state: Path
    postgres_port: int
    web_port: int
    shop_port: int
    deliveries_port: int
    exporter_port: int
    watcher_port: int

    @classmethod
    def from_environment(cls) -> "Layout":
        """As the variables say; a port that is no port is a fault."""
        return cls(
            home=settings.home(),
            state=settings.state_dir(),
            postgres_port=_port("SLUICE_POSTGRES_PORT", 55432),
            web_port=_port("SLUICE_WEB_PORT", 8080),
            shop_port=_port("SLUICE_SHOP_PORT", 8099),
            deliveries_port=_port("SLUICE_DELIVERIES_PORT", 8098),
            exporter_port=_port("SLUICE_EXPORTER_PORT", 9464),
            watcher_port=_port("SLUICE_WATCHER_PORT", 9465),
        )

    @property
    def logs(self) -> Path:
        """Logs of the components, and below `tasks/` of every task."""
        return self.state / "logs"

    @property
    def airflow_home(self) -> Path:
        """What Airflow calls AIRFLOW_HOME."""
        return self.state / "airflow"

    @property
    def dags(self) -> Path:
        """Airflow's DAGS_FOLDER."""
        return self.home / "dags"

    @property
    def dbt_project(self) -> Path:
        """The dbt project."""
        return self.home / "dbt_project"

    @property
    def dbt_target(self) -> Path:
        """Where the manifest is that the running DAGs use; a `dbt build` from a shell writes elsewhere."""
        return self.state / "dbt"

    @property
    def shop_files(self) -> Path:
        """Where the demo shop drops its files."""
        return self.state / "shop" / "files"

    @property
    def env_file(self) -> Path:
        """The variables that shells, dbt and the `sluice` command read when they are not set."""
        return self.state / "env.json"

    @property
    def run_file(self) -> Path:
        """Which processes a running stack consists of."""
        return self.state / "run.json"

    @property
    def web_url(self) -> str:
        """Where the web UI answers."""
        return f"http://127.0.0.1:{self.web_port}"


def number(name: str, default: int) -> int:
    """A whole number from the environment."""
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise RuntimeFault(f"{name} is {text!r}, which is not a whole number; nothing was started.") from None


def _port(name: str, default: int) -> int:
    port = number(name, default)
    if not 0 < port < 65_536:
        raise RuntimeFault(f"{name} is {port}, which is not a port (1 to 65535); nothing was started.")
    return port
