"""Rows of a cursor table whose stamp went back, or that appeared below the watermark: no cursor ever sees them.

A key scan brings the stamp of each key with it. A key whose stamp the log does not hold as its latest is read too,
wherever the cursor is, and what the source holds of it then holds again from the instant of the reading.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from sluice.declarations import Table
from sluice.loading import log

if TYPE_CHECKING:
    from sluice.loading.batch import Batch

MOST = 100_000  # keys that are asked for one by one; if there are more, the whole table is read once


def missed(
    connection: psycopg.Connection, table: Table, keys: sql.Identifier, since: datetime
) -> list[tuple[str, ...]] | None:
    """The keys, as text, that the scan in `keys` found stamped below `since` and otherwise than the log knows them.

    A row that waits in quarantine with this stamp, or was discarded, is no news. None: they are too many to name.
    """
    assert table.cursor is not None
    stamp = table.cursor.column
    rows = connection.execute(
        sql.SQL(
            """
            select {texts}
            from ({scanned}) as scanned
            left join ({state}) as known on {same_key}
            where scanned._stamp < %(since)s and known.{stamp} is distinct from scanned._stamp and {named}
                and not exists (
                    select from ops.quarantine as q
                    where q.source = %(source)s and q.table_name = %(table)s and q.state in ('open', 'discarded')
                        and q.key = jsonb_build_array({key})::text
                        and case when pg_input_is_valid(q.raw::jsonb ->> %(field)s, 'timestamptz')
                            then (q.raw::jsonb ->> %(field)s)::timestamptz = scanned._stamp end
                )
            limit %(most)s
            """
        ).format(
            texts=_each(table, "scanned.{}::text"),
            scanned=_scanned(table, keys),
            state=log.state_before(table, inclusive=True),
            same_key=log.same_key(table, "scanned", "known"),
            stamp=sql.Identifier(stamp),
            named=_each(table, "scanned.{} is not null", " and "),
            key=log.names(table.key, "scanned"),
        ),
        {
            "since": since,
            "instant": "infinity",
            "source": table.source,
            "table": table.name,
            "field": table.columns[stamp].field or stamp,
            "most": MOST + 1,
        },
    ).fetchall()
    return rows if len(rows) <= MOST else None


def held_again(table: Table, keys: sql.Identifier) -> sql.Composable:
    """What a key scan found to hold, though the log ends with something else: a tombstone, or a later stamp.

    Only the latest scan may say so (`is_latest`). Where a declared `effective_at` says when versions became true, only
    deleted keys come back.
    """
    assert table.cursor is not None
    return sql.SQL(
        """
        select {columns}, 0::bigint as _row_number, last._op,
            greatest(%(read_at)s::timestamptz, state._effective_at) as _effective_at,
            state._sequence + 1 as _sequence, last._row_hash, last._rescued
        from ({state}) as state
        inner join ({scanned}) as present on {present}
        cross join lateral (
            select log.* from {log} as log
            where {same_key} and (log._op = 'upsert' or log.{stamp} = present._stamp)
            order by log.{stamp} is not distinct from present._stamp desc,
                log._effective_at desc, log._sequence desc, log._op desc, log._row_hash desc
            limit 1
        ) as last
        where state.{stamp} is distinct from present._stamp and {ended}
        """
    ).format(
        columns=log.names(table.log_columns, "last"),
        state=log.state_before(table, inclusive=True),
        scanned=_scanned(table, keys),
        present=log.same_key(table, "present", "state"),
        log=log.relation(table),
        same_key=log.same_key(table, "log", "state"),
        stamp=sql.Identifier(table.cursor.column),
        ended=sql.SQL(
            "state._op = 'delete'" if table.effective_at else "(state._op = 'delete' or last.{} = present._stamp)"
        ).format(sql.Identifier(table.cursor.column)),
    )


def is_latest(connection: psycopg.Connection, batch: Batch) -> bool:
    """Whether no later reading of the table is published: what one says that was overtaken is no longer so."""
    later = connection.execute(
        "select from ops.batch where (source, table_name) = (%s, %s) and state = 'published' and effective_at > %s"
        " limit 1",
        [batch.source, batch.table_name, batch.effective_at],
    ).fetchone()
    return later is None


def _scanned(table: Table, keys: sql.Identifier) -> sql.Composable:
    """Each key that the scan found, with its latest stamp."""
    return sql.SQL("select {key}, max(_stamp) as _stamp from {keys} group by {key}").format(
        key=log.names(table.key), keys=keys
    )


def _each(table: Table, form: str, between: str = ", ") -> sql.Composable:
    return sql.SQL(between).join(sql.SQL(form).format(sql.Identifier(name)) for name in table.key)  # type: ignore[arg-type]
