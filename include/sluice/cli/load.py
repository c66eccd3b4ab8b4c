"""`sluice load`: the three steps of a batch without Airflow."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

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
    """Read what is pending of a source or a table, judge it and publish it. The same content again changes nothing."""
    if (start is None) != (end is None) or (start and end and end < start):
        raise typer.BadParameter("give both --from and --to, the first not after the second")
    interval = (start.replace(tzinfo=UTC), end.replace(tzinfo=UTC) + timedelta(days=1)) if start and end else None
    run = RunContext(f"cli:{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", interval)
    rows, failed = [], False
    for source, table in tables_named(name):
        if sys.stderr.isatty():
            print(f"{source.source}.{table.name} …", file=sys.stderr)
        try:
            done = load_table(source, table, run)
        except SluiceError as error:
            name = f"{source.source}.{table.name}"  # most messages name it themselves
            print(error if name in str(error) else f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
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
