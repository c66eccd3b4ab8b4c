"""The rounds of the benchmark: everybody in turn with each format, then what is measured beside it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

from loadbench import contenders, declarations, report
from loadbench.contenders import SLOW_ROWS, Contender, Job
from loadbench.environments import Environments
from loadbench.measure import Meter, Run
from loadbench.report import Results, Row
from loadbench.warehouse import Server
from sluice import settings

_LIMIT = 900.0  # seconds for one run
_OURS = ("landed", "audited")  # what counts as loading; publication is shown beside it
_COPY_ALL = r"""
create unlogged table bench.incoming (like bench.lineitem);
\copy bench.incoming from '{origin}' (format csv, header)
analyze bench.incoming;
begin;
delete from bench.lineitem as known where not exists (
    select from bench.incoming as new
    where new.l_orderkey = known.l_orderkey and new.l_linenumber = known.l_linenumber
);
insert into bench.lineitem
select new.*
from bench.incoming as new
left join bench.lineitem as known using (l_orderkey, l_linenumber)
where new is distinct from known
on conflict (l_orderkey, l_linenumber) do update set
    l_partkey = excluded.l_partkey, l_suppkey = excluded.l_suppkey, l_quantity = excluded.l_quantity,
    l_extendedprice = excluded.l_extendedprice, l_discount = excluded.l_discount, l_tax = excluded.l_tax,
    l_returnflag = excluded.l_returnflag, l_linestatus = excluded.l_linestatus, l_shipdate = excluded.l_shipdate,
    l_commitdate = excluded.l_commitdate, l_receiptdate = excluded.l_receiptdate,
    l_shipinstruct = excluded.l_shipinstruct, l_shipmode = excluded.l_shipmode, l_comment = excluded.l_comment;
commit;
"""


class Benchmark:
    """One run of the benchmark: its data, its rounds, its results."""

    def __init__(self, options: argparse.Namespace, bench: Path, server: Server, made: Environments) -> None:
        self._options, self._bench, self._server, self._made = options, bench, server, made
        self._small = options.rows // 6
        self.results = Results(options.rows)

    # -- before and after -----------------------------------------------------------------------

    def prepare(self) -> None:
        """The data, our declarations, and the source of Postgres → Postgres."""
        declarations.write(self._bench / "sources")
        for rows in (self._options.rows, self._small):
            if not self._data(rows).exists():
                print(f"generating {rows:,} rows of lineitem", flush=True)
                script = [self._made.python("data"), contenders.HERE / "generate.py", self._data(rows), str(rows)]
                subprocess.run([*map(str, script)], check=True)
            if "postgres" in self._options.only:
                self._fill_source(rows)
        self._meter = Meter(self._server.postmaster, self._server.admin_url)

    def _fill_source(self, rows: int) -> None:
        """The table that is read from, with a cursor column as a table of an application has one."""
        database = f"source_{rows}"
        self._server.create(database, "plain")
        job = Job("csv", str(self._data(rows) / "lineitem.csv"), rows, database)
        subprocess.run([*map(str, contenders.raw(self._server, "csv").command(job))], check=True)
        self._server.execute(
            database,
            "alter table bench.lineitem add column updated_at timestamptz not null default '2026-01-01T00:00:00Z'",
        )
        self._server.execute(database, "alter table bench.lineitem add primary key (l_orderkey, l_linenumber)")
        self._server.execute(database, "vacuum (freeze, analyze) bench.lineitem")

    def tidy(self) -> None:
        """Remove the data; the environments of the peers stay."""
        shutil.rmtree(self._bench / "data", ignore_errors=True)

    def facts(self) -> dict[str, str]:
        """Where and with what it was measured."""
        memory = psutil.virtual_memory().total / 2**30
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=settings.home(), capture_output=True, text=True
        ).stdout.strip()
        facts = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "machine": f"{os.cpu_count()} processors ({_processor()}), {memory:.0f} GiB, {platform.system()}",
            "server": f"PostgreSQL {self._server.version}, fsync on, data checksums on, the settings of "
            "`sluice.runtime.postgres`, on the same machine",
            "sluice": f"commit {commit or 'unknown'}, Python {platform.python_version()}, "
            f"psycopg {metadata.version('psycopg')}",
            "peers": "; ".join(self._made.versions(name) for name in self._options.peers) or "none",
            "load average before": f"{os.getloadavg()[0]:.1f}",
        }
        return {**facts, **({"note": self._options.note} if self._options.note else {})}

    def _data(self, rows: int) -> Path:
        return self._bench / "data" / str(rows)

    # -- rounds ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Format by format; within one, everybody in turn."""
        for kind in self._options.only:
            self._format(kind)
        if "csv" in self._options.only:
            self._full_extract()

    def _format(self, kind: str) -> None:
        options, rows = self._options, self._options.rows
        first, ours = contenders.raw(self._server, kind), contenders.ours()
        peers = [p for p in contenders.peers(self._server, self._made) if p.environment in options.peers]
        table = [Row(first.name, rows), Row(ours.name, rows, loaded=_OURS)]
        table += [Row(peer.name, min(rows, SLOW_ROWS) if peer.slow else rows) for peer in peers]
        small, bad = Row(ours.name, self._small, loaded=_OURS), Row("bad", rows, loaded=_OURS)
        self.results.formats[kind], self.results.small[kind] = table, small
        if kind == "csv":
            self.results.bad = bad
        for number in range(max(options.rounds, options.peer_rounds)):
            print(f"{kind}, round {number + 1}", flush=True)
            if number < options.rounds:
                self._once(first, kind, table[0])
                self._ours(kind, kind, table[1])
                self._ours(kind, kind, small)
                if kind == "csv":
                    self._ours(kind, "bad", bad)
            if number < options.peer_rounds:
                for peer, row in zip(peers, table[2:], strict=True):
                    if not row.fault or not row.runs:  # who failed once is not asked again
                        self._once(peer, kind, row)

    def _origin(self, kind: str, rows: int) -> str:
        if kind == "postgres":
            return self._server.url(f"source_{rows}")
        return str(self._data(rows) / f"lineitem.{kind}")

    def _once(self, contender: Contender, kind: str, row: Row) -> None:
        """One load by somebody else, and whether all rows are there."""
        target = self._server.fresh("plain")
        job = Job(kind, self._origin(contender.reads or kind, self._options.rows), row.rows, target)
        run = self._meter.run(contender.command(job), scripted=contender.scripted, limit=_LIMIT)
        if not run.fault and (found := self._server.count(target, contender.relation)) != row.rows:
            run = Run(fault=f"loaded {found:,} rows of {row.rows:,}")
        self._note(row, kind, run)
        self._server.drop(target)

    def _ours(self, kind: str, source: str, row: Row, warehouse: str = "warehouse") -> None:
        """One load by us, and whether the books say what they must."""
        target = self._server.fresh(warehouse)
        run = self._load(source, row.rows, target)
        if not run.fault:
            books = json.loads(run.output)
            rejected = row.rows // 100 if source == "bad" else 0
            if [(b["rows_read"], b["rows_quarantined"]) for b in books] != [(row.rows, rejected)]:
                run = Run(fault=f"the books are not what they should be: {run.output.strip()}")
        self._note(row, source, run)
        self._server.drop(target)

    def _load(self, source: str, rows: int, target: str) -> Run:
        command = contenders.ours().command(Job(source, "", rows, target))
        postgres = self._server.url(f"source_{rows}")
        environment = declarations.environment(
            self._bench / "sources", self._data(rows), postgres, self._server.url(target), self._bench / "state"
        )
        return self._meter.run(command, scripted=True, limit=_LIMIT, env=environment)

    def _note(self, row: Row, kind: str, run: Run) -> None:
        row.runs.append(run)
        print(report.progress(row, kind, run), flush=True)

    # -- a full extract, mostly unchanged ---------------------------------------------------------

    def _full_extract(self) -> None:
        """The second of two full extracts: by us, and by copying everything, comparing and writing the difference."""
        rows, server = self._options.rows, self._server
        ours, everything = Row("full extract, 1 % changed", rows), Row("copy everything, then compare", rows)
        self.results.changed, self.results.copied_all = ours, everything
        print("full extract, the first of two", flush=True)
        first, second = (self._data(rows) / f"full/2026-01-0{day}/lineitem.csv" for day in (1, 2))
        hidden = second.rename(second.with_suffix(".later"))
        server.create("extracted", "warehouse")
        self._note(Row("full extract, first", rows), "full", self._load("full", rows, "extracted"))
        hidden.rename(second)
        server.create("copied", "plain")
        job = Job("csv", str(first), rows, "copied")
        subprocess.run([*map(str, contenders.raw(server, "csv").command(job))], check=True)
        server.execute("copied", "alter table bench.lineitem add primary key (l_orderkey, l_linenumber)")
        server.execute("copied", "vacuum analyze bench.lineitem")
        script = self._bench / "copy-everything.sql"
        script.write_text(_COPY_ALL.format(origin=second))
        for number in range(self._options.rounds):
            print(f"full extract, round {number + 1}", flush=True)
            target = server.fresh("copied")
            command = [server.psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", server.url(target)]
            self._note(everything, "full", self._meter.run([*command, "--file", script], scripted=False, limit=_LIMIT))
            server.drop(target)
            self._ours("full", "full", ours, "extracted")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
