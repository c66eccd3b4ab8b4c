"""`sluice gate`: what was checked, and what came of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sluice import warehouse

app = typer.Typer(help="Checks between layers and their results.", no_args_is_help=True)

_COLOURS = {"pass": "green", "warn": "yellow"}


@app.callback()
def _gate() -> None:
    """Checks between layers and their results."""


@app.command()
def show(
    run: Annotated[
        str | None, typer.Option(help="Run to show; the latest one that checked anything if left out")
    ] = None,
    gate: Annotated[str | None, typer.Option(help="Only this gate, such as marts or freshness")] = None,
    failed: Annotated[bool, typer.Option(help="Only checks that did not pass")] = False,
) -> None:
    """Print the results of a run's gates. Exit code 1 if a blocking check did not pass."""
    with warehouse.connect() as connection:
        if run is None:
            found = connection.execute(
                "select run_id from ops.gate_result where %(gate)s::text is null or gate = %(gate)s"
                " order by gate_result_id desc limit 1",
                {"gate": gate},
            ).fetchone()
            if found is None:
                typer.echo("No check has run yet. Results appear after the first run: make run")
                raise typer.Exit(0)
            run = found[0]
        rows = connection.execute(
            "select gate, check_name, object, severity, verdict, observed, bound,"
            " failing_rows, sample_keys,"
            " message from ops.gate_result"
            " where run_id = %(run)s and (%(gate)s::text is null or gate = %(gate)s)"
            " and (not %(failed)s or verdict <> 'pass') order by gate_result_id",
            {"run": run, "gate": gate, "failed": failed},
        ).fetchall()
    table = Table(title=f"Gates of {run}", title_justify="left")
    for heading in ("gate", "check", "object", "verdict", "observed", "notes"):
        table.add_column(heading, overflow="fold")
    for name, check, thing, severity, verdict, observed, bound, failing, keys, message in rows:
        notes = [
            f"expected {bound}" if bound and verdict != "pass" else None,
            f"{failing} failing rows" if failing else None,
            f"for example {keys}" if keys else None,
            message,
            "only warns" if severity == "warn" and verdict != "pass" else None,
        ]
        colour = _COLOURS.get(verdict, "red")
        table.add_row(
            name, check, thing, f"[{colour}]{verdict}[/]", observed, "; ".join(note for note in notes if note)
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe or a log file has no width of its own
    console.print(table if rows else f"No check of {run} matches.")
    if any(row[3] == "block" and row[4] != "pass" for row in rows):
        raise typer.Exit(1)
