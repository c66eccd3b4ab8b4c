"""A durable PostgreSQL of the benchmark's own, the same for everybody: targets, the source of Postgres→Postgres."""

from __future__ import annotations

import itertools
from pathlib import Path

import psutil
import psycopg

from sluice.ledger import migrate
from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres

LINEITEM = """
    l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber integer,
    l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2),
    l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, l_receiptdate date,
    l_shipinstruct text, l_shipmode text, l_comment text
"""
_TABLES = f"""
    create schema bench;
    create table bench.lineitem ({LINEITEM});
    create table bench.lineitem_stamped ({LINEITEM}, updated_at timestamptz);
"""
_OWNER = "bench"


class Server:
    """One cluster, made for a run of the benchmark and destroyed after it."""

    def __init__(self, directory: Path) -> None:
        _cluster(directory).destroy()  # of a run that was killed
        self._postgres = _cluster(directory)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start it, with what every run begins with: for us an empty warehouse, for the others empty tables."""
        self._postgres.start()
        self._postgres.create_role(_OWNER, member_of=("pg_read_all_stats",))
        self.create("warehouse")
        migrate(self.url("warehouse"))
        self.create("plain")
        self.execute("plain", _TABLES)

    def destroy(self) -> None:
        """Stop it and remove its data."""
        self._postgres.destroy()

    @property
    def psql(self) -> Path:
        """The program `psql` of the same version."""
        return self._postgres.programs / "psql"

    @property
    def version(self) -> str:
        """The server's version."""
        with psycopg.connect(self.admin_url) as connection:
            return str(connection.execute("show server_version").fetchone()[0])  # type: ignore[index]

    @property
    def admin_url(self) -> str:
        """The superuser's, for looking at the server."""
        return self._postgres.url("postgres")

    @property
    def postmaster(self) -> psutil.Process:
        """The process above all its sessions."""
        return psutil.Process(int((self._postgres.data_dir / "postmaster.pid").read_text().splitlines()[0]))

    def url(self, database: str) -> str:
        """A database as its owner enters it."""
        return self._postgres.url(database, _OWNER)

    def create(self, database: str, template: str | None = None) -> None:
        """A database of the given name, once or again."""
        self._postgres.create_database(database, owner=_OWNER, template=template)

    def fresh(self, template: str) -> str:
        """The name of a new copy of `template`. Nobody pays for what an earlier run left to be written."""
        name = f"target_{next(self._numbers)}"
        self.create(name, template)
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute("checkpoint")
        return name

    def drop(self, database: str) -> None:
        """Remove a database."""
        self._postgres.drop_database(database)

    def execute(self, database: str, statements: str) -> None:
        """Run statements, each in its own transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statements.encode())

    def count(self, database: str, relation: str) -> int:
        """How many rows a table holds."""
        with psycopg.connect(self.url(database)) as connection:
            return int(connection.execute(f"select count(*) from {relation}".encode()).fetchone()[0])  # type: ignore[index]


def _cluster(directory: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(directory / "postgres", free_port(), state_dir=directory, durable=True)
