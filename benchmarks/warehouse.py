"""What a change costs in the warehouse, beside a full build and beside stock dbt.

    make bench-warehouse                      # 10 million order lines, 10 million keys: about half an hour
    make bench-warehouse ARGS='--lines 1000000 --keys 1000000'

A durable PostgreSQL 18 of its own is filled with the change logs of a shop by set-based SQL, and the real dbt project builds
all its shop models from them. Then 1 % of the rows change: a tenth of the new orders are up to 90 days late, and a tenth of
the changed customers and products have their history rewritten. Costs are seconds that sessions spent executing statements
(`pg_stat_database.active_time`, both threads together), without dbt's own time; the wall clock of the command stands beside them.

`growth` compares what the same number of changed rows costs in a shop a tenth of the size. The last line is
`warehouse: incremental=<share of full build> noop=<seconds> snapshot_vs_stock=<ratio> growth=<ratio>`; the table goes to
benchmarks/results/warehouse.md.
"""

# ruff: noqa: E501 - one SQL line is one thing

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from shop_logs import BEGIN, Logs, Size

from sluice import settings
from sluice.ledger import migrate
from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
SHOP = ("staging/shop", "intermediate/shop", "marts/shop", "marts/shared")
PARTS = ("shop", "growth", "snapshots", "facts")


@dataclass
class Cost:
    """What one dbt command took: statement seconds in the database, seconds on the wall."""

    database: float
    wall: float


@dataclass
class Report:
    """The rows of the table, as they are measured."""

    rows: list[tuple[str, Cost, str]] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, cost: Cost, note: str = "") -> Cost:
        self.rows.append((what, cost, note))
        print(f"{what}: database {cost.database:.1f} s, wall {cost.wall:.1f} s {note}", flush=True)
        return cost


class Warehouse:
    """One database of the benchmark's server, and dbt on it."""

    def __init__(self, server: EmbeddedPostgres, name: str, scratch: Path) -> None:
        self.server, self.name, self.scratch = server, name, scratch
        server.create_database(name, owner="sluice")
        self.url = server.url(name, "sluice")
        migrate(self.url)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True)

    def dbt(self, project: Path, *arguments: str) -> Cost:
        """Run a dbt command and say what it cost. One that fails ends the benchmark."""
        environment = {
            **os.environ,
            "SLUICE_DBT_HOST": "127.0.0.1",
            "SLUICE_DBT_PORT": str(self.server.port),
            "SLUICE_DBT_USER": "sluice",
            "SLUICE_DBT_PASSWORD": self.server.secrets.get("postgres_sluice"),
            "SLUICE_DBT_DATABASE": self.name,
            "SLUICE_SCHEMA_PREFIX": "",
            "SLUICE_RUN_ID": "bench",
            "DBT_TARGET_PATH": str(self.scratch / "target" / project.name),
            "DBT_LOG_PATH": str(self.scratch / "logs" / project.name),
        }
        program = str(Path(sys.executable).with_name("dbt"))
        before, started = self._active(), time.monotonic()
        done = subprocess.run(
            [program, "--quiet", *arguments, "--profiles-dir", str(settings.home() / "dbt_project")],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        wall = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"dbt {' '.join(arguments)} failed:\n{done.stdout[-4000:]}")
        return Cost(self._active() - before, wall)

    def build_shop(self) -> Cost:
        select = [f"path:models/{path}" for path in SHOP] + ["path:snapshots/shop"]
        return self.dbt(
            settings.home() / "dbt_project",
            *("build", "--select", *select, "--exclude-resource-type", "test", "unit_test"),
        )

    def slowest(self) -> str:
        """The models that took longest in their last run."""
        with self.connect() as connection:
            rows = connection.execute(
                "select model, seconds, rows_inserted, rows_deleted, keys_touched from (select distinct on (model) *"
                " from ops.model_run order by model, model_run_id desc) as last order by seconds desc limit 20"
            ).fetchall()
        return "\n".join(f"    {m:28} {s:8.2f} s  +{i} -{d} rows, {k} keys" for m, s, i, d, k in rows)

    def _active(self) -> float:
        time.sleep(1.2)  # a session reports when it is idle for a second, or ends
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            row = connection.execute(
                "select active_time / 1000 from pg_stat_database where datname = %s", [self.name]
            ).fetchone()
        return float(row[0])  # type: ignore[index]

    def drop(self) -> None:
        self.server.drop_database(self.name)


def measure_shop(server: EmbeddedPostgres, scratch: Path, report: Report, lines: int) -> None:
    """Full build, a run with 1 % changed, a run with nothing new."""
    size = Size(lines)
    shop = Warehouse(server, "shop", scratch)
    with shop.connect() as connection:
        logs = Logs(connection)
        logs.fill(size)
        full = report.add(f"full build, {lines:,} order lines", shop.build_shop())
        print(shop.slowest())
        connection.execute("vacuum analyze")
        rows = logs.change(size, lines // 100)
        part = report.add(f"run with 1 % changed ({rows:,} rows)", shop.build_shop())
        print(shop.slowest())
    noop = report.add("run with nothing new", shop.build_shop())
    shop.drop()
    report.summary["incremental"] = f"{part.database / full.database:.3f}"
    report.summary["noop"] = f"{noop.database:.1f}"
    report.summary["part"] = str(part.database)


def measure_growth(server: EmbeddedPostgres, scratch: Path, report: Report, lines: int) -> None:
    """The same number of changed rows as `measure_shop` brought, in a shop a tenth of the size."""
    size = Size(lines // 10)
    shop = Warehouse(server, "shop_small", scratch)
    with shop.connect() as connection:
        logs = Logs(connection)
        logs.fill(size)
        report.add(f"full build, {lines // 10:,} order lines", shop.build_shop())
        connection.execute("vacuum analyze")
        rows = logs.change(size, lines // 100)
    part = report.add(f"run with 10 % changed ({rows:,} rows)", shop.build_shop())
    print(shop.slowest())
    shop.drop()
    if "part" in report.summary:
        report.summary["growth"] = f"{float(report.summary['part']) / part.database:.2f}"


ENTITY = (
    "e as entity_id, 'name ' || e || ' ' || {version} as name, 'segment ' || e % 7 as segment, 'e' || e || '@example.com' as email,"
    " e % 5 > 0 as is_active, {at} as updated_at"
)


def measure_snapshots(server: EmbeddedPostgres, scratch: Path, report: Report, keys: int) -> None:
    """Ours from the change log and stock's from the current state, at `keys` and a tenth of it."""
    for count in (keys // 10, keys):
        warehouse = Warehouse(server, f"keys_{count}", scratch)
        hundredth = f"generate_series(100, {count}, 100) as e"
        with warehouse.connect() as connection:
            connection.execute("create schema bench")
            _entities(connection, f"generate_series(1, {count}) as e", 0, BEGIN)
            every = ENTITY.format(version=0, at=f"{BEGIN} + interval '1 day'")
            connection.execute(
                f"create table bench.entities_now as select {every} from generate_series(1, {count}) as e"
            )
            connection.execute("alter table bench.entities_now add primary key (entity_id)")
            connection.execute("vacuum analyze")
            ours, stock = HERE / "warehouse_projects" / "entity", HERE / "warehouse_projects" / "stock"
            report.add(f"snapshot of {count:,} keys, first", warehouse.dbt(ours, "build"))
            costs = {}
            for strategy in ("check", "timestamp"):
                report.add(
                    f"stock snapshot ({strategy}) of {count:,} keys, first",
                    warehouse.dbt(stock, "snapshot", "--select", f"snap_entities_{strategy}"),
                )
            connection.execute("vacuum analyze")
            at = f"{BEGIN} + case when e % 1000 = 0 then interval '-5 days' else interval '9 days' end"
            _entities(connection, hundredth, 1, at)
            connection.execute(
                "update bench.entities_now set name = name || ' 1', updated_at = now() where entity_id % 100 = 0"
            )
            for strategy in ("check", "timestamp"):
                costs[strategy] = report.add(
                    f"stock snapshot ({strategy}) of {count:,} keys, 1 % changed",
                    warehouse.dbt(stock, "snapshot", "--select", f"snap_entities_{strategy}"),
                )
            cost = report.add(f"snapshot of {count:,} keys, 1 % changed", warehouse.dbt(ours, "build"))
        best = min(costs.values(), key=lambda c: c.database).database
        report.summary["snapshot_vs_stock"] = f"{best / cost.database:.1f}"  # the larger one stays
        warehouse.drop()


def _entities(connection: psycopg.Connection, rows: str, version: int, at: str) -> None:
    """One batch of a change log of the shape that the loader gives."""
    connection.execute(
        "create table if not exists staging.bench__entities (entity_id bigint, name text, segment text, email text, is_active"
        " boolean, updated_at timestamptz, _batch_id bigint not null, _row_number bigint not null, _op text not null,"
        " _effective_at timestamptz not null, _sequence bigint not null, _row_hash bigint not null, _rescued jsonb)"
    )
    connection.execute("create index if not exists entities_key on staging.bench__entities (entity_id, _effective_at)")
    connection.execute("create index if not exists entities_batch on staging.bench__entities (_batch_id)")
    with connection.transaction():
        batch = connection.execute(
            "insert into ops.batch (source, table_name, unit, state, mode, run_id, rows_read, rows_applied, published_seq)"
            " values ('bench', 'entities', clock_timestamp()::text, 'published', 'cursor', 'bench', 1, 1, ops.next_seq())"
            " returning batch_id"
        ).fetchone()[0]  # type: ignore[index]
        connection.execute(
            f"insert into staging.bench__entities select *, {batch}, row_number() over (), 'upsert', updated_at, 0,"
            f" hashtextextended(name, 0), null from (select {ENTITY.format(version=version, at=at)} from {rows}) as rows"
        )


# A microbatch model recomputes the latest batches before today, and misses what is late for them. Here it is told which months the
# changes lie in: new orders are placed on the day after the history, at most 90 days late.
CHANGED_MONTHS = ("--event-time-start", "2025-10-01", "--event-time-end", "2026-02-01")


def measure_facts(server: EmbeddedPostgres, scratch: Path, report: Report, lines: int) -> None:
    """Stock's incremental strategies for the fact of order lines. They miss what the same run of ours finds: facts whose
    dimension's history changed."""
    size, part = Size(lines), Size(lines // 100)
    stock = HERE / "warehouse_projects" / "stock"
    warehouse = Warehouse(server, "stock", scratch)
    with warehouse.connect() as connection:
        logs = Logs(connection)
        connection.execute("create schema bench")
        logs.fill(size)
        _now(connection)
        select = ("--select", "snap_customers", "snap_products", "fct_merge", "fct_delete_insert", "fct_microbatch")
        warehouse.dbt(stock, "build", *select)
        connection.execute("vacuum analyze")
        logs.change(size, part.lines)
        _now(connection)
        report.add(
            "stock snapshots of customers and products, 1 % changed", warehouse.dbt(stock, "snapshot", *select[:3])
        )
        for strategy in ("merge", "delete_insert", "microbatch"):
            window = CHANGED_MONTHS if strategy == "microbatch" else ()
            cost = warehouse.dbt(stock, "run", "--select", f"fct_{strategy}", *window)
            report.add(f"stock {strategy} fact of order lines, 1 % changed", cost)
    warehouse.drop()


def _now(connection: psycopg.Connection) -> None:
    """The source's own tables, as they are at present."""
    keys = {"customers": "customer_id", "products": "product_id", "orders": "order_id", "order_lines": "order_line_id"}
    with connection.transaction():
        for name, key in keys.items():
            table = "lines_now" if name == "order_lines" else f"{name}_now"
            rows = f"select distinct on ({key}) * from staging.shop__{name} order by {key}, _effective_at desc, _row_hash desc"
            if name == "order_lines":
                rows = f"select lines.*, orders.placed_at from ({rows}) as lines join bench.orders_now as orders using (order_id)"
            connection.execute(f"create table if not exists bench.{table} as {rows} limit 0")
            connection.execute(f"truncate bench.{table}")
            connection.execute(f"insert into bench.{table} {rows}")
            connection.execute(f"create index if not exists {table}_key on bench.{table} ({key})")
            if name == "order_lines":
                connection.execute(f"create index if not exists {table}_updated on bench.{table} (updated_at)")
                connection.execute(f"create index if not exists {table}_placed on bench.{table} (placed_at)")
    connection.execute("vacuum analyze")


@contextmanager
def server(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A durable server that is gone afterwards."""
    directory.chmod(0o755)
    postgres = EmbeddedPostgres(directory / "postgres", free_port(), durable=True)
    try:
        postgres.start()
        postgres.create_role("sluice", member_of=("pg_monitor",))
        yield postgres
    finally:
        postgres.destroy()
        shutil.rmtree(directory, ignore_errors=True)


def write(report: Report, lines: int, keys: int, path: Path) -> None:
    """The table, for people."""
    path.parent.mkdir(exist_ok=True)
    text = [
        f"# make bench-warehouse: {lines:,} order lines, {keys:,} keys",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. Seconds of statements in the database, and of the command on the wall.",
        "",
        "| what | database s | wall s |",
        "|---|---:|---:|",
        *(
            f"| {what}{' ' + note if note else ''} | {cost.database:.1f} | {cost.wall:.1f} |"
            for what, cost, note in report.rows
        ),
        "",
        last_line(report),
        "",
    ]
    path.write_text("\n".join(text))


def last_line(report: Report) -> str:
    """What is compared from commit to commit; a part that was not asked for is `-`."""
    names = ("incremental", "noop", "snapshot_vs_stock", "growth")
    return "warehouse: " + " ".join(f"{name}={report.summary.get(name, '-')}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=10_000_000, help="order lines of the shop (default 10 million)")
    parser.add_argument(
        "--keys", type=int, default=10_000_000, help="keys of the largest snapshot (default 10 million)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: everything)"
    )
    parser.add_argument("--directory", type=Path, help="where the server's data goes (default: a temporary directory)")
    arguments = parser.parse_args()
    report = Report()
    directory = Path(tempfile.mkdtemp(prefix="sluice-bench-", dir=arguments.directory))
    with server(directory) as postgres:
        if "shop" in arguments.parts:
            measure_shop(postgres, directory, report, arguments.lines)
        if "growth" in arguments.parts:
            measure_growth(postgres, directory, report, arguments.lines)
        if "snapshots" in arguments.parts:
            measure_snapshots(postgres, directory, report, arguments.keys)
        if "facts" in arguments.parts:
            measure_facts(postgres, directory, report, arguments.lines)
    write(report, arguments.lines, arguments.keys, HERE / "results" / "warehouse.md")
    print(last_line(report))


if __name__ == "__main__":
    main()
