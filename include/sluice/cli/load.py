"""`sluice load`: the three steps of a batch without Airflow."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from sluice import warehouse
from sluice.cli.common import show, tables_named
from sluice.errors import SluiceError
from sluice.loading import RunContext
from sluice.loading import load as load_table


def load(
    name: Annotated[str, typer.Argument(help="<source> or <source>.<table>")],
    start: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="Read this day again, and those after it …")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="… up to and with this day.")
    ] = None,
) -> None:
    """Read what is pending of a source or a table, judge it and publish it. The same content again changes nothing.

    \b
    sluice load shop
    sluice load shop.orders
    sluice load shop.inventory --from 2026-01-03 --to 2026-01-05

    \b
    --from and --to read these days again, whatever the ledger knows of them.
    What each unit became is said on stderr, the sums of each table on stdout.
    One table that fails holds up no other.

    \b
    Exit codes: 0 all that was pending is published, or nothing was; 1 a unit
    was refused or could not be read, which the message names with what to do;
    2 misused, for example no such table.
    """
    if (start is None) != (end is None) or (start and end and end < start):
        raise typer.BadParameter("give both --from and --to, the first not after the second")
    interval = (start.replace(tzinfo=UTC), end.replace(tzinfo=UTC) + timedelta(days=1)) if start and end else None
    run = RunContext(f"cli:{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", interval)
    rows, failed = [], False
    for source, table in tables_named(name):
        if sys.stderr.isatty():
            print(f"{source.source}.{table.name} …", end="\r", file=sys.stderr, flush=True)
        try:
            done = load_table(source, table, run)
        except SluiceError as error:
            name = f"{source.source}.{table.name}"  # most messages name it themselves
            print(error if name in str(error) else f"{name}: {error}", file=sys.stderr)
            failed = True
            if published := _say_units(run, source.source, table.name):  # the others are, all the same
                rows.append([f"{source.source}.{table.name}", len(published), *map(sum, zip(*published, strict=True))])
            continue
        print(f"{source.source}.{table.name}: {_unit_count(len(done), run)}", file=sys.stderr)
        _say_units(run, source.source, table.name)
        counts = [
            sum(getattr(p, f"rows_{what}") for p in done)
            for what in ("read", "applied", "unchanged", "duplicate", "quarantined", "deleted")
        ]
        rows.append([f"{source.source}.{table.name}", len(done), *counts])
    show(
        ["table", "units", "read", "applied", "unchanged", "duplicate", "quarantined", "deleted"],
        rows,
        empty="nothing was loaded",
    )
    if failed:
        raise typer.Exit(1)


_FEW_UNITS = 20


def _unit_count(published: int, run: RunContext) -> str:
    if published:
        return f"{published} unit{'s' if published > 1 else ''} published"
    return f"nothing new{' in that interval' if run.interval else ''}"


def _say_units(run: RunContext, source: str, table: str) -> list[tuple[int, ...]]:
    """Say on stderr what became of each unit of a table in this run, by the ledger. Returns the books of those that
    were published."""
    with warehouse.connect(autocommit=True) as connection:
        units = connection.execute(
            """
            select unit, state, verdict, extract(epoch from coalesce(published_at, heartbeat_at) - started_at)::float8,
                rows_read, rows_applied, rows_unchanged, rows_duplicate, rows_quarantined, rows_deleted
            from ops.batch
            where run_id = %s and source = %s and table_name = %s and part = 'unit' order by batch_id
            """,
            [run.run_id, source, table],
        ).fetchall()
    for unit, state, verdict, took, read, applied, _, _, quarantined, _ in units[:_FEW_UNITS]:
        rejected = f", {quarantined:,} quarantined" if quarantined else ""
        why = f": {verdict}" if verdict and state == "unchanged" else ""
        print(
            f"  {unit}: {state}, {read:,} read, {applied:,} applied{rejected} in {took:.1f} s{why}",
            file=sys.stderr,
        )
    if len(units) > _FEW_UNITS:
        print(
            f"  and {len(units) - _FEW_UNITS} more; see: sluice batch list {source}.{table}",
            file=sys.stderr,
        )
    return [tuple(books) for _, state, _, _, *books in units if state in ("published", "superseded")]
