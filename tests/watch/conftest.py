"""A small declared world with a past: what the exporter, the rules and the dashboards are tried on."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.runtime.ports import free_port
from sluice.watch import exporter, record_objectives
from tests.loading.conftest import World

TABLES = """
orders:
  description: Orders.
  from: {files: {connection: drop, path: "orders.csv"}}
  mode: full
  key: [id]
  freshness: 1h
  max_quiet: 1d
  max_reject_share: 0.5
  columns:
    id: {type: bigint, required: true}
    amount: {type: numeric}
    email: {type: text, personal: true}
never:
  description: A table that nobody has read yet.
  from: {files: {connection: drop, path: "never.csv"}}
  mode: full
  key: [id]
  freshness: 1h
  columns:
    id: {type: bigint}
"""
SECRET = "canary-person@example.org"  # must appear nowhere but in the table


@pytest.fixture
def world(warehouse: psycopg.Connection, warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two declared tables: one with three rows and one in quarantine, one that was never read."""
    made = World(tmp_path, warehouse, lambda: "")
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(made.sources))
    monkeypatch.setenv("AIRFLOW_CONN_DROP", made.files.as_uri())
    made.declare(TABLES)
    made.deliver("orders.csv", f"id,amount,email\n1,10,{SECRET}\n2,20,a@x\n3,x,b@x\n4,40,c@x\n")
    made.load("orders")
    record_objectives(warehouse)
    return made


class Scraped(dict):
    """Values by metric and labels."""

    def of(self, name: str, **labels: str) -> float:
        return self[name, tuple(sorted(labels.items()))]


def scrape(port: int) -> Scraped:
    """What a Prometheus would get."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return Scraped(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


@pytest.fixture
def exporting(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The exporter over the warehouse, without a cache; its port."""
    monkeypatch.setattr(exporter.Exporter.__init__, "__defaults__", (0.0,))
    port = free_port()
    server, _ = exporter.start("127.0.0.1", port)
    yield port
    server.shutdown()
    server.server_close()
