"""What a source brought that its contract does not say: judged by the declared policy, and recorded once per change.

Each batch notes what it found (`drift` in its details), so that the next one knows what is a change: a field that is
missing again after it had come back is said again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from sluice.declarations import Column, Mode, Table
from sluice.errors import SluiceError
from sluice.loading import batch as batches
from sluice.loading import contract, evolve, log
from sluice.loading.batch import Batch
from sluice.loading.landing import landing_table
from sluice.loading.mapping import Mapping, Values

_SAMPLE = 2000  # values of a field that are compared with a column's
_CONTRACT = {"columns", "key", "mode", "effective_at", "sequence"}  # with `contract.read_as`, what its hash covers
_WIDER = {"smallint": ("integer", "bigint", "numeric"), "integer": ("bigint", "numeric"), "bigint": ("numeric",)}


def observed(table: Table, batch: Batch, mapping: Mapping) -> Mapping:
    """The mapping with what its records had and had not, where no header says which fields a unit has."""
    if "absent" not in batch.details:
        return mapping
    absent = batch.details["absent"]
    missing = tuple(n for n, column in table.columns.items() if not column.from_path and (column.field or n) in absent)
    return replace(mapping, unknown=tuple(batch.details["unknown"]), missing=missing)


def refusal(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> str | None:
    """Why the fields of a batch keep it from being published, if they do."""
    declared = {(column.field or name).lower() for name, column in table.columns.items()}
    if ambiguous := [name for name in mapping.ambiguous if name in declared]:
        return f"{batch.unit}: the fields {', '.join(ambiguous)} occur more than once; nothing was published"
    required = [n for n in mapping.missing if table.columns[n].required or n in table.key]
    if required and "absent" not in batch.details:  # records that say their own fields are judged one by one
        return f"{batch.unit} has no field for the required columns {', '.join(required)}; nothing was published. " + (
            _renamed(connection, table, batch, mapping, required[0]) or _NAME_IT.format(column=required[0])
        )
    marker = table.deleted_by.field if table.deleted_by else None
    came = {name.lower() for name in batch.details["fields"]}
    if marker and marker.lower() not in came and "absent" not in batch.details:
        return (
            f"{batch.unit} has no field {marker}, by which deleted rows are marked, so that they would come back to "
            "life; nothing was published. Correct deleted_by in the declaration if it was renamed"
        )
    if mapping.missing and table.drift.missing_column == "block":
        hint = _renamed(connection, table, batch, mapping, mapping.missing[0])
        return (
            f"{batch.unit} has no field for {', '.join(mapping.missing)}; nothing was published: "
            f"drift.missing_column is block. {hint or 'Ask the owner of the source'}"
        )
    if mapping.unknown and table.drift.new_column == "block":
        return (
            f"{batch.unit} has the fields {', '.join(mapping.unknown)}, unknown to the contract; nothing was "
            "published: drift.new_column is block. Declare them under columns, or let them be rescued"
        )
    return None


_NAME_IT = "Name the field in the declaration (columns.{column}.field) if it was renamed"


def _renamed(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping, column: str) -> str | None:
    """Which unknown field holds the values that the column had, if one holds most of them. Values are not named."""
    unknown = [(name, _came(mapping.text, name), _came(mapping.typed, name)) for name in mapping.unknown]
    if not connection.execute("select to_regclass(%s)", [log.relation(table).as_string(connection)]).fetchone()[0]:  # type: ignore[index]
        return None
    best: tuple[float, str] = (0.0, "")
    for name, text, typed in unknown:
        shared = connection.execute(
            sql.SQL(
                """
                select avg((came.value in (
                    select known.{column}::text from (select {column} from {log} limit {many}) as known
                ))::int)
                from (
                    (select {text}::text as value from {landed} limit {sample})
                    union
                    (select {typed}::text from {landed_typed} limit {sample})
                ) as came
                where came.value is not null
                """
            ).format(
                column=sql.Identifier(column),
                log=log.relation(table),
                many=sql.Literal(_SAMPLE * 50),
                text=text,
                typed=typed,
                landed=landing_table(batch.batch_id),
                landed_typed=landing_table(batch.batch_id, "typed"),
                sample=sql.Literal(_SAMPLE),
            )
        ).fetchone()[0]  # type: ignore[index]
        best = max(best, (float(shared or 0), name))
    if best[0] < 0.5:
        return None
    return (
        f"{best[0]:.0%} of the values of the field {best[1]} are such as {column} had; if it was renamed, declare "
        f"columns.{column}.field: {best[1]}"
    )


def _came(values: Values, name: str) -> sql.Composable:
    """An unknown field: one of its own, or a part of what was rescued."""
    return dict(values.fields).get(name, sql.SQL("({} ->> {})").format(values.rescued, name))


def record(
    connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping, evolved: list[tuple[str, str, str]]
) -> None:
    """Events of this batch, each said once per change, not once per batch; then the shape and the contract of it.

    `evolved` is what the evolved columns have to say.
    """
    fate = "the batch was refused" if table.drift.new_column == "block" else evolve.kept_in_rescued(table)
    known = {column.field for column in table.evolved_columns.values()}
    events = [
        *evolved,
        *(
            ("new_column", name, f"{batch.unit} has the field {name}, unknown to the contract; {fate}")
            for name in mapping.unknown
            if name not in known
        ),
    ]
    events += [
        ("duplicate_name", name, f"{batch.unit} has the field {name} more than once") for name in mapping.ambiguous
    ]
    for name in mapping.missing:
        hint = _renamed(connection, table, batch, mapping, name)
        events.append(("missing_column", name, f"{batch.unit} has no field for {name}. {hint or 'NULL was loaded'}"))
    events += _types(connection, table, batch)
    _say(connection, batch, {(kind, name): message for kind, name, message in events})
    _remember(connection, table, batch)


def _types(connection: psycopg.Connection, table: Table, batch: Batch) -> list[tuple[str, str, str]]:
    """Rejected values of a column that all are of a wider type, or of none: what the source changed."""
    columns = connection.execute(
        "select column_name, count(*) from ops.quarantine where batch_id = %s and code = 'TYPE' group by 1",
        [batch.batch_id],
    ).fetchall()
    events = []
    for name, count in columns:
        if name not in table.columns:
            continue
        column = table.columns[name]
        kinds = _WIDER.get(column.type, ())
        wider = next((kind for kind in kinds if _all_valid(connection, batch, column.field or name, kind)), None)
        kind, message = "changed_type", f"{batch.unit} has {count} values of {name} that are no {column.type}"
        if wider:
            kind, message = (
                "wider_type",
                (
                    f"{message}, and all of them are {wider}. If that is right, declare type: {wider} and replay them: "
                    f"sluice quarantine replay {table.source}.{table.name} --code TYPE --column {name}"
                ),
            )
        events.append((kind, name, f"{message}; they are in quarantine" if not wider else message))
    return events


def _all_valid(connection: psycopg.Connection, batch: Batch, field: str, kind: str) -> bool:
    return bool(
        connection.execute(
            """
            select bool_and(pg_input_is_valid(given.value, %(kind)s))
            from ops.quarantine as q
            cross join lateral jsonb_each_text(q.raw::jsonb) as given (name, value)
            where q.batch_id = %(batch)s and q.code = 'TYPE' and lower(given.name) = lower(%(field)s)
                and q.column_name is not null
            """,
            {"kind": kind, "batch": batch.batch_id, "field": field},
        ).fetchone()[0]  # type: ignore[index]
    )


def _say(connection: psycopg.Connection, batch: Batch, events: dict[tuple[str, str], str]) -> None:
    """Write the events that are a change. A batch without records says nothing of fields, and changes nothing."""
    before = connection.execute(
        """
        select details -> 'drift' from ops.batch
        where source = %s and table_name = %s and batch_id < %s and details ? 'drift'
        order by batch_id desc limit 1
        """,
        [batch.source, batch.table_name, batch.batch_id],
    ).fetchone()
    known = {(kind, name) for kind, name in before[0]} if before else None
    for (kind, name), message in events.items():
        _event(connection, batch, kind, name, message, again=known is not None and (kind, name) not in known)
    if batch.details["typed_rows"] + batch.details["text_rows"] or "absent" not in batch.details:
        batches.add_details(connection, batch.batch_id, drift=sorted(events))


def _event(connection: psycopg.Connection, batch: Batch, kind: str, column: str, message: str, *, again: bool) -> None:
    """One event; unless `again`, only if it was never written."""
    connection.execute(
        """
        insert into ops.schema_event (batch_id, source, table_name, unit, kind, column_name, message)
        select %(batch)s, %(source)s, %(table)s, %(unit)s, %(kind)s, %(column)s, %(message)s
        where %(again)s or not exists (
            select from ops.schema_event
            where source = %(source)s and table_name = %(table)s and kind = %(kind)s and column_name = %(column)s
        )
        """,
        {
            "batch": batch.batch_id,
            "source": batch.source,
            "table": batch.table_name,
            "unit": batch.unit,
            "kind": kind,
            "column": column,
            "message": message,
            "again": again,
        },
    )


# -- what an old batch was read with --------------------------------------------------------------


def _remember(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """The fingerprint of the fields that came, and the contract as it stands, once per version."""
    fields = json.dumps(batch.details["fields"])
    connection.execute(
        "update ops.batch set schema_hash = %s, contract_hash = %s where batch_id = %s",
        [
            hashlib.blake2b(fields.encode(), digest_size=8).hexdigest(),
            contract.contract_hash(table),
            batch.batch_id,
        ],
    )
    connection.execute(
        """
        insert into ops.contract (source, table_name, contract_hash, contract) values (%s, %s, %s, %s)
        on conflict do nothing
        """,
        [
            table.source,
            table.name,
            contract.contract_hash(table),
            Jsonb(table.model_dump(mode="json", include=_CONTRACT) | {"read_as": contract.read_as(table)}),
        ],
    )


def contract_of(connection: psycopg.Connection, batch_id: int) -> Table:
    """The table as it was declared when a batch was judged: its columns, key, mode, and what orders versions.

    Raises `SluiceError` for a batch that never was judged.
    """
    row = connection.execute(
        "select contract from ops.contract inner join ops.batch using (source, table_name, contract_hash)"
        " where batch_id = %s",
        [batch_id],
    ).fetchone()
    if row is None:
        raise SluiceError(f"the ledger keeps no contract of batch {batch_id}")
    _, table = batches.declared(connection, batches.get(connection, batch_id))
    kept = {name: value for name, value in row[0].items() if name in _CONTRACT}
    columns = {name: Column.model_validate(column) for name, column in kept.pop("columns").items()}
    return table.model_copy(update=kept | {"columns": columns, "key": tuple(kept["key"]), "mode": Mode(kept["mode"])})
