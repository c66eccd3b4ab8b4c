"""`sluice load`: the three steps of a batch without Airflow."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from sluice import warehouse
from sluice.backfill import Asked, without_airflow
from sluice.cli.common import show, tables_named
from sluice.declarations import Source, Table
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
    reason: Annotated[str, typer.Option(help="With --from: why; kept in ops.backfill")] = "",
) -> None:
    """Read what is pending of a source or a table, judge it and publish it. The same content again changes nothing.

    \b
    sluice load shop
    sluice load shop.orders
    sluice load shop.inventory --from 2026-01-03 --to 2026-01-05

    \b
    --from and --to read these days again, whatever the ledger knows of them;
    that is a backfill, and a row of `sluice backfill list`.
    What each unit became is said on stderr, the sums of each table on stdout.
    One table that fails holds up no other.

    \b
    Exit codes: 0 all that was pending is published, or nothing was; 1 a unit
    was refused or could not be read, which the message names with what to do;
    2 misused, for example no such table.
    """
    if (start is None) != (end is None) or (start and end and end < start):
        raise typer.BadParameter("give both --from and --to, the first not after the second")
    if reason and not start:
        raise typer.BadParameter("--reason goes with --from and --to")
    interval = (start.replace(tzinfo=UTC), end.replace(tzinfo=UTC) + timedelta(days=1)) if start and end else None
    run = RunContext(f"cli:{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", interval)
    tables = tables_named(name)
    if not interval:
        done = _load(tables, run)
    else:
        with without_airflow(
            Asked(
                dag_id=f"sluice load {name}",
                engine_id=None,
                run_id=run.run_id,
                range_start=interval[0],
                range_end=interval[1] - timedelta(microseconds=1),
                intervals=(interval[1] - interval[0]).days,
                reprocess="completed",
                asked_by=getpass.getuser(),
                reason=reason or None,
            )
        ) as tally:
            done = _load(tables, run)
            tally.failed = done.failed
            tally.succeeded = len(tables) - done.failed
    show(
        ["table", "units", "read", "applied", "unchanged", "duplicate", "quarantined", "deleted"],
        done.rows,
        empty="nothing was loaded",
    )
    if done.failed:
        raise typer.Exit(1)


@dataclass
class _Loaded:
    rows: list[list] = field(default_factory=list)  # to be shown
    failed: int = 0  # tables


def _load(tables: list[tuple[Source, Table]], run: RunContext) -> _Loaded:
    """Load one table after the other, and say of each what became of it."""
    result = _Loaded()
    for source, table in tables:
        name = f"{source.source}.{table.name}"
        if sys.stderr.isatty():
            print(f"{name} …", end="\r", file=sys.stderr, flush=True)
        try:
            done = load_table(source, table, run)
        except SluiceError as error:  # most messages name the table themselves
            print(error if name in str(error) else f"{name}: {error}", file=sys.stderr)
            result.failed += 1
            if published := _say_units(run, source.source, table.name):  # the others are, all the same
                result.rows.append([name, len(published), *map(sum, zip(*published, strict=True))])
            continue
        print(f"{name}: {_unit_count(len(done), run)}", file=sys.stderr)
        _say_units(run, source.source, table.name)
        counts = [
            sum(getattr(p, f"rows_{what}") for p in done)
            for what in ("read", "applied", "unchanged", "duplicate", "quarantined", "deleted")
        ]
        result.rows.append([name, len(done), *counts])
    return result


_FEW = 20
_CHANGES = """
select distinct replace(kind, '_', ' ') || ' ' || column_name as change
from ops.schema_event inner join ops.batch using (batch_id)
where run_id = %s and (batch.source, batch.table_name) = (%s, %s) order by 1
"""


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
        changes = [change for (change,) in connection.execute(_CHANGES, [run.run_id, source, table]).fetchall()]
    for unit, state, verdict, took, read, applied, _, _, quarantined, _ in units[:_FEW]:
        rejected = f", {quarantined:,} quarantined" if quarantined else ""
        why = f": {verdict}" if verdict and state == "unchanged" else ""
        print(
            f"  {unit}: {state}, {read:,} read, {applied:,} applied{rejected} in {took:.1f} s{why}",
            file=sys.stderr,
        )
    if len(units) > _FEW:
        print(
            f"  and {len(units) - _FEW} more; see: sluice batch list {source}.{table}",
            file=sys.stderr,
        )
    if changes:
        more = f" and {len(changes) - _FEW} more" if len(changes) > _FEW else ""
        told = f"{', '.join(changes[:_FEW])}{more}"
        print(f"  the source changed its shape: {told}. See: sluice source show {source}.{table}", file=sys.stderr)
    return [tuple(books) for _, state, _, _, *books in units if state in ("published", "superseded")]
