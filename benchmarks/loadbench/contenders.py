"""Who loads what, and by which command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadbench.environments import Environments
from loadbench.warehouse import Server

FORMATS = ("csv", "jsonl", "parquet", "postgres")
HERE = Path(__file__).resolve().parent
SLOW_ROWS = 50_000  # as many are enough to know the speed of those that take a minute for a million


@dataclass(frozen=True)
class Job:
    """One load to be done: `origin` is a file's path or the URL of a database; `target` a database's name."""

    kind: str
    origin: str
    rows: int
    target: str


@dataclass(frozen=True)
class Contender:
    """A way to load. `relation` is where its rows are to be counted afterwards."""

    name: str
    environment: str
    formats: tuple[str, ...]
    relation: str
    command: Callable[[Job], list[str | Path]]
    scripted: bool = False
    slow: bool = False  # loads a part, and its time is scaled up
    reads: str = ""  # the format that it reads, if not the one that is measured


def raw(server: Server, kind: str) -> Contender:
    """What everybody is compared with: `psql` alone, into a logged table."""
    if kind == "postgres":
        return Contender(
            "raw psql binary pipe", "", ("postgres",), "bench.lineitem_stamped", lambda job: _pipe(server, job)
        )
    return Contender(
        "raw psql \\copy of the same rows as CSV",
        "",
        FORMATS[:3],
        "bench.lineitem",
        lambda job: _copy(server, job),
        reads="csv",
    )


def _copy(server: Server, job: Job) -> list[str | Path]:
    statement = f"\\copy bench.lineitem from '{job.origin}' (format csv, header)"
    return [server.psql, "--no-psqlrc", "--quiet", server.url(job.target), "--command", statement]


def _pipe(server: Server, job: Job) -> list[str | Path]:
    psql = f"'{server.psql}' --no-psqlrc --quiet"
    out = f"{psql} '{job.origin}' --command \"copy bench.lineitem to stdout (format binary)\""
    into = f"{psql} '{server.url(job.target)}' --command \"copy bench.lineitem_stamped from stdin (format binary)\""
    return ["sh", "-c", f"{out} | {into}"]


def ours() -> Contender:
    """Sluice itself. What it loads and where stands in its environment."""
    command = [sys.executable, HERE / "ours.py"]
    return Contender("**sluice**", "", FORMATS, "", lambda job: [*command, job.kind, "lineitem"], scripted=True)


def peers(server: Server, made: Environments) -> list[Contender]:
    """Everybody else."""
    found = []
    for how, slow in (("best", False), ("default", True)):
        found.append(
            Contender(
                f"dlt, {'fastest' if how == 'best' else 'default'} settings",
                "dlt",
                FORMATS,
                "bench_dlt.lineitem",
                _script(server, made.python("dlt"), "peer_dlt.py", how),
                scripted=True,
                slow=slow,
            )
        )
    return [
        *found,
        Contender("sling", "sling", FORMATS, "bench.sling", lambda job: _sling(server, made, job)),
        Contender("ingestr", "ingestr", FORMATS, "bench.ingestr", lambda job: _ingestr(server, made, job)),
        Contender(
            "pandas to_sql",
            "pandas",
            FORMATS,
            "bench.pandas",
            _script(server, made.python("pandas"), "peer_pandas.py"),
            scripted=True,
            slow=True,
        ),
    ]


def _script(server: Server, python: Path, name: str, *first: str) -> Callable[[Job], list[str | Path]]:
    return lambda job: [python, HERE / name, *first, job.kind, job.origin, str(job.rows), server.url(job.target)]


def _sling(server: Server, made: Environments, job: Job) -> list[str | Path]:
    command = [made.program("sling"), "run", "--tgt-conn", f"{server.url(job.target)}?sslmode=disable"]
    command += ["--tgt-object", "bench.sling", "--mode", "full-refresh"]
    if job.kind == "postgres":
        return [*command, "--src-conn", f"{job.origin}?sslmode=disable", "--src-stream", "bench.lineitem"]
    kind = {"jsonl": "jsonlines"}.get(job.kind, job.kind)
    flatten = ", flatten: true" if job.kind == "jsonl" else ""
    return [*command, "--src-stream", f"file://{job.origin}", "--src-options", f"{{format: {kind}{flatten}}}"]


def _ingestr(server: Server, made: Environments, job: Job) -> list[str | Path]:
    command = [made.program("ingestr"), "ingest", "--yes", "--progress", "log", "--dest-uri", server.url(job.target)]
    command += ["--dest-table", "bench.ingestr"]
    if job.kind == "postgres":
        return [*command, "--source-uri", job.origin, "--source-table", "bench.lineitem"]
    return [*command, "--source-uri", f"{job.kind}://{job.origin}", "--source-table", "lineitem"]
