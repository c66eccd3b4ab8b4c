"""The rebuild: every model from nothing, in schemas of its own, by the real dbt in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from sluice import settings, warehouse
from sluice.errors import SluiceError
from sluice.runtime.surroundings import dbt_environment
from sluice.verify.nodes import PREFIX

_APPLICATION = "sluice verify"  # what the rebuild's sessions are called, so that the next start finds orphans
_LOCK = "sluice:verify"
_OURS = PREFIX.replace("_", r"\_") + r"\_%"
_POLL_SECONDS = 1.0
_ORPHAN_SECONDS = 30
# dbt ends with the process that began it, even a killed one: its standard input closes then.
_DBT = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from dbt.cli.main import cli
cli()
"""


class OverBudget(SluiceError):
    """The rebuild would take, or took, more time or space than was allowed. The shadow schemas are removed."""


@contextmanager
def shadow_schemas() -> Iterator[None]:
    """Hold the lock of `verify`, with no shadow schema before, whatever a killed one left, and none after."""
    with warehouse.connect(autocommit=True) as holder:
        holder.execute("set idle_session_timeout = 0")
        if not holder.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [_LOCK]).fetchone()[0]:  # type: ignore[index]
            raise SluiceError(
                "another `sluice verify` or `sluice rebuild` is at work in this warehouse; nothing was started. "
                "Wait for it"
            )
        _remove(holder)
        try:
            yield
        finally:
            _remove(holder)


def _remove(connection: psycopg.Connection) -> None:
    """End orphans, drop the schemas, forget what the ledger says of them."""
    _end_orphans(connection)
    schemas = connection.execute("select nspname from pg_namespace where nspname like %s", [_OURS]).fetchall()
    for (schema,) in schemas:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
    for (table,) in connection.execute(
        "select relname from pg_attribute inner join pg_class on pg_class.oid = attrelid"
        " where relnamespace = 'ops'::regnamespace and relkind = 'r' and attname = 'relation'"
    ).fetchall():
        connection.execute(
            sql.SQL("delete from {} where relation like %s").format(sql.Identifier("ops", table)), [_OURS]
        )


def _end_orphans(connection: psycopg.Connection) -> None:
    """End the sessions of a killed verification, and those that a dbt which outlived it still opens."""
    ours = "application_name = %s and datname = current_database() and usename = current_user"
    ending = f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where {ours}"
    end = time.monotonic() + _ORPHAN_SECONDS
    while connection.execute(ending, [_APPLICATION]).fetchall():
        if time.monotonic() > end:
            raise SluiceError(
                f"the dbt of a killed `{_APPLICATION}` still runs elsewhere and opens sessions named {_APPLICATION!r} "
                "in this warehouse; nothing was started. End that process, then try again"
            )
        time.sleep(0.2)


class Dbt:
    """dbt over the project, with the prefix of the shadow schemas, writing beside nobody's files."""

    def __init__(self, target: Path, run_id: str, as_of: int | None = None) -> None:
        self.project = Path(settings.variable("SLUICE_DBT_PROJECT") or settings.home() / "dbt_project").absolute()
        self.target = target
        as_of_option = f"-c sluice.as_of_seq={as_of}" if as_of is not None else ""
        self.environment = {
            **os.environ,
            **dbt_environment(self.project, settings.warehouse_url()),
            "SLUICE_SCHEMA_PREFIX": PREFIX,
            "SLUICE_APPLICATION_NAME": _APPLICATION,
            "SLUICE_RUN_ID": run_id,
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
            "PGOPTIONS": f"{os.environ.get('PGOPTIONS', '')} {as_of_option}".strip(),
        }
        if profiles := os.environ.get("DBT_PROFILES_DIR"):
            self.environment["DBT_PROFILES_DIR"] = profiles

    @property
    def manifest(self) -> Path:
        """What `parse` wrote."""
        return self.target / "manifest.json"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a dbt command in a process group of its own."""
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                _DBT,
                *arguments,
                "--project-dir",
                str(self.project),
            ],
            env=self.environment,
            cwd=self.project,
            stdin=subprocess.PIPE,
            stdout=(self.target / "out.txt").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def parse(self) -> None:
        """Read the project."""
        with ended(self.start("parse", "--quiet")) as process:
            if process.wait():
                raise SluiceError(f"dbt can't read {self.project}; nothing was built. {self.last_words()}")

    def chosen(self, selection: Sequence[str]) -> list[str]:
        """Read the project; the names of the models and snapshots that a dbt selection means."""
        listing = ["ls", "--output", "name", "--resource-type", "model", "--resource-type", "snapshot", "--quiet"]
        with ended(self.start(*listing, "--select", *selection)) as process:
            if process.wait():
                raise SluiceError(f"dbt can't select {' '.join(selection)}; nothing was built. {self.last_words()}")
        return [line.strip() for line in (self.target / "out.txt").read_text().splitlines() if line.strip()]

    def last_words(self) -> str:
        """The end of what dbt printed."""
        return " ".join((self.target / "out.txt").read_text().split())[-600:]

    def failures(self) -> dict[str, str]:
        """{name: message} of the nodes that the last command could not build. Empty is success."""
        path = self.target / "run_results.json"
        if not path.is_file():
            return {"dbt": f"wrote no results. {self.last_words()}"}
        results = json.loads(path.read_text())["results"]
        return {
            result["unique_id"].split(".")[2]: " ".join(str(result["message"] or result["status"]).split())
            for result in results
            if result["status"] not in ("success", "pass")
        }


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """See to it that a process and its children are gone afterwards."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdin:
            process.stdin.close()


def rebuild(
    dbt: Dbt,
    relations: Sequence[str],
    deadline: float,
    space: int,
    note: Callable[[str], None],
    models: Sequence[str] = (),
) -> None:
    """Build every model, or `models` and what they read; stop when time or space run out. What could not be built is in
    `dbt.failures()`."""
    started = time.monotonic()
    build = ["build", "--exclude-resource-type", "test", "--exclude-resource-type", "unit_test", "--full-refresh"]
    if models:
        build += ["--select", *(f"+{name}" for name in models)]
    with (
        ended(dbt.start(*build, "--quiet", "--threads", "2")) as process,
        warehouse.connect(autocommit=True) as looking,
    ):
        looking.execute("set idle_session_timeout = 0")
        while process.poll() is None:
            built, size = looking.execute(
                "select (select count(distinct relation) from ops.model_run where relation = any(%s)),"
                " (select coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint from pg_class"
                " inner join pg_namespace on pg_namespace.oid = relnamespace where nspname like %s and relkind = 'r')",
                [list(relations), _OURS],
            ).fetchone()  # type: ignore[misc]
            seconds = time.monotonic() - started
            note(f"{built} of {len(relations)} tables rebuilt, {told_size(size)}, {seconds:.0f} s")
            if time.monotonic() > deadline:
                raise OverBudget(
                    f"the budget of time ran out with {built} of {len(relations)} tables rebuilt; "
                    "nothing was compared, and the shadow schemas are removed. Give more with --budget"
                )
            if size > space:
                raise OverBudget(
                    f"the rebuild has grown to {told_size(size)}, more than the {told_size(space)} it may take; "
                    "nothing was compared, and the shadow schemas are removed. Give more with --space"
                )
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def told_size(size: int) -> str:
    """Bytes for a person."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
