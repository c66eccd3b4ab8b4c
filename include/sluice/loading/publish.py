"""The one commit that readers see: an audited batch enters the change log, with its books and its sequence number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Table
from sluice.errors import GateRefused, StaleLease
from sluice.loading import backdated, contract, evolve, lease, log, rows, shape, unchanged
from sluice.loading import batch as batches
from sluice.loading.audit import judge_vanished
from sluice.loading.batch import Batch, record_check
from sluice.loading.landing import drop_landing, landing_table


@dataclass(frozen=True)
class Published:
    """What became of a batch. Counts are rows."""

    batch_id: int
    source: str
    table_name: str
    unit: str
    state: str
    rows_read: int
    rows_applied: int
    rows_unchanged: int
    rows_duplicate: int
    rows_quarantined: int
    rows_deleted: int

    @property
    def changed(self) -> bool:
        """Whether anything downstream can differ now."""
        return self.rows_applied + self.rows_deleted > 0


def publish_batch(connection: psycopg.Connection, batch_id: int) -> Published:
    """Publish one audited batch in one transaction. A batch that is published already stays as it is."""
    batch = batches.get(connection, batch_id, lock=True)
    if batch.state == "refused":
        raise GateRefused(f"batch {batch_id} ({batch.source}.{batch.table_name}, {batch.unit}): {batch.verdict}")
    if batch.state not in ("audited", "published", "superseded", "unchanged"):
        raise StaleLease(f"batch {batch_id} ({batch.unit}) is {batch.state}, not audited; nothing was published")
    if batch.state == "audited":
        _, table = batches.declared(connection, batch)
        if rows.lacking(connection, table, batch):  # columns declared while it waited may not be in the log yet
            shape.ensure(connection, table)
        # one publisher per table: the state that a full extract is compared with must not move meanwhile
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:log:{table.log_name}"])
        table = evolve.known(connection, table)  # also what evolved while others had the lock
        lease.check(connection, batch.source, batch.table_name, batch.unit, batch.lease_token)
        # another batch of this run, or of one beside it, may have delivered the same meanwhile
        if table.mode is Mode.APPEND and (reason := batches.delivered_before(connection, batch_id)):
            batches.leave_unchanged(connection, batch, reason)
            connection.commit()
            return _outcome(connection, batch_id)
        landed = batch.rows_read - batch.rows_quarantined - batch.rows_duplicate - batch.rows_late
        if table.mode is Mode.APPEND:  # as many are applied, which is looked at below
            batches.must_be_there(connection, batch, "rows", landed)
        else:
            known = batch.details.get("unchanged", 0) + batch.details.get("waiting", 0)
            batches.must_be_whole(connection, batch, "rows", landed - known)
        if batches.touched(batch):
            batches.must_be_whole(connection, batch, "touched", batch.details["touched"])
            unchanged.must_be_current(connection, batch)
        if "keys" in batch.details:
            batches.must_be_whole(connection, batch, "keys", batch.details["keys"])
        apart = {*table.key, table.effective_at, table.sequence}  # what tells rows apart, and orders them
        if late := sorted(apart.intersection(rows.lacking(connection, table, batch))):
            batches.give_up(connection, batch, f"key or order of its table have {', '.join(late)} since it was audited")
        rows.complete(connection, table, batch)
        if not batches.touched(batch):  # else the log is known to be as it was at the audit
            _judge_again(connection, table, batch)
        if table.mode is Mode.CURSOR and not table.sequence:
            _must_not_be_overtaken(connection, table, batch)
        earlier = _active_of_unit(connection, batch)
        if table.mode is Mode.APPEND and rows.find_repeated(connection, table, batch):
            batch = replace(batch, rows_duplicate=rows.drop_duplicates(connection, table, batch))
        write = {Mode.APPEND: _append, Mode.CURSOR: _add_versions, Mode.FULL: _assert_state}[table.mode]
        applied, deleted = write(connection, table, batch, earlier)
        if table.mode is Mode.APPEND and applied != landed - batch.rows_duplicate:
            connection.rollback()
            batches.lost(connection, batch, applied + batch.rows_duplicate, landed)
        log.index(connection, table)
        _keep_statistics(connection, table, applied)
        # counted, not inferred: what landed and was neither applied nor rejected must be what the log held already,
        # or, of a cursor, what waits in quarantine since an earlier reading
        rest = 0 if table.mode is Mode.APPEND else landed - applied
        replaced = earlier if table.mode is not Mode.CURSOR else []
        _enter(connection, table, batch, (applied, rest, deleted), replaced)
        _say_what_changed(connection, batch, replaced)
        unchanged.remember(connection, table, batch)
        lease.release(connection, batch.source, batch.table_name, batch.unit, batch.lease_token)
        drop_landing(connection, batch_id)
    connection.commit()
    return _outcome(connection, batch_id)


def _say_what_changed(connection: psycopg.Connection, batch: Batch, replaced: list[int]) -> None:
    """A unit that came again with other content is right as it is, but somebody may want to know."""
    before = connection.execute(
        "select sum(rows_read), string_agg(batch_id::text, ', ') from ops.batch"
        " where batch_id = any(%s) and content_hash <> %s",
        [replaced, batch.content_hash],
    ).fetchone()
    if before is not None and before[0] is not None:
        record_check(
            connection,
            batch,
            "content_changed",
            "warn",
            severity="warn",
            observed=batch.rows_read,
            bound=before[0],
            message=f"{batch.unit} came again with other content: {batch.rows_read} rows, {before[0]} before; batch "
            f"{batch.batch_id} supersedes batch {before[1]}",
        )


def _judge_again(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """Two extracts may have been audited before either was published; only now is it known what this one would
    close."""
    verdict = judge_vanished(connection, table, batch)
    if verdict is not None and verdict.refused:
        record_check(
            connection,
            batch,
            verdict.name,
            "fail",
            observed=verdict.observed,
            bound=verdict.bound,
            message=verdict.message,
        )
        batches.add_details(connection, batch.batch_id, vanished=verdict.observed_count)
        batches.refuse(connection, batch, verdict.message)
        raise GateRefused(
            f"batch {batch.batch_id} ({batch.source}.{batch.table_name}, {batch.unit}): {verdict.message}"
        )


def _active_of_unit(connection: psycopg.Connection, batch: Batch) -> list[int]:
    rows = connection.execute(
        "select batch_id from ops.batch where (source, table_name, unit) = (%s, %s, %s) and state = 'published'",
        [batch.source, batch.table_name, batch.unit],
    ).fetchall()
    return [batch_id for (batch_id,) in rows]


def _keep_statistics(connection: psycopg.Connection, table: Table, applied: int) -> None:
    """Analyze a log that has just grown much: autovacuum would come a minute too late for the next query on it."""
    if applied:
        log.summarize(connection, table)
    name = log.relation(table).as_string(connection)
    known = connection.execute(
        "select greatest(reltuples, 0) from pg_class where oid = %s::regclass", [name]
    ).fetchone()[0]  # type: ignore[index]
    if applied > max(1000, known / 10):
        connection.execute(sql.SQL("analyze {}").format(log.relation(table)))


def _enter(
    connection: psycopg.Connection,
    table: Table,
    batch: Batch,
    counts: tuple[int, int, int],
    replaced: list[int],
) -> None:
    """Books, watermark, sequence numbers: last, since the counter is shared by all and must be held briefly."""
    if batch.watermark_to and table.cursor:
        connection.execute(
            """
            insert into ops.watermark as mark (source, table_name, value, batch_id) values (%s, %s, %s, %s)
            on conflict (source, table_name) do update
            set value = excluded.value, batch_id = excluded.batch_id, moved_at = clock_timestamp()
            where mark.value::timestamptz < excluded.value::timestamptz
            """,
            [batch.source, batch.table_name, batch.watermark_to, batch.batch_id],
        )
    applied, unchanged, deleted = counts
    seq = connection.execute("select ops.next_seq()").fetchone()[0]  # type: ignore[index]
    if replaced:
        connection.execute(
            "update ops.batch set state = 'superseded', superseded_seq = %s, superseded_by = %s where batch_id = "
            "any(%s)",
            [seq, batch.batch_id, replaced],
        )
        # units that were found to hold what the replaced ones held must be read for themselves now
        connection.execute(
            """
            update ops.batch set state = 'abandoned', verdict = 'what held its content was superseded'
            where source = %s and table_name = %s and state = 'unchanged' and unit <> %s
                and not details ? 'declined'
                and content_hash in (select content_hash from ops.batch where batch_id = any(%s))
            """,
            [batch.source, batch.table_name, batch.unit, replaced],
        )
        connection.execute(
            "update ops.quarantine set state = 'superseded', state_at = clock_timestamp() where batch_id = any(%s) "
            "and state = 'open'",
            [replaced],
        )
    batches.mark_read(connection, batch.source, batch.table_name, batch.run_id)
    batches.move(
        connection,
        batch.batch_id,
        "published",
        rows_applied=applied,
        rows_unchanged=unchanged,
        rows_duplicate=batch.rows_duplicate,
        rows_deleted=deleted,
        published_seq=seq,
    )


# -- what a unit says, by mode -------------------------------------------------------------------


def _insert(table: Table, batch_id: int, rows: sql.Composable) -> sql.Composable:
    """Insert `rows` (a select of the business columns and `_row_number` … `_rescued`) as rows of a batch."""
    return sql.SQL("insert into {} ({}, {}) select {}, {}, {} from ({}) as incoming").format(
        log.relation(table),
        log.names(table.log_columns),
        log.names(log.SYSTEM),
        log.names(table.log_columns),
        sql.Literal(batch_id),
        log.names(log.SYSTEM[1:]),
        rows,
    )


def _append(connection: psycopg.Connection, table: Table, batch: Batch, earlier: list[int]) -> tuple[int, int]:
    """All rows. One that another batch holds too is kept twice: either batch may be superseded without losing it."""
    landed = sql.SQL("select * from {}").format(landing_table(batch.batch_id, "rows"))
    return connection.execute(_insert(table, batch.batch_id, landed)).rowcount, 0


def _add_versions(connection: psycopg.Connection, table: Table, batch: Batch, earlier: list[int]) -> tuple[int, int]:
    """Versions that the log does not hold yet; then tombstones for keys that the scan no longer found, and once more
    what holds of those it did.

    Without a declared `sequence`, a row that changed while its cursor did not (two changes within a second, a corrected
    column) is a later version of the same instant: what was read later is what the source holds.
    """
    columns = sql.SQL(", ").join(
        sql.SQL("landed.{}").format(sql.Identifier(name))
        for name in (*table.log_columns, "_row_number", "_op", "_effective_at")
    )
    rows = sql.SQL(
        """
        select {columns}, {sequence} as _sequence, landed._row_hash, landed._rescued
        from {rows} as landed
        left join lateral ({known}) as known on true
        where known._row_hash is distinct from landed._row_hash or known._op is distinct from landed._op
        """
    ).format(
        columns=columns,
        rows=landing_table(batch.batch_id, "rows"),
        sequence=sql.SQL("landed._sequence" if table.sequence else "coalesce(known._sequence + 1, 0)"),
        known=_known_version(table)
        if _holds_rows(connection, table)
        else sql.SQL("select null::bigint as _sequence, null::bigint as _row_hash, null::text as _op where false"),
    )
    applied = connection.execute(_insert(table, batch.batch_id, rows)).rowcount
    if table.deletes.detect != "key_scan":
        return applied, 0
    deleted = _bury(connection, table, batch, inclusive=True)
    if backdated.is_latest(connection, batch):
        again = backdated.held_again(table, landing_table(batch.batch_id, "keys"))
        instants = {"instant": "infinity", "read_at": batch.effective_at}
        deleted += connection.execute(_insert(table, batch.batch_id, again), instants).rowcount
    return applied, deleted


def _must_not_be_overtaken(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """Of two versions under one stamp the later read is what the source holds. Which that is can't be told where the
    other was published after this batch began to be read, so this one is given up, and read again."""
    meanwhile = connection.execute(
        """
        select array_agg(other.batch_id) from ops.batch as other inner join ops.batch as this
            on (other.source, other.table_name) = (this.source, this.table_name)
        where this.batch_id = %s and other.published_seq > this.opened_seq
        """,
        [batch.batch_id],
    ).fetchone()[0]  # type: ignore[index]
    if not meanwhile:
        return
    count, other = connection.execute(
        sql.SQL(
            """
            select count(*), min(known._batch_id)
            from {rows} as landed cross join lateral ({known}) as known
            where known._batch_id = any({meanwhile})
                and (known._row_hash, known._op) is distinct from (landed._row_hash, landed._op)
            """
        ).format(
            rows=landing_table(batch.batch_id, "rows"),
            known=_known_version(table),
            meanwhile=sql.Literal(meanwhile),
        )
    ).fetchone()  # type: ignore[misc]
    if count:
        batches.give_up(
            connection,
            batch,
            f"{count} of its rows differ from what batch {other} published under the same stamp while this one was "
            "under way, and it can't be told which is the later",
        )


def _known_version(table: Table) -> sql.Composable:
    """What the log says of a landed version's key and instant."""
    return sql.SQL(
        """
        select log._sequence, log._row_hash, log._op, log._batch_id
        from {log} as log
        where {same_key} and log._effective_at = landed._effective_at {of_sequence}
        order by log._sequence desc, log._op desc, log._row_hash desc
        limit 1
        """
    ).format(
        log=log.relation(table),
        same_key=log.same_key(table, "log", "landed"),
        of_sequence=sql.SQL(
            "and log._sequence = landed._sequence and log._row_hash = landed._row_hash" if table.sequence else ""
        ),
    )


def _holds_rows(connection: psycopg.Connection, table: Table) -> bool:
    """A first load need not look for each of its rows."""
    found = connection.execute(sql.SQL("select exists (select from {})").format(log.relation(table))).fetchone()
    return bool(found and found[0])


def _assert_state(connection: psycopg.Connection, table: Table, batch: Batch, earlier: list[int]) -> tuple[int, int]:
    """What differs from the state just before; then the same keys again at the next extract, which was compared with
    another past."""
    parameters = {"instant": batch.effective_at}
    differs = sql.SQL(
        "not exists (select from ({state}) as before where {same_key} and before._op <> 'delete' and before._row_hash "
        "= landed._row_hash)"
    )
    asserted = sql.SQL("select landed.* from {rows} as landed where {differs}").format(
        rows=landing_table(batch.batch_id, "rows"),
        # an extract that may not speak of absence must say everything it knows
        differs=sql.SQL("true")
        if batch.deletes_withheld
        else differs.format(
            state=log.state_before(table, inclusive=False, touched=batches.touched(batch)),
            same_key=log.same_key(table, "before", "landed"),
        ),
    )
    applied = connection.execute(_insert(table, batch.batch_id, asserted), parameters).rowcount
    applied += _say_held(connection, table, batch)
    deleted = 0 if batch.deletes_withheld else _bury(connection, table, batch, inclusive=False)
    _restate_next(connection, table, batch, earlier)
    return applied, deleted


def _say_held(connection: psycopg.Connection, table: Table, batch: Batch) -> int:
    """A key of which another row of the extract is in quarantine is stored even if it says nothing new: else nobody
    could tell, when that row is replayed, that the extract held the key already."""
    rows = sql.SQL(
        """
        select landed.* from {rows} as landed
        where jsonb_build_array({key})::text = any(array(
                select key from ops.quarantine where batch_id = {batch} and key is not null
            ))
            and not exists (select from {log} as log where log._batch_id = {batch} and {same_key})
        """
    ).format(
        rows=landing_table(batch.batch_id, "rows"),
        key=log.names(table.key, "landed"),
        batch=sql.Literal(batch.batch_id),
        log=log.relation(table),
        same_key=log.same_key(table, "log", "landed"),
    )
    known = "select exists (select from ops.quarantine where batch_id = %s and key is not null)"
    if not connection.execute(known, [batch.batch_id]).fetchone()[0]:  # type: ignore[index]
        return 0
    return connection.execute(_insert(table, batch.batch_id, rows)).rowcount


def _bury(connection: psycopg.Connection, table: Table, batch: Batch, *, inclusive: bool) -> int:
    """Tombstones at the batch's instant for known keys that are not among those present."""
    others = [name for name in table.log_columns if name not in table.key]
    types = {name: sql.SQL(table.log_columns[name].type) for name in others}
    nulls = sql.SQL("").join(sql.SQL(", null::{} as {}").format(types[name], sql.Identifier(name)) for name in others)
    rows = sql.SQL(
        """
        select {key}{nulls}, 0::bigint as _row_number, 'delete'::text as _op, %(instant)s::timestamptz as _effective_at,
            0::bigint as _sequence, {deleted} as _row_hash, null::jsonb as _rescued
        from ({state}) as known
        where known._op <> 'delete'
            and not exists (select from {keys} as present where {same_key})
        """
    ).format(
        key=log.names(table.key),
        nulls=nulls,
        deleted=contract.DELETED_HASH,
        state=log.state_before(table, inclusive=inclusive, touched=batches.touched(batch)),
        keys=landing_table(batch.batch_id, "keys"),
        same_key=log.same_key(table, "present", "known"),
    )
    return connection.execute(_insert(table, batch.batch_id, rows), {"instant": batch.effective_at}).rowcount


def _restate_next(connection: psycopg.Connection, table: Table, batch: Batch, earlier: list[int]) -> None:
    """Keep the meaning of the extracts after this one.

    They were stored as differences from a past that this batch changes. So each key that it touches, or that the
    batch it
    supersedes touched, is asserted once more at the next extract's instant, in a supplement batch of that unit.
    """
    following = connection.execute(
        """
        select unit, effective_at, bool_or(deletes_withheld) from ops.batch
        where (source, table_name) = (%s, %s) and state = 'published' and effective_at > %s
        group by unit, effective_at order by effective_at, unit
        """,
        [batch.source, batch.table_name, batch.effective_at],
    ).fetchall()
    if not following:
        return
    connection.execute("drop table if exists pg_temp.restated")
    connection.execute(
        sql.SQL(
            "create temporary table restated on commit drop as select distinct {} from {} where _batch_id = any(%s)"
        ).format(log.names(table.key), log.relation(table)),
        [[batch.batch_id, *earlier]],
    )
    for unit, instant, withheld in following:
        # a key that is asserted there already needs nothing, there or later
        connection.execute(
            sql.SQL(
                """
                delete from restated using {log} as log
                where {same_key} and log._effective_at = %s
                    and not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
                """
            ).format(log=log.relation(table), same_key=log.same_key(table, "log", "restated")),
            [instant],
        )
        if not withheld:
            _supplement(connection, table, batch, unit, instant)
        if not connection.execute("select 1 from restated limit 1").fetchone():
            return


def _supplement(connection: psycopg.Connection, table: Table, batch: Batch, unit: str, instant: datetime) -> None:
    """Assert the keys of `restated` at `instant`, as the log knew them before this batch.

    Those that the unit's extract holds in quarantine stay: of them it only knew that they were there.
    """
    connection.execute("drop table if exists pg_temp.restating")
    connection.execute(
        sql.SQL(
            """
            create temporary table restating on commit drop as
            select {key} from restated
            where jsonb_build_array({key})::text not in (
                select quarantine.key from ops.quarantine inner join ops.batch using (batch_id)
                where batch.source = %s and batch.table_name = %s and batch.unit = %s and batch.state = 'published'
                    and quarantine.key is not null
            )
            """
        ).format(key=log.names(table.key)),
        [batch.source, batch.table_name, unit],
    )
    if not connection.execute("select 1 from restating limit 1").fetchone():
        return
    connection.execute(
        sql.SQL("delete from restated using restating where {}").format(log.same_key(table, "restating", "restated"))
    )
    supplement = connection.execute(
        """
        insert into ops.batch (source, table_name, unit, state, mode, part, run_id, effective_at, verdict)
        values (%s, %s, %s, 'audited', 'full', 'supplement', %s, %s, %s) returning batch_id
        """,
        [
            batch.source,
            batch.table_name,
            unit,
            batch.run_id,
            instant,
            f"restates keys that batch {batch.batch_id} ({batch.unit}) changed before it",
        ],
    ).fetchone()[0]  # type: ignore[index]
    others = [name for name in table.log_columns if name not in table.key]
    state = sql.SQL(
        """
        select distinct on ({key}) log.* from {log} as log
        where log._effective_at <= %(instant)s and log._batch_id <> %(batch)s
            and not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
        order by {key}, _effective_at desc, _sequence desc, _op desc, _row_hash desc
        """
    ).format(key=log.names(table.key), log=log.relation(table))
    rows = sql.SQL(
        """
        select {key}{others}, row_number() over () as _row_number, coalesce(known._op, 'delete') as _op,
            %(instant)s::timestamptz as _effective_at, 0::bigint as _sequence,
            coalesce(known._row_hash, {deleted}) as _row_hash, known._rescued
        from restating left join ({state}) as known on {same_key}
        """
    ).format(
        key=log.names(table.key, "restating"),
        deleted=contract.DELETED_HASH,
        others=sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier("known", name)) for name in others),
        state=state,
        same_key=log.same_key(table, "known", "restating"),
    )
    count = connection.execute(_insert(table, supplement, rows), {"instant": instant, "batch": batch.batch_id}).rowcount
    seq = connection.execute("select ops.next_seq()").fetchone()[0]  # type: ignore[index]
    batches.move(connection, supplement, "published", rows_read=count, rows_applied=count, published_seq=seq)


def _outcome(connection: psycopg.Connection, batch_id: int) -> Published:
    columns = ", ".join(Published.__dataclass_fields__)
    row = connection.execute(f"select {columns} from ops.batch where batch_id = %s", [batch_id]).fetchone()
    connection.commit()
    assert row is not None
    return Published(*row)
