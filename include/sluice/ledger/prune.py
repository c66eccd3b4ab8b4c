"""Forget what models changed long ago: everyone who had to hear of it has, or starts anew."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import psycopg

KEPT = timedelta(days=30)


@dataclass(frozen=True)
class Pruned:
    """How many commits and changed keys were forgotten; `recompute`: relations that had not read them, and that
    recompute all their rows in their next run instead."""

    changes: int
    keys: int
    recompute: tuple[str, ...]


def prune(connection: psycopg.Connection, kept: timedelta = KEPT) -> Pruned:
    """Delete changes of models' commits that are older than `kept`, in the transaction that `connection` is in.

    No reader loses one. A relation that has not read a change that goes (it failed for weeks, or its model left the
    project) has its watermarks taken away in the same transaction: without them, a model is pending and recomputes
    everything. A relation that is being written at this moment, and what it reads, are left for the next time.
    """
    lagging = connection.execute(
        """
        with gone as (
            select change.relation, max(change.seq) as seq
            from ops.change where created_at < clock_timestamp() - %s group by 1
        ),
        named as (select distinct relation, model from ops.model_run)
        select mark.relation, gone.relation, pg_try_advisory_xact_lock(hashtextextended('sluice:' || mark.relation, 0))
        from gone inner join named using (relation)
        inner join ops.model_watermark as mark on mark.input = named.model and mark.seq < gone.seq
        """,
        [kept],
    ).fetchall()
    busy = [upstream for _, upstream, is_free in lagging if not is_free]
    recompute = sorted({relation for relation, upstream, _ in lagging if upstream not in busy})
    connection.execute("delete from ops.model_watermark where relation = any(%s)", [recompute])
    changes = [
        change
        for (change,) in connection.execute(
            "delete from ops.change where created_at < clock_timestamp() - %s and relation <> all(%s)"
            " returning change_id",
            [kept, busy],
        )
    ]
    connection.execute("delete from ops.reads_as_of where decided_at < clock_timestamp() - %s", [kept])
    keys = connection.execute("delete from ops.changed_key where change_id = any(%s)", [changes]).rowcount
    return Pruned(len(changes), keys, tuple(recompute))
