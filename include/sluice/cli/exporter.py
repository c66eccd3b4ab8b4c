"""`sluice exporter`: metrics of the ledger, beside Airflow."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from sluice.errors import SluiceError
from sluice.watch import exporter as serving


def exporter(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on", envvar="SLUICE_EXPORTER_PORT", max=65535)
    ] = serving.PORT,
) -> None:
    """Serve what the ledger says as Prometheus metrics, at /metrics, until it is stopped.

    It needs the warehouse (SLUICE_EXPORTER_DATABASE_URL, a role that may only read, or SLUICE_WAREHOUSE_URL) and no
    Airflow. While the warehouse is away it serves the last values, with sluice_exporter_up 0.
    """
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    try:
        server, _ = serving.start(host, port)
    except OSError as error:
        raise SluiceError(
            f"the exporter can't listen on {host}:{port}: {error.strerror}; nothing was started. "
            "Name another port: --port, or SLUICE_EXPORTER_PORT"
        ) from None
    print(f"metrics at http://{host}:{port}/metrics", flush=True)
    over.wait()
    server.shutdown()
