"""`sluice period`: which periods of a relation are closed, by whom and why; what became of corrections."""

from __future__ import annotations

import getpass
from datetime import date
from typing import Annotated

import psycopg
import typer

from sluice import warehouse
from sluice.cli.common import show
from sluice.errors import SluiceError

app = typer.Typer(no_args_is_help=True, help="Closed periods: days whose rows are final, and corrections that wait.")

_Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what would be done")]
_Reason = Annotated[str, typer.Option(help="Why; kept in the ledger")]


@app.command("list")
def list_periods() -> None:
    """Every lock, and how many corrections of its relation wait, were moved or restated in it."""
    with warehouse.connect() as connection:
        rows = connection.execute(
            """
            select lock.period_lock_id, lock.relation, lock.period_from, lock.period_to - 1,
                case when lock.unlocked_at is null then 'locked' else 'unlocked' end, lock.locked_by, lock.reason,
                count(*) filter (where decision = 'waits'), count(*) filter (where decision = 'moved'),
                count(*) filter (where decision = 'restated')
            from ops.period_lock as lock
            left join ops.period_correction as correction
                on correction.relation = lock.relation
                    and correction.period >= lock.period_from and correction.period < lock.period_to
            group by lock.period_lock_id order by lock.period_lock_id
            """
        ).fetchall()
    show(
        ["lock", "relation", "from", "to", "state", "by", "reason", "wait", "moved", "restated"],
        rows,
        empty="no period was ever locked; `sluice period lock --help` says how",
    )


@app.command()
def lock(
    relation: Annotated[str, typer.Argument(help="<schema>.<table>, such as marts.fct_inventory_daily")],
    first: Annotated[str, typer.Argument(help="First day, or a month: 2026-01-01 or 2026-01")],
    last: Annotated[str, typer.Argument(help="Last day, or a month; without it, that of the first")] = "",
    reason: _Reason = "",
    yes: _Yes = False,
) -> None:
    """Close a period: corrections into it go where the model's `closed_periods` says, from the next commit on."""
    if not reason:
        raise typer.BadParameter("say why, with --reason")
    start, end = _days(first)[0], _days(last or first)[1]
    if start >= end:
        raise typer.BadParameter(f"{last} is before {first}")
    with warehouse.connect() as connection:
        known = connection.execute("select to_regclass(%s) is not null", [relation]).fetchone()
        if not known or not known[0]:
            raise SluiceError(f"there is no relation {relation}; nothing was locked")
        if not yes:
            print(f"would lock {relation} from {start} until before {end}. Do it with --yes")
            return
        _lock_relation(connection, relation)
        connection.execute(
            "insert into ops.period_lock (relation, period_from, period_to, locked_by, reason)"
            " values (%s, %s, %s, %s, %s)",
            [relation, start, end, getpass.getuser(), reason],
        )
    print(f"locked {relation} from {start} until before {end}")


@app.command()
def unlock(
    lock_id: Annotated[int, typer.Argument(help="A lock; see `sluice period list`")],
    reason: _Reason = "",
    yes: _Yes = False,
) -> None:
    """Open a period again: what waits is written by the model's next run."""
    if not reason:
        raise typer.BadParameter("say why, with --reason")
    with warehouse.connect() as connection:
        row = connection.execute(
            "select lock.relation, (select count(*) from ops.period_correction as correction"
            " where correction.relation = lock.relation and decision in ('waits', 'moved')"
            " and period >= lock.period_from and period < lock.period_to)"
            " from ops.period_lock as lock where period_lock_id = %s and unlocked_at is null",
            [lock_id],
        ).fetchone()
        if row is None:
            raise SluiceError(f"{lock_id} is not a lock that holds; nothing was unlocked. See: sluice period list")
        if not yes:
            print(f"would unlock {row[0]}; {row[1]} corrections wait for it or were moved. Do it with --yes")
            return
        _lock_relation(connection, row[0])
        connection.execute(
            "update ops.period_lock set unlocked_by = %s, unlocked_reason = %s, unlocked_at = clock_timestamp()"
            " where period_lock_id = %s",
            [getpass.getuser(), reason, lock_id],
        )
    print(f"unlocked; the next run of {row[0]} writes {row[1]} corrections")


def _lock_relation(connection: psycopg.Connection, relation: str) -> None:
    """Wait for a run that is writing the relation: it has looked at the locks already."""
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:{relation}"])


def _days(text: str) -> tuple[date, date]:
    """A day or a month as the first day of it and the first after it."""
    try:
        start = date.fromisoformat(text if len(text) > 7 else f"{text}-01")
    except ValueError:
        raise typer.BadParameter(f"{text} is neither a day such as 2026-01-31 nor a month such as 2026-01") from None
    if len(text) > 7:
        return start, date.fromordinal(start.toordinal() + 1)
    return start, date(start.year + start.month // 12, start.month % 12 + 1, 1)
