"""A rehearsal: the chosen models built beside the live ones, and the difference stored."""

from __future__ import annotations

import getpass
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from sluice import warehouse
from sluice.errors import SluiceError
from sluice.gates.pending import Model, unread
from sluice.rebuild.plan import Change, Plan, Pointer, Rows, enter, get, keep
from sluice.verify import Budget
from sluice.verify.compare import Difference, columns_of, read_row
from sluice.verify.nodes import PREFIX, Node, read_nodes
from sluice.verify.run import Note, afford, declared_personal, settled
from sluice.verify.shadow import Dbt, rebuild, shadow_schemas

ALL, USUAL = Rows(), Budget()


def rehearse(
    selection: Sequence[str],
    rows: Rows = ALL,
    budget: Budget = USUAL,
    note: Note = lambda text: None,
    by: str | None = None,
) -> Plan:
    """Say which rows a rebuild of the models would add, change and remove, and store them; readers see nothing of it.

    `selection` is one of dbt's. Raises `SluiceError` if it means no table, if a chosen model does not have what `rows`
    speaks of, if the models have something unread, or if a blocking test refuses what was built.
    """
    if option := next((word for word in selection if word.startswith("-")), None):
        raise SluiceError(f"{option} is an option and no model; nothing was built")
    deadline = time.monotonic() + budget.time.total_seconds()
    run_id = f"rebuild:{time.time_ns()}"
    target = Path(tempfile.mkdtemp(prefix="sluice-rebuild-"))
    try:
        with shadow_schemas():
            names = Dbt(target, run_id).chosen(selection)
            nodes = read_nodes(target / "manifest.json", declared_personal())
            chosen = [node for node in nodes if node.is_compared and node.name in names]
            if not chosen:
                raise SluiceError(f"{' '.join(selection)} means no table that is built from logs; nothing was built")
            built = _with_what_they_read(nodes, {node.name for node in chosen})
            shadows = [node.shadow for node in built if node.is_compared]
            with warehouse.connect() as reading:
                _must_have(reading, chosen, rows)
                space = afford(reading, [node for node in built if node.is_compared], budget, note)
                seq, reasons = settled(reading, built, budget.wait, deadline, note, _all_read)
                reading.rollback()  # what is live is looked at when the shadows stand
            if reasons:
                raise SluiceError(f"{reasons[0]}; nothing was built. Run the DAG warehouse first, or wait with --wait")
            dbt = Dbt(target, run_id, seq)
            rebuild(dbt, shadows, deadline, space, note, [node.name for node in chosen])
            if failures := dbt.failures():
                name, why = next(iter(failures.items()))
                raise SluiceError(f"{name} can't be rebuilt: {why}. Nothing was changed")
            kept = rows.without_values() if any(rows.column in node.personal for node in chosen) else rows
            told = " ".join([*selection, *([str(kept)] if rows else [])])
            return _store(told, seq, chosen, rows, _pointers(target / "manifest.json"), by or getpass.getuser())
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _all_read(connection: psycopg.Connection, models: Sequence[Model]) -> tuple[int, list[str]]:
    """The number that also separates what models wrote: what one writes after it is left out of the swap."""
    (seq,) = connection.execute("select seq from ops.clock").fetchone()  # type: ignore[misc]
    return seq, unread(connection, models)


def samples(rebuild_id: int, limit: int = 5) -> dict[str, list[Difference]]:
    """The first rows of each model of which the difference is there; personal values are masked when printed."""
    with warehouse.connect() as connection:
        changes = [change for change in get(connection, rebuild_id, "rehearsed", "applied").changes if change.months]
        return {change.relation: _first(connection, change, limit) for change in changes}


def _first(connection: psycopg.Connection, change: Change, limit: int) -> list[Difference]:
    rows = connection.execute(
        sql.SQL(
            """
            select (to_jsonb(gone) - '_is_new')::text, (to_jsonb(come) - '_is_new')::text
            from (select * from {stored} where not _is_new) as gone
            full join (select * from {stored} where _is_new) as come on {same}
            order by coalesce({keys}) limit {limit}
            """
        ).format(
            stored=change.stored,
            same=change.same("come", "gone"),
            keys=sql.SQL(", ").join(sql.Identifier(side, change.grain[0]) for side in ("gone", "come")),
            limit=limit,
        )
    ).fetchall()
    personal = frozenset(change.personal)
    pairs = [tuple(read_row(side) if side else None for side in row) for row in rows]
    return [
        Difference(["***" if n in personal else (old or new)[n] for n in change.grain], old, new, personal)
        for old, new in pairs
    ]


# -- what is meant ------------------------------------------------------------------------------


def _must_have(connection: psycopg.Connection, chosen: Iterable[Node], rows: Rows) -> None:
    """A model that could not be asked for the rows would be left as it is in silence."""
    for node in chosen:
        columns = columns_of(connection, node.live)
        if not columns:
            raise SluiceError(f"{node.live} was never built; nothing was built. The DAG warehouse makes it")
        if rows.column and rows.column not in columns:
            raise SluiceError(f"{node.live} has no column {rows.column}; nothing was built. Leave it out")
        if (rows.first or rows.last) and not node.dated:
            raise SluiceError(f"{node.live} has no column that says which day a row belongs to; nothing was built")
        if rows.column:
            _must_be_values(connection, node, rows, columns[rows.column])


def _must_be_values(connection: psycopg.Connection, node: Node, rows: Rows, kind: str) -> None:
    shown = rows.without_values() if rows.column in node.personal else rows
    for value in rows.given:
        if not connection.execute("select pg_input_is_valid(%s, %s)", [value, kind]).fetchone()[0]:  # type: ignore[index]
            what = "***" if shown is not rows else repr(value)
            raise SluiceError(f"{what} is no {kind}, which {rows.column} of {node.live} is; nothing was built")
    if rows.is_range:
        typed = [
            sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(kind)) for value in rows.values
        ]  # of pg_attribute
        if connection.execute(sql.SQL("select {} > {}").format(*typed)).fetchone()[0]:  # type: ignore[index]
            raise SluiceError(f"{shown}: the first is after the last; nothing was built")


def _with_what_they_read(nodes: list[Node], names: set[str]) -> list[Node]:
    by_name = {node.name: node for node in nodes}
    found, left = set(), list(names)
    while left:
        if (name := left.pop()) in by_name and name not in found:
            found.add(name)
            left += by_name[name].reads
    return [node for node in nodes if node.name in found]


def _pointers(manifest: Path) -> list[Pointer]:
    """Who points to whom, as the blocking `relationships` tests of the project say."""
    tree = json.loads(manifest.read_text(encoding="utf-8"))
    found = []
    for test in tree["nodes"].values():
        about = test.get("test_metadata") or {}
        if about.get("name") != "relationships" or test["config"]["severity"].lower() == "warn":
            continue
        child = test.get("attached_node")
        parent = next((name for name in test["depends_on"]["nodes"] if name != child), None)
        if child in tree["nodes"] and parent in tree["nodes"]:
            column, field = about["kwargs"]["column_name"], about["kwargs"]["field"]
            found.append(Pointer(_live(tree["nodes"][child]), column, _live(tree["nodes"][parent]), field))
    return found


def _live(node: dict[str, Any]) -> str:
    return f"{node['schema'].removeprefix(f'{PREFIX}_')}.{node['alias']}"


# -- the difference -----------------------------------------------------------------------------


def _store(told: str, seq: int, chosen: list[Node], rows: Rows, pointers: list[Pointer], by: str) -> Plan:
    """In one snapshot of live and rebuilt tables."""
    with warehouse.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        plan = Plan(enter(connection, told, seq, by), told, "rehearsed", seq, [], [])
        plan.changes = [_difference(connection, plan, number, node, rows) for number, node in enumerate(chosen, 1)]
        ours = {change.relation for change in plan.changes}
        plan.pointers = [each for each in pointers if each.child in ours or each.parent in ours]
        keep(connection, plan)
        connection.commit()
    return plan


def _difference(connection: psycopg.Connection, plan: Plan, number: int, node: Node, rows: Rows) -> Change:
    here, there = columns_of(connection, node.live), columns_of(connection, node.shadow)
    other = sorted(set(here.items()) ^ set(there.items()))
    change = Change(
        node.live,
        f"r{plan.rebuild_id}__{number}__{node.schema}__{node.identifier}"[:63],
        [name for name in here if here[name] == there.get(name)],
        list(node.grain),
        list(node.slice),
        node.partition,
        node.dated,
        sorted(node.personal),
        closed=node.closed[0] if node.closed and node.closed[1] != "restate" else None,
        other_columns=", ".join(f"{name} {kind}" for name, kind in other),
    )
    if change.other_columns:
        change.notes.append(f"its columns would be others: {change.other_columns}; only those it keeps are compared")
    if _code(connection, node.live) != _code(connection, node.shadow):
        change.notes.append("other code built it: a run of warehouse with this code makes these changes by itself")
    _compare(connection, change, node)
    if fresh := _leave_out(connection, change, _written_since(plan.as_of_seq, node)):
        change.notes.append(f"{fresh} slices are left out: a run has written them meanwhile")
    if rows:
        meant = sql.SQL("select {} from {} as met where {}").format(
            change.key("met"), change.stored, rows.condition(node.dated)
        )
        _leave_out(connection, change, meant, unless=True)
    if change.closed:
        waiting = _leave_out(connection, change, change.in_closed_periods())
        if waiting:
            change.notes.append(f"{waiting} slices are left out: they have rows in a closed period")
    change.count_months(connection)
    return change


def _compare(connection: psycopg.Connection, change: Change, node: Node) -> None:
    """The rows of either side that the other does not have, byte for byte."""
    retired = sql.SQL("select key from ops.retired_key where relation = {}").format(node.live)
    connection.execute(
        sql.SQL(
            "create temporary table live on commit drop as select {} from {} as live where {}::text not in ({})"
        ).format(change.names(), change.live, sql.Identifier(change.grain[0]), retired)
    )
    shadow = sql.Identifier(*node.shadow.split("."))
    connection.execute(
        sql.SQL("create temporary table built on commit drop as select {} from {}").format(change.names(), shadow)
    )
    connection.execute("analyze live, built")
    connection.execute(
        sql.SQL(
            """
            create table {stored} as
            select false as _is_new, live.* from live left join built on {same}
            where built.{one} is null or live *<> built
            union all
            select true as _is_new, built.* from built left join live on {same}
            where live.{one} is null or live *<> built
            """
        ).format(stored=change.stored, same=change.same("live", "built"), one=sql.Identifier(change.grain[0]))
    )
    connection.execute(
        sql.SQL("create index on {} ({})").format(change.stored, sql.SQL(", ").join(map(sql.Identifier, change.grain)))
    )
    connection.execute("drop table live, built")


def _leave_out(connection: psycopg.Connection, change: Change, keys: sql.Composable, *, unless: bool = False) -> int:
    """Take slices out of the difference: those of `keys`, or all but those. Returns how many slices that were."""
    gone = connection.execute(
        sql.SQL(
            "with gone as (delete from {} as each where {} {} ({}) returning {} as key)"
            " select count(distinct key) from gone"
        ).format(change.stored, change.key("each"), sql.SQL("not in" if unless else "in"), keys, change.key("each"))
    ).fetchone()
    assert gone is not None
    return int(gone[0])


def _written_since(seq: int, node: Node) -> sql.Composable:
    return sql.SQL(
        "select key from ops.changed_key inner join ops.change using (change_id)"
        " where relation = {} and seq > {} and key_of is null"
    ).format(node.live, seq)


def _code(connection: psycopg.Connection, relation: str) -> str | None:
    row = connection.execute(
        "select input from ops.model_watermark where relation = %s and starts_with(input, 'code:')", [relation]
    ).fetchone()
    return row[0] if row else None
