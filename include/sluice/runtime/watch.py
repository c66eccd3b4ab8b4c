"""What watches, beside Airflow: the exporter of metrics, and the watcher that tells of incidents."""

import sys
from collections.abc import Mapping

import psycopg

from sluice import settings
from sluice.runtime.layout import Layout
from sluice.runtime.processes import Supervisor
from sluice.watch import record_objectives


def start(supervisor: Supervisor, layout: Layout, environment: Mapping[str, str], exporter_url: str) -> None:
    """Write down what is promised, and start both."""
    with psycopg.connect(settings.warehouse_url()) as connection:
        record_objectives(connection)
    command = [sys.executable, "-m", "sluice.cli", "exporter", "--port", str(layout.exporter_port)]
    supervisor.spawn("exporter", command, {**environment, "SLUICE_EXPORTER_DATABASE_URL": exporter_url}, layout.state)
    command = [sys.executable, "-m", "sluice.cli", "alert", "watch", "--port", str(layout.watcher_port)]
    supervisor.spawn("watcher", command, environment, layout.state)
