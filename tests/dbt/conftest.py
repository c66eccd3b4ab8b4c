"""A small dbt project over hand-written change logs, run by the real dbt on a real Postgres."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from sluice.ledger import migrate

ROOT = Path(__file__).resolve().parents[2]
_LOG = (
    "_batch_id bigint not null, _row_number bigint not null, _op text not null, _effective_at timestamptz not null,"
    " _sequence bigint not null, _row_hash bigint not null, _rescued jsonb"
)


@dataclass
class Result:
    """What a dbt command did."""

    success: bool
    messages: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.messages)


class Small:
    """The project, its logs, and a way to run dbt."""

    def __init__(self, folder: Path, warehouse: psycopg.Connection) -> None:
        self.folder, self.warehouse, self.profiles = folder, warehouse, ROOT / "dbt_project"
        self.manifests: dict[str, Any] = {}  # prefix → the parsed project, where it does not change
        self.create_logs()

    def create_logs(self) -> None:
        """The two logs, empty."""
        self.warehouse.execute(f"create table staging.shop__customers (id bigint, name text, phone text, {_LOG})")
        self.warehouse.execute(
            f"create table staging.shop__orders (order_id bigint, customer_id bigint, amount numeric(12,2),"
            f" ordered_at timestamptz, {_LOG})"
        )

    def publish(self, table: str, rows: list[tuple], *, unit: str = "u", supersedes: int | None = None) -> int:
        """Put rows into a log as the loader does: (op, effective at, *business columns). Returns the batch's id."""
        with self.warehouse.transaction():
            seq = self.warehouse.execute("select ops.next_seq()").fetchone()[0]  # type: ignore[index]
            batch = self.warehouse.execute(
                "insert into ops.batch (source, table_name, unit, state, mode, run_id, rows_read, rows_applied, "
                "published_seq)"
                " values ('shop', %s, %s, 'published', 'append', 'test', %s, %s, %s) returning batch_id",
                [table, unit, len(rows), len(rows), seq],
            ).fetchone()[0]  # type: ignore[index]
            for number, (op, at, *values) in enumerate(rows, start=1):
                marks = ", ".join(["%s"] * len(values))
                self.warehouse.execute(
                    f"insert into staging.shop__{table} values"
                    f" ({marks}, %s, %s, %s, %s, 0, hashtextextended(%s, 0), null)",
                    [*values, batch, number, op, at, repr((op, values))],
                )
            if supersedes is not None:
                self.warehouse.execute(
                    "update ops.batch set state = 'superseded', superseded_seq = %s, superseded_by = %s where "
                    "batch_id = %s",
                    [seq, batch, supersedes],
                )
        return int(batch)

    def dbt(self, *arguments: str, prefix: str = "") -> Result:
        """Run a dbt command in this process."""
        from dbt.cli.main import dbtRunner

        os.environ["SLUICE_SCHEMA_PREFIX"] = prefix
        messages: list[str] = []

        def hear(event: object) -> None:
            if event.info.level in ("warn", "error"):  # type: ignore[attr-defined]
                messages.append(str(event.info.msg))  # type: ignore[attr-defined]

        options = ["--project-dir", str(self.folder), "--profiles-dir", str(self.profiles), "--quiet"]
        if prefix in self.manifests:
            options += ["--no-write-json", "--log-level-file=none", "--no-version-check"]
        outcome = dbtRunner(manifest=self.manifests.get(prefix), callbacks=[hear]).invoke([*arguments, *options])
        if outcome.exception:
            messages.append(str(outcome.exception))
        for result in getattr(outcome.result, "results", None) or []:
            if result.message and str(result.status) in ("error", "fail"):
                messages.append(str(result.message))
        return Result(bool(outcome.success), messages)

    def build(self, *arguments: str, prefix: str = "") -> None:
        """`dbt build` that must succeed."""
        done = self.dbt("build", *arguments, prefix=prefix)
        assert done.success, done.text

    def query(self, statement: str) -> list[tuple]:
        return self.warehouse.execute(statement).fetchall()

    def chain(self, customer: int) -> list[tuple]:
        """A customer's versions while it is there: name, phone, from and to as days of January."""
        return self.query(
            "select name, phone, coalesce(extract(day from nullif(dbt_valid_from, '-infinity'))::int, 0),"
            " coalesce(extract(day from nullif(dbt_valid_to, 'infinity'))::int, 99)"
            f" from snapshots.snap_shop__customers where customer_id = {customer} and dbt_is_deleted = 'false' order "
            f"by dbt_valid_from"
        )


def _environment(warehouse_url: str) -> dict[str, str]:
    parts = urlsplit(warehouse_url)
    return {
        "SLUICE_DBT_HOST": parts.hostname or "",
        "SLUICE_DBT_PORT": str(parts.port),
        "SLUICE_DBT_USER": unquote(parts.username or ""),
        "SLUICE_DBT_PASSWORD": unquote(parts.password or ""),
        "SLUICE_DBT_DATABASE": parts.path.lstrip("/"),
        "SLUICE_MACROS": str(ROOT / "dbt_project" / "macros"),
        "SLUICE_SCHEMA_PREFIX": "",
        "SLUICE_RUN_ID": "test",
        "DO_NOT_TRACK": "1",
    }


@pytest.fixture
def small(
    tmp_path: Path, warehouse: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch, parsed: Path
) -> Iterator[Small]:
    """The project in a folder and a warehouse of its own; a test may change both."""
    folder = tmp_path / "project"
    shutil.copytree(Path(__file__).parent / "project", folder)
    for name, value in _environment(warehouse_url).items():
        monkeypatch.setenv(name, value)
    made = Small(folder, warehouse)
    shutil.copytree(_parsed_project(made, parsed), folder / "target", dirs_exist_ok=True)
    return made


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What dbt knows of the project once it was parsed; a test that changes a file has that file parsed again."""
    return tmp_path_factory.mktemp("parsed")


def _parsed_project(small: Small, parsed: Path) -> Path:
    state = Path("target", "partial_parse.msgpack")
    if not (parsed / state.name).exists():
        assert small.dbt("parse").success
        shutil.copy(small.folder / state, parsed)
    return parsed


@pytest.fixture(scope="session")
def _shared(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Small, str]]:
    url = postgres.database()
    migrate(url)
    folder = tmp_path_factory.mktemp("shared") / "project"
    shutil.copytree(Path(__file__).parent / "project", folder)
    with psycopg.connect(url, autocommit=True) as warehouse:
        made = Small(folder, warehouse)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _environment(url).items():
                patch.setenv(name, value)
            for prefix in ("", "clean"):
                patch.setenv("SLUICE_SCHEMA_PREFIX", prefix)
                from dbt.cli.main import dbtRunner

                options = ["--project-dir", str(folder), "--profiles-dir", str(ROOT / "dbt_project"), "--quiet"]
                made.manifests[prefix] = dbtRunner().invoke(["parse", *options]).result
        yield made, url
    postgres.drop(url)


@pytest.fixture
def shared(_shared: tuple[Small, str], monkeypatch: pytest.MonkeyPatch) -> Small:
    """The project as it stands, parsed once, over an empty warehouse: a run takes a fraction of the time."""
    return anew(*_shared, monkeypatch)


def anew(made: Small, url: str, monkeypatch: pytest.MonkeyPatch) -> Small:
    """The shared project over a warehouse that is empty again."""
    for name, value in {**_environment(url), "SLUICE_WAREHOUSE_URL": url}.items():
        monkeypatch.setenv(name, value)
    for schema in (
        "ops",
        "landing",
        "rebuild",
        *(f"{p}{s}" for p in ("", "clean_") for s in ("staging", "snapshots", "marts")),
    ):
        made.warehouse.execute(f"drop schema if exists {schema} cascade")
    migrate(url)
    made.create_logs()
    return made


def as_the_project(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the small project as if it were the repository's, with personal texts, and no
    declarations yet."""
    sources = small.folder / "sources"
    sources.mkdir()
    monkeypatch.setenv("SLUICE_DBT_PROJECT", str(small.folder))
    monkeypatch.setenv("DBT_PROFILES_DIR", str(ROOT / "dbt_project"))
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(sources))
    path = small.folder / "models" / "marts" / "m.yml"
    path.write_text(path.read_text().replace("data_type: text}", "data_type: text, config: {meta: {personal: true}}}"))
