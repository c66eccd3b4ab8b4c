"""`sluice gaps` and `sluice backfill`: intervals that were never loaded, and the backfills that people asked for."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from sluice import settings, warehouse
from sluice.backfill import Asked, end_lost, records, without_airflow
from sluice.backfill.gaps import Gap, gaps
from sluice.cli.common import show, tables_named
from sluice.declarations import Source, Table, load_folder
from sluice.errors import SluiceError
from sluice.loading import RunContext
from sluice.loading import load as load_table
from sluice.loading.lateness import Lateness, lateness, restated

app = typer.Typer(no_args_is_help=True, help="Backfills that people asked for, and what came of them.")


@app.command("list")
def list_backfills(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the latest first")] = 30,
) -> None:
    """The latest backfills: by `airflow dags backfill`, the web UI, `sluice load --from` and `sluice gaps --fill`."""
    with warehouse.connect() as connection:
        end_lost(connection)
        rows = records(connection, limit)
    show(
        ["backfill", "what", "from", "to", "intervals", "reprocess", "state", "succeeded", "failed", "applied",
         "deleted", "asked by", "asked at", "finished at", "reason"],
        rows,
        empty="no backfill was asked for yet: airflow dags backfill --help",
    )  # fmt: skip


def list_gaps(
    name: Annotated[str, typer.Argument(help="<source> or <source>.<table>; without it, all")] = "",
    fill: Annotated[
        bool, typer.Option("--fill", help="Load what is missing, without Airflow; rehearses without --yes")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fill: do it")] = False,
    reason: Annotated[str, typer.Option(help="With --fill: why; kept in ops.backfill")] = "",
) -> None:
    """Intervals of dated files and resources that staging does not hold, and why. --fill loads them, but for those that
    are held: they came late, and wait for `sluice batch approve`. Of several files of a day one is enough.

    Exit code 0: no gap is left; 1: there are gaps.
    """
    if yes and not fill:
        raise typer.BadParameter("--yes goes with --fill")
    tables = _named(name)
    found = _find(tables)
    show(
        ["table", "from", "to", "intervals", "why"],
        [
            [f"{g.source}.{g.table_name}", f"{g.start:%Y-%m-%d %H:%M}", f"{g.end:%Y-%m-%d %H:%M}", g.intervals, g.why]
            for g in found
        ],
        empty="no gaps",
    )
    if not found:
        return
    if fill and yes:
        _fill(tables, found, name, reason)
        left = _find(tables)
        print(f"{sum(gap.intervals for gap in left)} intervals are still missing" if left else "no gap is left")
        raise typer.Exit(1 if left else 0)
    again = " ".join(filter(None, ["sluice gaps", name, "--fill --yes"]))
    print(f"{'A rehearsal: nothing was loaded. ' if fill else ''}Load them: {again}", file=sys.stderr)
    raise typer.Exit(1)


def list_lateness(
    name: Annotated[str, typer.Argument(help="<source> or <source>.<table>; without it, all")] = "",
    days: Annotated[int, typer.Option(min=1, help="What was published within so many days")] = 90,
    models: Annotated[
        bool, typer.Option("--models", help="Per model with a horizon: the rows that came after it")
    ] = False,
) -> None:
    """How late rows came: how far each lay behind what its table had published before, and what became of it.

    `usual` is what 99 of 100 rows kept to: the horizon to declare. Waiting rows: sluice quarantine replay --code LATE.
    """
    if models:
        return _show_models(name, timedelta(days=days))
    with warehouse.connect() as connection:
        found = [(table, lateness(connection, table, timedelta(days=days))) for _, table in _named(name)]
    show(
        ["table", "rows", "in order", "1 h", "1 d", "7 d", "30 d", "more", "usual", "latest", "horizon", "beyond",
         "share", "went in", "waiting", "left out"],
        [
            [
                f"{late.source}.{late.table_name}", late.rows, *late.counts, late.usual, late.latest,
                table.late and table.late.horizon, table.late and table.late.beyond, _share(late), late.beyond,
                late.waiting, late.left_out,
            ]
            for table, late in found
        ],
        empty="no table is declared",
    )  # fmt: skip


def _show_models(name: str, since: timedelta) -> None:
    with warehouse.connect() as connection:
        found = [each for _, table in _named(name) for each in restated(connection, table, since)]
    show(
        ["model", "horizon", "table", "rows", "came later", "share"],
        [
            [each.relation, each.horizon, each.table_name, each.rows, each.late, f"{each.late / max(each.rows, 1):.2%}"]
            for each in sorted(found, key=lambda each: (each.relation, each.table_name))
        ],
        empty="no model of these tables has a horizon: config: {meta: {horizon: 1d}}",
    )


def _share(late: Lateness) -> str | None:
    """Of the rows that came: those past the horizon, whatever became of them."""
    if late.beyond is None:
        return None
    past = late.beyond + late.waiting + late.left_out
    return f"{past / max(late.rows + late.waiting + late.left_out, 1):.2%}"


def _named(name: str) -> list[tuple[Source, Table]]:
    return tables_named(name) if name else _all()


def _all() -> list[tuple[Source, Table]]:
    found = load_folder(settings.sources_dir())
    return [(source, table) for source in found.sources.values() for table in source.tables.values()]


def _find(tables: list[tuple[Source, Table]]) -> list[Gap]:
    with warehouse.connect() as connection:
        found = [gap for source, table in tables for gap in gaps(connection, source, table)]
    return found


def _fill(tables: list[tuple[Source, Table]], found: list[Gap], name: str, reason: str) -> None:
    """Load the gaps but for the held ones, and write that down in ops.backfill."""
    for gap in found:
        if gap.why == "held":
            print(
                f"{gap.source}.{gap.table_name} from {gap.start:%Y-%m-%d}: held, since it came late; nothing was "
                "loaded. See: sluice batch list --state refused, then sluice batch approve",
                file=sys.stderr,
            )
    missing = [gap for gap in found if gap.why != "held"]
    if not missing:
        return
    by_name = {(source.source, table.name): (source, table) for source, table in tables}
    run_id = f"gaps:{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    asked = Asked(
        dag_id=f"sluice gaps {name}".strip(),
        engine_id=None,
        run_id=run_id,
        range_start=min(gap.start for gap in missing),
        range_end=max(gap.end for gap in missing) - timedelta(microseconds=1),
        intervals=sum(gap.intervals for gap in missing),
        reprocess="none",
        asked_by=getpass.getuser(),
        reason=reason or None,
    )
    with without_airflow(asked) as tally:
        for gap in missing:
            source, table = by_name[gap.source, gap.table_name]
            try:
                done = load_table(source, table, RunContext(run_id, (gap.start, gap.end)))
            except SluiceError as error:
                print(f"{gap.source}.{gap.table_name}: {error}", file=sys.stderr)
                tally.failed += 1
                continue
            tally.succeeded += 1
            applied = sum(published.rows_applied for published in done)
            print(
                f"{gap.source}.{gap.table_name} from {gap.start:%Y-%m-%d}: {len(done)} units, {applied} rows",
                file=sys.stderr,
            )
