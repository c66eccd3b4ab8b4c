"""A repository of its own, in which `sluice source add` writes and dbt builds, and a shop that is a real source."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
import uvicorn
from typer.testing import CliRunner, Result

from sluice.cli import app
from sluice.declarations import load_file
from sluice.loading import RunContext, load
from sluice.shop import Params, init
from sluice.shop.api import create_app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_connection_stays() -> Iterator[None]:
    """`source add` gives its own process the connection that it tells the user to set."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        if name.startswith("AIRFLOW_CONN_"):
            del os.environ[name]


@dataclass(frozen=True)
class Shop:
    """Three days of a small company: its database, its files, its API."""

    url: str
    files: Path
    api: str


class Home:
    """A repository without declarations: what `source add` needs of it, and what is built in it."""

    def __init__(self, folder: Path, warehouse: psycopg.Connection) -> None:
        self.folder, self.warehouse = folder, warehouse
        self.sources, self.staging = folder / "include/sources", folder / "dbt_project/models/staging"
        self.sources.mkdir(parents=True)
        self.staging.mkdir(parents=True)
        shutil.copy(ROOT / "dbt_project/dbt_project.yml", folder / "dbt_project")
        shutil.copy(ROOT / "dbt_project/models/staging/_log_columns.md", self.staging)
        (folder / "dbt_project/macros").symlink_to(ROOT / "dbt_project/macros")

    def run(self, *arguments: object) -> Result:
        """The `sluice` command, as a shell would call it."""
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def add(self, *arguments: object) -> str:
        """`sluice source add` that must succeed; returns what it said."""
        done = self.run("source", "add", *arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def refused(self, *arguments: object) -> str:
        """`sluice source add` that must refuse, and leave everything as it was; returns why."""
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        done = self.run("source", "add", *arguments)
        assert done.exit_code == 1, done.output
        assert {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()} == before
        return str(done.exception)

    def table(self, name: str):
        """A declared table."""
        source, table = name.split(".")
        return load_file(self.sources / f"{source}.yml").tables[table]

    def load(self, name: str) -> tuple[int, int]:
        """Load what is pending; returns how many rows were read, and how many rejected."""
        table = self.table(name)
        done = load(load_file(self.sources / f"{table.source}.yml"), table, RunContext("test"))
        return sum(p.rows_read for p in done), sum(p.rows_quarantined for p in done)

    def dbt(self, *arguments: str) -> None:
        """A dbt command in this repository, in this process."""
        from dbt.cli.main import dbtRunner

        places = ["--project-dir", str(self.folder / "dbt_project"), "--profiles-dir", str(ROOT / "dbt_project")]
        outcome = dbtRunner().invoke([*arguments, *places, "--quiet"])
        problems = [result.message for result in getattr(outcome.result, "results", None) or [] if result.message]
        assert outcome.success, (outcome.exception, problems)

    def lint(self) -> None:
        """What `make lint` asks of SQL and YAML, of everything that was written."""
        shutil.copy(ROOT / ".gitignore", self.folder)
        for command in (
            ["sqlfluff", "lint", "--disable-progress-bar", "--config", str(ROOT / ".sqlfluff"), str(self.staging)],
            ["yamllint", "--strict", "-c", str(ROOT / ".yamllint"), str(self.sources), str(self.staging)],
        ):
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def rows(self, query: str) -> list[tuple]:
        """What the warehouse answers."""
        return self.warehouse.execute(query).fetchall()


@pytest.fixture
def home(tmp_path: Path, warehouse: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path / "home", warehouse)
    parts = urlsplit(warehouse_url)
    for name, value in {
        "SLUICE_HOME": str(made.folder),
        "SLUICE_SOURCES_DIR": str(made.sources),
        "SLUICE_DBT_HOST": parts.hostname or "",
        "SLUICE_DBT_PORT": str(parts.port),
        "SLUICE_DBT_USER": unquote(parts.username or ""),
        "SLUICE_DBT_PASSWORD": unquote(parts.password or ""),
        "SLUICE_DBT_DATABASE": parts.path.lstrip("/"),
        "SLUICE_SCHEMA_PREFIX": "",
        "SLUICE_RUN_ID": "test",
        "DO_NOT_TRACK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(scope="session")
def company(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop, served: made once, only read."""
    url, files = postgres.database(), tmp_path_factory.mktemp("shop")
    init(url, files, Params(scale=0.2), 3)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(url, flaky=True), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Shop(url, files, f"http://127.0.0.1:{listening.getsockname()[1]}")
    server.should_exit = True
    thread.join(5)
    listening.close()
    postgres.drop(url)


@pytest.fixture
def shop(company: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop, and the connections by which it is known."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", company.url)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_FILES", f"file://{company.files}")
    monkeypatch.setenv(
        "AIRFLOW_CONN_SHOP_API",
        json.dumps(
            {"conn_type": "http", "extra": {"base_url": company.api, "headers": {"X-API-Key": "shop-demo-key"}}}
        ),
    )
    return company
