"""`sluice rebuild`: chosen models, built again from the logs; what would change is said before anything does."""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sluice import warehouse
from sluice.cli.common import show
from sluice.cli.verify import Progress, duration, size

if TYPE_CHECKING:  # the commands import it when they run, so that `sluice --help` is quick
    from sluice.rebuild.apply import Outcome
    from sluice.rebuild.plan import Plan

app = typer.Typer(no_args_is_help=True, help="Rebuild models from the logs: rehearse, apply, undo, accept.")

_Number = Annotated[int, typer.Argument(help="A rebuild; see `sluice rebuild list`")]
_Reason = Annotated[str, typer.Option(help="Why; kept in ops.rebuild")]
_DAY = ["%Y-%m-%d"]


@app.command()
def rehearse(
    select: Annotated[list[str], typer.Argument(help="Models, as dbt selects them: fct_order, dim_customer+, tag:x")],
    keys: Annotated[
        str, typer.Option(help="Only rows with these: order_id=17,18 or order_id=100..200 or order_id=NULL")
    ] = "",
    first: Annotated[datetime | None, typer.Option("--from", formats=_DAY, help="Only rows from this day on")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=_DAY, help="Only rows up to this day")] = None,
    budget: Annotated[str, typer.Option(help="Longest time it may take, such as 90m")] = "1h",
    space: Annotated[str, typer.Option(help="Most disk it may take, such as 20GB; else what is free")] = "",
    wait: Annotated[str, typer.Option(help="How long to wait for models that have something to read")] = "10m",
    samples: Annotated[int, typer.Option("--show", min=0, help="How many differing rows of a model to print")] = 5,
) -> None:
    """Build models beside the live ones, compare, and say which rows would be added, changed and removed.

    Nothing that readers see changes. Personal values are masked. --keys holds values as the column's type reads them,
    and NULL for rows that have none; one with a comma or two dots in it can't be
    said.

    \b
    sluice rebuild rehearse fct_order_line
    sluice rebuild rehearse dim_customer+
    sluice rebuild rehearse fct_order --keys order_id=100..200
    sluice rebuild rehearse fct_inventory_daily --from 2026-01-01 --to 2026-01-31

    \b
    Exit codes: 0 rehearsed, also if nothing would change; 1 refused, and why;
    2 misused, for example a date that is none.
    """
    from sluice import rebuild
    from sluice.verify import Budget

    limits = Budget(duration(budget), size(space), duration(wait))
    rows = rebuild.Rows.of(keys, first and first.date(), last and last.date())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleared away
    plan = rebuild.rehearse(select, rows, limits, progress := Progress())
    progress.end()
    show(["model", "month", "added", "changed", "removed"], _table(plan), empty="nothing would change")
    for change in plan.changes:
        for told in change.notes:
            print(f"{change.relation}: {told}", file=sys.stderr)
    if plan.is_empty:
        return
    for relation, found in rebuild.samples(plan.rebuild_id, samples).items() if samples else ():
        print(f"{relation}, the first rows:", file=sys.stderr)
        for row in found:
            print(f"  {row}", file=sys.stderr)
    print(
        f"A rehearsal: nothing was changed. Do it: sluice rebuild apply {plan.rebuild_id} --reason …", file=sys.stderr
    )


def _table(plan: Plan) -> list[tuple]:
    return [(change.relation, *month) for change in plan.changes for month in change.months]


@app.command()
def apply(number: _Number, reason: _Reason) -> None:
    """Put the rows of a rehearsal in the place of the live ones, in one transaction. The old rows are kept."""
    from sluice import rebuild

    _told(rebuild.apply(number, reason=reason))
    print(f"Accept it: sluice rebuild accept {number}. The way back: sluice rebuild undo {number} --reason …")


@app.command()
def undo(number: _Number, reason: _Reason) -> None:
    """Put the old rows back, in one transaction."""
    from sluice import rebuild

    _told(rebuild.undo(number, reason=reason))


@app.command()
def accept(number: _Number) -> None:
    """Let the old rows go."""
    from sluice import rebuild

    rebuild.accept(number)
    print(f"rebuild {number} is accepted; its old rows are gone")


@app.command("list")
def list_rebuilds(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the latest first")] = 30,
) -> None:
    """The latest rebuilds."""
    from sluice import rebuild

    with warehouse.connect() as connection:
        rows = rebuild.records(connection, limit)
    show(
        ["rebuild", "selection", "state", "models", "added", "changed", "removed", "asked by", "asked at", "applied by",
         "applied at", "reason", "ended by", "ended at", "ended reason"],
        rows,
        empty="nothing was rebuilt yet: sluice rebuild rehearse --help",
    )  # fmt: skip


def _told(outcome: Outcome) -> None:
    left = f"; {outcome.left_out} slices that runs have written since keep what they have" if outcome.left_out else ""
    print(f"{outcome.inserted} rows inserted, {outcome.deleted} deleted, in one transaction{left}")
