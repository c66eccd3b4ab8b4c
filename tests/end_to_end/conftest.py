"""One `make run` for all end-to-end tests: real scheduler, real PostgreSQL, real deliveries where they are at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sluice.runtime.ports import free_port
from tests.receiver import receiving

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "ourairports-2026.tar.xz"
PASS_SECONDS = 900


@dataclass
class Running:
    """A `make run` that has finished its first pass and stays up."""

    state: Path
    environment: dict[str, str]
    output: str
    process: subprocess.Popen[str]
    written: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)  # of OpenLineage, as its receiver got them

    @property
    def web_url(self) -> str:
        return self.written["SLUICE_WEB_URL"]

    @property
    def password(self) -> str:
        found = re.search(r"login admin, password (\S+?)\)", self.output)
        assert found, self.output
        return found[1]

    def query(self, statement: str, *parameters: object, database: str = "AIRFLOW_CONN_WAREHOUSE") -> list[tuple]:
        """Rows of the warehouse, or of the shop's own database."""
        with psycopg.connect(self.written[database]) as connection:
            connection.execute("set timezone = 'UTC'")
            return connection.execute(statement, parameters or None).fetchall()

    def sluice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, beside the running stack."""
        return subprocess.run(
            [sys.executable, "-m", "sluice.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def _environment(state: Path, receiver: str) -> dict[str, str]:
    """As a person has it in a shell, with ports and state that nobody else uses."""
    sources = state / "sources"  # a copy: a test may add a source of its own, and take it away again
    shutil.copytree(ROOT / "include" / "sources", sources)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "AIRFLOW_", "DBT_"))}
    ports = (
        "SLUICE_POSTGRES_PORT",
        "SLUICE_WEB_PORT",
        "SLUICE_SHOP_PORT",
        "SLUICE_DELIVERIES_PORT",
        "SLUICE_EXPORTER_PORT",
        "SLUICE_WATCHER_PORT",
    )
    return {
        **kept,
        "SLUICE_STATE_DIR": str(state),
        "SLUICE_SOURCES_DIR": str(sources),
        **{name: str(free_port()) for name in ports},
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": receiver}),
        **({"SLUICE_OURAIRPORTS_ARCHIVE": str(ARCHIVE)} if ARCHIVE.exists() else {}),
    }


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """`make run`, waited for until its first pass is over."""
    state = Path(tempfile.mkdtemp(prefix="sluice-e2e-"))
    state.chmod(0o755)
    events: list[dict[str, Any]] = []
    with receiving(events) as receiver:
        yield from _run(state, _environment(state, receiver), events)


def _run(state: Path, environment: dict[str, str], events: list[dict[str, Any]]) -> Iterator[Running]:
    log = (state / "make-run.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "sluice.runtime.run"],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = _wait_for(process, Path(log.name), "It stays up until Ctrl-C")
        written = json.loads((state / "env.json").read_text())
        yield Running(state, environment, output, process, written, events)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
        log.close()
        subprocess.run([sys.executable, "-m", "sluice.runtime.down"], cwd=ROOT, env=environment, check=False)
        shutil.rmtree(state, ignore_errors=True)


def _wait_for(process: subprocess.Popen[str], log: Path, sentence: str) -> str:
    deadline = time.monotonic() + PASS_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text()
        if sentence in text:
            return text
        if process.poll() is not None:
            pytest.fail(f"make run ended with {process.returncode}:\n{text[-6000:]}")
        time.sleep(1)
    pytest.fail(f"make run did not get so far in {PASS_SECONDS} seconds:\n{log.read_text()[-6000:]}")
