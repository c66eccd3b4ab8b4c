"""`sluice exporter`: the ledger as Prometheus metrics. It keeps serving when the ledger can't be read, and says so."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice.errors import SluiceError
from sluice.watch.metrics import Ledger, gauge

log = logging.getLogger("sluice.exporter")

PORT = 9464
CACHED = 5.0  # seconds; several servers that scrape cost one reading


class Exporter(Collector):
    """Metrics of the ledger, read at most every `cached` seconds; the last good ones while it can't be read."""

    def __init__(self, read: Callable[[], list[Metric]], cached: float = CACHED) -> None:
        self._read, self._cached = read, cached
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._asked_at = -float("inf")  # of a clock that never goes back
        self._last_success = 0.0
        self._seconds = 0.0
        self._failures = 0
        self._is_up = False

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        with self._lock:
            if time.monotonic() - self._asked_at >= self._cached:
                self._ask()
            yield from self._metrics
            yield from self._about_itself()

    def _ask(self) -> None:
        begun = time.monotonic()
        try:
            self._metrics = self._read()
            self._last_success, self._is_up = time.time(), True
        except (psycopg.Error, SluiceError, OSError) as error:
            if self._is_up or not self._failures:
                told = str(error).strip().splitlines()[:1]
                log.error("the ledger can't be read (%s); the last values are served", told)
            self._is_up, self._failures = False, self._failures + 1
        self._asked_at = time.monotonic()
        self._seconds = self._asked_at - begun

    def _about_itself(self) -> Iterator[Metric]:
        yield gauge("sluice_exporter_up", "1 if the ledger could be read; 0: all else is stale", float(self._is_up))
        yield gauge(
            "sluice_exporter_last_read_timestamp_seconds", "When the ledger was last read; 0: never", self._last_success
        )
        yield gauge("sluice_exporter_read_seconds", "How long the last reading took", self._seconds)
        yield CounterMetricFamily(
            "sluice_exporter_read_failures", "Readings that failed since the exporter started", value=self._failures
        )


def start(host: str, port: int, read: Callable[[], list[Metric]] | None = None) -> tuple[WSGIServer, threading.Thread]:
    """Serve http://host:port/metrics from threads of their own, until `shutdown()` of the server."""
    registry = CollectorRegistry(
        auto_describe=False
    )  # registering must not read: it starts although the ledger is away
    registry.register(Exporter(read or Ledger().read))
    return start_http_server(port, host, registry)
