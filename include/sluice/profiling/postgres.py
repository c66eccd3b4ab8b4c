"""Profile a Postgres table: its catalog says most, and a bounded look at its rows the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from sluice.errors import SluiceError
from sluice.profiling.names import sanitise, sanitise_all, says_person, spelt_out
from sluice.profiling.profile import Bounds, ColumnProfile, TableProfile, Wishes, key_of, require_key
from sluice.readers.base import connect

_CURSOR = re.compile(
    r"^(updated|modified|changed|last_?modified|last_?updated|last_?changed)(_?(at|on|time|ts|timestamp))?$"
)
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_KNOWN = re.compile(
    r"^(text|bigint|integer|smallint|boolean|date|uuid|jsonb|real|double precision|numeric(\(\d+,\d+\))?)$"
)
_COLUMNS = """
    select a.attname as name, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid),
            case when t.typbasetype <> 0 then t.typtypmod else a.atttypmod end) as type,
        a.attnotnull or t.typnotnull as required, col_description(a.attrelid, a.attnum) as comment,
        (select array_agg(enumlabel::text order by enumsortorder) from pg_enum where enumtypid = a.atttypid) as labels
    from pg_attribute as a inner join pg_type as t on t.oid = a.atttypid
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""
_UNIQUE = """
    select i.indisprimary as is_primary,
        array(select a.attname::text from unnest(i.indkey) with ordinality as k (attnum, place)
              inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum order by place) as columns
    from pg_index as i
    where i.indrelid = %s and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    order by i.indisprimary desc, i.indnkeyatts
"""
_CHECKS = "select pg_get_constraintdef(oid, true) from pg_constraint where conrelid = %s and contype = 'c'"
_FIRST_OF_INDEX = """
    select distinct a.attname::text from pg_index as i
    inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = %s and i.indisvalid and i.indpred is null
"""
_LIST = re.compile(r"^CHECK \(+\"?(\w+)\"?(?:::\w+)?\)? = ANY \(+ARRAY\[(.*?)\]\)*(?:::[\w\[\] ]+)*\)+$")
_ITEM = re.compile(r"'((?:[^']|'')*)'(?:::[\w ]+)?")
_BOUND = re.compile(r"^CHECK \(\(?\"?(\w+)\"? (>=|>|<=|<) \(?(-?\d+(?:\.\d+)?)\)?(?:::\w+)?\)?\)$")


@dataclass(frozen=True)
class _Catalog:
    """What the database itself says of a table."""

    columns: list[Any]
    unique: list[Any]
    checks: list[str]
    indexed: set[str]
    comment: str | None
    sees_others: bool
    rows: int


def profile_table(
    relation: str, connection: str, name: str, wishes: Wishes, bounds: Bounds, *, clocked: bool
) -> TableProfile:
    """Profile `schema.table`. `clocked`: the source declares a clock, so a cursor needs no look at other sessions."""
    with connect(connection) as session:
        session.execute("set transaction isolation level repeatable read, read only")
        session.execute("select set_config('statement_timeout', %s, false)", [f"{int(bounds.seconds * 1000)}"])
        try:
            catalog = _catalog(session, relation, connection)
            fields = [column.name for column in catalog.columns]
            rows = _rows(session, relation, fields, bounds)
        except psycopg.errors.QueryCanceled:
            raise SluiceError(
                f"{relation} did not answer within {bounds.seconds:g} seconds; nothing was written. "
                "Give it longer: --seconds"
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise SluiceError(
                f"{error.diag.message_primary}. Nothing was written. At the source: grant select on it"
            ) from None
    table = name or sanitise(relation.split(".")[-1])
    assumed: list[str] = []
    columns = _columns(catalog, rows, wishes)
    whole = len(rows) < bounds.rows
    key = _key(table, catalog, columns, rows, wishes, assumed, whole)
    require_key(columns, key)
    mode, more = _mode(catalog, columns, wishes, assumed, clocked)
    return TableProfile(
        table,
        {"postgres": {"connection": connection, "table": relation}},
        columns,
        key,
        mode,
        len(rows),
        whole,
        _sentence(catalog.comment) or f"{spelt_out(table)}, as they stand in {relation} at each reading.",
        f"{relation} at {connection}",
        more=more,
        assumed=assumed,
    )


def _catalog(session: psycopg.Connection, relation: str, connection: str) -> _Catalog:
    parts = relation.split(".")
    found = session.execute("select to_regclass(%s)::oid", [sql.Identifier(*parts).as_string(session)]).fetchone()
    if found is None or found[0] is None:
        near = session.execute(
            "select string_agg(name, ', ') from (select schemaname || '.' || relname as name from pg_stat_user_tables"
            " order by relname = %s desc, name limit 12) as known",
            [parts[-1]],
        ).fetchone()
        raise SluiceError(
            f"there is no table {relation} at connection {connection}; nothing was written. It has {near and near[0]}"
        )
    oid = found[0]
    with session.cursor(row_factory=namedtuple_row) as cursor:
        columns = cursor.execute(_COLUMNS, [oid]).fetchall()
        unique = cursor.execute(_UNIQUE, [oid]).fetchall()
    row = session.execute(
        "select obj_description(%s, 'pg_class'), pg_has_role('pg_read_all_stats', 'usage') and not pg_is_in_recovery(),"
        " greatest(reltuples, 0)::bigint from pg_class where oid = %s",
        [oid, oid],
    ).fetchone()
    assert row is not None
    return _Catalog(
        columns,
        unique,
        [check for (check,) in session.execute(_CHECKS, [oid])],
        {column for (column,) in session.execute(_FIRST_OF_INDEX, [oid])},
        *row,
    )


def _rows(session: psycopg.Connection, relation: str, fields: list[str], bounds: Bounds) -> list[list[str | None]]:
    """Some rows as text, as the reader would copy them."""
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(field)) for field in fields)
    query = sql.SQL("select {} from {} limit {}").format(texts, sql.Identifier(*relation.split(".")), bounds.rows)
    return [list(row) for row in session.execute(query)]


def _columns(catalog: _Catalog, rows: list[list[str | None]], wishes: Wishes) -> list[ColumnProfile]:
    names = sanitise_all([column.name for column in catalog.columns])
    profiles = []
    for index, (name, column) in enumerate(zip(names, catalog.columns, strict=True)):
        kind, notes = _type(column.type)
        if column.labels:
            kind, notes = "text", []
        declared: dict[str, Any] = {"type": kind}
        if column.name != name:
            declared["field"] = column.name
        if column.required:
            declared["required"] = True
        if column.labels:
            declared["accepted"] = list(column.labels)
        declared |= _checks(catalog.checks, column.name, kind)
        if person := says_person(name, (row[index] for row in rows if row[index] is not None)):  # type: ignore[misc]
            declared["personal"] = True
            notes.append(f"taken for personal {person}")
        declared["description"] = _sentence(column.comment) or spelt_out(name)
        profiles.append(ColumnProfile(name, column.name, declared, notes))
    return profiles


def _type(kind: str) -> tuple[str, list[str]]:
    """The source's type as a type of staging, with a note where something is lost."""
    plain = re.sub(r"\(\d+\)(?= with)|(?<=time)\(\d+\)", "", kind)
    plain = {
        "timestamp with time zone": "timestamptz",
        "timestamp without time zone": "timestamp",
        "time without time zone": "time",
        "json": "jsonb",
    }.get(plain, plain)
    if re.fullmatch(r"(character varying|character|bpchar|citext|name)(\(\d+\))?", plain):
        return "text", []
    if plain == "timestamp":
        return plain, [
            "without a zone at the source: if it is UTC, say so in the staging model with: at time zone 'UTC'"
        ]
    if _KNOWN.match(plain) or plain in ("timestamptz", "time"):
        return plain, []
    return "text", [] if plain == "text" else [f"{kind} at the source: read as its text"]


def _checks(checks: list[str], column: str, kind: str) -> dict[str, Any]:
    """Rules that the source's own constraints promise: a list of values, a lower or an upper bound."""
    rules: dict[str, Any] = {}
    for check in checks:
        if (found := _LIST.match(check)) and found[1] == column and kind == "text":
            rules["accepted"] = [item.replace("''", "'") for item in _ITEM.findall(found[2])]
        elif (found := _BOUND.match(check)) and found[1] == column and kind.startswith(_NUMBERS):
            number = float(found[3])
            whole = int(number) if number.is_integer() else number
            open_end = found[2] in (">", "<") and kind in _NUMBERS[:3] and isinstance(whole, int)
            rules["minimum" if found[2].startswith(">") else "maximum"] = (
                whole + (1 if found[2] == ">" else -1) if open_end else whole
            )
    return rules


def _key(
    table: str,
    catalog: _Catalog,
    columns: list[ColumnProfile],
    rows: list[list[str | None]],
    wishes: Wishes,
    assumed: list[str],
    whole: bool,
) -> tuple[str, ...]:
    by_field = {column.field: column for column in columns}
    if not wishes.key:
        for index in catalog.unique:
            if index.is_primary or all(by_field[name].declared.get("required") for name in index.columns):
                kind = "the primary key" if index.is_primary else "a unique index over columns that are not null"
                key = tuple(by_field[name].name for name in index.columns)
                assumed.append(f"key {', '.join(key)}: {kind}")
                return key
    seen = f"{'all' if whole else 'the first'} {len(rows):,} rows"
    return key_of(table, columns, rows, wishes, assumed, seen)


def _mode(
    catalog: _Catalog, columns: list[ColumnProfile], wishes: Wishes, assumed: list[str], clocked: bool
) -> tuple[str, dict[str, Any]]:
    """Cursor where a column grows with every change and readers can be sure to miss none; else full."""
    good = [
        column
        for column in columns
        if _CURSOR.match(column.name) and column.type == "timestamptz" and column.declared.get("required")
    ]
    if wishes.mode and wishes.mode != "cursor":
        assumed.append(f"mode {wishes.mode}: as asked")
        return wishes.mode, {}
    if not good:
        if wishes.mode == "cursor":
            raise SluiceError(
                "--mode cursor needs a timestamptz that is not null and set at every change, named such as updated_at; "
                "this table has none. Nothing was written"
            )
        assumed.append("mode full: no column such as updated_at (timestamptz, not null) shows which rows changed")
        return "full", {}
    cursor = good[0]
    if not (clocked or catalog.sees_others):
        assumed.append(
            f"mode full: {cursor.name} could be a cursor, but this user can't see when other transactions began, and "
            "rows would be lost. At the source: grant pg_read_all_stats; then say --mode cursor"
        )
        if wishes.mode != "cursor":
            return "full", {}
        assumed[-1] = "mode cursor, as asked: loading fails until pg_read_all_stats is granted at the source"
    else:
        slow = (
            ""
            if cursor.field in catalog.indexed
            else "; it has NO INDEX at the source, so that each reading scans the table"
        )
        assumed.append(f"cursor {cursor.name}: by its name, and never null{slow}. Make sure that EVERY update sets it")
    assumed.append("deletes key_scan: nothing marks a deleted row, so the keys are compared at each reading")
    return "cursor", {"cursor": {"column": cursor.name, "overlap": "1d"}, "deletes": {"detect": "key_scan"}}


def _sentence(comment: str | None) -> str:
    return " ".join((comment or "").split())
