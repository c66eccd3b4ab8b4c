"""A failing check of each kind and each severity, planted, and exactly the declared effect.

docs/reference/gates.md says which there are: what stands there, and what the code can record, is planted here. Of a
batch, `block` refuses all of it, `quarantine` puts the bad rows aside and publishes the rest, `warn` publishes all, and
`none` does not look. Of a layer, `block` stops the run and `warn` is written down.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from sluice.declarations import Source
from sluice.errors import GateRefused
from sluice.gates import GateFailed, Model, Verdict, judge_freshness, judge_layer
from tests.loading.conftest import World

HOME = Path(__file__).resolve().parents[2]
CHOICE, ANY = ("block", "quarantine", "warn"), ("block", "warn")


# -- a batch ------------------------------------------------------------------------------------

CUSTOMERS = """
customers:
  description: customers
  from: {files: {connection: drop, path: "customers.csv"}}
  mode: append
  key: [id]
  columns: {id: {type: integer, required: true}}
"""
ORDERS = """
orders:
  description: orders
  from: {{files: {{connection: drop, path: "{{date}}.csv"{files}}}}}
  mode: {mode}
  key: [id]
  {more}
  columns:
    id: {{type: integer, required: true}}
    customer_id: {{type: integer{customer_id}}}
    status: {{type: text{status}}}
    amount: {{type: {kind}{amount}}}
    note: {{type: text{note}}}
    at: {{type: timestamptz}}
"""
EXTRAS = ("files", "more", "customer_id", "status", "amount", "note")
HEAD = "id,customer_id,status,amount,note,at\n"
GOOD = "1,,new,5,n,2026-01-01 12:00:00+00\n2,,new,5,n,2026-01-01 13:00:00+00\n"
SILENT = "volume: none, level: none, nulls: none, distribution: none, empty: none"


class Planted(NamedTuple):
    """What was delivered: the check that must fail, under its full name, and how many rows break it or do not."""

    check: str
    good: int = 2
    bad: int = 1


def declare(world: World, mode: str = "append", kind: str = "integer", **more: str) -> None:
    world.declare(CUSTOMERS + ORDERS.format(mode=mode, kind=kind, **{name: more.get(name, "") for name in EXTRAS}))


def deliver(world: World, day: int, rows: str, head: str = HEAD) -> None:
    world.deliver(f"2026-01-{day:02}.csv", head + rows)


def read(world: World, day: int, rows: str = GOOD) -> None:
    deliver(world, day, rows)
    world.load("orders")


def checks(name: str, severity: str) -> str:
    return f"checks: {{{SILENT.replace(f'{name}: none', f'{name}: {severity}')}}}"


def header(world: World, severity: str) -> Planted:
    declare(world, note=", required: true")
    deliver(world, 2, "1,new\n", "id,status\n")
    return Planted("header")


def shape(world: World, severity: str) -> Planted:
    declare(world)
    read(world, 1)
    declare(world, kind="smallint")
    deliver(world, 2, GOOD)
    return Planted("shape")


def unreadable(world: World, severity: str) -> Planted:
    declare(world, note=", pattern: '(?=x)*'")
    deliver(world, 2, GOOD)
    return Planted("pattern")


def contract(world: World, severity: str) -> Planted:
    declare(world, more="max_reject_share: 0.1")
    deliver(world, 2, GOOD + "x,,new,5,n,\n")
    return Planted("contract")


def accepted(world: World, severity: str) -> Planted:
    """D6"""
    declare(world, more="max_reject_share: 1", status=f", accepted: [new], severity: {{accepted: {severity}}}")
    deliver(world, 2, GOOD + "3,,odd,5,n,\n")
    return Planted("accepted:status")


def in_range(world: World, severity: str) -> Planted:
    declare(world, more="max_reject_share: 1", amount=f", minimum: 1, severity: {{range: {severity}}}")
    deliver(world, 2, GOOD + "3,,new,0,n,\n")
    return Planted("range:amount")


def pattern(world: World, severity: str) -> Planted:
    declare(world, more="max_reject_share: 1", note=f", pattern: '^[a-z]$', severity: {{pattern: {severity}}}")
    deliver(world, 2, GOOD + "3,,new,5,7,\n")
    return Planted("pattern:note")


def references(world: World, severity: str) -> Planted:
    parent = f", references: {{table: shop.customers, column: id, severity: {severity}}}"
    declare(world, more="max_reject_share: 1", customer_id=parent)
    world.deliver("customers.csv", "id\n7\n")
    world.load("customers")
    deliver(world, 2, GOOD + "3,8,new,5,n,\n")
    return Planted("references:customer_id")


def late(world: World, severity: str) -> Planted:
    """Held, it blocks; counted, it warns, and is left out as is declared."""
    beyond = {"block": "hold", "warn": "count"}[severity]
    declare(world, "full", more=f"late: {{horizon: 1d, beyond: {beyond}}}")
    read(world, 20)
    deliver(world, 2, GOOD)
    return Planted("late", 0, 0)


def control_total(world: World, severity: str) -> Planted:
    declare(world, files=', done: "{path}.done", done_holds_rows: true')
    deliver(world, 2, GOOD)
    world.deliver("2026-01-02.csv.done", "3")
    return Planted("control_total")


def deletes(world: World, severity: str) -> Planted:
    """E10: keys that vanished. A rejected row that hides its key only warns: nothing is closed."""
    declare(world, "full", more="max_reject_share: 1")
    read(world, 1)
    deliver(world, 2, "1,,new,5,n,\n" if severity == "block" else "x,,new,5,n,\n1,,new,6,n,\n")
    return Planted("deletes", 1, 0)


def past(world: World) -> None:
    """Three hundred rows a day for thirty days, each as the first one."""
    read(world, 1, day_of(300))
    world.warehouse.execute(
        """
        with made as (
            insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq, effective_at)
            select source, table_name, 'day ' || n, 'published', mode, 'r', ops.next_seq(),
                effective_at - n * interval '1 day'
            from ops.batch cross join generate_series(1, 30) as n
            returning batch_id, unit, effective_at
        )
        insert into ops.batch_profile (batch_id, source, table_name, unit, instant, kind, rows_read, rows_profiled,
            columns)
        select made.batch_id, source, table_name, made.unit, effective_at, kind, 290 + made.batch_id % 20,
            rows_profiled, columns
        from made cross join ops.batch_profile
        """
    )


def day_of(count: int, scale: int = 1, note: str = "n") -> str:
    rows = ((n, scale * (5 + n % 7), note, 10 + n % 8) for n in range(count))
    return "".join(f"{n},,new,{amount},{note},2026-01-01 {hour}:00:00+00\n" for n, amount, note, hour in rows)


def history(name: str, full_name: str, rows: str, good: int) -> Callable[[World, str], Planted]:
    def plant(world: World, severity: str) -> Planted:
        declare(world, more=checks(name, severity))
        past(world)
        deliver(world, 2, rows)
        return Planted(full_name, good, 0)

    return plant


def level(world: World, severity: str) -> Planted:
    """Sixty days of 300 rows, then two of a hundred rows less each day."""
    declare(world, more=checks("level", severity))
    world.warehouse.execute(
        """
        with made as (
            insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq, effective_at)
            select 'shop', 'orders', 'falling ' || n, 'published', 'append', 'r', ops.next_seq(),
                timestamptz '2026-01-02' - n * interval '1 day'
            from generate_series(1, 90) as n
            returning batch_id, unit, effective_at
        )
        insert into ops.batch_profile (batch_id, source, table_name, unit, instant, kind, rows_read, rows_profiled,
            columns)
        select batch_id, 'shop', 'orders', unit, effective_at, 'rows',
            300 * power(0.98, greatest(30 - extract(day from timestamptz '2026-01-02' - effective_at), 0)), 0, '{}'
        from made
        """
    )
    deliver(world, 2, day_of(164))
    return Planted("level", 164, 0)


def content_changed(world: World, severity: str) -> Planted:
    declare(world)
    read(world, 2)
    deliver(world, 2, GOOD.replace("5", "6"))
    return Planted("content_changed", 2, 0)


BATCH = {
    "header": (header, ("block",)),
    "shape": (shape, ("block",)),
    "pattern": (unreadable, ("block",)),
    "contract": (contract, ("block",)),
    "accepted:<column>": (accepted, CHOICE),
    "range:…": (in_range, CHOICE),
    "pattern:…": (pattern, CHOICE),
    "references:<column>": (references, CHOICE),
    "late": (late, ANY),
    "control_total": (control_total, ("block",)),
    "deletes": (deletes, ANY),
    "empty": (history("empty", "empty", "", 0), ANY),
    "volume": (history("volume", "volume", day_of(30), 30), ANY),
    "level": (level, ANY),
    "nulls:<column>": (history("nulls", "nulls:note", day_of(300, note=""), 300), ANY),
    "distribution:<column>": (history("distribution", "distribution:amount", day_of(300, scale=100), 300), ANY),
    "content_changed": (content_changed, ("warn",)),
}


RULES = ("accepted:<column>", "range:…", "pattern:…")


@pytest.mark.parametrize(
    ("name", "severity"), [(name, severity) for name, (_, severities) in BATCH.items() for severity in severities]
)
def test_E9_E10_D6_D7_a_batch_that_fails_a_check_meets_exactly_what_is_declared(
    world: World, name: str, severity: str
) -> None:
    check, good, bad = BATCH[name][0](world, severity)
    before = _published(world)
    if severity == "block":
        with pytest.raises(GateRefused, match=r"nothing was (published|closed)"):
            world.load("orders")
        assert _published(world) == before
    else:
        world.load("orders")
        assert _published(world) == before + good + (bad if severity == "warn" else 0)
        assert world.books_balance()
    ((batch, state, aside),) = world.query(
        "select batch_id, state, (select count(*) from ops.quarantine as q where q.batch_id = b.batch_id)"
        " from ops.batch as b order by batch_id desc limit 1"
    )
    assert state == ("refused" if severity == "block" else "unchanged" if name == "late" else "published")
    assert severity != "quarantine" or aside == bad
    found = world.query(
        "select check_name, severity, verdict, sample_keys from ops.gate_result"
        " where batch_id = %s and verdict <> 'pass'",
        batch,
    )
    effect = {"block": ("block", "fail"), "quarantine": ("quarantine", "warn"), "warn": ("warn", "warn")}[severity]
    names = {check}
    if name in RULES:  # rows that are put aside say themselves which rule it was
        names = {"block": {"severity"}, "quarantine": set(), "warn": {check}}[severity]
    elif name == "references:<column>" and severity == "block":
        names = {check, "severity"}
    assert {row[:3] for row in found} == {(each, *effect) for each in names}
    if severity == "warn" and bad:
        assert [row[3] for row in found] == [[[3]]], "the key of the row that failed"


def _published(world: World) -> int:
    ((there,),) = world.query("select to_regclass('staging.shop__orders') is not null")
    return world.query("select count(*) from staging.shop__orders")[0][0] if there else 0


@pytest.mark.parametrize("name", ["empty", "volume", "level", "nulls:<column>", "distribution:<column>"])
def test_a_check_that_is_declared_none_is_not_made(world: World, name: str) -> None:
    check, good, _ = BATCH[name][0](world, "none")
    assert [done.rows_read for done in world.load("orders")] == [good]
    made = world.query(
        "select check_name from ops.gate_result where split_part(check_name, ':', 1) = %s", check.split(":")[0]
    )
    assert made == []


# -- a layer ------------------------------------------------------------------------------------

ORDER = Model("fct_order", "marts.fct_order", "marts")
FRESH = {"description": "x", "from": {"files": {"connection": "c", "path": "x"}}, "mode": "full", "key": ["id"]}
CONTRACTED = """
orders:
  description: orders
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: append
  key: [id]
  columns: {id: {type: integer, required: true}, amount: {type: integer, minimum: 0, severity: {range: SEVERITY}}}
"""


class Layer:
    """A mart of three rows, built by the run `r1` from a log with one balanced batch."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.file = world, folder / "marts.yml"
        self.run, self.models, self.tables = "r1", [ORDER], [("shop", "orders")]
        self.tests: list[tuple[str, str]] = []
        world.declare(CONTRACTED.replace("SEVERITY", "block"))
        world.deliver("2026-01-01.csv", "id,amount\n1,1\n2,2\n3,3\n")
        world.load("orders")
        self.sql("create table marts.fct_order as select id, amount from staging.shop__orders")
        self.sql("create view staging.stg_shop__orders as select id, amount from staging.shop__orders")
        self.sql(
            "insert into ops.model_run (run_id, model, relation, state, started_at, rows_inserted)"
            " values ('r1', 'fct_order', 'marts.fct_order', 'success', clock_timestamp(), 3);"
            "insert into ops.model_watermark (relation, input, seq) values ('marts.fct_order', 'stg_shop__orders', 1)"
        )
        self.judge()

    def sql(self, statement: str) -> None:
        self.world.warehouse.execute(statement)

    def judge(self) -> Verdict:
        return judge_layer("marts", self.run, self.models, tests=self.tests, tables=self.tables, expectations=self.file)

    def expect(self, severity: str, text: str) -> None:
        self.file.write_text(text.replace("SEVERITY", severity))


def no_result(layer: Layer, severity: str) -> str:
    layer.run = "r2"
    return "model_has_a_result"


def untested(layer: Layer, severity: str) -> str:
    layer.tests = [("orders_are_paid", "marts")]
    layer.sql(  # of another run
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict)"
        " values ('r0', 'tests', 'orders_are_paid', 'marts', 'block', 'pass')"
    )
    return "test_has_a_result"


def emptied(layer: Layer, severity: str) -> str:
    layer.sql("delete from marts.fct_order")
    if severity == "warn":
        layer.sql("update ops.model_run set rows_inserted = 0")
    return "model_is_not_empty"


def unbalanced(layer: Layer, severity: str) -> str:
    layer.sql("alter table ops.batch drop constraint books_balance; update ops.batch set rows_read = rows_read + 1")
    return "books_balance"


def unaudited(layer: Layer, severity: str) -> str:
    layer.sql(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, batch_id)"
        " select 'i', 'batch', 'contract', 'shop.orders', 'block', 'error', max(batch_id) from ops.batch"
    )
    return "published_batches_passed"


def stranded(layer: Layer, severity: str) -> str:
    layer.sql(
        "insert into ops.batch (source, table_name, unit, state, mode, run_id, landed_at)"
        " values ('shop', 'orders', 'u', 'landed', 'append', 'i', now() - interval '2 days')"
    )
    return "no_batch_is_stranded"


def never_read(layer: Layer, severity: str) -> str:
    layer.tables = [("shop", "never")]
    return "has_been_read"


def broken_contract(layer: Layer, severity: str) -> str:
    layer.world.declare(CONTRACTED.replace("SEVERITY", severity))
    layer.world.deliver("2026-01-02.csv", "id,amount\n4,4\n")
    layer.world.load("orders")
    layer.sql("update staging.shop__orders set amount = -1 where id = 4")
    return "contract_holds" if severity == "block" else "expect_column_values_to_be_between(amount)"


def expected(layer: Layer, severity: str) -> str:
    layer.expect(
        severity,
        "tables: {marts.fct_order: {key: [id], expect: [{type: expect_column_values_to_be_between, column: amount,"
        " max_value: 2, severity: SEVERITY}]}}",
    )
    return "expect_column_values_to_be_between(amount)"


def reconciled(layer: Layer, severity: str) -> str:
    layer.expect(
        severity,
        "reconcile: [{name: agree, on: marts.fct_order, severity: SEVERITY, left: {query: select 4},"
        " right: {query: select count(*) from marts.fct_order}}]",
    )
    return "agree"


def unreadable_file(layer: Layer, severity: str) -> str:
    layer.expect(severity, "reconcil: []")
    return "expectations_are_readable"


def no_models(layer: Layer, severity: str) -> str:
    layer.models = []
    return "layer_has_models"


LAYER = {
    "model_has_a_result": (no_result, ("block",)),
    "test_has_a_result": (untested, ("block",)),
    "model_is_not_empty": (emptied, ANY),
    "books_balance": (unbalanced, ("block",)),
    "published_batches_passed": (unaudited, ("block",)),
    "no_batch_is_stranded": (stranded, ("warn",)),
    "has_been_read": (never_read, ("warn",)),
    "contract_holds": (broken_contract, ANY),
    "expect_…": (expected, ANY),
    "names under reconcile:": (reconciled, ANY),
    "expectations_are_readable": (unreadable_file, ("block",)),
    "layer_has_models": (no_models, ("block",)),
}


@pytest.fixture
def layer(world: World, tmp_path: Path) -> Layer:
    return Layer(world, tmp_path)


@pytest.mark.parametrize(
    ("name", "severity"), [(name, severity) for name, (_, severities) in LAYER.items() for severity in severities]
)
def test_S7_S8_a_layer_that_fails_a_check_is_stopped_or_goes_on_as_is_declared(
    layer: Layer, name: str, severity: str
) -> None:
    assert layer.judge().passed, "before it is planted"
    check = LAYER[name][0](layer, severity)
    begun = layer.world.query("select max(gate_result_id) from ops.gate_result")[0][0]
    verdict = layer.judge()
    if severity == "block":
        with pytest.raises(GateFailed, match=f"(?s){re.escape(check)} on .*The layers after it were not built"):
            verdict.require()
        assert {each.name for each in verdict.blocking} >= {check}
    else:
        verdict.require()
    recorded = layer.world.query(
        "select check_name, severity, verdict from ops.gate_result where gate_result_id > %s and verdict <> 'pass'",
        begun,
    )
    assert [row[0] for row in recorded if row[0] in (check, "layer_is_complete")] == [check] + ["layer_is_complete"] * (
        severity == "block"
    )
    found = next(row[1:] for row in recorded if row[0] == check)
    assert found[0] == severity
    assert found[1] in (("fail", "error", "missing") if severity == "block" else ("warn", "missing"))


def test_a_stale_table_fails_the_gate_freshness(warehouse: psycopg.Connection) -> None:
    columns = {"columns": {"id": {"type": "bigint"}}, "freshness": timedelta(hours=1)}
    source = Source.model_validate(
        {"source": "shop", "description": "x", "owner": "o", "tables": {"t": {**FRESH, **columns}}}
    )
    for hours, passes in ((0, True), (2, False)):
        warehouse.execute(
            "insert into ops.table_read (source, table_name, run_id, read_at) values ('shop', 't', 'i', now() - %s)"
            " on conflict (source, table_name) do update set read_at = excluded.read_at",
            [timedelta(hours=hours)],
        )
        assert judge_freshness([source], f"f{hours}").passed is passes


# -- the table is whole -------------------------------------------------------------------------


def _documented(heading: str) -> dict[str, set[str]]:
    """{check: severities} of a section of the reference."""
    page = (HOME / "docs/reference/gates.md").read_text()
    section = page[page.index(heading) :].split("\n## ", 1)[0]
    found: dict[str, set[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "check":
            words = set(re.findall(r"\b(block|quarantine|warn)\b", cells[2]))
            for name in cells[0].replace("`", "").split(", "):
                found.setdefault(name, set()).update(words)
    return found


@pytest.mark.parametrize(("heading", "table"), [("## A batch", BATCH), ("## A layer", LAYER)])
def test_every_check_of_the_reference_is_planted_in_every_severity(heading: str, table: dict) -> None:
    documented = _documented(heading)
    # what sums up others: how the columns do together, the rules of a batch that block, the whole layer
    for name in ("nulls", "distribution", "severity", "layer_is_complete"):
        documented.pop(name, None)
    assert documented == {name: set(severities) for name, (_, severities) in table.items()}


def test_every_check_that_the_code_can_record_is_in_the_reference() -> None:
    recorded: set[str] = set()
    for folder in ("gates", "loading"):
        for path in (HOME / "include/sluice" / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    place = {"Check": 0, "Verdict": 0, "Finding": 0, "_said": 0, "record_check": 2}.get(name)
                    if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                        recorded.add(node.args[place].value)
    assert len(recorded) > 20
    page = (HOME / "docs/reference/gates.md").read_text()
    assert {name for name in recorded if f"`{name}`" not in page} == set()
