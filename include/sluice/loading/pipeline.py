"""The steps of a batch, as a scheduler or a command line calls them. Each may be killed and called again."""

from __future__ import annotations

import errno
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

import psycopg

from sluice import settings, warehouse
from sluice.declarations import Mode, Source, Table
from sluice.errors import (
    BadResponse,
    GateRefused,
    LedgerError,
    ReadBroken,
    SluiceError,
    SourceChanged,
    SourceRefused,
    SourceUnavailable,
    StaleLease,
)
from sluice.ledger import cost
from sluice.loading import batch as batches
from sluice.loading import checkpoint, circuit, contract, events, lease, unchanged
from sluice.loading.audit import audit_batch
from sluice.loading.batch import Batch
from sluice.loading.landing import Landing, drop_landing, megabytes, storable
from sluice.loading.publish import Published, publish_batch
from sluice.readers import Read, Readiness, Unit, conditions, reader_of

T = TypeVar("T")
_TRIES = 4
_CONFLICTS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)
MAX_UNITS = 500  # per table and run; the next run takes the rest


@dataclass(frozen=True)
class RunContext:
    """On whose behalf: the id of the Airflow run or command; `interval` reads that interval again (a backfill)."""

    run_id: str
    interval: tuple[datetime, datetime] | None = None


def ready(source: Source, table: Table) -> Readiness:
    """Whether there is something complete to read, and the source answers. A dead source is one more thing to wait
    for; it is asked as rarely here as anywhere. Raises `SettingsError` for a connection that is not set: first of all,
    since it would be missed only when everything else is there."""
    for name in sorted(table.connections | ({source.clock.connection} if source.clock else set())):
        settings.connection(name)
    try:
        with warehouse.connect() as connection:
            with circuit.watched(connection, source, table):
                found = reader_of(table).ready(source, table)
            circuit.answered(connection, table)
            if not found.ready:
                circuit.nothing_to_read(connection, source, table)
            if found.ready and (problem := conditions.unmet(connection, table.ready_when)):
                return Readiness(False, problem)
    except SourceUnavailable as error:
        return Readiness(False, str(error))
    except psycopg.OperationalError:
        return Readiness(False, "the warehouse, which does not answer")
    return found


def land(source: Source, table: Table, run: RunContext) -> list[int]:
    """Read every pending unit into a landing table of its own. Returns the ids of the batches to audit and publish."""
    with warehouse.connect() as connection:
        meter = cost.Meter(connection)
        with circuit.watched(connection, source, table):
            units = _pending(connection, source, table, run)
        if not units and not run.interval:
            batches.mark_read(connection, source.source, table.name, run.run_id)
            circuit.nothing_to_read(connection, source, table)
            connection.commit()
        landed, problems = [], []
        for unit in units:
            try:
                with circuit.watched(connection, source, table, is_admitted=unit is units[0]):
                    landed.append(_land_unit(meter, connection, source, table, unit, run))
                circuit.succeeded(connection, source, table)
            except SluiceError as problem:
                meter.skip()
                problems.append(problem)
                of_unit = isinstance(problem, BadResponse | SourceChanged)
                if isinstance(problem, SourceUnavailable | SourceRefused) and not of_unit:
                    break  # the next unit would not be had either
    ids = [batch_id for batch_id in landed if batch_id is not None]
    if problems:
        _finish(ids, problems)
    return ids


def audit(batch_ids: list[int]) -> list[Batch]:
    """Judge landed batches. All are judged before the first refusal is raised, so that one bad unit holds up no
    other."""
    judged, problems = _each(batch_ids, audit_batch)
    if problems:
        _finish([batch.batch_id for batch in judged], problems)
    return judged


def publish(batch_ids: list[int]) -> list[Published]:
    """Publish audited batches, oldest first, each in a transaction of its own."""
    with warehouse.connect() as connection:
        known = sorted(
            (batches.get(connection, batch_id) for batch_id in batch_ids), key=lambda b: (b.effective_at, b.batch_id)
        )
        connection.rollback()
    done, problems = _each([batch.batch_id for batch in known], publish_batch)
    if problems:
        raise _together(problems)
    return done


def _each(batch_ids: list[int], step: Callable[[psycopg.Connection, int], T]) -> tuple[list[T], list[SluiceError]]:
    """Do a step with each batch, so that one that fails holds up no other."""
    done, problems = [], []
    with warehouse.connect() as connection:
        meter = cost.Meter(connection)
        for batch_id in batch_ids:
            try:
                done.append(_patiently(connection, step, batch_id))
                meter.charge(batch_id)
            except SluiceError as problem:
                connection.rollback()
                meter.skip()
                problems.append(problem)
            except psycopg.errors.DiskFull:
                connection.rollback()
                problems.append(
                    LedgerError(
                        f"batch {batch_id}: the disk of the warehouse is full (DISK_FULL); it was left as it was and "
                        f"nothing was published. {megabytes(connection, batch_id)} of it are landed, and the log needs "
                        "about twice as much. Free space, then clear the task"
                    )
                )
            except psycopg.OperationalError:
                raise  # the warehouse is gone: that is about no batch
            except psycopg.Error as error:
                if connection.closed:  # by a limit of the session, which is no OperationalError
                    raise psycopg.OperationalError(str(error)) from error
                connection.rollback()
                problems.append(LedgerError(f"batch {batch_id}: {_primary(error)}; it was left as it was"))
    return done, problems


def _patiently(connection: psycopg.Connection, step: Callable[[psycopg.Connection, int], T], batch_id: int) -> T:
    """Do a step again, a few times, when it only met others: a deadlock, a conflict, a lock not free in time."""
    for attempt in range(1, _TRIES + 1):
        try:
            return step(connection, batch_id)
        except _CONFLICTS as error:
            connection.rollback()
            if attempt == _TRIES:
                raise LedgerError(
                    f"batch {batch_id}: {_primary(error)}, {attempt} times in a row; it was left as it was. "
                    f"{_in_the_way(connection, batch_id)}. Then clear the task"
                ) from None
            time.sleep(random.uniform(0.1, 0.4) * 2**attempt)
    raise AssertionError("unreachable")


def _in_the_way(connection: psycopg.Connection, batch_id: int) -> str:
    batch = batches.get(connection, batch_id)
    connection.rollback()
    log_name = f"{batch.source}__{batch.table_name}"
    return f"Of staging.{log_name}: {warehouse.holder(f'staging.{log_name}', f'sluice:log:{log_name}')}"


def _finish(batch_ids: list[int], problems: list[SluiceError]) -> NoReturn:
    """Publish what can be, then raise what went wrong with the others."""
    judged, more = _each(batch_ids, audit_batch)
    known = sorted(judged, key=lambda batch: (batch.effective_at, batch.batch_id))
    _, last = _each([batch.batch_id for batch in known], publish_batch)
    raise _together([*problems, *more, *last])


def _together(problems: list[SluiceError]) -> SluiceError:
    """One error that says all; of the kind of the first, but worth a retry if one of them is."""
    if len(problems) == 1:
        return problems[0]
    first = next((problem for problem in problems if problem.retryable), problems[0])
    return type(first)("\n".join(map(str, problems)))


def load(source: Source, table: Table, run: RunContext) -> list[Published]:
    """All three steps, without a scheduler."""
    ids = land(source, table, run)
    audit(ids)
    return publish(ids)


def _pending(connection: psycopg.Connection, source: Source, table: Table, run: RunContext) -> list[Unit]:
    """The units that the ledger does not know, or that seem to have changed; of a backfill, all of its interval."""
    mark = connection.execute(
        "select value, (details ->> 'clock_ahead')::float from ops.watermark left join ops.batch using (batch_id)"
        " where (watermark.source, watermark.table_name) = (%s, %s)",
        [source.source, table.name],
    ).fetchone()
    stamps = batches.units_known(connection, source.source, table.name)
    connection.rollback()
    units = reader_of(table).units(source, table, run.interval, mark[0] if mark else None)
    if mark and table.mode is Mode.CURSOR:
        units = [replace(unit, clock_ahead=mark[1]) for unit in units]
    if table.origin.postgres:
        known = _columns_known(connection, source, table)
        units = [replace(unit, known=known) for unit in units]
    fresh = (unit for unit in units if run.interval or stamps.get(unit.name) != unit.stamp)
    return [_to_finish(connection, source, table, unit, run) for unit in itertools.islice(fresh, MAX_UNITS)]


def _columns_known(connection: psycopg.Connection, source: Source, table: Table) -> frozenset[str] | None:
    """The columns that a database had at the latest reading, without those that were news then."""
    row = connection.execute(
        """
        select details -> 'fields', details -> 'left_out', details -> 'new' from ops.batch
        where source = %s and table_name = %s and replay_of is null and details ? 'left_out'
        order by batch_id desc limit 1
        """,
        [source.source, table.name],
    ).fetchone()
    connection.rollback()
    return frozenset(row[0]).difference(row[2]).union(row[1]) if row else None


def _to_finish(connection: psycopg.Connection, source: Source, table: Table, unit: Unit, run: RunContext) -> Unit:
    """A live resource that an attempt began to read is read to its end, not begun again under another instant."""
    if unit.interval or not unit.resumable:
        return unit
    found = checkpoint.unit_to_finish(
        connection,
        source.source,
        table.name,
        identity=unit.resumable,
        contract=contract.contract_hash(table),
        within=_resume_within(table),
        holder=run.run_id,
    )
    connection.rollback()
    return replace(unit, name=found[0], instant=found[1]) if found else unit


def _resume_within(table: Table) -> timedelta:
    return table.origin.rest.resume_within if table.origin.rest else timedelta(0)


def _land_unit(
    meter: cost.Meter, connection: psycopg.Connection, source: Source, table: Table, unit: Unit, run: RunContext
) -> int | None:
    """Land one unit. None if its content is what is published already."""
    token = lease.take(connection, source.source, table.name, unit.name, run.run_id)
    _abandon_earlier(connection, table, unit)
    batch_id = _open(connection, source, table, unit, run, token)
    connection.commit()
    sink = Landing(connection, batch_id, table)
    try:
        with sink, lease.kept(source.source, table.name, unit.name, token):
            if table.origin.rest:
                sink.resume(unit.resumable, _resume_within(table))
            read, compared = _read(connection, source, table, unit, sink, batch_id)
            sink.finish()
        lease.check(connection, source.source, table.name, unit.name, token)
    except Exception as error:
        connection.rollback()
        raise _give_up(connection, table, batch_id, unit, sink, token, error) from None
    rows = sink.text_rows + sink.typed_rows + sink.reject_count + compared.get("matched", 0)
    if unit.resumable:
        _forget_attempts(connection, source.source, table.name, batch_id, unit)
    batches.move(connection, batch_id, "landed", rows_read=rows, rows_quarantined=sink.reject_count, **_known(read))
    reason = batches.delivered_before(connection, batch_id)
    is_known = reason is not None
    if not reason and not run.interval and batches.stays_declined(connection, batch_id):
        reason = "the same content as was declined"
    if reason:
        batches.leave_unchanged(connection, batches.get(connection, batch_id), reason, known=is_known)
        connection.commit()
        return None
    batches.add_details(connection, batch_id, text_rows=sink.text_rows, typed_rows=sink.typed_rows, gaps=sink.gap_count)
    batches.add_details(connection, batch_id, asked=True if run.interval else None, **compared)
    if read.clock_back:
        events.clock_went_back(connection, table, batch_id, read.clock_back)
    connection.commit()
    meter.charge(batch_id, wal_elsewhere=sink.wal_bytes)
    return batch_id


def _read(
    connection: psycopg.Connection, source: Source, table: Table, unit: Unit, sink: Landing, batch_id: int
) -> tuple[Read, dict[str, Any]]:
    """Land what a unit holds, and what comparing it with the extract before found out, if it could be compared."""
    sink.lines = unchanged.comparison(connection, table, unit, batch_id)
    read = reader_of(table).read(source, table, unit, sink)
    if sink.lines is None:
        return read, {}
    found = unchanged.settle(connection, table, unit, batch_id, read, sink.lines)
    if found is None:
        sink.lines.known = None
        read = reader_of(table).read(source, table, unit, sink)
        found = unchanged.settle(connection, table, unit, batch_id, read, sink.lines) or {}
    return read, found


def _give_up(
    connection: psycopg.Connection, table: Table, batch_id: int, unit: Unit, sink: Landing, token: int, error: Exception
) -> SluiceError:
    """Close the books of a unit that could not be read, and keep what the next attempt can use."""
    try:
        lease.check(connection, table.source, table.name, unit.name, token)
    except StaleLease as overtaken:
        error = overtaken  # whatever else broke: what was landed may be another's now
    if isinstance(error, psycopg.errors.DiskFull):
        error = LedgerError(
            f"{table.log_name} {unit.name}: the disk of the warehouse is full (DISK_FULL) after "
            f"{megabytes(connection, batch_id)} had landed; they were dropped, and the unit was left unread. Free "
            "space, then clear the task"
        )
    if isinstance(error, psycopg.errors.TooManyColumns):
        error = GateRefused(
            f"{table.log_name} {unit.name}: it has more fields than a table of Postgres can have columns, which is "
            "1600; nothing was published. Ask for fewer, or for one field with the others as JSON"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = LedgerError(
            f"{table.log_name} {unit.name}: no space is left in {tempfile.gettempdir()} of the machine that reads it "
            "(DISK_FULL); the unit was left unread. Free space there, or set TMPDIR, then clear the task"
        )
    if not isinstance(error, SluiceError):
        kind = SourceUnavailable if isinstance(error, OSError) else ReadBroken
        error = kind(f"{table.log_name} {unit.name}: {_primary(error)}; the unit was left unread", kind=_primary(error))
    if (
        sink.is_checkpointed
        and isinstance(error, SourceUnavailable | SourceRefused)
        and not isinstance(error, SourceChanged)
    ):
        error.args = (f"{error}. What has landed is kept: the next attempt goes on there",)
    else:
        checkpoint.forget(connection, batch_id)
        drop_landing(connection, batch_id)
    if isinstance(error, BadResponse):
        _keep_dead_letter(connection, table, batch_id, error)
    state = "refused" if isinstance(error, GateRefused | BadResponse) else "abandoned"
    batches.move(connection, batch_id, state, verdict=str(error))
    if state == "refused":
        batches.stays_declined(connection, batch_id)
    lease.release(connection, table.source, table.name, unit.name, token)
    connection.commit()
    return error


def _keep_dead_letter(connection: psycopg.Connection, table: Table, batch_id: int, error: BadResponse) -> None:
    """An answer that was no data, for a person to look at."""
    connection.execute(
        "insert into ops.quarantine (batch_id, source, table_name, row_number, code, reason, raw, raw_bytes) "
        "values (%s, %s, %s, %s, 'BAD_RESPONSE', %s, %s, %s)",
        [batch_id, table.source, table.name, error.page, f"page {error.page} is no data", *storable(error.body)],
    )


def _forget_attempts(connection: psycopg.Connection, source: str, table: str, batch_id: int, unit: Unit) -> None:
    """The unit, or the live resource, has been read after all: how far attempts were, and what answers they got that
    were no data, matters no more."""
    checkpoint.forget(connection, batch_id)
    connection.execute(
        """
        update ops.quarantine set state = 'superseded', state_at = clock_timestamp()
        from ops.batch
        where batch.batch_id = quarantine.batch_id and quarantine.state = 'open' and code = 'BAD_RESPONSE'
            and batch.source = %s and batch.table_name = %s and (unit = %s or interval_start is null)
        """,
        [source, table, unit.name],
    )


def _primary(error: Exception) -> str:
    """What kind of error it is, and of which object. Not its message, which may hold a row's values."""
    if not isinstance(error, psycopg.Error):
        return type(error).__name__
    parts = (error.diag.table_name, error.diag.column_name, error.diag.constraint_name)
    about = " of " + ".".join(filter(None, parts)) if any(parts) else ""
    return f"{type(error).__name__} ({error.sqlstate}){about}"


def _abandon_earlier(connection: psycopg.Connection, table: Table, unit: Unit) -> None:
    """Crashed attempts of the same unit, and of any whose lease has run out, left their landing tables behind."""
    left = connection.execute(
        """
        select batch_id, checkpoint.batch_id is not null
        from ops.batch
        inner join ops.lease using (source, table_name, unit)
        left join ops.checkpoint using (batch_id)
        where source = %(source)s and table_name = %(table)s and state in ('landing', 'landed', 'audited')
            and (unit = %(unit)s or expires_at < clock_timestamp())
        """,
        {"source": table.source, "table": table.name, "unit": unit.name},
    ).fetchall()
    # what an earlier attempt rejected is judged again now; a cursor is still where a refused reading found it
    connection.execute(
        """
        update ops.quarantine set state = 'superseded', state_at = clock_timestamp()
        where state = 'open' and batch_id in (
            select batch_id from ops.batch
            where (source, table_name) = (%s, %s) and state = 'refused'
                and (unit = %s or (%s and interval_start is null))
        )
        """,
        [table.source, table.name, unit.name, table.mode is Mode.CURSOR and unit.interval is None],
    )
    for batch_id, is_checkpointed in left:
        if not is_checkpointed:  # else the attempt at its unit takes over or drops what it landed
            drop_landing(connection, batch_id)
            connection.execute("delete from ops.quarantine where batch_id = %s", [batch_id])
        batches.move(connection, batch_id, "abandoned", verdict="a later attempt took the unit over")


def _open(connection: psycopg.Connection, source: Source, table: Table, unit: Unit, run: RunContext, token: int) -> int:
    start, end = unit.interval or (None, None)
    row = connection.execute(
        """
        insert into ops.batch (source, table_name, unit, state, mode, run_id, lease_token, fingerprint,
        contract_hash, effective_at, interval_start, interval_end, opened_seq)
        values (%s, %s, %s, 'landing', %s, %s, %s, %s, %s, %s, %s, %s, (select seq from ops.clock)) returning
        batch_id
        """,
        [
            source.source,
            table.name,
            unit.name,
            table.mode.value,
            run.run_id,
            token,
            unit.stamp,
            contract.contract_hash(table),
            unit.instant,
            start,
            end,
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


def _known(read: Read) -> dict[str, object]:
    return {
        "content_hash": read.content_hash,
        "bytes_read": read.bytes_read,
        "control_total": read.control_total,
        "watermark_from": read.watermark_from,
        "watermark_to": read.watermark_to,
        **({"effective_at": read.instant} if read.instant else {}),
        "details": {
            "fields": read.fields,
            "constants": read.constants,
            "empty_is_null": read.empty_is_null,
            "rest": read.rest,
            **(read.names.details if read.names else {}),
            **({"keys": read.keys} if read.keys is not None else {}),
            **({"left_out": read.left_out, "new": read.new} if read.left_out is not None else {}),
            **({"keys_once": True} if read.keys_once else {}),
            **({"clock_ahead": read.clock_ahead} if read.clock_ahead is not None else {}),
        },
    }
