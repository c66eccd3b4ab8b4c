"""A small declared world: a folder of declarations, a folder of files, a source database, and the real warehouse."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path

import psycopg
import pytest

from sluice.declarations import load_file
from sluice.loading import Published, RunContext, load


class World:
    """What a test declares, delivers and loads."""

    def __init__(self, root: Path, warehouse: psycopg.Connection, make_source: Callable[[], str]) -> None:
        self.sources, self.files = root / "sources", root / "files"
        self.sources.mkdir()
        self.files.mkdir()
        self.warehouse = warehouse
        self._make_source = make_source
        self._runs = itertools.count(1)

    @cached_property
    def source_url(self) -> str:
        """The database behind the connection `db`; made for the tests that read it."""
        return self._make_source()

    def declare(self, tables: str, *, name: str = "shop", head: str = "") -> None:
        """Write the declaration of a source; `tables` is the YAML below `tables:`."""
        text = f"source: {name}\ndescription: a test\nowner: tests\n{head}tables:\n"
        if "connection: db" in tables + head:
            self.source_url  # noqa: B018
        (self.sources / f"{name}.yml").write_text(text + textwrap.indent(textwrap.dedent(tables), "  "))

    def deliver(self, path: str, content: str | bytes) -> Path:
        """Put a file where the connection `drop` finds it."""
        target = self.files / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def load(
        self,
        table: str,
        *,
        run: str | None = None,
        interval: tuple[datetime, datetime] | None = None,
        name: str = "shop",
    ) -> list[Published]:
        """Land, audit and publish what is pending."""
        source = load_file(self.sources / f"{name}.yml")
        return load(source, source.tables[table], RunContext(run or f"test-{next(self._runs)}", interval))

    def query(self, statement: str, *parameters: object) -> list[tuple]:
        """Rows from the warehouse."""
        return self.warehouse.execute(statement, parameters or None).fetchall()

    def history(self, log: str, key: str, value: str) -> dict[object, list[tuple[datetime, object]]]:
        """What a log means: per key the instants at which its value changed, None when deleted. Not how it is
        stored."""
        rows = self.query(
            f"""
            select {key}, _effective_at, case when _op = 'upsert' then {value} end
            from staging.{log} as log
            where not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
            order by 1, 2, _sequence, _row_hash
            """
        )
        meaning: dict[object, list[tuple[datetime, object]]] = {}
        for this, instant, current in rows:
            chain = meaning.setdefault(this, [])
            if (chain[-1][1] if chain else None) != current:
                chain.append((instant, current))
        return {this: chain for this, chain in meaning.items() if chain}

    def whole_ledger(self) -> str:
        """All that the ledger says, as text."""
        tables = [name for (name,) in self.query("select tablename from pg_tables where schemaname = 'ops'")]
        return " ".join(str(self.query(f"select t::text from ops.{name} as t")) for name in tables)

    def books_balance(self) -> bool:
        """INV-1, for every batch there is."""
        return self.query(
            "select bool_and(rows_read = rows_applied + rows_unchanged + rows_duplicate + rows_quarantined + rows_late)"
            " from ops.batch where state in ('published', 'superseded')"
        ) == [(True,)]


@pytest.fixture
def world(
    tmp_path: Path, warehouse: psycopg.Connection, postgres: object, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A fresh world."""
    made = World(tmp_path, warehouse, lambda: postgres.database(name="source"))  # type: ignore[attr-defined]
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(made.sources))
    monkeypatch.setenv("AIRFLOW_CONN_DROP", f"file://{made.files}")
    monkeypatch.setenv("AIRFLOW_CONN_DB", postgres.url("source"))  # type: ignore[attr-defined]
    yield made
    if "source_url" in vars(made):
        postgres.drop(made.source_url)  # type: ignore[attr-defined]


class Killed(BaseException):
    """What a crash looks like from inside: nothing catches it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], Callable[[], int]]:
    """Crash the process, as far as the database can tell, at statement k: the session is gone without commit or
    rollback."""

    real = psycopg.Cursor.execute

    def arm(k: int | None) -> Callable[[], int]:
        count = 0

        def execute(self: psycopg.Cursor, *args: object, **kwargs: object) -> psycopg.Cursor:
            nonlocal count
            if self.connection.info.parameter_status("application_name") == "sluice":
                count += 1
                if count == k:
                    self.connection.close()
                    raise Killed
            return real(self, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(psycopg.Cursor, "execute", execute)
        return lambda: count

    return arm
