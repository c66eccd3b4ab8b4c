"""Pages that have landed survive the attempt that landed them: the next one goes on where it failed.

What has landed and how far the reader is are committed together, under the lease of the attempt. An attempt that was
overtaken can't commit any more, and what it had committed belongs to the one that overtook it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from sluice.errors import StaleLease
from sluice.loading.lease import LEASE


def save(
    connection: psycopg.Connection, batch_id: int, identity: str, progress: dict[str, Any], rows: int, rejects: int
) -> None:
    """Commit what has landed, with how far the reader is; the lease is renewed, or found to be lost."""
    renewed = connection.execute(
        """
        update ops.lease set expires_at = clock_timestamp() + %s
        from ops.batch as mine
        where mine.batch_id = %s and (lease.source, lease.table_name, lease.unit)
            = (mine.source, mine.table_name, mine.unit) and lease.token = mine.lease_token
        """,
        [LEASE, batch_id],
    ).rowcount
    if not renewed:
        raise StaleLease(f"batch {batch_id}: a later attempt took this unit over; nothing was written (STALE_LEASE)")
    connection.execute(
        """
        insert into ops.checkpoint (batch_id, identity, progress, rows_landed, rows_rejected)
        values (%s, %s, %s, %s, %s)
        on conflict (batch_id) do update
        set progress = excluded.progress, rows_landed = excluded.rows_landed,
            rows_rejected = excluded.rows_rejected, saved_at = clock_timestamp()
        """,
        [batch_id, identity, Jsonb(progress), rows, rejects],
    )
    connection.commit()


def unit_to_finish(
    connection: psycopg.Connection,
    source: str,
    table: str,
    *,
    identity: str,
    contract: str,
    within: timedelta,
    holder: str,
) -> tuple[str, datetime] | None:
    """Name and instant of a live resource that an attempt began to read, if `holder` can finish it."""
    row = connection.execute(
        """
        select batch.unit, batch.effective_at
        from ops.checkpoint
        inner join ops.batch using (batch_id)
        where batch.source = %s and batch.table_name = %s and batch.interval_start is null
            and checkpoint.identity = %s and batch.contract_hash = %s and checkpoint.saved_at > clock_timestamp() - %s
            and not exists (
                select from ops.lease
                where (lease.source, lease.table_name, lease.unit) = (batch.source, batch.table_name, batch.unit)
                    and expires_at > clock_timestamp() and lease.holder <> %s
            )
            and not exists (
                select from ops.batch as later
                where later.source = batch.source and later.table_name = batch.table_name
                    and later.batch_id > batch.batch_id and later.state not in ('landing', 'refused', 'abandoned')
            )
        order by checkpoint.saved_at desc limit 1
        """,
        [source, table, identity, contract, within, holder],
    ).fetchone()
    return (row[0], row[1]) if row else None


@dataclass(frozen=True)
class Checkpoint:
    """What an attempt left behind. `usable`: of the unit that is read now, asked for as now, and young enough."""

    batch_id: int
    usable: bool
    progress: dict[str, Any]
    rows: int
    rejects: int


def left_behind(connection: psycopg.Connection, batch_id: int, identity: str, within: timedelta) -> list[Checkpoint]:
    """What attempts at the batch's unit left, and what nobody can use of its table's others; the latest first."""
    rows = connection.execute(
        """
        select
            left_by.batch_id,
            left_by.unit = mine.unit and checkpoint.identity = %(identity)s
                and left_by.contract_hash = mine.contract_hash and saved_at > clock_timestamp() - %(within)s,
            progress, rows_landed, rows_rejected
        from ops.batch as mine
        inner join ops.batch as left_by
            on left_by.source = mine.source and left_by.table_name = mine.table_name
                and left_by.batch_id <> mine.batch_id
        inner join ops.checkpoint on checkpoint.batch_id = left_by.batch_id
        where mine.batch_id = %(batch)s and left_by.state in ('abandoned', 'refused')
            and (
                left_by.unit = mine.unit
                or saved_at < clock_timestamp() - %(within)s
                or checkpoint.identity <> %(identity)s
                or left_by.contract_hash <> mine.contract_hash
            )
        order by saved_at desc
        """,
        {"batch": batch_id, "identity": identity, "within": within},
    ).fetchall()
    return [Checkpoint(*row) for row in rows]


def hand_over(connection: psycopg.Connection, earlier: int, batch_id: int) -> None:
    """What the earlier attempt had rejected and how far it was belong to this batch now."""
    connection.execute(
        "update ops.quarantine set batch_id = %s where batch_id = %s and code <> 'BAD_RESPONSE'", [batch_id, earlier]
    )
    connection.execute("update ops.checkpoint set batch_id = %s where batch_id = %s", [batch_id, earlier])
    connection.execute(  # its pages were read then
        "update ops.batch set opened_seq = (select opened_seq from ops.batch where batch_id = %s) where batch_id = %s",
        [earlier, batch_id],
    )


def forget(connection: psycopg.Connection, batch_id: int) -> None:
    """What the batch had landed can't be gone on from any more, or need not."""
    connection.execute("delete from ops.checkpoint where batch_id = %s", [batch_id])
