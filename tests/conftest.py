"""What every test may use: a real PostgreSQL 18 of its own, and a warehouse with an empty ledger in it."""

import itertools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbt_common.behavior_flags import BehaviorFlagRendered
from psycopg import sql

from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres

_OWNER = "sluice"
_TEMPLATE = "sluice_template"
_WAREHOUSE = "warehouse"  # the same name in every test: dbt parses a project anew when its database has another


def pytest_configure() -> None:
    """A run that is ended from outside, by CI's limit for instance, stops its servers as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    quicken_dbt()


def quicken_dbt() -> None:
    """dbt walks the stack through every loaded module for a label of its flags (`warm_dbt` says more): in a process
    that has run a hundred commands, that is most of the time of the next."""
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt.adapters")  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers, what drives a real scheduler goes first: it takes longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _worker_group(item.nodeid) != "end_to_end")


def _worker_group(nodeid: str) -> str:
    """Tests that share a costly fixture, or the machine, share a worker; all others do so by file."""
    file = nodeid.split("::")[0]
    folder = file.split("/")[1]
    if folder == "end_to_end" or file == "tests/runtime/test_run.py":
        return "end_to_end"
    return folder if folder in ("dags", "profiling", "shop") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What `-n` shares out is groups of tests. (xdist's own `loadgroup` does not see its groups under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _worker_group(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)


class PostgresForTests:
    """One server for the whole session; each call of `database()` gives a fresh, empty database."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def database(self, template: str = "template1", name: str | None = None) -> str:
        """The URL of a new database, entered as its owner: as `make run` does, without a superuser's
        rights. Copied as files, which costs less than half of what writing it to the log does."""
        name = name or f"test_{next(self._numbers)}"
        statement = sql.SQL("create database {} owner {} template {} strategy file_copy").format(
            *map(sql.Identifier, (name, _OWNER, template))
        )
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)
        return self.url(name)

    def url(self, name: str) -> str:
        """How its owner enters a database of this name."""
        return self.server.url(name, _OWNER)

    def superuser_url(self, url: str) -> str:
        """The same database as the superuser: for tests that must look into other roles' sessions."""
        return self.server.url(url.rsplit("/", 1)[1])

    def drop(self, url: str) -> None:
        """Drop what `database()` gave, with all its sessions."""
        self.server.drop_database(url.rsplit("/", 1)[1])


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """An empty directory that every account may enter: pytest's own `tmp_path` is private, a server cannot
    live there."""
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresForTests]:
    """A PostgreSQL 18 that forgets everything at the end of the session."""
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", free_port(), durable=False)
    try:
        server.start()
        server.create_role(_OWNER, member_of=("pg_monitor",))
        yield PostgresForTests(server)
    finally:
        server.destroy()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def _ledger_template(postgres: PostgresForTests) -> str:
    from sluice.ledger import migrate

    migrate(postgres.database(name=_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def warehouse_url(postgres: PostgresForTests, _ledger_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh warehouse with an empty ledger; `sluice.settings.warehouse_url()` names it too."""
    url = postgres.database(_ledger_template, _WAREHOUSE)
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", url)
    yield url
    postgres.drop(url)


@pytest.fixture
def warehouse(warehouse_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit session in the fresh warehouse."""
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True, scope="session")
def _private_state() -> Iterator[dict[str, str]]:
    """No test reads or writes the state of a `make run` on this machine. Gives our part of the environment."""
    directory = tempfile.mkdtemp(prefix="sluice-state-")
    before = os.environ.get("SLUICE_STATE_DIR")
    os.environ["SLUICE_STATE_DIR"] = directory
    yield _our_environment()
    os.environ.pop("SLUICE_STATE_DIR")
    if before:
        os.environ["SLUICE_STATE_DIR"] = before
    shutil.rmtree(directory, ignore_errors=True)


def _our_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("SLUICE_", "AIRFLOW_", "DBT_"))}


@pytest.fixture(autouse=True, scope="module")
def _no_environment_left(_private_state: dict[str, str]) -> Iterator[None]:
    """What a file's tests and fixtures set, they take back: the next file in this worker has sources of its own."""
    yield
    left = _our_environment()
    for name in left.keys() | _private_state.keys():
        os.environ.pop(name, None)
    os.environ.update(_private_state)
    names = sorted(name for name, _ in left.items() ^ _private_state.items())
    assert not names, f"left in the environment: {', '.join(names)}"


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Another session of the server writes as fast as it can, until the block ends."""
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table public.others (text text)")
            while not done.is_set():
                connection.execute("insert into public.others select repeat('x', 100) from generate_series(1, 2000)")
            connection.execute("drop table public.others")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
