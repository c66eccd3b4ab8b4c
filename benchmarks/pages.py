"""How long a page takes at 200 tables and 400 days of history. `make bench-pages`.

A ledger of that size is made by set-based SQL: a batch per table and day with eight checks, four runs a day of each of
250 models with their gates, 100 000 rejected rows. Then every page is asked for, from the address to the last byte of
HTML, in this process; what a network adds is not in it. The last line is `pages: p95=<ms> slowest=<page>`; exit code 1
if a page's p95 is above the budget.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sluice import settings
from sluice.declarations import load_folder
from sluice.ledger import migrate
from sluice.reports import lineage
from sluice.reports.project import read_project
from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres
from tests.pages.projects import model, write

SOURCES, TABLES, DAYS, RUNS_A_DAY = 10, 20, 400, 4
BUDGET_MS = 300
_LEDGER = """
insert into ops.batch (
    source, table_name, unit, state, mode, run_id, effective_at, bytes_read, rows_read, rows_applied, rows_unchanged,
    rows_quarantined, started_at, landed_at, audited_at, published_at, published_seq, seconds, wal_bytes
)
select
    's' || (t %% {sources}), 't' || t, 'day ' || d, 'published', 'append', 'scheduled__' || d, at, 100000, 1000, 900,
    90, 10, at, at + interval '3 s', at + interval '4 s', at + interval '5 s',
    row_number() over (order by d, t), 3.5, 200000
from generate_series(0, {tables} - 1) as t, generate_series(0, {days} - 1) as d,
    lateral (select now() - make_interval(days => {days} - 1 - d::int, hours => 1) as at) as instant;

update ops.clock set seq = (select max(published_seq) from ops.batch) + 1;

insert into ops.table_read (source, table_name, read_at, run_id)
select source, table_name, max(published_at), 'x' from ops.batch group by 1, 2;

insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed, batch_id, checked_at)
select run_id, 'batch', 'check_' || n, source || '.' || table_name, 'block', 'pass', '1', batch_id, audited_at
from ops.batch, generate_series(1, 8) as n;

insert into ops.model_run (
    run_id, model, relation, state, rows_inserted, rows_deleted, checks, seconds, started_at, committed_at, wal_bytes
)
select
    'run ' || r, model, relation, 'success', 100, 10, '[{{"name": "unique", "verdict": "pass", "failures": 0}}]', 1.5,
    at, at + interval '2 s', 100000
from unnest(%(models)s::text[], %(relations)s::text[]) as built (model, relation),
    generate_series(0, {days} * {runs} - 1) as r,
    lateral (select now() - make_interval(hours => 6 * ({days} * {runs} - 1 - r::int)) as at) as instant;

insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed, checked_at)
select run_id, 'marts', 'model_has_a_result', relation, 'block', 'pass', '1', committed_at
from ops.model_run;

insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed, checked_at)
select
    'run ' || r, 'staging', 'books_balance', 'staging.s' || (t %% {sources}) || '__t' || t, 'block', 'pass', '0',
    now() - make_interval(hours => 6 * ({days} * {runs} - 1 - r::int))
from generate_series(0, {tables} - 1) as t, generate_series(0, {days} * {runs} - 1) as r;

insert into ops.quarantine (batch_id, source, table_name, row_number, column_name, code, reason, raw, state)
select
    batch_id, source, table_name, n, 'c1', 'TYPE', 'c1 is not of type bigint', '{{"c1": "x", "c2": "y"}}',
    case when batch_id %% 10 = 0 then 'open' else 'replayed' end
from ops.batch, generate_series(1, 5) as n where batch_id %% 4 = 0;

insert into ops.model_watermark (relation, input, seq)
select relation, 'stg_' || replace(split_part(relation, '.', 2), 'snap_', ''), 1000000000
from unnest(%(relations)s::text[]) as built (relation);

insert into ops.relation_size (relation, measured_on, bytes, rows)
select relation, current_date - d, 1000000 + d, 1000
from unnest(%(relations)s::text[]) as built (relation), generate_series(0, {days} - 1) as d;

insert into ops.column_profile (
    relation, column_name, position, type, rows, null_share, distinct_count, minimum, maximum, bins
)
select
    relation, 'c' || n, n, 'integer', 1000, 0.1, 100, '1', '16',
    (select jsonb_agg(b / 136.0) from generate_series(1, 16) as b)
from unnest(%(relations)s::text[]) as built (relation), generate_series(1, 10) as n;
"""


def declare(folder: Path) -> None:
    """200 tables with ten columns each, in ten sources."""
    for s in range(SOURCES):
        text = f"source: s{s}\ndescription: a source\nowner: team\nstart: 2026-01-01\ntables:\n"
        for t in range(s, SOURCES * TABLES, SOURCES):
            text += (
                f"  t{t}:\n    description: Table {t}.\n    mode: append\n    key: [c1]\n    freshness: 2d\n"
                f'    from: {{files: {{connection: drop, path: "t{t}_{{date}}.csv", format: csv}}}}\n    columns:\n'
            ) + "".join(f"      c{n}: {{type: text, description: Column {n}}}\n" for n in range(1, 11))
        (folder / f"s{s}.yml").write_text(text)


def manifest(path: Path) -> list[tuple[str, str]]:
    """A view and a snapshot per table, and a mart over each four; returns the models that have rows."""
    columns = [f"c{n}" for n in range(1, 11)]
    models = []
    for t in range(SOURCES * TABLES):
        log = f"s{t % SOURCES}__t{t}"
        tests = [("not_null", column) for column in columns[:3]]
        models.append(
            model(f"stg_{log}", "staging", logs=[log.replace("__", ".")], columns=columns, tests=tests,
                  sql=f"select c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 from staging.{log}")
        )  # fmt: skip
        models.append(model(f"snap_{log}", "snapshots", inputs=[f"stg_{log}"], columns=columns, tests=tests))
    for m in range(50):
        given = [f"snap_s{t % SOURCES}__t{t}" for t in range(4 * m, 4 * m + 4)]
        picked = ", ".join(f"a{n // 3}.c{n + 1}" for n in range(10))
        joins = " ".join(f"join snapshots.{name} as a{n} on a{n}.c1 = a0.c1" for n, name in enumerate(given) if n)
        models.append(
            model(f"fct_{m}", "marts", inputs=given, columns=columns, tests=[("not_null", "c1")],
                  sql=f"select {picked} from snapshots.{given[0]} as a0 {joins}")
        )  # fmt: skip
    write(path, models)
    return [(each["name"], f"{each['schema']}.{each['alias']}") for each in models if each["schema"] != "staging"]


def main() -> int:
    """Build, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often each page is asked for")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="sluice-bench-pages-") as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "sources").mkdir()
        server = EmbeddedPostgres(root / "postgres", free_port(), durable=False)
        try:
            server.start()
            server.create_role("sluice", member_of=("pg_monitor",))
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute("create database warehouse owner sluice")
            os.environ.update(
                SLUICE_WAREHOUSE_URL=server.url("warehouse", "sluice"),
                SLUICE_SOURCES_DIR=str(root / "sources"),
                SLUICE_STATE_DIR=str(root / "state"),
                SLUICE_DBT_MANIFEST=str(root / "manifest.json"),
            )
            declare(root / "sources")
            models = manifest(root / "manifest.json")
            fill(os.environ["SLUICE_WAREHOUSE_URL"], models)
            lineage.write(lineage.build(read_project(), load_folder(settings.sources_dir()).sources.values()))
            return measure(rounds)
        finally:
            server.destroy()


def fill(url: str, models: list[tuple[str, str]]) -> None:
    """The ledger of 400 days."""
    migrate(url)
    text = _LEDGER.format(sources=SOURCES, tables=SOURCES * TABLES, days=DAYS, runs=RUNS_A_DAY)
    given = {"models": [name for name, _ in models], "relations": [relation for _, relation in models]}
    start = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in text.split(";\n"):
            if statement.strip():
                connection.execute(statement, given)
        connection.execute("vacuum analyze")
        rows = {
            table: connection.execute(f"select count(*) from ops.{table}").fetchone()[0]  # type: ignore[index]
            for table in ("batch", "gate_result", "model_run", "quarantine")
        }
    told = ", ".join(f"{count:,} of ops.{table}" for table, count in rows.items())
    print(f"a ledger of {told} in {time.perf_counter() - start:.0f} s")


def measure(rounds: int) -> int:
    """Ask for each page, the first time apart; a page with other than 200 counts as failed."""
    from sluice_airflow.pages.app import create_app

    class Everyone:
        name = "bench"

        def may_read(self, source: str | None = None) -> bool:
            return True

        may_change = may_see_personal = may_read

    async def access(request: object) -> Everyone:
        return Everyone()

    client = TestClient(create_app(access, "bench"))
    pages = {
        "board": "/",
        "batches": "/batches",
        "batches of a table": "/batches?table=s1.t1",
        "batches of a day": "/batches?day=2026-11-01&state=published",
        "batch": "/batches/79999",
        "quarantine": "/quarantine",
        "quarantine of a table": "/quarantine?table=s0.t0&code=TYPE",
        "row": "/quarantine/1000",
        "lineage": "/lineage",
        "lineage of a table": "/lineage?table=marts.fct_1",
        "lineage of a column": "/lineage?table=s0.t0&column=c1",
        "catalogue": "/catalogue",
        "table": "/catalogue/marts.fct_1",
        "cost": "/cost",
        "board as JSON": "/api/board",
        "lineage as JSON": "/api/lineage",
        "cost as JSON": "/api/cost",
    }
    found: dict[str, float] = {}
    print(f"{'page':24}{'first':>8}{'median':>8}{'p95':>8}  ms; kB of answer")
    for name, path in pages.items():
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            answer = client.get(path)
            times.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 200, (name, answer.status_code, answer.text[:2000])
        first, rest = times[0], sorted(times[1:])
        found[name] = rest[min(len(rest) - 1, int(len(rest) * 0.95))]
        size = len(answer.content) / 1000
        print(f"{name:24}{first:8.0f}{statistics.median(rest):8.0f}{found[name]:8.0f}  {size:.0f}")
    slowest = max(found, key=lambda name: found[name])
    print(f"pages: p95={found[slowest]:.0f} slowest={slowest}")
    return 0 if found[slowest] <= BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
