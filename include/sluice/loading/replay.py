"""Rejected rows, again: after the contract was mended, or with values that a person corrected.

They take the same path as at first: landed as text, judged by the contract as it stands now, published in one
transaction. The rows of one batch that pass become a *replay* batch, a part of the same unit: when the unit is
superseded, its replayed rows leave with it. What they mean is what they would have meant had they not been rejected:

* `append`: the rows are added to those of their unit; one that the unit holds already is a duplicate.
* `cursor`: versions are added. One that was read before another of the same instant stays before it.
* `full`: the key had this value at the extract's instant. Later extracts keep their meaning: keys are asserted again
  at the next one. When the last row that hid its key is known, the extract may speak of absence after all, and
  closes what it lacks.

Rows that still break a rule stay where they are. A rehearsal is the same transaction, rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from sluice import warehouse
from sluice.declarations import Mode, Table
from sluice.errors import LedgerError, SluiceError
from sluice.loading import batch as batches
from sluice.loading import checks, contract, evolve, log, quarantine, rows, shape
from sluice.loading.audit import judge_vanished
from sluice.loading.batch import Batch
from sluice.loading.landing import drop_landing, landing_table, make_landing
from sluice.loading.mapping import map_batch, map_fields, told_apart
from sluice.loading.publish import _active_of_unit, _bury, _insert, _restate_next
from sluice.loading.quarantine import MASK, Fields, Rejected, Where
from sluice.readers.base import source_fields
from sluice.readers.jsonl import as_fields, loads, with_rest


@dataclass(frozen=True)
class Still:
    """Rows that can't be loaded as they are, and why."""

    code: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Replayed:
    """What became, or in a rehearsal would become, of the rejected rows of one batch. Counts are rows.

    `replay_batch` is the batch that holds those that passed; None in a rehearsal and where none did. `note` says
    what else an operator should know.
    """

    batch_id: int
    source: str
    table_name: str
    unit: str
    replay_batch: int | None
    asked: int
    applied: int = 0
    unchanged: int = 0
    duplicate: int = 0
    deleted: int = 0
    still: tuple[Still, ...] = ()
    note: str = ""

    @property
    def passed(self) -> int:
        """Rows that keep the contract now."""
        return self.applied + self.unchanged + self.duplicate


@dataclass(frozen=True)
class Corrections:
    """Values that a person gave, by column or field: for every row, and for single ones by their number."""

    everywhere: Mapping[str, str | None]
    each: Mapping[int, Mapping[str, str | None]]


NOTHING = Corrections({}, {})
_NEVER_A_ROW = "never became a row; give its fields with --set, or in an exported file"


def replay(
    where: Where, *, by: str, reason: str, corrections: Corrections = NOTHING, rehearse: bool = True
) -> list[Replayed]:
    """Load the open rows that `where` means, batch by batch in the order of their instants, each in one transaction.

    Killed anywhere, a batch's rows are either all replayed or all still open; asked again, those that were replayed are
    no longer open. Raises `SluiceError` if no open row matches.
    """
    settled = replace(where, state="open")
    with warehouse.connect() as connection:
        matching, parameters = quarantine.condition(settled)
        origins = connection.execute(
            sql.SQL(
                """
                select b.batch_id from ops.batch as b
                where b.batch_id in (select q.batch_id from ops.quarantine as q where {})
                order by b.effective_at, b.batch_id
                """
            ).format(matching),
            parameters,
        ).fetchall()
        if not origins:
            raise SluiceError(f"{quarantine.nothing_open(connection, replace(where, state=''))}; nothing was replayed")
        connection.rollback()
        return [
            _replay_batch(connection, origin, settled, corrections, by=by, reason=reason, rehearse=rehearse)
            for (origin,) in origins
        ]


@dataclass(frozen=True)
class _Job:
    """One replay at work: the session, the contract, the batch whose rejects these are, and the one they go into."""

    connection: psycopg.Connection
    table: Table
    origin: Batch
    batch: Batch
    active: list[int]  # the unit's batches that readers see, without this one

    @property
    def rows(self) -> sql.Identifier:
        return landing_table(self.batch.batch_id, "rows")


def _replay_batch(
    connection: psycopg.Connection,
    origin_id: int,
    where: Where,
    corrections: Corrections,
    *,
    by: str,
    reason: str,
    rehearse: bool,
) -> Replayed:
    """The rejects of one batch, in one transaction."""
    try:
        origin = batches.get(connection, origin_id)
        _, table = batches.declared(connection, origin)
        fits = _fit(connection, table, rehearse)
        if problem := checks.unreadable_pattern(connection, table):
            raise SluiceError(
                f"{problem}; the rejected rows of batch {origin_id} stay open. Correct it, then replay again"
            )
        # one writer per log, as at publish: nobody supersedes the unit meanwhile
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:log:{table.log_name}"])
        table = evolve.known(connection, table)  # also what evolved while others had the lock
        origin = batches.get(connection, origin_id, lock=True)
        if origin.state != "published":
            connection.rollback()
            return _not_now(connection, origin, where)
        job, unreadable = _land(connection, table, origin, where, corrections)
        still = unreadable + _judge(job)
        applied, unchanged, duplicate = _write(job) if fits else (_passed(job), 0, 0)
        passed = applied + unchanged + duplicate
        deleted, note = 0, ""
        if not fits:
            note = f"the log staging.{table.log_name} is brought to the shape of the contract first"
        elif passed and table.mode is Mode.FULL:
            deleted, note = _speak_of_absence(job)
            _restate_next(connection, table, job.batch, [])
        result = Replayed(
            origin_id, origin.source, origin.table_name, origin.unit, job.batch.batch_id,
            job.batch.rows_read + sum(known.rows for known in unreadable), applied, unchanged,
            duplicate, deleted, tuple(still), note,
        )  # fmt: skip
        if rehearse or not passed:
            connection.rollback()
            return replace(result, replay_batch=None)
        _settle(job, by, reason)
        _enter(job, result)
        connection.commit()
        return result
    except psycopg.Error as error:
        connection.rollback()
        raise LedgerError(
            f"batch {origin_id}: {type(error).__name__} ({error.sqlstate}); its rejected rows stay open. Try again"
        ) from None


def _fit(connection: psycopg.Connection, table: Table, rehearse: bool) -> bool:
    """Whether the log has the shape of the contract; it is given it, but not in a rehearsal."""
    if rehearse:
        return not shape.pending(connection, table)
    shape.ensure(connection, table)
    return True


def _not_now(connection: psycopg.Connection, origin: Batch, where: Where) -> Replayed:
    """Rows of a batch that readers don't see have no place in the log."""
    matching, parameters = quarantine.condition(replace(where, batch_id=origin.batch_id))
    count = connection.execute(
        sql.SQL("select count(*) from ops.quarantine as q where {}").format(matching), parameters
    ).fetchone()[0]  # type: ignore[index]
    connection.rollback()
    name = f"{origin.source}.{origin.table_name}"
    why = {
        "refused": f"batch {origin.batch_id} was refused as a whole; its unit is read again by: sluice load {name}",
        "superseded": f"batch {origin.batch_id} was superseded meanwhile, and its unit judged anew",
    }.get(origin.state, f"batch {origin.batch_id} is {origin.state}; its rows can be replayed once it is published")
    still = (Still("NOT_PUBLISHED", why, count),)
    return Replayed(origin.batch_id, origin.source, origin.table_name, origin.unit, None, count, still=still)


# -- landing ------------------------------------------------------------------------------------


def _land(
    connection: psycopg.Connection, table: Table, origin: Batch, where: Where, corrections: Corrections
) -> tuple[_Job, list[Still]]:
    """The rejected rows as a text landing table of a batch of their own."""
    fields, rest = _fields(table, origin, corrections), _has_rest(origin)
    details = {name: value for name, value in origin.details.items() if name in ("constants", "empty_is_null")}
    batch_id = connection.execute(
        """
        insert into ops.batch (source, table_name, unit, state, mode, part, replay_of, run_id, contract_hash,
        effective_at, interval_start, interval_end, details)
        select source, table_name, unit, 'landed', mode, 'replay', batch_id, %s, %s, effective_at,
            interval_start, interval_end, %s
        from ops.batch where batch_id = %s returning batch_id
        """,
        [
            f"replay:{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            contract.contract_hash(table),
            Jsonb(details | {"fields": fields, "rest": rest, "asked": True}),
            origin.batch_id,
        ],
    ).fetchone()[0]  # type: ignore[index]
    landed = landing_table(batch_id)
    columns = [sql.Identifier(f"f{index}") for index in range(len(fields))]
    make_landing(connection, batch_id, map_fields(table, fields, {}, empty_is_null=False, rest=rest))
    connection.execute("drop table if exists pg_temp.replaying")
    connection.execute(
        """
        create temporary table replaying
            (quarantine_id bigint primary key, _row_number bigint unique, key text, corrected jsonb) on commit drop
        """
    )
    count, unreadable = _copy(connection, table, origin, where, corrections, fields, landed, columns)
    batches.move(connection, batch_id, "landed", rows_read=count)
    batches.add_details(connection, batch_id, text_rows=count, typed_rows=0, gaps=0)
    active = _active_of_unit(connection, origin)
    return _Job(connection, table, origin, batches.get(connection, batch_id), active), unreadable


def _fields(table: Table, origin: Batch, corrections: Corrections) -> list[str]:
    """The fields that the rows have: those that came, those that the contract now asks for, those that were given."""
    fields, rest = told_apart(origin.details["fields"]), _has_rest(origin)
    if rest:  # objects: what the contract did not know then lies there
        fields = [*fields[:-1], *(name for name in source_fields(table) if name not in fields[:-1])]
    for given in [corrections.everywhere, *corrections.each.values()]:
        for name in given:
            if name in table.columns and (field := _field_of(table, fields, name)) not in fields:
                fields.append(field)
    return [*fields, "_rescued"] if rest else fields


def _has_rest(origin: Batch) -> bool:
    return bool(origin.details.get("rest", "_rescued" in origin.details["fields"]))


def _field_of(table: Table, fields: list[str], name: str) -> str:
    """The field that a correction speaks of: by the column's name, or by its own."""
    column = table.columns.get(name)
    if column is not None and column.from_path:
        raise SluiceError(
            f"{name} of {table.source}.{table.name} comes from the path of its file and can't be set; "
            "nothing was replayed"
        )
    wanted = (column.field or name) if column is not None else name
    for field in fields:
        if field == wanted:
            return field
    folded = [field for field in fields if field.lower() == wanted.lower()]
    if len(folded) == 1:
        return folded[0]
    if column is None:
        raise SluiceError(
            f"{table.source}.{table.name} has no column or field {name}; it has {', '.join(table.columns)}. "
            "Nothing was replayed"
        )
    return wanted


def _copy(
    connection: psycopg.Connection,
    table: Table,
    origin: Batch,
    where: Where,
    corrections: Corrections,
    fields: list[str],
    landed: sql.Identifier,
    columns: list[sql.Identifier],
) -> tuple[int, list[Still]]:
    """Each rejected row, with what was corrected, under the number that it had in its unit. What never became a row,
    and was not given one, is counted apart."""
    matching, parameters = quarantine.condition(replace(where, batch_id=origin.batch_id))
    rejected = quarantine.read(connection, matching, parameters, lock=True)
    numbers: set[int] = set()
    unreadable: Counter[str] = Counter()
    into = sql.SQL("copy {} (_row_number, {}) from stdin").format(landed, sql.SQL(", ").join(columns))
    for page in _pages(rejected):
        known = []
        for row in page:
            given = _given(table, fields, row, corrections)
            if row.fields is None and not given:
                unreadable[row.code] += 1
                continue
            number = row.row_number if row.row_number not in numbers else -row.quarantine_id
            numbers.add(number)
            known.append((row, number, given))
        with connection.cursor() as cursor, cursor.copy(into) as copy:
            for row, number, given in known:
                copy.write_row((number, *_values(row, given, fields, rest=_has_rest(origin))))
        with connection.cursor() as cursor, cursor.copy("copy replaying from stdin") as copy:
            for row, number, given in known:
                copy.write_row((row.quarantine_id, number, row.key, Jsonb(given) if given else None))
    return len(numbers), [Still(code, _NEVER_A_ROW, count) for code, count in sorted(unreadable.items())]


def _given(table: Table, fields: list[str], row: Rejected, corrections: Corrections) -> Fields:
    """The corrections of one row that differ from what came. A masked value that comes back is none; an empty text
    is how CSV writes that there is no value."""
    came, given = row.fields or {}, Fields()
    for name, value in {**corrections.everywhere, **corrections.each.get(row.quarantine_id, {})}.items():
        if value == MASK or (not value and name not in fields and name not in table.columns):
            continue
        field = _field_of(table, fields, name)
        before = came.get(field)
        if value == "":
            value = None if before else before
        if value != before:
            given[field] = value
    return given


def _pages(rows: Iterator[Rejected], size: int = 2000) -> Iterator[list[Rejected]]:
    page: list[Rejected] = []
    for row in rows:
        page.append(row)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


def _values(row: Rejected, given: Fields, fields: list[str], *, rest: bool) -> list[str | None]:
    """The row's text, field by field. What the contract has learnt to know is taken out of `_rescued`."""
    came = dict(row.fields or {})
    if not rest:
        return as_fields(came | given, fields)
    rescued = came.pop("_rescued", None)
    return with_rest((loads(rescued) if rescued else {}) | came | given, fields[:-1])


# -- judging ------------------------------------------------------------------------------------


def _judge(job: _Job) -> list[Still]:
    """Leave in `landing.b<id>_rows` the typed rows that keep the contract; the others are counted, and stay open."""
    connection, table = job.connection, job.table
    details = job.batch.details
    mapping = map_batch(table, details)
    rows.judge(connection, table, job.batch, mapping)
    if table.mode is Mode.APPEND and rows.find_repeated(connection, table, job.batch):
        rows.drop_duplicates(connection, table, job.batch)
    rows.materialize(connection, table, job.batch)
    again = connection.execute(
        """
        with again as (
            delete from ops.quarantine where batch_id = %s returning row_number, code, reason
        ),

        out as (
            delete from replaying using again where replaying._row_number = again.row_number
            returning again.code, again.reason
        )

        select code, reason, count(*) from out group by 1, 2 order by 3 desc, 1, 2
        """,
        [job.batch.batch_id],
    ).fetchall()
    still = [Still(*found) for found in again]
    if table.mode is Mode.FULL:
        still += _contradictions(job)
    return still


def _contradictions(job: _Job) -> list[Still]:
    """What a full extract can't be told afterwards: another key for a row, or a second value for a key that it has."""
    found = []
    moved = sql.SQL(
        """
        select landed._row_number from {rows} as landed inner join replaying using (_row_number)
        where replaying.corrected is not null and replaying.key <> jsonb_build_array({key})::text
        """
    )
    second = sql.SQL(
        """
        select landed._row_number from {rows} as landed inner join {log} as held
            on {same_key} and held._batch_id = any({active}) and held._op = 'upsert'
        where held._row_hash <> landed._row_hash and held._effective_at = {instant}
        """
    )
    for query, code, reason in (
        (
            moved,
            "KEY_CHANGED",
            "would get another key, and the extract would lack the old one; correct it at the source",
        ),
        (second, "DUPLICATE_KEY", "another row of the same extract has this key and other values"),
    ):
        count = job.connection.execute(
            sql.SQL(
                """
                with refused as ({query}),
                gone as (delete from {rows} where _row_number in (select _row_number from refused) returning
                _row_number)
                delete from replaying using gone where replaying._row_number = gone._row_number
                """
            ).format(
                query=query.format(
                    rows=job.rows,
                    key=log.names(job.table.key, "landed"),
                    log=log.relation(job.table),
                    same_key=log.same_key(job.table, "held", "landed"),
                    active=sql.Literal(job.active),
                    instant=sql.Literal(job.origin.effective_at),
                ),
                rows=job.rows,
            )
        ).rowcount
        if count:
            # a twin of a refused row was dropped as its duplicate: it waits with it
            count += job.connection.execute(
                sql.SQL("delete from replaying where _row_number not in (select _row_number from {})").format(job.rows)
            ).rowcount
            found.append(Still(code, reason, count))
    return found


# -- what the rows mean, by mode ----------------------------------------------------------------


def _passed(job: _Job) -> int:
    return job.connection.execute("select count(*) from replaying").fetchone()[0]  # type: ignore[index]


def _write(job: _Job) -> tuple[int, int, int]:
    """Rows applied, unchanged and duplicate."""
    passed = _passed(job)
    if job.table.mode is Mode.CURSOR:
        typed = job.connection.execute(sql.SQL("select count(*) from {}").format(job.rows)).fetchone()[0]  # type: ignore[index]
        applied = job.connection.execute(_insert(job.table, job.batch.batch_id, _versions(job))).rowcount
        return applied, typed - applied, passed - typed
    job.connection.execute(
        sql.SQL(
            """
            delete from {rows} as landed where exists (
                select from {log} as held
                where held._batch_id = any({active}) and {same_key} and held._effective_at = landed._effective_at
                    and held._sequence = landed._sequence and held._row_hash = landed._row_hash
                    and held._op = landed._op
            )
            """
        ).format(
            rows=job.rows,
            log=log.relation(job.table),
            active=sql.Literal(job.active),
            same_key=log.same_key(job.table, "held", "landed"),
        )
    )
    # of a full extract every row, also one that says nothing new: the unit holds this key, whatever else is replayed
    passing = sql.SQL("select * from {} order by _row_number").format(job.rows)
    applied = job.connection.execute(_insert(job.table, job.batch.batch_id, passing)).rowcount
    return applied, 0, passed - applied


def _versions(job: _Job) -> sql.Composable:
    """Versions that the log lacks. Without a declared `sequence`, order within an instant is the order of reading:
    after what was read before the rejected row, before what was read after it."""
    columns = sql.SQL(", ").join(
        sql.SQL("landed.{}").format(sql.Identifier(name))
        for name in (*job.table.log_columns, "_row_number", "_op", "_effective_at")
    )
    version = sql.SQL(
        """
        select log._sequence, log._row_hash, log._op
        from {log} as log inner join ops.batch as read on read.batch_id = log._batch_id
        where {same_key} and log._effective_at = landed._effective_at
        """
    ).format(log=log.relation(job.table), same_key=log.same_key(job.table, "log", "landed"))
    if job.table.sequence:
        return sql.SQL(
            """
            select {columns}, landed._sequence, landed._row_hash, landed._rescued from {rows} as landed
            where (landed._sequence, landed._row_hash, landed._op) not in ({version})
            order by landed._row_number
            """
        ).format(columns=columns, rows=job.rows, version=version)
    return sql.SQL(
        """
        select {columns}, coalesce(later._sequence - 1, known._sequence + 1, 0) as _sequence, landed._row_hash,
            landed._rescued
        from {rows} as landed
        left join lateral (
            {version} and coalesce(read.replay_of, read.batch_id) <= {origin}
            order by log._sequence desc, log._op desc, log._row_hash desc limit 1
        ) as known on true
        left join lateral (
            {version} and coalesce(read.replay_of, read.batch_id) > {origin}
            order by log._sequence, log._op, log._row_hash limit 1
        ) as later on true
        where (known._row_hash is distinct from landed._row_hash or known._op is distinct from landed._op)
            and (later._row_hash is distinct from landed._row_hash or later._op is distinct from landed._op)
        order by landed._row_number
        """
    ).format(columns=columns, rows=job.rows, version=version, origin=sql.Literal(job.origin.batch_id))


def _speak_of_absence(job: _Job) -> tuple[int, str]:
    """An extract that withheld its deletes, for a row of it hid its key, may close what it lacks once no key is hidden.

    All it held is in the log then, for such an extract stores every row, or in quarantine under a known key. Returns
    the keys that were closed, and what to say if they were too many.
    """
    connection, table, unit = job.connection, job.table, [*job.active, job.batch.batch_id]
    withheld, hidden = connection.execute(
        """
        select
            (select bool_or(deletes_withheld) from ops.batch where batch_id = any(%(unit)s)),
            exists (
                select from ops.quarantine
                where batch_id = any(%(unit)s) and key is null and state <> 'replayed'
                    and quarantine_id not in (select quarantine_id from replaying)
            )
        """,
        {"unit": unit},
    ).fetchone()  # type: ignore[misc]
    batches.move(connection, job.batch.batch_id, "audited", deletes_withheld=False)
    if not withheld or hidden:
        return 0, ""
    keys = landing_table(job.batch.batch_id, "keys")
    of_json = sql.SQL(", ").join(
        sql.SQL("(key::jsonb ->> {})::{}").format(sql.Literal(index), sql.SQL(table.columns[name].type))
        for index, name in enumerate(table.key)
    )
    connection.execute(
        sql.SQL(
            """
            insert into {keys}
            select {key} from {log} where _batch_id = any({unit}) and _op = 'upsert'
            union all
            select {of_json} from ops.quarantine
            where batch_id = any({unit}) and key is not null and state <> 'replayed'
            """
        ).format(keys=keys, key=log.names(table.key), log=log.relation(table), unit=sql.Literal(unit), of_json=of_json)
    )
    batch = replace(job.batch, deletes_withheld=False)
    verdict = judge_vanished(connection, table, batch)
    if verdict is not None and verdict.refused:
        message = f"{verdict.observed_count} keys that this extract lacks stay open, more than deletes.max_share allows"
        batches.record_check(connection, batch, "deletes", "warn", severity="warn", message=message)
        return 0, message
    deleted = _bury(connection, table, batch, inclusive=False)
    connection.execute("update ops.batch set deletes_withheld = false where batch_id = any(%s)", [unit])
    return deleted, ""


# -- the commit ---------------------------------------------------------------------------------


def _settle(job: _Job, by: str, reason: str) -> None:
    """The rows that passed are no longer open; they say who, when, why, and in which batch they are now."""
    job.connection.execute(
        """
        update ops.quarantine as q set state = 'replayed', replayed_by = %s, corrected = replaying.corrected,
            state_by = %s, state_reason = %s, state_at = clock_timestamp()
        from replaying where replaying.quarantine_id = q.quarantine_id
        """,
        [job.batch.batch_id, by, reason],
    )


def _enter(job: _Job, result: Replayed) -> None:
    """Books and sequence number: last, since the counter is shared by all and must be held briefly."""
    connection, batch_id = job.connection, job.batch.batch_id
    batches.record_check(
        connection, job.batch, "replay", "pass", observed=f"{result.passed} rows", bound=f"{result.asked} rows"
    )
    drop_landing(connection, batch_id)
    seq = connection.execute("select ops.next_seq()").fetchone()[0]  # type: ignore[index]
    batches.move(
        connection,
        batch_id,
        "published",
        rows_read=result.passed,
        rows_applied=result.applied,
        rows_unchanged=result.unchanged,
        rows_duplicate=result.duplicate,
        rows_quarantined=0,
        rows_deleted=result.deleted,
        published_seq=seq,
        audited_at=datetime.now(UTC),
        verdict=f"replays {result.passed} rejected rows of batch {result.batch_id}",
    )
