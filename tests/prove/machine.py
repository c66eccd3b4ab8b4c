"""Does to a real warehouse what a story says, by the real loader and the real dbt, and looks at what came of it."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from sluice import warehouse
from sluice.declarations import load_file
from sluice.errors import SluiceError
from sluice.ledger import migrate
from sluice.loading import RunContext, load
from sluice.loading.shape import ensure
from tests.prove import oracle
from tests.prove.oracle import Said
from tests.prove.streams import AddColumn, Build, Deliver, Example, Kill, Load

ROOT = Path(__file__).resolve().parents[2]
_TABLES = (
    "snapshots.snap_shop__customers",
    "marts.dim_customer",
    "marts.fct_order",
    "marts.fct_order_dated",
    "marts.mart_customer_day",
)
_SCHEMAS = ("landing", "staging", "snapshots", "intermediate", "marts")
_HEAD = (
    "source: shop\ndescription: a test\nowner: tests\nclock: {connection: db, query: select now from clock}\ntables:\n"
)
_FILES = {
    "full": "from: {{files: {{connection: drop, path: '{table}/{{date}}.csv'}}}}\n"
    "mode: full\ndeletes: {{max_share: 1}}",
    "append": "from: {{files: {{connection: drop, path: '{table}/{{date}}-{{part}}.jsonl', format: jsonl}}}}\n"
    "mode: append\neffective_at: at\nsequence: n\ndeleted_by: {{field: op, value: d}}",
    "cursor": "from: {{postgres: {{connection: db, table: public.{table}}}}}\n"
    "mode: cursor\ncursor: {{column: at, overlap: 600d}}\ndeletes: {{detect: key_scan, max_share: 1}}",
}
_COLUMNS = {
    "customers": {"id": "bigint", "name": "text", "phone": "text"},
    "orders": {"order_id": "bigint", "customer_id": "bigint", "amount": "numeric(12,2)", "ordered_at": "timestamptz"},
}
_EXTRA = {"full": {}, "append": {"at": "timestamptz", "n": "bigint"}, "cursor": {"at": "timestamptz"}}


class Killed(BaseException):
    """What a crash looks like from inside: nothing catches it."""


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


class Machine:
    """A warehouse, a folder of files, a source database, and dbt with its manifests in memory."""

    def __init__(self, root: Path, warehouse_url: str, source_url: str) -> None:
        self.root, self.url = root, warehouse_url
        self.ran = 0  # examples
        shutil.copytree(ROOT / "tests" / "dbt" / "project", root / "project")
        # the forms of touched_by that large facts use, over the same rows: the oracle need not know them
        shutil.copytree(Path(__file__).parent / "models", root / "project" / "models" / "marts", dirs_exist_ok=True)
        (root / "sources").mkdir()
        parts = urlsplit(warehouse_url)
        os.environ |= {
            "SLUICE_WAREHOUSE_URL": warehouse_url,
            "SLUICE_SOURCES_DIR": str(root / "sources"),
            "AIRFLOW_CONN_DROP": f"file://{root / 'files'}",
            "AIRFLOW_CONN_DB": source_url,
            "SLUICE_DBT_HOST": parts.hostname or "",
            "SLUICE_DBT_PORT": str(parts.port),
            "SLUICE_DBT_USER": unquote(parts.username or ""),
            "SLUICE_DBT_PASSWORD": unquote(parts.password or ""),
            "SLUICE_DBT_DATABASE": parts.path.lstrip("/"),
            "SLUICE_MACROS": str(ROOT / "dbt_project" / "macros"),
            "SLUICE_RUN_ID": "prove",
            "DO_NOT_TRACK": "1",
        }
        self.admin = psycopg.connect(warehouse_url, autocommit=True, options="-c client_min_messages=warning")
        self.source = psycopg.connect(source_url, autocommit=True, options="-c client_min_messages=warning")
        self.source.execute("create table clock (now timestamptz)")
        self.source.execute("insert into clock values ('2026-02-01')")
        self.source.execute(
            "create table orders (order_id bigint, customer_id bigint, amount numeric(12,2), ordered_at timestamptz,"
            " at timestamptz)"
        )
        self._manifests = {prefix: self._dbt(prefix, "parse").result for prefix in ("", "clean")}

    # -- an example ------------------------------------------------------------------------------

    def run(self, example: Example) -> None:
        """Do all steps, then everything that is still pending, and hold what is there against oracle and rebuild."""
        self.ran += 1
        self._reset(example)
        for step in example.steps:
            self._do(step)
        for table in ("customers", "orders"):
            self._load(table)
        self._build()
        self._check()

    def _reset(self, example: Example) -> None:
        self.modes = {"customers": example.customers, "orders": example.orders}
        self.delivered: dict[str, dict[tuple[int, int], Any]] = {"customers": {}, "orders": {}}
        self.has_tier = False
        self.stamps: dict[int, int] = {}  # key of a polled row → its latest stamp
        for schema in ("ops", *_SCHEMAS, *(f"clean_{name}" for name in _SCHEMAS)):
            self.admin.execute(f"drop schema if exists {schema} cascade")
        migrate(self.url)
        shutil.rmtree(self.root / "files", ignore_errors=True)
        (self.root / "files").mkdir()
        self.source.execute("truncate orders")
        self._declare()
        with warehouse.connect() as connection:  # a table that nothing was delivered of is there, and empty
            for table in self._source().tables.values():
                ensure(connection, table)

    def _source(self) -> Any:
        return load_file(self.root / "sources" / "shop.yml")

    def _declare(self) -> None:
        text = _HEAD
        for table, mode in self.modes.items():
            columns = (
                _COLUMNS[table] | _EXTRA[mode] | ({"tier": "text"} if table == "customers" and self.has_tier else {})
            )
            key = next(iter(columns))
            lines = [f"{name}: {{type: '{kind}'}}" for name, kind in columns.items()]
            body = f"description: a test\nkey: [{key}]\nmax_reject_share: 1\n{_FILES[mode].format(table=table)}\n"
            body += "columns:\n" + textwrap.indent("\n".join(lines), "  ")
            text += f"  {table}:\n{textwrap.indent(body, '    ')}\n"
        (self.root / "sources" / "shop.yml").write_text(text)

    def _do(self, step: Any) -> None:
        match step:
            case Deliver():
                self._deliver(step)
            case Load():
                self._load(step.table, step.kill)
            case Build():
                self._build(step.kill)
            case AddColumn():
                self.has_tier = True
                self._declare()

    # -- sources ---------------------------------------------------------------------------------

    def _deliver(self, step: Deliver) -> None:
        self.delivered[step.table][step.unit] = step.rows
        number, part = step.unit
        folder = self.root / "files" / step.table
        folder.mkdir(exist_ok=True)
        match self.modes[step.table]:
            case "full":
                lines = [f"{key},{name or ''},{phone}" for key, (name, phone) in step.rows.items()]
                head = "id,name,phone"
                if self.has_tier:
                    head, lines = f"{head},tier", [f"{line},gold" for line in lines]
                (folder / f"{day(number):%Y-%m-%d}.csv").write_text("\n".join([head, *lines]) + "\n")
            case "append":
                rows = (self._event(step.table, row) for row in step.rows)
                (folder / f"{day(number):%Y-%m-%d}-{part}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
            case "cursor":
                self.source.execute("update clock set now = now + interval '1 minute'")
                self.source.execute("truncate orders")
                # a stamp never goes back: of a row that says so, the version with the later one is the later
                for key, (_, at) in step.rows.items():
                    self.stamps[key] = max(at, self.stamps.get(key, at))
                rows = {key: (values, self.stamps[key]) for key, (values, _) in step.rows.items()}
                self.delivered[step.table][step.unit] = rows
                for key, ((customer, amount, ordered), at) in rows.items():
                    values = [key, customer, amount, day(ordered), day(at)]
                    self.source.execute("insert into orders values (%s, %s, %s, %s, %s)", values)

    def _event(self, table: str, row: tuple) -> dict[str, Any]:
        key, (at, n), op, *values = row
        stamp = {"at": day(at).isoformat(), "n": n, "op": op}
        if table == "customers":
            return {"id": key, "name": values[0], "phone": values[1], **stamp}
        customer, amount, ordered = values[0]
        return {
            "order_id": key,
            "customer_id": customer,
            "amount": f"{amount}.00",
            "ordered_at": day(ordered).isoformat(),
            **stamp,
        }

    # -- what may be killed ----------------------------------------------------------------------

    def _load(self, table: str, kill: Kill | None = None) -> None:
        source = self._source()
        with self._killed_loader(kill) as struck:
            try:
                load(source, source.tables[table], RunContext("prove"))
            except (Killed, SluiceError, psycopg.OperationalError):
                if not struck:
                    raise
        if kill:
            self._load(table)  # as Airflow tries a task again

    def _build(self, kill: Kill | None = None, prefix: str = "") -> None:
        with self._killed_dbt(kill) as struck:
            done = self._dbt(prefix, "build", "--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
        if not done.success and not struck:
            told = [str(result.message) for result in getattr(done.result, "results", []) if result.message]
            raise AssertionError(f"dbt: {done.exception or ''} {told}")
        if kill:
            self._build(prefix=prefix)

    def _dbt(self, prefix: str, *command: str) -> Any:
        from dbt.cli.main import dbtRunner

        os.environ["SLUICE_SCHEMA_PREFIX"] = prefix
        manifest = getattr(self, "_manifests", {}).get(prefix)
        return dbtRunner(manifest=manifest).invoke(
            [
                *command,
                *("--project-dir", str(self.root / "project"), "--profiles-dir", str(ROOT / "dbt_project")),
                *("--quiet", "--no-write-json", "--log-level-file=none", "--log-level=none", "--no-populate-cache"),
                *("--no-version-check", "--threads", "1"),
            ]
        )

    @contextmanager
    def _killed_loader(self, kill: Kill | None) -> Iterator[list[int]]:
        real, struck, count = psycopg.Cursor.execute, [], 0

        def execute(cursor: psycopg.Cursor, *args: object, **kwargs: object) -> psycopg.Cursor:
            nonlocal count
            if cursor.connection.info.parameter_status("application_name") == "sluice":
                count += 1
                if kill and count == kill.statement:
                    struck.append(count)
                    if kill.how == "process":
                        cursor.connection.close()
                        raise Killed
                    self._terminate(cursor.connection.info.backend_pid)
            return real(cursor, *args, **kwargs)  # type: ignore[arg-type]

        psycopg.Cursor.execute = execute  # type: ignore[method-assign]
        try:
            yield struck
        finally:
            psycopg.Cursor.execute = real  # type: ignore[method-assign]

    @contextmanager
    def _killed_dbt(self, kill: Kill | None) -> Iterator[list[int]]:
        from dbt.adapters.postgres.connections import PostgresConnectionManager

        real, struck, count = PostgresConnectionManager.add_query, [], 0

        def add_query(manager: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if kill and count == kill.statement:
                struck.append(count)
                handle = manager.get_thread_connection().handle
                if kill.how == "session":
                    self._terminate(handle.info.backend_pid)
                else:
                    handle.close()
            return real(manager, *args, **kwargs)

        PostgresConnectionManager.add_query = add_query  # type: ignore[method-assign]
        try:
            yield struck
        finally:
            PostgresConnectionManager.add_query = real  # type: ignore[method-assign]

    def _terminate(self, pid: int) -> None:
        self.admin.execute("select pg_terminate_backend(%s, 5000)", [pid])

    # -- what came of it -------------------------------------------------------------------------

    def _check(self) -> None:
        customers, orders = self._said("customers"), self._said("orders")
        rank = self._ranks()
        versions = oracle.snapshot(customers, rank)
        sold = oracle.current(orders, rank)
        dimension, fact = oracle.marts(versions, sold)
        held = self._staging("stg_shop__customers", "customer_id", "name, phone")
        assert held == _meaning(customers, rank), "stg_shop__customers"
        if self.modes["orders"] == "append":
            assert self._staging("stg_shop__orders", "order_id", "customer_id, amount, ordered_at") == _meaning(
                orders, rank
            )
        _same(
            "snap_shop__customers",
            self._rows(
                "select customer_id, name, phone, dbt_valid_from, dbt_valid_to, dbt_is_deleted = 'true'"
                " from snapshots.snap_shop__customers"
            ),
            versions,
        )
        _same(
            "dim_customer",
            self._rows(
                "select replace(customer_key::text, '-', ''), customer_id, name, valid_from, valid_to, is_inferred"
                " from marts.dim_customer"
            ),
            dimension,
        )
        for name in ("fct_order", "fct_order_dated"):
            _same(
                name,
                self._rows(
                    "select order_id, customer_id, replace(customer_key::text, '-', ''), amount, ordered_at"
                    f" from marts.{name}"
                ),
                fact,
            )
        assert len(fact) == len(sold), "every fact finds its dimension"
        assert self.admin.execute(
            "select count(*) from ops.batch where state in ('published', 'superseded') and"
            " rows_read <> rows_applied + rows_unchanged + rows_duplicate + rows_quarantined + rows_late"
            " or state in ('landing', 'landed', 'audited')"
        ).fetchone() == (0,)
        self._build(prefix="clean")
        for table in _TABLES:
            one, two = table, f"clean_{table}"
            differing = f"(table {one} except all table {two}) union all (table {two} except all table {one})"
            assert self.admin.execute(differing).fetchall() == [], table  # type: ignore[arg-type]

    def _said(self, table: str) -> list[Said]:
        units = self.delivered[table]
        match self.modes[table]:
            case "full":
                return oracle.of_extracts(
                    {day(number) + timedelta(days=1): rows for (number, _), rows in units.items()}
                )
            case "append":
                return [
                    Said(key, day(at), n, None if op == "d" else _values(table, values))
                    for rows in units.values()
                    for key, (at, n), op, *values in rows
                ]
        rows = units.get((0, 0), {})  # what a table that is polled held last
        return [Said(key, day(at), 0, _values(table, [values])) for key, (values, at) in rows.items()]

    def _ranks(self) -> Any:
        """How content decides: by the row's hash. One content has one hash, whatever its batch."""
        ranks: dict[tuple, int] = {}
        for table in ("customers", "orders"):
            columns = ", ".join(list(_COLUMNS[table])[1:])
            key = next(iter(_COLUMNS[table]))
            rows = self.admin.execute(
                f"select {key}, _effective_at, _sequence, {columns}, array_agg(distinct _row_hash) from"
                f" staging.shop__{table} where _op = 'upsert' group by {key}, _effective_at, _sequence, {columns}"
            )
            for number, at, n, *values, hashes in rows:
                assert len(hashes) == 1 or self.has_tier, "one content, one hash"
                ranks[table, number, _stamp(at), n, tuple(map(_plain, values))] = max(hashes)
        both = {key[1:]: value for key, value in ranks.items()}
        return lambda said: both.get((said.key, said.at, said.n, said.values), -(2**63))

    def _staging(self, view: str, key: str, values: str) -> dict[int, list[tuple]]:
        """What a log means: per key, one saying per instant, without those that repeat the one before."""
        rows = self.admin.execute(
            f"select distinct on ({key}, _effective_at) {key}, _effective_at, _op, {values} from staging.{view}"
            f" order by {key}, _effective_at, _sequence desc, _op desc, _row_hash desc"
        )
        chains: dict[int, list[tuple]] = {}
        for number, at, op, *found in rows:
            chains.setdefault(number, []).append((_stamp(at), tuple(map(_plain, found)) if op == "upsert" else None))
        return {number: reduced for number, chain in chains.items() if (reduced := _changes(chain))}

    def _rows(self, statement: str) -> list[tuple]:
        # read as text: Python has no infinity, and its own types would hide how a value is written
        cursor = self.admin.execute(f"select to_jsonb(array(select to_jsonb(r) from ({statement}) as r))")  # type: ignore[arg-type]
        names = [column.name for column in self.admin.execute(f"select * from ({statement}) as r limit 0").description]  # type: ignore[arg-type,union-attr]
        return sorted((tuple(_stamp(row[name]) for name in names) for row in cursor.fetchone()[0]), key=repr)  # type: ignore[index]


def _same(what: str, found: list[tuple], expected: set[tuple]) -> None:
    wrong, missing = set(found) - expected, expected - set(found)
    assert not wrong, f"{what} holds {sorted(wrong, key=repr)}; the oracle {sorted(missing, key=repr)}"
    assert not missing, f"{what} lacks {sorted(missing, key=repr)}"
    assert len(found) == len(expected), f"{what} holds rows twice"


def _values(table: str, values: Any) -> tuple:
    if table == "customers":
        return tuple(values)
    customer, amount, ordered = values[0]
    return customer, amount, day(ordered)


def _changes(chain: list[tuple]) -> list[tuple]:
    kept: list[tuple] = []
    for at, values in chain:
        if (kept[-1][1] if kept else None) != values:
            kept.append((at, values))
    return kept


def _meaning(said: list[Said], rank: Any) -> dict[int, list[tuple]]:
    chains = oracle.by_instant(said, rank)
    found = {key: _changes([(one.at, one.values) for one in chain]) for key, chain in chains.items()}
    return {key: chain for key, chain in found.items() if chain}


def _stamp(value: Any) -> Any:
    if value == "infinity":
        return oracle.END
    if value == "-infinity":
        return oracle.BEGINNING
    if isinstance(value, str) and value[:4].isdigit() and "T" in value:
        return datetime.fromisoformat(value).astimezone(UTC)
    return value.astimezone(UTC) if isinstance(value, datetime) else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal | float):
        return int(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value
