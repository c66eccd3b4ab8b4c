"""Fields that the contract does not know become columns of the log, where `drift.new_column` is `evolve`.

The declaration is not edited: `ops.evolved_column` says which columns a log has besides, until the declaration adopts
them. Such a column can't cost a row: its values come out of `_rescued`, in a type that says each of them exactly, and a
later value that is none of the type stays in `_rescued`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from sluice.declarations import Column, Mode, Table
from sluice.loading import log
from sluice.loading.landing import landing_table
from sluice.loading.mapping import Mapping

if TYPE_CHECKING:
    from sluice.loading.batch import Batch

MOST = 100  # per table: keys of a JSON object that are values make no columns
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
# in this order; `same` holds for texts that a value of the type is written as, so that nothing of them is lost
_SAME = "case when pg_input_is_valid({text}, '{kind}') then {text}::{kind}::text = {text} else false end"
_AS_WRITTEN = "case when {text} ~ '{pattern}' then pg_input_is_valid({text}, '{kind}') else false end"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_FITS = {
    "boolean": _SAME,
    "bigint": _SAME,
    "numeric": f"{{text}} ~ '[0-9]' and {_SAME}",  # NaN and Infinity are none
    "date": f"{{text}} ~ '^[0-9]{{{{4}}}}-' and {_SAME}",
    "timestamptz": _AS_WRITTEN,
    "timestamp": _AS_WRITTEN,
    "uuid": _SAME,
    "jsonb": "jsonb_typeof({json}) in ('object', 'array')",
    "text": "true",
}
_PATTERN = {"timestamptz": _TIME + "(Z|[+-][0-9]{2}(:?[0-9]{2})?)$", "timestamp": _TIME + "$"}


def grow(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> Table:
    """The table with the columns that this batch brings first. Fields that hold nothing yet make no column, nor do
    those whose name can't be one, or is taken."""
    if table.drift.new_column != "evolve":
        return table
    for field, name in _new_fields(connection, table, batch, mapping).items():
        kind = _present_type(connection, table, name) or _infer(connection, batch, mapping, field)
        if kind:
            connection.execute(
                """
                insert into ops.evolved_column (source, table_name, column_name, field, type, batch_id)
                values (%s, %s, %s, %s, %s, %s) on conflict do nothing
                """,
                [table.source, table.name, name, field, kind, batch.batch_id],
            )
    return known(connection, table)


def known(connection: psycopg.Connection, table: Table) -> Table:
    """The table with the columns that its log has got besides those declared."""
    rows = connection.execute(
        "select column_name, field, type from ops.evolved_column where (source, table_name) = (%s, %s)"
        " order by added_at, column_name",
        [table.source, table.name],
    ).fetchall()
    return table.evolved({n: Column(type=kind, field=field) for n, field, kind in rows if n not in table.columns})


def _new_fields(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> dict[str, str]:
    """Each field of `_rescued` that has no column yet, with the name that its column gets."""
    from sluice.profiling.names import sanitise

    keys = sql.SQL(" union ").join(
        sql.SQL("select jsonb_object_keys({}) from {}").format(rescued, landed)
        for rescued, landed in _both(batch, mapping)
    )
    found = [field for (field,) in connection.execute(sql.SQL("{} order by 1").format(keys)).fetchall()]
    taken = {*table.log_columns, *log.SYSTEM}
    room = MOST - len(table.evolved_columns)
    new: dict[str, str] = {}
    for field in found:
        name = sanitise(field)
        if name not in taken and _NAME.fullmatch(name) and len(new) < room:
            new[field] = name
            taken.add(name)
    return new


def _present_type(connection: psycopg.Connection, table: Table, name: str) -> str | None:
    """The type of a column that the log has already: of an attempt that was killed, or once declared."""
    row = connection.execute(
        """
        select format_type(atttypid, atttypmod) from pg_attribute
        where attrelid = to_regclass(%s) and attname = %s and not attisdropped
        """,
        [log.relation(table).as_string(connection), name],
    ).fetchone()
    return _base(row[0]) if row else None


def _infer(connection: psycopg.Connection, batch: Batch, mapping: Mapping, field: str) -> str | None:
    """The narrowest type that says every value exactly; None where there is no value yet."""
    values = sql.SQL(" union all ").join(
        sql.SQL("select {0} -> {1} as json, {0} ->> {1} as text from {2}").format(rescued, field, landed)
        for rescued, landed in _both(batch, mapping)
    )
    checks = [sql.SQL("bool_and({})").format(_fits(kind, sql.SQL("text"), sql.SQL("json"))) for kind in _FITS]
    row = connection.execute(
        sql.SQL("select {} from ({}) as came where text is not null").format(sql.SQL(", ").join(checks), values)
    ).fetchone()
    assert row is not None
    return next((kind for kind, fits in zip(_FITS, row, strict=True) if fits), None)


def _both(batch: Batch, mapping: Mapping) -> list[tuple[sql.Composable, sql.Identifier]]:
    """What is rescued of the rows that came as text, and of those that came as values."""
    text, typed = landing_table(batch.batch_id), landing_table(batch.batch_id, "typed")
    return [(mapping.text.rescued, text), (mapping.typed.rescued, typed)]


def _fits(kind: str, text: sql.Composable, json: sql.Composable) -> sql.Composable:
    base = _base(kind)
    parts = {"text": text, "json": json, "kind": sql.SQL(kind), "pattern": sql.SQL(_PATTERN.get(base, ""))}
    return sql.SQL("({})").format(sql.SQL(_FITS.get(base, _SAME)).format(**parts))


def _base(kind: str) -> str:
    """A type as it is declared, for one that the catalogue spells."""
    short = {"timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp"}
    return short.get(kind, "time" if kind == "time without time zone" else kind)


# -- in the view of a batch's rows -----------------------------------------------------------------


def columns_of(table: Table, rescued: sql.Composable) -> list[sql.Composable]:
    """Each evolved column, as a value out of what is rescued of a row; NULL where it is none of its type."""
    return [
        sql.SQL("case when {} then ({})::{} end as {}").format(
            _fits(column.type, *_parts(column, rescued)),
            _parts(column, rescued)[column.type == "jsonb"],
            sql.SQL(column.type),
            sql.Identifier(name),
        )
        for name, column in table.evolved_columns.items()
    ]


def rest(table: Table, rescued: sql.Composable) -> sql.Composable:
    """What is rescued of a row without that which became columns."""
    taken = (
        sql.SQL("case when {} is null or {} then {}::text end").format(
            text := _parts(column, rescued)[0], _fits(column.type, text, _parts(column, rescued)[1]), column.field
        )
        for column in table.evolved_columns.values()
    )
    return sql.SQL("nullif({} - array[{}], '{{}}'::jsonb)").format(rescued, sql.SQL(", ").join(taken))


def _parts(column: Column, rescued: sql.Composable) -> tuple[sql.Composable, sql.Composable]:
    return (
        sql.SQL("({} ->> {})").format(rescued, column.field),
        sql.SQL("({} -> {})").format(rescued, column.field),
    )


# -- what is said ---------------------------------------------------------------------------------


def kept_in_rescued(table: Table) -> str:
    """Where values stay that no column takes. They open no version: the log writes no row that says nothing else."""
    return "kept in _rescued" + ("" if table.mode is Mode.APPEND else " of the rows that are new or changed otherwise")


def events(connection: psycopg.Connection, table: Table, batch: Batch) -> list[tuple[str, str, str]]:
    """Kind, field and message of each column that came with this batch, or of which it has values that don't fit."""
    found = []
    added = connection.execute(
        "select column_name, field, type from ops.evolved_column where batch_id = %s order by 1", [batch.batch_id]
    ).fetchall()
    for name, field, kind in added:
        message = (
            f"{batch.unit} has the field {field}, unknown to the contract; it is the column {name} {kind} of "
            f"staging.{table.log_name} now. To adopt it, declare: {declaration(name, field, kind)}"
        )
        found.append(("evolved_column", field, message))
    for field, kind, count in _misfits(connection, table, batch):
        message = f"{batch.unit} has {count} values of {field} that are no {kind}; they are {kept_in_rescued(table)}"
        found.append(("changed_type", field, message))
    return found


def declaration(name: str, field: str, kind: str) -> str:
    """The line that adopts an evolved column."""
    return f"{name}: {{type: {_base(kind)}{'' if field == name else f', field: {field!r}'}}}"


def _misfits(connection: psycopg.Connection, table: Table, batch: Batch) -> list[tuple[str, str, int]]:
    evolved = [(column.field or name, column.type) for name, column in table.evolved_columns.items()]
    if not evolved:
        return []
    counts = [sql.SQL("count(*) filter (where _rescued ? {})").format(field) for field, _ in evolved]
    row = connection.execute(
        sql.SQL("select {} from {} where _rescued is not null").format(
            sql.SQL(", ").join(counts), landing_table(batch.batch_id, "rows")
        )
    ).fetchone()
    assert row is not None
    return [(field, _base(kind), count) for (field, kind), count in zip(evolved, row, strict=True) if count]
