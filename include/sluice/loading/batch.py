"""A batch as the ledger knows it, and the few statements that move it on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NoReturn

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from sluice import settings
from sluice.declarations import Source, Table, load_folder
from sluice.errors import LandingLost, SluiceError
from sluice.loading import evolve, lease
from sluice.loading.landing import drop_landing, landing_table

# as the check constraint of ops.batch lists them
STATES = ("landing", "landed", "audited", "published", "superseded", "unchanged", "refused", "abandoned")


@dataclass(frozen=True)
class Batch:
    """One row of `ops.batch`, as far as the loader needs it."""

    batch_id: int
    source: str
    table_name: str
    unit: str
    state: str
    run_id: str
    lease_token: int | None
    content_hash: str | None
    effective_at: datetime
    watermark_to: str | None
    control_total: int | None
    rows_read: int
    rows_quarantined: int
    rows_duplicate: int
    rows_late: int
    deletes_withheld: bool
    verdict: str | None
    details: dict[str, Any]


_COLUMNS = ", ".join(Batch.__dataclass_fields__)


def touched(batch: Batch) -> sql.Identifier | None:
    """The table of the keys that a batch may change, where it was compared with the extract before; None: all."""
    return landing_table(batch.batch_id, "touched") if "compared_with" in batch.details else None


def get(connection: psycopg.Connection, batch_id: int, *, lock: bool = False) -> Batch:
    """Read a batch; with `lock`, keep others from moving it until the transaction ends."""
    suffix = " for update" if lock else ""
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        batch = cursor.execute(f"select {_COLUMNS} from ops.batch where batch_id = %s{suffix}", [batch_id]).fetchone()
    if batch is None:
        raise SluiceError(f"there is no batch {batch_id} in the ledger")
    return batch


def move(connection: psycopg.Connection, batch_id: int, state: str, **values: Any) -> None:
    """Set a batch's state and what came to be known of it. A clock time goes with the state where the ledger has
    one."""
    stamp = {"landed": "landed_at", "audited": "audited_at", "published": "published_at"}.get(state)
    sets = [sql.SQL("state = {}").format(state), sql.SQL("heartbeat_at = clock_timestamp()")]
    if stamp:
        sets.append(sql.SQL("{} = clock_timestamp()").format(sql.Identifier(stamp)))
    for name, value in values.items():
        sets.append(sql.SQL("{} = {}").format(sql.Identifier(name), Jsonb(value) if isinstance(value, dict) else value))
    connection.execute(
        sql.SQL("update ops.batch set {} where batch_id = {}").format(sql.SQL(", ").join(sets), batch_id)
    )


def add_details(connection: psycopg.Connection, batch_id: int, **values: Any) -> None:
    """Add to what the ledger keeps of a batch; absent values are left out."""
    known = {name: value for name, value in values.items() if value is not None}
    connection.execute("update ops.batch set details = details || %s where batch_id = %s", [Jsonb(known), batch_id])


def refuse(connection: psycopg.Connection, batch: Batch, verdict: str) -> None:
    """Record that a batch may not be published, and let its unit go."""
    drop_landing(connection, batch.batch_id)
    move(connection, batch.batch_id, "refused", verdict=verdict)
    stays_declined(connection, batch.batch_id)
    lease.release(connection, batch.source, batch.table_name, batch.unit, batch.lease_token)
    connection.commit()


def delivered_before(connection: psycopg.Connection, batch_id: int) -> str | None:
    """Why a batch need not be published: its unit has this content already, or, for events, another one delivered it.

    Under another name it is the same delivery only where both speak for the same interval, or for none: equal counts of
    two days are two days' counts. Nor is it where the path of a file is a part of its rows.
    """
    row = connection.execute(
        """
        select earlier.unit, earlier.unit = this.unit
        from ops.batch as earlier, ops.batch as this
        where this.batch_id = %s and earlier.source = this.source and earlier.table_name = this.table_name
            and this.mode <> 'cursor'
            and earlier.state = 'published' and earlier.part = 'unit' and earlier.content_hash = this.content_hash
            and earlier.contract_hash = this.contract_hash
            -- what the path says of the rows, and what their fields are called where the content does not say it
            and earlier.details -> 'constants' is not distinct from this.details -> 'constants'
            and earlier.details -> 'fields' is not distinct from this.details -> 'fields'
            and (
                earlier.unit = this.unit
                or (
                    this.mode = 'append' and this.bytes_read > 0
                    and this.details -> 'constants' = '{}'
                    and (earlier.interval_start, earlier.interval_end)
                        is not distinct from (this.interval_start, this.interval_end)
                )
            )
        order by 2 desc, earlier.batch_id limit 1
        """,
        [batch_id],
    ).fetchone()
    if row is None:
        return None
    return "the same content as already published" if row[1] else f"the same content as {row[0]}"


def stays_declined(connection: psycopg.Connection, batch_id: int) -> bool:
    """Whether a person declined what this batch read, and its unit was judged no otherwise since; marks it if so. What
    was refused before its content could be told is known by its stamp. An undated file that is a full extract stays the
    same file when it is only touched, though each state of it is a unit, named by the instant after the last @."""
    marked = connection.execute(
        """
        update ops.batch as this set details = this.details || '{"declined": true}'
        where this.batch_id = %s and (
            select earlier.details ? 'declined' and coalesce(earlier.content_hash, earlier.fingerprint)
                = coalesce(this.content_hash, this.fingerprint)
                and earlier.contract_hash is not distinct from this.contract_hash
            from ops.batch as earlier
            where (earlier.source, earlier.table_name) = (this.source, this.table_name)
                and (
                    earlier.unit = this.unit
                    or this.mode = 'full' and this.interval_start is null and this.fingerprint <> ''
                    and regexp_replace(earlier.unit, '@[^@]*$', '') = regexp_replace(this.unit, '@[^@]*$', '')
                )
                and earlier.part = 'unit' and earlier.batch_id < this.batch_id
                and earlier.state in ('published', 'superseded', 'unchanged', 'refused')
            order by earlier.batch_id desc limit 1
        )
        """,
        [batch_id],
    )
    return marked.rowcount > 0


def leave_unchanged(connection: psycopg.Connection, batch: Batch, reason: str, *, known: bool = True) -> None:
    """Record, in the caller's transaction, that a batch brought nothing new, and let its unit go. `known`: the log has
    its rows."""
    drop_landing(connection, batch.batch_id)
    connection.execute("delete from ops.quarantine where batch_id = %s", [batch.batch_id])
    move(
        connection,
        batch.batch_id,
        "unchanged",
        rows_unchanged=batch.rows_read if known else 0,
        rows_duplicate=0,
        rows_quarantined=0,
        rows_late=0,
        verdict=reason,
    )
    mark_read(connection, batch.source, batch.table_name, batch.run_id)
    lease.release(connection, batch.source, batch.table_name, batch.unit, batch.lease_token)


def must_be_there(connection: psycopg.Connection, batch: Batch, part: str, expected: int) -> None:
    """Make sure that a crash of the server has not emptied a landing table, or give the batch up and say so.

    It empties it as a whole. Whether each row is there is asked at publication, where it costs nothing.
    """
    _hold(connection, batch, part, "select count(*) from (select from {} limit 1) as one", min(expected, 1), expected)


def must_be_whole(connection: psycopg.Connection, batch: Batch, part: str, expected: int) -> None:
    """Make sure that a landing table still holds what was landed, or give the batch up and say so."""
    _hold(connection, batch, part, "select count(*) from {}", expected, expected)


def _hold(
    connection: psycopg.Connection, batch: Batch, part: str, counting: LiteralString, expected: int, landed: int
) -> None:
    table = landing_table(batch.batch_id, part)
    there = connection.execute("select to_regclass(%s)", [table.as_string(connection)]).fetchone()
    count = None
    if there and there[0]:
        count = connection.execute(sql.SQL(counting).format(table)).fetchone()[0]  # type: ignore[index]
    if count != expected:
        lost(connection, batch, count or 0, landed)


def lost(connection: psycopg.Connection, batch: Batch, count: int, landed: int) -> NoReturn:
    """Give a batch up that has not all of its rows any more."""
    give_up(
        connection,
        batch,
        f"landing holds {count} rows of this batch where {landed} were landed, as after a crash of the server",
    )


def give_up(connection: psycopg.Connection, batch: Batch, message: str) -> NoReturn:
    """Abandon a batch whose unit has to be read anew, and say so."""
    drop_landing(connection, batch.batch_id)
    move(connection, batch.batch_id, "abandoned", verdict=message)
    lease.release(connection, batch.source, batch.table_name, batch.unit, batch.lease_token)
    connection.commit()
    raise LandingLost(
        f"batch {batch.batch_id} ({batch.source}.{batch.table_name}, {batch.unit}): {message}; "
        "nothing was published. Clear the task land, or run the DAG again: the unit is read anew"
    )


def declared(connection: psycopg.Connection, batch: Batch) -> tuple[Source, Table]:
    """The declaration of the batch's table, as it stands now, with the columns that its log has besides."""
    found = load_folder(settings.sources_dir())
    source = found.sources.get(batch.source)
    if source is None or batch.table_name not in source.tables:
        raise SluiceError(
            f"batch {batch.batch_id} is of {batch.source}.{batch.table_name}, which no declaration in "
            f"{settings.sources_dir()} "
            "describes; the batch was left as it is"
        )
    return source, evolve.known(connection, source.tables[batch.table_name])


def units_known(connection: psycopg.Connection, source: str, table: str) -> dict[str, str]:
    """Units that need no reading, with the stamp they had: the latest batch of each is published, was found unchanged,
    or holds what a person declined."""
    rows = connection.execute(
        """
        select distinct on (unit)
            unit, coalesce(fingerprint, ''), state in ('published', 'unchanged') or details ? 'declined'
        from ops.batch
        where source = %s and table_name = %s and part = 'unit' and state not in ('abandoned', 'superseded')
        order by unit, batch_id desc
        """,
        [source, table],
    ).fetchall()
    return {unit: stamp for unit, stamp, is_known in rows if is_known}


def mark_read(connection: psycopg.Connection, source: str, table: str, run_id: str) -> None:
    """Staging is known to hold what the source holds, as of now."""
    connection.execute(
        """
        insert into ops.table_read (source, table_name, read_at, run_id) values (%s, %s, clock_timestamp(), %s)
        on conflict (source, table_name) do update set read_at = excluded.read_at, run_id = excluded.run_id
        """,
        [source, table, run_id],
    )


def record_check(
    connection: psycopg.Connection,
    batch: Batch,
    name: str,
    verdict: str,
    *,
    severity: str = "block",
    observed: object = None,
    bound: object = None,
    failing: int | None = None,
    message: str | None = None,
) -> None:
    """One result of the gate that a landed batch passes, as a row of `ops.gate_result`."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed, bound, "
            "failing_rows, message, batch_id)"
            " values (%s, 'batch', %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                batch.run_id,
                name,
                f"{batch.source}.{batch.table_name}",
                severity,
                verdict,
                None if observed is None else str(observed),
                None if bound is None else str(bound),
                failing,
                message,
                batch.batch_id,
            ],
        )
