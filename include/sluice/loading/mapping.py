"""How the fields of a unit feed the columns of a contract, in either of a batch's two landing tables.

`landing.b<id>` holds fields as text (`f0`, `f1`, …): rows of formats that come as text, and rows that COPY refused.
`landing.b<id>_typed` holds values: columns of the contract under their names, other fields as text (`_f<n>`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from sluice.declarations import Table

_PAIRS = 45  # pairs in one jsonb_build_object; a function takes at most 100 arguments


@dataclass(frozen=True)
class Values:
    """What one of the two tables gives."""

    columns: dict[str, sql.Composable]  # each column of the contract: its text, or its value
    fields: list[tuple[str, sql.Composable]]  # each field as it came: its name and its text
    rescued: sql.Composable  # jsonb of the fields that the contract does not know
    deleted: sql.Composable  # boolean

    @property
    def raw(self) -> sql.Composable:
        """The fields as a JSON object of texts, for quarantine: what came, under the names with which it came."""
        return sql.SQL("({})::text").format(json_object(self.fields))


@dataclass(frozen=True)
class Mapping:
    """Both, and what does not fit."""

    text: Values
    typed: Values
    landed: dict[str, str]  # the columns of the typed table, with their types
    becomes: dict[str, sql.Composable]  # and the text that becomes each of them
    direct: tuple[str, ...] | None  # for each field the typed column that takes it; None where one feeds several
    missing: tuple[str, ...]  # declared columns without a field
    unknown: tuple[str, ...]  # fields without a column
    ambiguous: tuple[str, ...]  # fields that differ only in case


def map_batch(table: Table, details: dict[str, Any]) -> Mapping:
    """The mapping of a batch that has landed, by what the ledger knows of it."""
    fields = details["fields"]
    rest = details.get("rest", "_rescued" in fields)  # older batches say it by the name alone
    return map_fields(table, fields, details["constants"], details["empty_is_null"], rest=rest)


def map_fields(
    table: Table, fields: list[str], constants: dict[str, str], empty_is_null: bool, *, rest: bool = False
) -> Mapping:
    """Match fields to declared columns by name: exactly, else without regard to case.

    With `rest` the last field is no field of the source but a JSON object of all that the contract does not know.
    """
    rescued = len(fields) - 1 if rest else None
    came = fields[:rescued]
    exact = {name: index for index, name in enumerate(came)}
    folded: dict[str, list[int]] = {}
    for index, name in enumerate(came):
        folded.setdefault(name.lower(), []).append(index)

    def find(name: str) -> int | None:
        same = folded.get(name.lower(), [])
        return exact.get(name, same[0] if len(same) == 1 else None)

    sources = {n: None if c.from_path else find(c.field or n) for n, c in table.columns.items()}
    marker = find(table.deleted_by.field) if table.deleted_by else None
    fed: dict[int, list[str]] = {}
    for name, index in sources.items():
        if index is not None:
            fed.setdefault(index, []).append(name)
    takes = ["_rescued" if i == rescued else fed.get(i, [f"_f{i}"])[0] for i in range(len(fields))]
    unknown = [i for i in range(len(fields)) if i not in fed and i not in (marker, rescued)]
    names = told_apart(fields)

    def side(values: list[sql.Composable], raw: list[sql.Composable], *, typed: bool) -> Values:
        def column(name: str) -> sql.Composable:
            kind, index = sql.SQL(table.columns[name].type if typed else "text"), sources[name]
            if index is None:
                return sql.SQL("{}::{}").format(constants.get(name) if table.columns[name].from_path else None, kind)
            return sql.Identifier(name) if typed else values[index]

        return Values(
            {name: column(name) for name in table.columns},
            list(zip(names, raw, strict=True)),
            _rescued(names, unknown, values, rescued),
            _deleted(table, None if marker is None else values[marker], fed.get(marker, [])[:1], typed=typed),
        )

    text: list[sql.Composable] = [sql.Identifier(f"f{i}") for i in range(len(fields))]
    known = [sql.SQL("nullif({}, '')").format(field) if empty_is_null else field for field in text]
    typed: list[sql.Composable] = [sql.Identifier(name) for name in takes]
    landed = {n: landing_type(table.columns[n].type) for n, index in sources.items() if index is not None}
    landed |= {name: "jsonb" if name == "_rescued" else "text" for name in takes if name not in landed}
    becomes = {n: known[index] for n, index in sources.items() if index is not None} | {
        name: known[index] for index, name in enumerate(takes) if name not in table.columns
    }
    return Mapping(
        side(known, known, typed=False),
        side(typed, [sql.SQL("{}::text").format(column) for column in typed], typed=True),
        landed,
        becomes,
        tuple(takes) if all(len(names) == 1 for names in fed.values()) else None,
        tuple(n for n, index in sources.items() if index is None and not table.columns[n].from_path),
        tuple(names[i] for i in unknown),
        tuple(sorted(name for name, where in folded.items() if len(where) > 1)),
    )


def told_apart(fields: list[str]) -> list[str]:
    """The names under which fields are kept: of a name that comes again, its second field is `name#2`."""
    taken, names = set(fields), list[str]()
    seen: set[str] = set()
    for name in fields:
        number, kept = 1, name
        while kept in seen or (number > 1 and kept in taken):
            number += 1
            kept = f"{name}#{number}"
        seen.add(kept)
        names.append(kept)
    return names


def landing_type(kind: str) -> str:
    """The type in typed landing: numeric without a scale, which would round in silence before the value is judged."""
    return "numeric" if kind.startswith("numeric") else kind


def json_object(pairs: list[tuple[str, sql.Composable]]) -> sql.Composable:
    """A jsonb of any number of names and values."""
    if not pairs:
        return sql.SQL("'{{}}'::jsonb").format()
    parts = [sql.SQL("{}::text, {}").format(name, value) for name, value in pairs]
    chunks = [parts[start : start + _PAIRS] for start in range(0, len(parts), _PAIRS)]
    objects = (sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(chunk)) for chunk in chunks)
    return sql.SQL(" || ").join(objects)


def _rescued(fields: list[str], unknown: list[int], values: list[sql.Composable], ready: int | None) -> sql.Composable:
    if ready is not None:
        return sql.SQL("{}::jsonb").format(values[ready])
    if not unknown:
        return sql.SQL("null::jsonb")
    pairs = [(fields[i], values[i]) for i in unknown]
    return sql.SQL("nullif(jsonb_strip_nulls({}), '{{}}'::jsonb)").format(json_object(pairs))


def _deleted(table: Table, marker: sql.Composable | None, column: list[str], *, typed: bool) -> sql.Composable:
    """Whether the field that marks deletes holds the declared value: as text, or as a value if it is a typed column."""
    if marker is None or table.deleted_by is None:
        return sql.SQL("false")
    kind, value = landing_type(table.columns[column[0]].type) if column else "text", table.deleted_by.value
    if kind == "text":
        return sql.SQL("({} is not distinct from {})").format(marker, value)
    # the select keeps the planner from casting a constant that may be no value of the type
    valid = sql.SQL("pg_input_is_valid({}, {})")
    checks = [valid.format(value, kind), *([] if typed else [valid.format(marker, kind)])]
    return sql.SQL("coalesce(case when {} then {}::{kind} = (select {}::text)::{kind} end, false)").format(
        sql.SQL(" and ").join(checks), marker, value, kind=sql.SQL(kind)
    )
