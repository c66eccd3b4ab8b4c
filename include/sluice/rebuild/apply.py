"""A stored difference, put into the live tables or taken out of them again, in one transaction."""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass
from datetime import date

import psycopg
from psycopg import sql

from sluice import warehouse
from sluice.errors import SluiceError
from sluice.rebuild.plan import Change, Plan, Pointer, drop, get, keep
from sluice.verify.compare import columns_of


@dataclass(frozen=True)
class Outcome:
    """What was written. `left_out`: slices that a run has written since, which keep what they have."""

    inserted: int
    deleted: int
    left_out: int


def apply(rebuild_id: int, *, reason: str, by: str | None = None) -> Outcome:
    """Put the rebuilt rows in the place of the live ones. Raises `SluiceError`, with nothing written, where it may not
    be."""
    return _exchange(rebuild_id, "rehearsed", "applied", reason, by)


def undo(rebuild_id: int, *, reason: str, by: str | None = None) -> Outcome:
    """Put the old rows back."""
    return _exchange(rebuild_id, "applied", "undone", reason, by)


def is_done(rebuild_id: int, state: str) -> bool:
    """Whether it has come to that state."""
    with warehouse.connect() as connection:
        row = connection.execute("select state from ops.rebuild where rebuild_id = %s", [rebuild_id]).fetchone()
    return row is not None and row[0] == state


def accept(rebuild_id: int, by: str | None = None) -> None:
    """Let the old rows go. There is no way back afterwards."""
    with warehouse.connect() as connection:
        get(connection, rebuild_id, "applied")
        drop(connection, rebuild_id)
        connection.execute(
            "update ops.rebuild set state = 'accepted', ended_by = %s, ended_at = clock_timestamp()"
            " where rebuild_id = %s",
            [by or getpass.getuser(), rebuild_id],
        )


def _exchange(rebuild_id: int, before: str, after: str, reason: str, by: str | None) -> Outcome:
    if not reason.strip():
        raise SluiceError("say why, with --reason; nothing was changed")
    started, is_new = time.monotonic(), after == "applied"
    _ensure_partitions(rebuild_id, before)
    with warehouse.connect() as connection:
        plan = get(connection, rebuild_id, before)
        changes = [change for change in plan.changes if change.months]
        if refused := next((change for change in changes if change.other_columns), None):
            raise SluiceError(
                f"{refused.relation} would get other columns ({refused.other_columns}); nothing was changed. "
                "A run of the DAG warehouse with this code makes the change"
            )
        _lock(connection, changes)
        for change in changes:
            _must_fit(connection, change)
        left_out = sum(_leave_out_fresh(connection, change, is_new=is_new) for change in changes)
        written = [_write(connection, change, is_new=is_new) for change in changes]
        for pointer in plan.pointers:
            _must_resolve(connection, plan, pointer, is_new=is_new)
        outcome = Outcome(sum(come for come, _ in written), sum(gone for _, gone in written), left_out)
        if not outcome.inserted + outcome.deleted:
            why = f"runs have written all {left_out} slices of it since" if left_out else "it found no difference"
            raise SluiceError(f"rebuild {rebuild_id}: {why}; nothing was changed. Rehearse again")
        for change, (come, gone) in zip(changes, written, strict=True):
            change.count_months(connection)
            _record(connection, plan, change, come, gone, time.monotonic() - started)
        keep(connection, plan)
        _settle(connection, plan, after, reason, by or getpass.getuser())
    return outcome


def _lock(connection: psycopg.Connection, changes: list[Change]) -> None:
    """As a run of each model holds it, so that none writes meanwhile. The session waits a minute for each."""
    for relation in sorted(change.relation for change in changes):
        try:
            connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:{relation}"])
        except psycopg.errors.LockNotAvailable:
            raise SluiceError(
                f"{relation} is being written for a minute; nothing was changed. As of now "
                f"{warehouse.holder(relation, f'sluice:{relation}')}. Then try again"
            ) from None


def _must_fit(connection: psycopg.Connection, change: Change) -> None:
    """A column that came since would be empty in every row that this writes, one that went is in the way, and a period
    that was closed since has been reported."""
    stored = columns_of(connection, f"rebuild.{change.table}")
    if not stored:
        raise SluiceError(
            f"the difference of {change.relation} was dropped from the schema rebuild; nothing was changed"
        )
    stored.pop("_is_new")
    if other := sorted(dict(set(stored.items()) ^ set(columns_of(connection, change.relation).items()))):
        raise SluiceError(
            f"the columns of {change.relation} have changed since the rehearsal ({', '.join(other)}); nothing was "
            "changed. Rehearse again"
        )
    if change.closed and connection.execute(change.in_closed_periods()).fetchone():
        raise SluiceError(
            f"a period of {change.relation} was closed since the rehearsal; nothing was changed. Rehearse again, which "
            "leaves it out, or unlock it: sluice period --help"
        )


def _leave_out_fresh(connection: psycopg.Connection, change: Change, *, is_new: bool) -> int:
    """Take slices out of the difference whose live rows are not those that it would replace."""
    row = connection.execute(
        sql.SQL(
            """
            with gone as (select {names} from {stored} where _is_new <> {side}),
            come as (select {names} from {stored} where _is_new = {side}),
            fresh as (
                select {key_of_gone} as key
                from gone left join (select {names} from {live}) as present on {gone_is_present}
                where present.{one} is null or gone *<> present
                union
                select {key_of_come} as key
                from come inner join {live} as present on {come_is_present}
                where not exists (select from gone where {come_is_gone})
            ),
            out as (delete from {stored} as each using fresh where {key_of_each} = fresh.key returning fresh.key)
            select count(distinct key) from out
            """
        ).format(
            names=change.names(),
            stored=change.stored,
            live=change.live,
            side=is_new,
            one=sql.Identifier(change.grain[0]),
            key_of_gone=change.key("gone"),
            key_of_come=change.key("come"),
            key_of_each=change.key("each"),
            gone_is_present=change.same("gone", "present"),
            come_is_present=change.same("come", "present"),
            come_is_gone=change.same("come", "gone"),
        )
    ).fetchone()
    assert row is not None
    return int(row[0])


def _write(connection: psycopg.Connection, change: Change, *, is_new: bool) -> tuple[int, int]:
    """Rows inserted and deleted."""
    deleted = connection.execute(
        sql.SQL("delete from {} as present using {} as gone where gone._is_new <> {} and {}").format(
            change.live, change.stored, is_new, change.same("present", "gone")
        )
    ).rowcount
    inserted = connection.execute(
        sql.SQL("insert into {} ({}) select {} from {} where _is_new = {}").format(
            change.live, change.names(), change.names(), change.stored, is_new
        )
    ).rowcount
    return inserted, deleted


def _ensure_partitions(rebuild_id: int, before: str) -> None:
    """Months that are gone come back as macros/sluice/partitions.sql makes them: beside the table, attached, and
    committed before their rows, since a reader who has planned already would see all of the exchange except them."""
    with warehouse.connect() as connection:
        for change in get(connection, rebuild_id, before).changes:
            if change.partition and columns_of(connection, f"rebuild.{change.table}"):
                _lock(connection, [change])
                _attach_months(connection, change)


def _attach_months(connection: psycopg.Connection, change: Change) -> None:
    schema, table = change.relation.split(".")
    months = connection.execute(
        sql.SQL("select distinct date_trunc('month', {}::timestamp)::date from {}").format(
            sql.Identifier(change.partition or ""), change.stored
        )
    ).fetchall()
    for month in sorted(month for (month,) in months):
        part = f"{table[:50]}__{month:%Y_%m}"
        after = date(month.year + month.month // 12, month.month % 12 + 1, 1)
        place = sql.Identifier(schema, part)
        if connection.execute("select to_regclass(%s) is null", [place.as_string(connection)]).fetchone()[0]:  # type: ignore[index]
            connection.execute(
                sql.SQL("create table {} (like {} including defaults including constraints)").format(place, change.live)
            )
            connection.execute(
                sql.SQL("alter table {} attach partition {} for values from ({}) to ({})").format(
                    change.live, place, sql.Literal(str(month)), sql.Literal(str(after))
                )
            )


def _must_resolve(connection: psycopg.Connection, plan: Plan, pointer: Pointer, *, is_new: bool) -> None:
    """No row may point to a key that went, and none that came to a key that is not there."""
    by_name = {change.relation: change for change in plan.changes if change.months}
    child, parent = (sql.Identifier(*name.split(".")) for name in (pointer.child, pointer.parent))
    column, field = sql.Identifier(pointer.column), sql.Identifier(pointer.field)
    there = connection.execute("select to_regclass(%s), to_regclass(%s)", [pointer.child, pointer.parent]).fetchone()
    if there is None or None in there:
        return
    lost = 0
    if change := by_name.get(pointer.parent):
        lost += connection.execute(
            sql.SQL(
                "select count(*) from {child} as pointing"
                " inner join {stored} as gone on gone.{field} = pointing.{column}"
                " where gone._is_new <> {side}"
                " and not exists (select from {parent} as kept where kept.{field} = gone.{field})"
            ).format(child=child, stored=change.stored, field=field, column=column, side=is_new, parent=parent)
        ).fetchone()[0]  # type: ignore[index]
    if change := by_name.get(pointer.child):
        lost += connection.execute(
            sql.SQL(
                "select count(*) from {stored} as come where come._is_new = {side} and come.{column} is not null"
                " and not exists (select from {parent} as kept where kept.{field} = come.{column})"
            ).format(stored=change.stored, side=is_new, column=column, parent=parent, field=field)
        ).fetchone()[0]  # type: ignore[index]
    if lost:
        raise SluiceError(
            f"{lost} rows of {pointer.child} would point by {pointer.column} to no row of {pointer.parent}; nothing "
            "was changed. Rehearse both, as with dim_customer+ or +fct_order"
        )


def _record(connection: psycopg.Connection, plan: Plan, change: Change, come: int, gone: int, seconds: float) -> None:
    """What the models downstream read, and what this one reads again: whatever came since the rehearsal's moment."""
    run_id = f"rebuild:{plan.rebuild_id}"
    connection.execute(
        "insert into ops.model_run (run_id, model, relation, state, rows_inserted, rows_deleted, seconds, started_at)"
        " values (%s, %s, %s, 'success', %s, %s, %s, now())",
        [run_id, change.relation.split(".")[1], change.relation, come, gone, seconds],
    )
    connection.execute(
        "update ops.model_watermark set seq = least(seq, %s) where relation = %s and not starts_with(input, 'code:')",
        [plan.as_of_seq, change.relation],
    )
    connection.execute(
        sql.SQL(
            """
            with change as (
                insert into ops.change (relation, seq, is_full, run_id)
                values ({}, ops.next_seq(), false, {}) returning change_id
            )

            insert into ops.changed_key (change_id, key)
            select change_id, key from change cross join (select distinct {} as key from {} as each) as keys
            """
        ).format(change.relation, run_id, change.key("each"), change.stored)
    )


def _settle(connection: psycopg.Connection, plan: Plan, after: str, reason: str, by: str) -> None:
    if after == "undone":
        drop(connection, plan.rebuild_id)
        said = "ended_by = %s, ended_reason = %s, ended_at = clock_timestamp()"
    else:
        said = "applied_by = %s, reason = %s, applied_at = clock_timestamp()"
    connection.execute(
        f"update ops.rebuild set state = %s, {said} where rebuild_id = %s", [after, by, reason, plan.rebuild_id]
    )
