"""Erasure of a person: the values that speak of her leave every log and the quarantine; her key stays, as a pseudonym.

In the change logs each personal value of her rows becomes NULL, or, where it is text, `erased 1`, `erased 2` …: one for
each value she had, so that the chain of her versions keeps its shape. Then her latest rows are published once more, as
part of the units they came in; snapshots and models see them as touched, and their next run recomputes her from the
logs. So the warehouse equals a rebuild before and after, and `sluice verify` stays green.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from sluice import warehouse
from sluice.declarations import Source, Table
from sluice.errors import SluiceError
from sluice.loading import contract, log

_ERASED = "erased "


@dataclass(frozen=True)
class Erased:
    """How many rows were, or in a rehearsal would be, changed: `{relation: rows}`, without those that have none."""

    rows: dict[str, int]
    rehearsed: bool


def erase(source: Source, column: str, key: str, *, reason: str, by: str, rehearse: bool = True) -> Erased:
    """Erase the rows of `source` in which `column` is `key`, in one transaction; a rehearsal rolls it back.

    Every table that has the column and personal ones is looked into, superseded batches too. Rejected rows go that
    carry the key in this column, or one of the erased texts anywhere; they can't be replayed afterwards. A row in
    `ops.erasure` remains: who, why and how many, no value.

    Raises SluiceError, with nothing erased, where a value can't be masked, where a batch waits to be published, and
    where no table has such a column.
    """
    tables = [table for table in source.tables.values() if column in table.columns and _personal(table, column)]
    if not tables:
        raise SluiceError(
            f"no table of {source.source} has a column {column} and personal columns beside it; nothing was erased. "
            "Which columns are personal is said in the declaration"
        )
    rows: dict[str, int] = {}
    with warehouse.connect() as connection:
        for table in tables:
            _require_erasable(connection, table, column)
        texts = {text for table in tables for text in _texts(connection, table, column, key)}
        for table in tables:
            rows[f"staging.{table.log_name}"] = _mask(connection, table, column, key)
        rows["ops.quarantine"] = _empty_quarantine(connection, source, column, key, texts)
        rows = {relation: count for relation, count in rows.items() if count}
        if rehearse:
            connection.rollback()
        elif rows:
            connection.execute(
                "insert into ops.erasure (source, column_name, key, rows, asked_by, reason)"
                " values (%s, %s, %s, %s, %s, %s)",
                [source.source, column, key, Jsonb(rows), by, reason],
            )
    return Erased(rows, rehearse)


def _personal(table: Table, column: str) -> list[str]:
    """The columns whose values go: the personal ones, except the entity's key and the column that names the person."""
    return [n for n, c in table.columns.items() if c.personal and n != column and n not in table.key]


def _is_text(table: Table, name: str) -> bool:
    return table.columns[name].type == "text"


def _require_erasable(connection: psycopg.Connection, table: Table, column: str) -> None:
    """Take the lock that publications hold, and refuse what would leave values behind."""
    for name in _personal(table, column):
        if table.columns[name].required and not _is_text(table, name):
            raise SluiceError(
                f"{table.source}.{table.name}: {name} is personal, required and of type {table.columns[name].type}, so "
                "it can be neither masked nor NULL; nothing was erased. Make it optional, here and in its models"
            )
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:log:{table.log_name}"])
    waiting = connection.execute(
        "select batch_id from ops.batch where (source, table_name) = (%s, %s)"
        " and state in ('landing', 'landed', 'audited') order by 1",
        [table.source, table.name],
    ).fetchall()
    if waiting:
        raise SluiceError(
            f"batches {', '.join(str(row[0]) for row in waiting[:5])} of {table.source}.{table.name} are landed and "
            "not published, and may hold the person's values; nothing was erased. Publish them first: "
            f"sluice load {table.source}.{table.name}"
        )


def _texts(connection: psycopg.Connection, table: Table, column: str, key: str) -> set[str]:
    """The person's texts, by which rejected rows are recognised; those of a few letters would be found everywhere."""
    found: set[str] = set()
    for name in filter(lambda name: _is_text(table, name), _personal(table, column)):
        query = sql.SQL("select distinct {column} from {log} where {of}").format(
            column=sql.Identifier(name), log=log.relation(table), of=_of_person(table, column)
        )
        found |= {text for (text,) in connection.execute(query, {"key": key}) if text and len(text) > 5}
    return {text for text in found if not text.startswith(_ERASED)}


def _of_person(table: Table, column: str) -> sql.Composable:
    return sql.SQL("{} = cast(%(key)s as {})").format(sql.Identifier(column), sql.SQL(table.columns[column].type))  # type: ignore[arg-type]


def _mask(connection: psycopg.Connection, table: Table, column: str, key: str) -> int:
    """Change the rows where they lie; their hashes follow. Then touch their entities."""
    personal = _personal(table, column)
    types = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = %s::regclass and attnum > 0 and not attisdropped and attname <> all(%s)",
        [log.relation(table).as_string(connection), list(log.SYSTEM)],
    ).fetchall()
    masks = [
        sql.SQL(
            "case when {name} is not null then {erased} || dense_rank() over (order by {name}) end"
            if _is_text(table, name)
            else "null::{type}"
        ).format(name=sql.Identifier(name), erased=_ERASED, type=sql.SQL(table.columns[name].type))  # type: ignore[arg-type]
        for name in personal
    ]
    changed = connection.execute(
        sql.SQL(
            """
            with masked as (select ctid, {masks} from {log} where {of})
            update {log} as log set ({names}, _rescued) = row ({new}, null)
            from masked
            where log.ctid = masked.ctid and row ({old}, _rescued) is distinct from row ({new}, null)
            """
        ).format(
            masks=sql.SQL(", ").join(
                sql.SQL("{} as {}").format(mask, sql.Identifier(name))
                for mask, name in zip(masks, personal, strict=True)
            ),
            log=log.relation(table),
            of=_of_person(table, column),
            names=log.names(personal),
            new=log.names(personal, "masked"),
            old=log.names(personal, "log"),
        ),
        {"key": key},
    ).rowcount
    if changed:
        connection.execute(
            sql.SQL(
                "update {log} set _row_hash = {hash} where {of} and not (_op = 'delete' and _row_hash = {deleted})"
            ).format(
                log=log.relation(table),
                hash=contract.row_hash_of(dict(types)),
                of=_of_person(table, column),
                deleted=contract.DELETED_HASH,
            ),
            {"key": key},
        )
        _publish_again(connection, table, column, key, [name for name, _ in types])
    return changed


def _publish_again(connection: psycopg.Connection, table: Table, column: str, key: str, columns: list[str]) -> None:
    """The latest row of each entity of the person, once more: the same version, so nothing but its arrival is new.

    A part of the unit that the row came in, as a replay is: what supersedes the unit takes it along.
    """
    connection.execute(
        sql.SQL(
            """
            create temporary table sluice_erased on commit drop as
            select distinct on ({key}) log.*
            from {log} as log
            where ({key}) in (select {key} from {log} where {of})
                and not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
            order by {key}, _effective_at desc, _sequence desc, _op desc, _row_hash desc
            """
        ).format(key=log.names(table.key), log=log.relation(table), of=_of_person(table, column)),
        {"key": key},
    )
    for (origin,) in connection.execute("select distinct _batch_id from sluice_erased order by 1").fetchall():
        batch = connection.execute(
            """
            insert into ops.batch (source, table_name, unit, state, mode, part, replay_of, run_id, contract_hash,
                effective_at, interval_start, interval_end, verdict, published_at,
                rows_read, rows_applied, rows_deleted, published_seq)
            select source, table_name, unit, 'published', mode, 'replay', batch_id, 'erasure', contract_hash,
                effective_at, interval_start, interval_end, 'pass', clock_timestamp(),
                upserts, upserts, total - upserts, ops.next_seq()
            from ops.batch
            cross join (
                select count(*) filter (where _op <> 'delete') as upserts, count(*) as total
                from sluice_erased where _batch_id = %(origin)s
            ) as counted
            where batch_id = %(origin)s returning batch_id
            """,
            {"origin": origin},
        ).fetchone()[0]  # type: ignore[index]
        connection.execute(
            sql.SQL(
                "insert into {log} ({columns}, _batch_id, _row_number, _op, _effective_at, _sequence, _row_hash)"
                " select {columns}, %s, row_number() over (), _op, _effective_at, _sequence, _row_hash"
                " from sluice_erased where _batch_id = %s"
            ).format(log=log.relation(table), columns=log.names(columns)),
            [batch, origin],
        )
    log.summarize(connection, table)
    connection.execute("drop table sluice_erased")


def _empty_quarantine(connection: psycopg.Connection, source: Source, column: str, key: str, texts: set[str]) -> int:
    """What came in rejected rows of the person goes; that they came stays."""
    return connection.execute(
        """
        update ops.quarantine set raw = null, raw_bytes = null, content = null, corrected = null, reason = 'erased',
            state = case when state = 'open' then 'discarded' else state end,
            state_reason = 'erased', state_by = current_user, state_at = clock_timestamp()
        where source = %(source)s and (raw is not null or raw_bytes is not null) and (
            case when raw is json object then raw::jsonb ->> %(column)s = %(key)s else false end
            or exists (
                select from unnest(%(texts)s::text[]) as text
                where strpos(raw, text) > 0 or position(convert_to(text, 'UTF8') in raw_bytes) > 0
            )
        )
        """,
        {"source": source.source, "column": column, "key": key, "texts": sorted(texts)},
    ).rowcount
