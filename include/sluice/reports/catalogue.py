"""What is there: every table and column, who answers for it, what is checked, and what its values look like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from sluice.declarations import Source, Table
from sluice.errors import SluiceError
from sluice.reports.lineage import LOG
from sluice.reports.project import Node, Project, Test
from sluice.warehouse import reading


@dataclass(frozen=True)
class Entry:
    """A table in the list."""

    relation: str
    name: str
    layer: str
    description: str
    owner: str
    columns: int
    personal: int
    tests: int
    rows: int | None
    bytes: int | None


@dataclass(frozen=True)
class Profile:
    """What Postgres' statistics say of a column: estimates from a sample. Shares are parts of one.

    `histogram` are values between which equally many rows lie, of those that are none of the most frequent; `bins` the
    shares of all rows in equal steps from `minimum` to `maximum`, of a column of numbers or times.
    """

    at: datetime
    rows: int
    null_share: float | None
    distinct: int | None
    average_bytes: int | None
    minimum: str | None
    maximum: str | None
    common: tuple[tuple[str, float], ...] = ()
    histogram: tuple[str, ...] = ()
    bins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Tested:
    """A test or a rule of the contract, and its last result; `verdict` is None where none is recorded."""

    name: str
    kind: str
    severity: str
    verdict: str | None
    failing_rows: int | None
    at: datetime | None


@dataclass(frozen=True)
class ColumnShown:
    """A column with everything that is known of it."""

    name: str
    type: str
    description: str
    personal: bool
    tests: tuple[Tested, ...]
    open_rejects: int
    profile: Profile | None


@dataclass(frozen=True)
class TableShown:
    """A table with its columns."""

    entry: Entry
    source: str | None
    columns: tuple[ColumnShown, ...]
    tests: tuple[Tested, ...]  # of the table as a whole
    unique_key: tuple[str, ...]
    mode: str | None


def entries(sources: Iterable[Source], project: Project, *, search: str = "") -> list[Entry]:
    """Every table whose name, description or a column has `search` in it."""
    with reading() as connection:
        sizes = {
            relation: (rows, size)
            for relation, rows, size in connection.execute(
                "select distinct on (relation) relation, rows, bytes from ops.relation_size"
                " where measured_on > current_date - 14 order by relation, measured_on desc"
            )
        }
    wanted = search.lower()
    found = []
    for source in sources:
        for table in source.tables.values():
            if _matches(wanted, f"{source.source}.{table.name}", table.description, table.columns):
                found.append(_declared_entry(source, table, sizes))
    for node in project.nodes.values():
        if _matches(wanted, node.name, node.description, [column.name for column in node.columns]):
            found.append(_node_entry(node, sizes))
    return found


def _matches(wanted: str, name: str, description: str, columns: Iterable[str]) -> bool:
    return any(wanted in text.lower() for text in (name, description, *columns))


def table(relation: str, sources: Iterable[Source], project: Project) -> TableShown:
    """One table. Raises `SluiceError` where neither a declaration nor the project has it."""
    declared = {f"staging.{each.log_name}": (source, each) for source in sources for each in source.tables.values()}
    nodes = {node.relation: node for node in project.nodes.values()}
    if relation not in declared and relation not in nodes:
        raise SluiceError(f"neither a declaration nor the dbt project has a table {relation}")
    with reading() as connection:
        sizes = {
            name: (rows, size)
            for name, rows, size in connection.execute(
                "select relation, rows, bytes from ops.relation_size"
                " where relation = %s order by measured_on desc limit 1",
                [relation],
            )
        }
        profiles = _profiles(connection, relation)
        if relation in declared:
            return _declared(connection, *declared[relation], sizes, profiles)
        return _node(connection, nodes[relation], sizes, profiles)


def _profiles(connection: psycopg.Connection, relation: str) -> dict[str, tuple[str, Profile]]:
    rows = connection.execute(
        """
        select column_name, type, profiled_at, rows, null_share, distinct_count, average_bytes, minimum, maximum,
            common, histogram, bins
        from ops.column_profile where relation = %s order by position
        """,
        [relation],
    )
    return {
        row[0]: (
            row[1],
            Profile(
                *row[2:9],
                tuple((each["value"], each["share"]) for each in row[9] or []),
                tuple(row[10] or ()),
                tuple(row[11] or ()),
            ),
        )
        for row in rows
    }


def _declared_entry(source: Source, table: Table, sizes: dict[str, tuple[int, int]]) -> Entry:
    relation = f"staging.{table.log_name}"
    rules = sum(len(_rules(table, name)) for name in table.columns)
    personal = sum(column.personal for column in table.columns.values())
    return Entry(
        relation, f"{source.source}.{table.name}", "log", " ".join(table.description.split()), source.owner,
        len(table.columns), personal, rules, *sizes.get(relation, (None, None)),
    )  # fmt: skip


def _node_entry(node: Node, sizes: dict[str, tuple[int, int]]) -> Entry:
    personal = sum(column.personal for column in node.columns)
    return Entry(
        node.relation, node.name, node.layer, node.description, node.owner or "warehouse", len(node.columns), personal,
        len(node.tests), *sizes.get(node.relation, (None, None)),
    )  # fmt: skip


def _rules(table: Table, name: str) -> list[tuple[str, str]]:
    """The rules of a declared column, as words, and what breaking one does."""
    column = table.columns[name]
    found = []
    if column.required:
        found.append(("required", "quarantine"))
    if column.accepted is not None:
        found.append((f"one of {', '.join(column.accepted)}", column.severity.get("accepted", "quarantine")))
    if column.minimum is not None or column.maximum is not None:
        bounds = [
            f"{word} {value:g}"
            for word, value in (("at least", column.minimum), ("at most", column.maximum))
            if value is not None
        ]
        found.append((", ".join(bounds), column.severity.get("range", "quarantine")))
    if column.pattern is not None:
        found.append((f"matches {column.pattern}", column.severity.get("pattern", "quarantine")))
    if column.references is not None:
        found.append((f"is in {column.references.table}.{column.references.column}", column.references.severity))
    return found


def _declared(
    connection: psycopg.Connection,
    source: Source,
    table: Table,
    sizes: dict[str, tuple[int, int]],
    profiles: dict[str, tuple[str, Profile]],
) -> TableShown:
    rejects = dict(
        connection.execute(
            "select column_name, count(*) from ops.quarantine"
            " where source = %s and table_name = %s and state = 'open' group by 1",
            [source.source, table.name],
        ).fetchall()
    )
    last = connection.execute(
        "select published_at from ops.batch where source = %s and table_name = %s and published_seq is not null"
        " order by published_seq desc limit 1",
        [source.source, table.name],
    ).fetchone()
    judged = last[0] if last else None

    def tested(name: str) -> tuple[Tested, ...]:
        open_rows = rejects.get(name, 0)
        verdict = None if judged is None else "warn" if open_rows else "pass"
        return tuple(Tested(rule, "contract", does, verdict, open_rows, judged) for rule, does in _rules(table, name))

    columns = tuple(
        ColumnShown(
            name,
            column.type,
            column.description,
            column.personal,
            tested(name),
            rejects.get(name, 0),
            profiles[name][1] if name in profiles else None,
        )
        for name, column in table.columns.items()
    )
    entry = _declared_entry(source, table, sizes)
    results = _results(connection, [entry.relation], [])
    whole = tuple(
        Tested(name, "gate", severity, verdict, failing, at)
        for (_, name), (verdict, failing, at, severity) in sorted(results.items())
    )
    return TableShown(entry, source.source, columns, whole, table.key, table.mode.value)


def _node(
    connection: psycopg.Connection,
    node: Node,
    sizes: dict[str, tuple[int, int]],
    profiles: dict[str, tuple[str, Profile]],
) -> TableShown:
    results = _results(connection, [node.relation], [node.name])

    def tested(test: Test) -> Tested:
        recorded = next((name for name in (test.alias, test.name) if (node.relation, name) in results), "")
        verdict, failing, at, _ = results.pop((node.relation, recorded), (None, None, None, ""))
        return Tested(test.name, test.kind, "block" if test.severity == "error" else "warn", verdict, failing, at)

    by_column: dict[str | None, list[Tested]] = {}
    for test in node.tests:
        by_column.setdefault(test.column, []).append(tested(test))
    described = {column.name: column for column in node.columns}
    names = dict.fromkeys([*described, *(name for name in profiles if name not in LOG)])
    columns = tuple(
        ColumnShown(
            name,
            (profiles[name][0] if name in profiles else "") or (described[name].type if name in described else ""),
            described[name].description if name in described else "",
            described[name].personal if name in described else False,
            tuple(by_column.pop(name, ())),
            0,
            profiles[name][1] if name in profiles else None,
        )
        for name in names
    )
    whole = [test for tests in by_column.values() for test in tests]
    whole += [
        Tested(name, "gate", severity, verdict, failing, at)
        for (_, name), (verdict, failing, at, severity) in sorted(results.items())
    ]
    return TableShown(_node_entry(node, sizes), None, columns, tuple(whole), node.unique_key, None)


def _results(
    connection: psycopg.Connection, relations: list[str], models: list[str]
) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The latest result of each check: those of gates, and those that a model's own transaction ran."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for relation, name, verdict, failing, at in connection.execute(
        """
        -- a run that had nothing to write asks no test: the result before it still holds
        select distinct on (each.name) run.relation, each.name, each.verdict, each.failures, run.committed_at
        from unnest(%s::text[]) as wanted (model)
        inner join lateral (
            select * from ops.model_run as run
            where run.model = wanted.model and run.checks <> '[]' order by run.model_run_id desc limit 100
        ) as run on true
        cross join lateral jsonb_to_recordset(run.checks) as each (name text, verdict text, failures bigint)
        order by each.name, run.model_run_id desc
        """,
        [models],
    ):
        found[relation, name] = (verdict, failing, at, "block")
    for relation, name, verdict, failing, at, severity in connection.execute(
        """
        select distinct on (result.object, result.check_name)
            result.object, result.check_name, result.verdict, result.failing_rows, result.checked_at, result.severity
        from (
            select recent.* from unnest(%s::text[]) as wanted (relation)
            inner join lateral (
                select * from ops.gate_result as result
                where result.object = wanted.relation order by result.gate_result_id desc limit 200
            ) as recent on true
        ) as result
        order by result.object, result.check_name, result.gate_result_id desc
        """,
        [relations],
    ):
        found[relation, name] = (verdict, failing, at, severity)
    return found
