"""What feeds what, by column: from a field of a source to a column of a mart, and to who reads it.

Found in the compiled SQL of the models and in the declarations, once when dbt's artefacts changed (`build`), and kept
in the ledger. An edge says that values of one column go into another; a column that a row is only chosen or
joined by is no edge. What could not be followed is named, never left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sluice import warehouse
from sluice.declarations import Source, Table
from sluice.reports import artefacts
from sluice.reports.project import Node, Project
from sluice.warehouse import reading

LAYERS = ("source", "log", "staging", "snapshots", "intermediate", "marts", "exposure")
LOG = ("_batch_id", "_row_number", "_op", "_effective_at", "_sequence", "_row_hash", "_rescued")
_HISTORY = {  # columns that a snapshot makes itself
    "dbt_valid_from": ["_effective_at"],
    "dbt_valid_to": ["_effective_at"],
    "dbt_updated_at": ["_effective_at"],
    "dbt_is_deleted": ["_op"],
}

Key = tuple[str, str]  # table and column


@dataclass(frozen=True)
class Tabled:
    """A table of the graph: `id` is `shop.orders` at the source, else `schema.table`, or the name of an exposure."""

    id: str
    layer: str
    name: str
    description: str = ""
    columns: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unknown:
    """A table whose columns could not be followed, and why."""

    table: str
    why: str


@dataclass(frozen=True)
class Lineage:
    """The whole graph. `edges` has, for `table.column`, what goes into it."""

    built_at: datetime
    tables: tuple[Tabled, ...] = ()
    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: tuple[Unknown, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, Tabled]:
        """The tables by their ids."""
        return {table.id: table for table in self.tables}

    @cached_property
    def feeds(self) -> dict[str, tuple[str, ...]]:
        """The edges the other way: what each column goes into."""
        found: dict[str, list[str]] = {}
        for into, given in self.edges.items():
            for each in given:
                found.setdefault(each, []).append(into)
        return {each: tuple(into) for each, into in found.items()}

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Of each table, the tables that read it."""
        found: dict[str, list[str]] = {}
        for table in self.tables:
            for given in table.inputs:
                found.setdefault(given, []).append(table.id)
        return {given: tuple(ids) for given, ids in found.items()}


@dataclass(frozen=True)
class Traced:
    """A column, all that goes into it and all that it goes into, as `table.column`; and who reads the end of it."""

    table: str
    column: str
    upstream: tuple[str, ...]
    downstream: tuple[str, ...]
    exposures: tuple[str, ...]


def trace(lineage: Lineage, table: str, column: str) -> Traced | None:
    """Follow a column both ways; None where there is no such column."""
    start = lineage.by_id.get(table)
    if start is None or column not in start.columns:
        return None
    key = f"{table}.{column}"
    down = _reach(key, lineage.feeds)
    tables = {table, *(split(each)[0] for each in down)}
    readers = [each.id for each in lineage.tables if each.layer == "exposure" and tables & set(each.inputs)]
    return Traced(table, column, tuple(_reach(key, lineage.edges)), tuple(down), tuple(readers))


def split(key: str) -> Key:
    """Table and column of `shop.orders.amount`. A table's id has one dot; a field of a source may have more."""
    place, table, column = key.split(".", 2)
    return f"{place}.{table}", column


def around(lineage: Lineage, table: str) -> tuple[list[str], list[str]]:
    """The tables upstream and downstream of one, at any distance."""
    inputs = {each.id: each.inputs for each in lineage.tables}
    return _reach(table, inputs), _reach(table, lineage.readers)


def _reach(start: str, edges: Mapping[str, Iterable[str]]) -> list[str]:
    seen, queue = {start}, [start]
    for each in queue:
        for other in edges.get(each, ()):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return queue[1:]


# -- kept in the ledger -------------------------------------------------------------------------

_NAME = "lineage"
_last: tuple[datetime, Lineage] | None = None  # what this process read last


def read() -> Lineage | None:
    """The lineage as it was last built, from memory unless it was built again; None before the first time."""
    global _last
    with reading() as connection:
        built = artefacts.built_at(connection, _NAME)
        if built is None:
            return None
        if _last is None or _last[0] != built:
            _last = built, _parsed(artefacts.content(connection, _NAME) or b"")
    return _last[1]


def _parsed(text: bytes) -> Lineage:
    tree = json.loads(text)
    return Lineage(
        datetime.fromisoformat(tree["built_at"]),
        tuple(
            Tabled(**{**each, "columns": tuple(each["columns"]), "inputs": tuple(each["inputs"])})
            for each in tree["tables"]
        ),
        {into: tuple(given) for into, given in tree["edges"].items()},
        tuple(Unknown(**each) for each in tree["unknown"]),
    )


def write(lineage: Lineage) -> None:
    """Replace what is kept: a reader sees the old one or the new one."""
    tree = asdict(lineage) | {"built_at": lineage.built_at.isoformat()}
    with warehouse.connect() as connection:
        artefacts.write(connection, _NAME, json.dumps(tree).encode())


# -- found in SQL and declarations --------------------------------------------------------------


def build(project: Project, sources: Iterable[Source]) -> Lineage:
    """Follow every column of every model. `project` must come from a manifest with compiled SQL."""
    builder = _Builder()
    for source in sources:
        for table in source.tables.values():
            builder.declared(table)
    for node in project.nodes.values():
        builder.node(node, project)
    for each in project.exposures:
        relations = tuple(project.nodes[given].relation for given in each.inputs)
        builder.tables.append(Tabled(each.label, "exposure", each.label, each.description, (), relations))
    return builder.done()


def of_table(table: Table) -> Lineage:
    """One declared table at its source, and its log."""
    builder = _Builder()
    builder.declared(table)
    return builder.done()


def of_node(node: Node, project: Project, columns: Mapping[str, tuple[str, ...]]) -> Lineage:
    """One model, by the SQL that was compiled for it; `columns` are those of the relations that it reads."""
    builder = _Builder(columns)
    builder.node(node, project)
    return builder.done()


def inputs_of(node: Node, project: Project) -> tuple[str, ...]:
    """The relations that a model reads directly."""
    return (
        *(project.nodes[given].relation for given in node.inputs if given in project.nodes),
        *(f"staging.{source}__{table}" for source, table in node.logs),
    )


class _Builder:
    def __init__(self, columns: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.tables: list[Tabled] = []
        self.edges: dict[str, tuple[str, ...]] = {}
        self.unknown: list[Unknown] = []
        self._columns = dict(columns or {})  # by relation

    def done(self) -> Lineage:
        return Lineage(datetime.now(UTC), tuple(self.tables), self.edges, tuple(self.unknown))

    def declared(self, table: Table) -> None:
        origin, log = f"{table.source}.{table.name}", f"staging.{table.log_name}"
        fields = {name: column.field or column.from_path or name for name, column in table.columns.items()}
        said = " ".join(table.description.split())
        self.tables.append(Tabled(origin, "source", origin, said, tuple(dict.fromkeys(fields.values()))))
        self._add(Tabled(log, "log", log, said, (*table.columns, *LOG), (origin,)))
        self.edges |= {f"{log}.{name}": (f"{origin}.{given}",) for name, given in fields.items()}
        when = fields.get(table.effective_at or "")
        if when:
            self.edges[f"{log}._effective_at"] = (f"{origin}.{when}",)

    def _add(self, table: Tabled) -> None:
        self.tables.append(table)
        self._columns[table.id] = table.columns

    def node(self, node: Node, project: Project) -> None:
        inputs = inputs_of(node, project)
        declared = tuple(column.name for column in node.columns)
        try:
            found = self._snapshot(node, inputs) if node.layer == "snapshots" else follow(node.compiled, self._columns)
        except Exception as error:
            # sqlglot raises many kinds; whichever it is, this table's columns are not known and the others' are
            self.unknown.append(Unknown(node.relation, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"))
            found = {name: () for name in declared}
        self._add(Tabled(node.relation, node.layer, node.name, node.description, tuple(found), inputs))
        for name, given in found.items():
            if given:
                self.edges[f"{node.relation}.{name}"] = tuple(sorted(f"{table}.{column}" for table, column in given))

    def _snapshot(self, node: Node, inputs: tuple[str, ...]) -> dict[str, tuple[Key, ...]]:
        """A snapshot has the columns of the view that it reads, and those of its history."""
        (given,) = inputs
        has = self._columns[given]
        own = [column.name for column in node.columns] or [name for name in has if name not in LOG]
        names = dict.fromkeys([*own, "dbt_scd_id", *_HISTORY])
        from_key = {"dbt_scd_id": [*node.unique_key, "_effective_at"]}
        made = {**_HISTORY, **from_key}
        return {
            name: tuple((given, each) for each in made.get(name, [name]) if each in has)
            for name in names
        }  # fmt: skip


def follow(sql: str, known: Mapping[str, Iterable[str]]) -> dict[str, tuple[Key, ...]]:
    """For each output column of a query, the columns of real tables whose values go into it.

    `known` are the columns of the tables that it may read, by `schema.table`. Raises where the query can't be read.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import traverse_scope

    if not sql.strip():
        raise ValueError("dbt has not compiled it")
    query = sqlglot.parse_one(sql, dialect="postgres")
    for table in query.find_all(exp.Table):
        table.set("catalog", None)
    schema: dict[str, dict[str, dict[str, str]]] = {}
    for relation, columns in known.items():
        place, _, name = relation.partition(".")
        schema.setdefault(place, {})[name] = dict.fromkeys(columns, "text")
    query = qualify(query, schema=schema, dialect="postgres", validate_qualify_columns=False, identify=False)
    scopes = {id(scope.expression): scope for scope in traverse_scope(query)}
    resolver = _Resolver(scopes)
    return {name: tuple(sorted(resolver.column(scopes[id(query)], name))) for name in query.named_selects}


class _Resolver:
    """Walks from a column of a scope to the columns of tables below, once per column."""

    def __init__(self, scopes: Mapping[int, Any]) -> None:
        self._scopes = scopes
        self._known: dict[tuple[int, str], frozenset[Key]] = {}

    def column(self, scope: Any, name: str) -> frozenset[Key]:
        key = (id(scope), name)
        if key not in self._known:
            self._known[key] = frozenset()  # a recursive query meets itself: what it adds is found at its base
            self._known[key] = frozenset(self._find(scope, name))
        return self._known[key]

    def _find(self, scope: Any, name: str) -> Iterable[Key]:
        from sqlglot import exp

        query = scope.expression
        if isinstance(query, exp.SetOperation):
            position = query.named_selects.index(name)
            for arm in scope.set_operation_scopes or scope.union_scopes:
                yield from self.column(arm, arm.expression.named_selects[position])
        elif isinstance(query, exp.Subquery):
            yield from self.column(self._scopes[id(query.unnest())], name)
        elif isinstance(query, exp.UDTF):
            inner = self._scopes.get(id(query.this.unnest())) if isinstance(query.this, exp.Subquery) else None
            if inner is not None and name in inner.expression.named_selects:
                yield from self.column(inner, name)
            else:  # a function in `from`: each of its columns comes from all that it is given
                yield from self._columns_in(query, scope)
        else:
            names = scope.outer_columns if name in (scope.outer_columns or ()) else query.named_selects
            yield from self._columns_in(query.selects[list(names).index(name)], scope)

    def _columns_in(self, expression: Any, scope: Any) -> Iterable[Key]:
        """Of an expression: its own columns, and those of the queries inside it."""
        from sqlglot import exp

        inside = [each for each in expression.find_all(exp.Select, exp.SetOperation) if each is not scope.expression]
        outermost = [
            each for each in inside if not any(each is not other and _is_within(each, other) for other in inside)
        ]
        for each in outermost:
            inner = self._scopes.get(id(each))
            if inner is not None:
                for name in inner.expression.named_selects:
                    yield from self.column(inner, name)
        for column in expression.find_all(exp.Column):
            if not any(_is_within(column, each) for each in outermost):
                yield from self._source(scope, column.table, column.name)

    def _source(self, scope: Any, table: str, name: str) -> Iterable[Key]:
        from sqlglot import exp

        while scope is not None and table not in scope.sources:
            scope = scope.parent
        found = scope.sources[table] if scope is not None else None
        if isinstance(found, exp.Table):
            yield f"{found.db}.{found.name}", name
        elif found is not None and (
            isinstance(found.expression, exp.UDTF)
            or name in found.expression.named_selects
            or name in (found.outer_columns or ())
        ):
            yield from self.column(found, name)


def _is_within(node: Any, other: Any) -> bool:
    while node is not None:
        if node is other:
            return True
        node = node.parent
    return False
