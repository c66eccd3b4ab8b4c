"""Each runbook, followed: its fault is planted in a real warehouse, its commands and queries run in their order, what a
person does outside is done, and in the end the incident is over and the page says so.

`42` on a page stands for the number of the incident or batch at hand. Commands of Airflow are run against a live one in
tests/watch/test_scheduler.py; what asks the machine (`ps`, `dmesg`, `docker compose`) is not run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from wsgiref.simple_server import WSGIServer

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.alerts import Cause, open_incident, watcher
from sluice.cli import app
from sluice.errors import GateRefused
from sluice.gates import Check, override
from sluice.gates.results import record
from sluice.runtime.ports import free_port
from sluice.watch import access, beating, exporter, record_objectives
from tests.alerts.conftest import Hook, hook  # noqa: F401
from tests.loading.conftest import World
from tests.monitoring.conftest import HOME
from tests.watch.conftest import TABLES, scrape, world  # noqa: F401

# ruff: noqa: F811
RUNBOOKS = HOME / "docs/runbooks"
ORDERS = TABLES[: TABLES.index("never:")]
GOOD = "id,amount,email\n1,10,a@x\n2,20,b@x\n3,30,c@x\n4,40,d@x\n"


@dataclass
class Case:
    """A warehouse in which something went wrong."""

    world: World
    warehouse: psycopg.Connection
    hook: Hook
    said: list[str] = field(default_factory=list)  # by commands, and rows of queries
    codes: dict[str, int] = field(default_factory=dict)  # of commands that may end otherwise, until it is mended
    number: int = 0  # 42
    ports: dict[str, int] = field(default_factory=dict)  # by those of the page
    servers: list[WSGIServer] = field(default_factory=list)

    def sql(self, statement: str, *values: object) -> list[tuple]:
        done = self.warehouse.execute(statement, values or None)
        return done.fetchall() if done.description else []

    def late(self, text: str) -> None:
        """As if all of it had been a while ago."""
        self.sql(f"update ops.table_read set read_at = read_at - interval '{text}'")
        self.sql(f"update ops.objective set declared_at = declared_at - interval '{text}'")

    def look(self) -> None:
        """As the watcher does every few seconds."""
        watcher.once(self.warehouse)

    def refused(self, rows: str) -> None:
        self.world.deliver("orders.csv", "id,amount,email\n" + rows)
        with pytest.raises(GateRefused):
            self.world.load("orders")

    def load(self, rows: str = GOOD) -> None:
        self.world.deliver("orders.csv", rows)
        self.world.load("orders")


def nothing(case: Case) -> None:
    """There is nothing to do outside."""


@dataclass(frozen=True)
class Runbook:
    """What went wrong, what a person does outside the page's commands, and how it is known to be over."""

    plant: Callable[[Case], None]
    incident: str = ""  # its kind, which must be open after the fault and closed in the end
    outside: Callable[[Case], None] = nothing  # before the commands under Mend
    over: Callable[[Case], bool] = lambda case: True


def _refused_batch(case: Case) -> None:
    case.refused("1,10,a@x\n")
    case.number = case.sql("select max(batch_id) from ops.batch")[0][0]


def _judged(outcome: Literal["pass", "fail"]) -> Callable[[Case], None]:
    checks = [Check("is_whole", "marts.fct_order", outcome), Check("layer_is_complete", "marts", outcome)]
    return lambda case: record(case.warehouse, f"it {outcome}ed", "marts", checks)


def _failed(kind: str, job: str, step: str) -> Cause:
    return Cause(kind, f"{job}/{step}", f"{job} {step} failed", job=job, step=step, source="shop", run_id="r1")


def _succeeds(job: str, step: str) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        with beating(job, step, "r2"):
            pass

    return run


def _gate_failed(case: Case) -> None:
    _judged("fail")(case)
    open_incident(case.warehouse, _failed("gate_failed", "warehouse", "gate_marts"))
    case.codes = {"sluice gate show --failed": 1, "sluice gate show --gate marts --failed": 1}


def _gate_mended(case: Case) -> None:
    _judged("pass")(case)
    _succeeds("warehouse", "gate_marts")(case)


def _overridden(case: Case) -> None:
    failing = Check("is_whole", "marts.fct_order", "fail")
    record(case.warehouse, "r1", "marts", [failing])
    override.give(case.warehouse, "is_whole", by="ann", reason="known", run="r1")
    record(case.warehouse, "r1", "marts", override.applied(case.warehouse, "r1", "marts", [failing]))


def _killed(case: Case) -> None:
    case.sql(
        "insert into ops.step (job, step, run_id, host, pid, beat_at) values"
        " ('ingest_shop', 'orders.land', 'r1', 'h', 4711, now() - interval '3 minutes')"
    )


def _alarm(status: str) -> Callable[[Case], None]:
    labels = {"alertname": "SluiceMartLate", "relation": "marts.fct", "source": "shop", "severity": "page"}
    alarm = {"labels": labels, "annotations": {"summary": "marts.fct is old"}, "status": status}
    return lambda case: watcher.take(case.warehouse, alarm)


def _hook_is(status: int) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case.hook.status = status
        if status != 200:
            case.codes = {"sluice alert channels --test": 1}
            open_incident(case.warehouse, _failed("task_failed", "ingest_shop", "orders.land"))
            case.look()

    return change


def _circuit(case: Case) -> None:
    case.sql("insert into ops.circuit values ('drop', 7, now(), now() + interval '1 hour', 'FileNotFoundError', now())")


def _balance(case: Case) -> None:
    case.sql("alter table ops.batch drop constraint books_balance")
    case.sql("update ops.batch set rows_read = rows_read + 1")


def _is_balanced(case: Case) -> bool:
    with pytest.raises(psycopg.errors.CheckViolation):
        case.sql("update ops.batch set rows_read = rows_read + 1")
    return True


def _missed(case: Case) -> None:
    values = "('ingest_shop', 'r1', interval '2 hours', 'tests')"
    case.sql(f"insert into ops.deadline_miss (subject, run_id, allowed, owner) values {values}")


def _quiet(case: Case) -> None:
    case.late("2 days")
    case.sql("update ops.table_read set read_at = now()")
    case.sql("update ops.batch set published_at = published_at - interval '2 days'")


def _exporter_down(case: Case) -> None:
    case.codes = {"curl --fail --silent http://127.0.0.1:9464/metrics | head": 7}


def _start_exporter(case: Case) -> None:
    server, _ = exporter.start("127.0.0.1", case.ports["9464"])
    case.servers.append(server)


def _quarantine(case: Case) -> None:
    case.load("id,amount,email\n1,10,a@x\n2,x,b@x\n3,30,c@x\n4,40,d@x\n")


def _late(text: str) -> Callable[[Case], None]:
    return lambda case: case.late(text)


def _layer_late(case: Case) -> None:
    case.late("9 days")
    case.sql("update ops.table_read set read_at = now()")
    case.sql("update ops.gate_result set checked_at = checked_at - interval '9 days' where gate = 'marts'")


def _task_failed(case: Case) -> None:
    open_incident(case.warehouse, _failed("task_failed", "ingest_shop", "orders.land"))


def _poison(case: Case) -> None:
    case.refused("1,x,a\n2,x,b\n3,x,c\n")


def _delivered(rows: str) -> Callable[[Case], None]:
    def deliver(case: Case) -> None:
        case.world.deliver("orders.csv", rows)

    return deliver


def _is(expected: object, statement: str) -> Callable[[Case], bool]:
    return lambda case: case.sql(statement) == [(expected,)]


def _said(text: str) -> Callable[[Case], bool]:
    return lambda case: text in case.said[-1]


def _told(title: str) -> Callable[[Case], bool]:
    return lambda case: title in case.hook.titles()


CASES: dict[str, Runbook] = {
    "alarm": Runbook(_alarm("firing"), "alarm", _alarm("resolved")),
    "alert-undelivered": Runbook(
        _hook_is(503), outside=_hook_is(200), over=_told("[page] ingest_shop orders.land failed")
    ),
    "batch-refused": Runbook(
        _refused_batch, "batch_refused", over=_is(3, "select count(*) from staging.shop__orders where _op = 'delete'")
    ),
    "books-unbalanced": Runbook(_balance, over=_is_balanced),
    "circuit-open": Runbook(_circuit, "circuit_open"),
    "deadline-missed": Runbook(_missed, "deadline_missed", _succeeds("ingest_shop", "orders.land")),
    "exporter-down": Runbook(_exporter_down, outside=_start_exporter, over=_said("sluice_exporter_up 1.0")),
    "feed-stopped": Runbook(_quiet, "feed_stopped", _delivered(GOOD.replace("40", "41"))),
    "gate-failed": Runbook(_gate_failed, "gate_failed", _gate_mended),
    "gate-overridden": Runbook(_overridden, "gate_overridden", _judged("pass")),
    "heartbeat-stale": Runbook(_killed, "heartbeat_stale", over=_is(0, "select count(*) from ops.step")),
    "layer-late": Runbook(_layer_late, "layer_late", _judged("pass")),
    "mart-late": Runbook(nothing, outside=_judged("pass")),
    "model-lagging": Runbook(nothing),
    "quarantine-old": Runbook(_quarantine, over=_said("amount")),
    "rejects-exceeded": Runbook(_poison, "rejects_exceeded", _delivered(GOOD.replace("40", "41"))),
    "series-left-out": Runbook(_start_exporter, over=_said("sluice_exporter_series_left_out 0.0")),
    "source-late": Runbook(_late("2 days"), "source_late"),
    "table-late": Runbook(_late("2 days"), "source_late"),
    "task-failed": Runbook(_task_failed, "task_failed", _succeeds("ingest_shop", "orders.land")),
    "watcher-stopped": Runbook(
        nothing, over=_is(True, "select now() - beat_at < interval '1 minute' from ops.watcher")
    ),
}
ELSEWHERE = {
    "backfill-stuck",  # all of it is Airflow's
    "canary-absent",  # the same, and one query
    "ledger-unreadable",  # it needs a role of its own: below
}
SAYS_THAT_IT_IS_RED = ("sluice alert list", "sluice board --attention")
NOT_HERE = ("airflow ", "ps ", "dmesg", "docker ", "sluice verify", "psql ", "python ")


def blocks(page: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(section, language, commands or queries) in the order of a page."""
    for section in page.read_text().split("\n## ")[1:]:
        for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.S):
            parts = text.splitlines() if language == "sh" else text.split(";\n")
            yield section.split("\n")[0], language, [part.split("  #")[0].strip() for part in parts if part.strip()]


@pytest.fixture
def case(world: World, warehouse: psycopg.Connection, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """The small declared world, read and built, in which nothing is wrong."""
    world.declare(ORDERS)
    world.deliver("orders.csv", GOOD)
    world.load("orders")
    record_objectives(warehouse)
    monkeypatch.setattr(exporter.Exporter.__init__, "__defaults__", (0.0,))
    made = Case(world, warehouse, hook, ports={"9464": free_port()})
    _judged("pass")(made)
    made.look()
    assert made.sql("select kind, subject from ops.incident") == []
    yield made
    for server in made.servers:
        server.shutdown()
        server.server_close()


def run(case: Case, command: str, expected: int | None) -> None:
    """One command of a page, which must end as it says: 0 unless something is wrong, which `expected` says."""
    wanted = case.codes.get(command, 0)
    command = re.sub(r"\b42\b", str(case.number), command)
    if command.startswith("curl "):
        for known, own in case.ports.items():
            command = command.replace(known, str(own))
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=30)
        code, output = done.returncode, done.stdout
    else:
        result = CliRunner().invoke(app, shlex.split(command)[1:], env={"COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit), f"{command}: {result.exception!r}"
        code, output = result.exit_code, result.output
    case.said.append(output)
    assert code == wanted if expected is None else code in (wanted, expected), f"{command}: {code}\n{output}"


@pytest.mark.parametrize("name", CASES)
def test_a_runbook_that_is_followed_finds_its_fault_and_ends_it(case: Case, name: str) -> None:
    runbook = CASES[name]
    open_ = "select incident_id from ops.incident where resolved_at is null and kind = %s"
    runbook.plant(case)
    case.look()
    if runbook.incident:
        ((number,),) = case.sql(open_, runbook.incident)
        case.number = case.number or number
    is_mended = False
    for section, language, parts in blocks(RUNBOOKS / f"{name}.md"):
        if section in ("Mend", "Verify") and not is_mended:
            runbook.outside(case)
            is_mended, case.codes = True, {}
        if section == "Verify":
            case.look()
        for part in parts:
            if language == "sql":
                case.said.append(str(case.sql(part)))
            elif not part.startswith(NOT_HERE):
                run(case, part, 1 if part in SAYS_THAT_IT_IS_RED and section != "Verify" else None)
    assert runbook.over(case), case.said
    case.look()
    if runbook.incident:
        assert case.sql(open_, runbook.incident) == []


def test_every_runbook_is_followed_here_or_where_it_can_be() -> None:
    assert set(CASES) | ELSEWHERE == {page.stem for page in RUNBOOKS.glob("*.md")}


def test_the_runbook_of_an_unreadable_ledger_lets_the_exporters_role_read_again(
    case: Case, postgres, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.server.create_role(access.ROLE)
    url = postgres.server.url(warehouse_url.rsplit("/", 1)[1], access.ROLE)
    monkeypatch.setenv("SLUICE_EXPORTER_DATABASE_URL", url)
    _start_exporter(case)
    assert scrape(case.ports["9464"]).of("sluice_exporter_up") == 0
    commands = [part for _, _, parts in blocks(RUNBOOKS / "ledger-unreadable.md") for part in parts]
    asked, granted, shown = commands
    asks_nothing = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
    assert "permission denied" in asks_nothing.stderr
    done = subprocess.run(["bash", "-c", granted.replace("python", sys.executable, 1)], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert subprocess.run(["bash", "-c", asked], capture_output=True).returncode == 0
    run(case, shown, None)
    assert "sluice_exporter_up 1.0" in case.said[-1]
