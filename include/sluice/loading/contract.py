"""A table's contract, compiled to SQL: how landed text becomes typed values, and which rows may not.

Rules are checked in the order in which they are listed; a row is rejected for the first it breaks, so that each
rejected row has one
reason and the books add up.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from sluice.declarations import Column, Mode, Table

_TEMPORAL = ("date", "timestamptz", "timestamp", "time")
_MAX_KEY = 800  # bytes
_HASH_CHUNK = 45  # columns; a function takes at most 100 arguments


@dataclass(frozen=True)
class Rule:
    """One thing that must hold. `broken` is a SQL condition over the landing table, true for a row that breaks it."""

    code: str
    column: str
    reason: str
    broken: sql.Composable


@dataclass(frozen=True)
class Mapping:
    """How the fields of a landing table feed the columns of a contract."""

    texts: dict[str, sql.Composable]  # column -> its text
    rescued: sql.Composable  # jsonb of the fields that the contract does not know
    deleted: sql.Composable  # boolean
    missing: tuple[str, ...]  # declared columns without a field
    unknown: tuple[str, ...]  # fields without a column
    ambiguous: tuple[str, ...]  # fields that differ only in case


def map_fields(table: Table, fields: list[str], constants: dict[str, str], empty_is_null: bool) -> Mapping:
    """Match landed fields to declared columns by name: exactly, else without regard to case."""
    exact = {name: index for index, name in enumerate(fields)}
    folded: dict[str, list[int]] = {}
    for index, name in enumerate(fields):
        folded.setdefault(name.lower(), []).append(index)
    used: set[int] = set()

    def text_of(name: str) -> sql.Composable | None:
        index = exact.get(name)
        if index is None and len(folded.get(name.lower(), [])) == 1:
            index = folded[name.lower()][0]
        if index is None:
            return None
        used.add(index)
        field = sql.Identifier(f"f{index}")
        return sql.SQL("nullif({}, '')").format(field) if empty_is_null else field

    texts, missing = {}, []
    for name, column in table.columns.items():
        if column.from_path:
            texts[name] = sql.SQL("{}::text").format(constants.get(name))
            continue
        text = text_of(column.field or name)
        if text is None:
            missing.append(name)
        texts[name] = text or sql.SQL("null::text")
    deleted: sql.Composable = sql.SQL("false")
    if table.deleted_by and (marker := text_of(table.deleted_by.field)) is not None:
        deleted = sql.SQL("({} is not distinct from {})").format(marker, table.deleted_by.value)
    rest = [(index, name) for index, name in enumerate(fields) if index not in used and name != "_rescued"]
    return Mapping(
        texts,
        _rescued(rest, exact.get("_rescued")),
        deleted,
        tuple(missing),
        tuple(name for _, name in rest),
        tuple(sorted(name for name, where in folded.items() if len(where) > 1)),
    )


def _rescued(rest: list[tuple[int, str]], ready: int | None) -> sql.Composable:
    if ready is not None:
        return sql.SQL("{}::jsonb").format(sql.Identifier(f"f{ready}"))
    if not rest:
        return sql.SQL("null::jsonb")
    pairs = [sql.SQL("{}::text, {}").format(name, sql.Identifier(f"f{index}")) for index, name in rest]
    chunks = [pairs[start : start + _HASH_CHUNK] for start in range(0, len(pairs), _HASH_CHUNK)]
    objects = (sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(chunk)) for chunk in chunks)
    return sql.SQL("nullif(jsonb_strip_nulls({}), '{{}}'::jsonb)").format(sql.SQL(" || ").join(objects))


def rules_of(table: Table, mapping: Mapping) -> list[Rule]:
    """Every rule of the contract, types first. A deleted row needs only its key."""
    rules: list[Rule] = []
    needed = (
        set(table.key)
        | ({table.effective_at} if table.effective_at else set())
        | ({table.sequence} if table.sequence else set())
    )
    for name, column in table.columns.items():
        text = mapping.texts[name]
        rules += _type_rules(name, column, text)
        if name in needed or (table.cursor and name == table.cursor.column):
            code = (
                "NULL_CURSOR"
                if table.cursor and name == table.cursor.column
                else "NULL_KEY"
                if name in table.key
                else "REQUIRED"
            )
            rules.append(Rule(code, name, "has no value", sql.SQL("{} is null").format(text)))
        elif column.required:
            broken = sql.SQL("({} is null and not {})").format(text, mapping.deleted)
            rules.append(Rule("REQUIRED", name, "has no value", broken))
        if name in table.key and column.type == "text":
            # an index entry holds a third of a page; a longer key would fail the whole batch at publish
            long = sql.SQL("octet_length({}) > {}").format(text, sql.Literal(_MAX_KEY))
            rules.append(Rule("TOO_LONG", name, f"is longer than {_MAX_KEY} bytes, too long for a key", long))
    for name, column in table.columns.items():
        rules += _value_rules(name, column, mapping.texts[name])
    return rules


def _type_rules(name: str, column: Column, text: sql.Composable) -> list[Rule]:
    """The text must be a value of the type, and the same value again when written back."""
    kind = column.type
    if kind == "text":
        return []
    rules = [Rule("TYPE", name, f"is not of type {kind}", sql.SQL("not pg_input_is_valid({}, {})").format(text, kind))]
    if kind.startswith("numeric") or kind in ("real", "double precision"):
        not_finite = sql.SQL("({0})::double precision in ('NaN', 'Infinity', '-Infinity')")
        if kind.startswith("numeric"):
            not_finite = sql.SQL("({0})::numeric in ('NaN', 'Infinity', '-Infinity')")
        rules.append(Rule("NOT_FINITE", name, "is not a finite number", not_finite.format(text)))
    if "(" in kind:
        loses = sql.SQL("({0})::numeric <> ({0})::{1}").format(text, sql.SQL(kind))  # the type is from a closed list
        rules.append(Rule("PRECISION", name, f"has more digits than {kind} holds", loses))
    if kind in _TEMPORAL:
        # words such as today, now or infinity are valid input and mean something else tomorrow
        rules.append(Rule("TYPE", name, f"is not a {kind} in figures", sql.SQL("{} !~ '^[0-9]'").format(text)))
    return rules


def _value_rules(name: str, column: Column, text: sql.Composable) -> list[Rule]:
    rules = []
    if column.accepted is not None:
        broken = sql.SQL("{} <> all({}::text[])").format(text, list(column.accepted))
        rules.append(Rule("ACCEPTED", name, "is not one of the accepted values", broken))
    for bound, word, operator in ((column.minimum, "below", "<"), (column.maximum, "above", ">")):
        if bound is not None:
            number = sql.SQL("double precision" if column.type in ("real", "double precision") else "numeric")
            broken = sql.SQL("({})::{number} {} {}::{number}").format(
                text, sql.SQL(operator), str(bound), number=number
            )
            rules.append(Rule("RANGE", name, f"is {word} {bound:g}", broken))
    if column.pattern is not None:
        broken = sql.SQL("{} !~ {}").format(text, column.pattern)
        rules.append(Rule("PATTERN", name, f"does not match {column.pattern}", broken))
    return rules


def first_broken(rules: list[Rule]) -> sql.Composable:
    """The index of the first rule that a row breaks, or null. CASE keeps a cast from running before its type was
    checked."""
    if not rules:
        return sql.SQL("null::int")
    whens = (sql.SQL("when {} then {}").format(rule.broken, sql.Literal(index)) for index, rule in enumerate(rules))
    return sql.SQL("case {} end").format(sql.SQL(" ").join(whens))


def typed(table: Table, mapping: Mapping, name: str) -> sql.Composable:
    """The typed value of a column."""
    return sql.SQL("({})::{}").format(
        mapping.texts[name], sql.SQL(table.columns[name].type)
    )  # a type from a closed list


def row_hash(table: Table) -> sql.Composable:
    """The hash of a row of a declared table."""
    return row_hash_of({name: column.type for name, column in table.columns.items()})


def row_hash_of(types: dict[str, str]) -> sql.Composable:
    """A hash over the typed columns of a row: by name, so that type and order count, and NULL is like an absent column.

    An added column that is NULL in old rows therefore opens no new version (case 19).
    """
    names = sorted(types)
    chunks = [names[start : start + _HASH_CHUNK] for start in range(0, len(names), _HASH_CHUNK)]

    def pair(name: str) -> sql.Composable:
        cast = "::text" if types[name] == "jsonb" else ""
        return sql.SQL("{}::text, {}{}").format(name, sql.Identifier(name), sql.SQL(cast))

    objects = (sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(map(pair, chunk))) for chunk in chunks)
    return sql.SQL("md5(jsonb_strip_nulls({})::text)::uuid").format(sql.SQL(" || ").join(objects))


def effective_at(table: Table, instant: Any) -> sql.Composable:
    """When a row's version became true: its declared column, the cursor, or the instant of the unit."""
    name = table.effective_at or (table.cursor.column if table.mode is Mode.CURSOR and table.cursor else None)
    if name:
        return sql.SQL("{}::timestamptz").format(sql.Identifier(name))
    return sql.SQL("{}::timestamptz").format(instant)


def contract_hash(table: Table) -> str:
    """Changes when what the contract demands changes; not with a description."""
    columns = {n: c.model_dump(mode="json", exclude={"description"}) for n, c in table.columns.items()}
    text = json.dumps([columns, list(table.key), table.mode, table.effective_at, table.sequence], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
