"""A small dbt project over hand-written change logs, run by the real dbt on a real Postgres."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

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
        self.folder, self.warehouse = folder, warehouse
        warehouse.execute(f"create table staging.shop__customers (id bigint, name text, phone text, {_LOG})")
        warehouse.execute(
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

        outcome = dbtRunner(callbacks=[hear]).invoke(
            [*arguments, "--project-dir", str(self.folder), "--profiles-dir", str(ROOT / "dbt_project"), "--quiet"]
        )
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


@pytest.fixture
def small(
    tmp_path: Path, warehouse: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Small]:
    folder = tmp_path / "project"
    shutil.copytree(Path(__file__).parent / "project", folder)
    parts = urlsplit(warehouse_url)
    for name, value in {
        "HOST": parts.hostname or "",
        "PORT": str(parts.port),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "DATABASE": parts.path.lstrip("/"),
    }.items():
        monkeypatch.setenv(f"SLUICE_DBT_{name}", value)
    monkeypatch.setenv("SLUICE_MACROS", str(ROOT / "dbt_project" / "macros"))
    monkeypatch.setenv("SLUICE_SCHEMA_PREFIX", "")
    monkeypatch.setenv("SLUICE_RUN_ID", "test")
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    return Small(folder, warehouse)
