"""`sluice gate`: what was checked, and what came of it."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sluice import warehouse
from sluice.errors import SluiceError
from sluice.gates import data_docs, override
from sluice.ledger.refused import STANDS

app = typer.Typer(help="Checks between layers and their results.", no_args_is_help=True)

# what may be asked of the results; each option that is left out matches all
_RESULTS = """
from ops.gate_result
where (%(run)s::text is null or run_id = %(run)s)
    and (%(gate)s::text is null or gate = %(gate)s)
    and (%(on)s::text is null or %(on)s in (
        object, split_part(object, '.', 1), split_part(object, '.', 2), split_part(split_part(object, '.', 2), '__', 1)
    ))
    and (%(batch)s::bigint is null or batch_id = %(batch)s)
    and (not %(failed)s or verdict <> 'pass')
"""

# the run of the latest check that failed and is not over: it refused a batch, and that stands; or, of other things than
# a refused batch, the same check of the same table or model was not judged since
_STILL_FAILED = f"""
select run_id
{_RESULTS}
    and verdict not in ('pass', 'warn')
    and (
        exists (select from ops.batch as batch where batch.batch_id = gate_result.batch_id and {STANDS})
        or (
            coalesce((select state from ops.batch where batch_id = gate_result.batch_id), 'published') = 'published'
            and not exists (
                select from ops.gate_result as later
                where (later.gate, later.check_name, later.object)
                    = (gate_result.gate, gate_result.check_name, gate_result.object)
                    and later.gate_result_id > gate_result.gate_result_id
            )
        )
    )
order by gate_result_id desc
limit 1
"""

_COLOURS = {"pass": "green", "warn": "yellow"}


@app.callback()
def _gate() -> None:
    """Checks between layers and their results."""


@app.command()
def show(
    run: Annotated[
        str | None, typer.Option(help="Run to show; the latest one that checked anything if left out")
    ] = None,
    gate: Annotated[str | None, typer.Option(help="Only this gate, such as batch, marts or freshness")] = None,
    on: Annotated[
        str | None, typer.Option(help="Only this source, table or model: shop, shop.orders, fct_order, marts.fct_order")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Only the checks of this batch, of whatever run")] = None,
    failed: Annotated[
        bool, typer.Option(help="Only checks that did not pass; without --run, of the latest run with one still failed")
    ] = False,
) -> None:
    """Print the results of a run's gates. Exit code 1 if a blocking check did not pass."""
    wanted = {"run": run, "gate": gate, "on": on, "batch": batch, "failed": failed, "over": False}
    with warehouse.connect() as connection:
        if run is None and batch is None:
            every = {**wanted, "failed": False}
            still = connection.execute(_STILL_FAILED, every).fetchone() if failed else None
            found = (
                still
                or connection.execute(
                    f"select run_id {_RESULTS} order by gate_result_id desc limit 1", every
                ).fetchone()
            )
            if found is None:
                typer.echo("No such check has run yet. Results appear after the first run: make run")
                raise typer.Exit(0)
            wanted["run"] = run = found[0]
            wanted["over"] = failed and still is None  # what failed in that run
        rows = connection.execute(
            "select gate, check_name, object, severity, verdict, observed, bound, failing_rows, sample_keys, message"
            f" {_RESULTS} and (not %(over)s or verdict = 'warn') order by gate_result_id",
            wanted,
        ).fetchall()
        words = connection.execute(
            """
            select check_name, object, overridden_by, reason, created_at, used_at from ops.gate_override as given
            where run_id = %(run)s or used_run_id = %(run)s or exists (
                select from ops.batch
                where batch_id = %(batch)s and (unit, content_hash) = (given.unit, given.content_hash)
                    and concat_ws('.', source, table_name) = given.object
            )
            order by 1, 2
            """,
            wanted,
        ).fetchall()
    subject = f"run {run}" if run else f"batch {batch}"
    table = Table(title=escape(f"Gates of {subject}"), title_justify="left")
    for heading in ("gate", "check", "object", "verdict", "observed", "bound", "failing rows", "sample keys", "notes"):
        table.add_column(heading, overflow="fold")
    for name, check, thing, severity, verdict, observed, bound, failing, keys, message in rows:
        notes = [message, "only warns" if severity == "warn" and verdict != "pass" else None]
        table.add_row(
            *map(escape, (name, check, thing)),
            f"[{_COLOURS.get(verdict, 'red')}]{verdict}[/]",
            *(escape(str(value)) if value is not None else "" for value in (observed, bound, failing or None, keys)),
            escape("; ".join(note for note in notes if note)),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 240  # a pipe or a log file has no width of its own
    console.print(table if rows else escape(f"No check of {subject} matches."))
    for check, thing, person, reason, at, used in words:
        state = "used" if used else "not used yet: clear the failed task, or load again"
        console.print(
            f"overridden: {check} on {thing} by {person} at {at:%Y-%m-%d %H:%M} UTC ({state}): {reason}", markup=False
        )
    last = {row[:3]: row for row in rows}  # a check that was judged again counts as it was judged last
    if any(row[3] == "block" and row[4] != "pass" for row in last.values()):
        raise typer.Exit(1)


@app.command()
def docs(folder: Annotated[Path, typer.Argument(help="Where the pages are written; index.html leads to all")]) -> None:
    """Write Great Expectations' Data Docs as files that a browser opens without a server or a network."""
    with warehouse.connect() as connection:
        try:
            count = data_docs.write(connection, folder)
        except OSError as error:
            raise SluiceError(f"{folder} can't be written to: {error.strerror}. Name another folder") from None
    typer.echo(f"{count} tables: {folder / 'index.html'}")


@app.command("override")
def give(
    check: Annotated[str, typer.Argument(help="The check that stopped it, as `sluice gate show` names it")],
    reason: Annotated[str, typer.Option(help="Why it may go on; kept, and shown with the run")],
    run: Annotated[str | None, typer.Option(help="The run that it stopped")] = None,
    batch: Annotated[int | None, typer.Option(help="Or the batch that it refused")] = None,
    on: Annotated[str | None, typer.Option(help="The table or model, where the check stopped several")] = None,
    by: Annotated[str | None, typer.Option(help="Whose decision it is; the account that runs this if left out")] = None,
) -> None:
    """Let one run go on although a check blocks it. It is recorded with your name, and people are told."""
    with warehouse.connect() as connection:
        gate, thing = override.give(
            connection, check, by=by or getpass.getuser(), reason=reason, run=run, batch=batch, on=on
        )
    again = f"sluice load {thing}, or clear the task land" if gate == "batch" else "clear the failed task in Airflow"
    typer.echo(f"{check} on {thing} no longer stops this run. Go on with: {again}")
