"""The end of a run, as tables a person can read: on a terminal in colour, in a log as plain text."""

from rich import box
from rich.console import Console
from rich.table import Table

from sluice.runtime.pipeline import Pass
from sluice.runtime.results import COUNTS, Results, Row

_WIDE = 140  # in a log there is no window to fit


def console() -> Console:
    """Standard output: colours and live lines only where it is a terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=_WIDE, soft_wrap=True)


def show(out: Console, results: Results, done: Pass, seconds: dict[str, float], problems: list[str]) -> None:
    """Print what was loaded, judged and built, how long it took, and the verdict."""
    out.print(_tables(out, results.tables))
    out.print(_gates(out, results.gates))
    for row in results.broken_checks:
        text = f"  {row['gate']}: {row['check_name']} on {row['object']}: {row['verdict']} ({row['severity']})"
        out.print(f"{text} {row['message'] or ''}", markup=False)
    out.print(_marts(out, results.marts))
    out.print(_seconds(out, done, seconds))
    for dag_id, why in done.not_run.items():
        out.print(f"NOT RUN: {dag_id}: {why}", style="bold yellow", markup=False)
    _verdict(out, results, problems)


def _verdict(out: Console, results: Results, problems: list[str]) -> None:
    if problems:
        out.print(f"FAILED: {len(problems)} things did not succeed:", style="bold red")
        for line in problems:
            out.print(f"  {line}", markup=False)
        return
    changed = results.applied
    told = f"{changed:,} changed rows" if changed else "0 changed rows: nothing new at the sources"
    out.print(f"SUCCEEDED: every task and every gate passed; {told}", style="bold green")


def _table(out: Console, title: str, texts: tuple[str, ...], numbers: tuple[str, ...] = ()) -> Table:
    """Columns of text to the left, of numbers to the right."""
    style = box.ROUNDED if out.is_terminal else box.ASCII2
    table = Table(title=title, title_justify="left", title_style="bold", box=style)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _tables(out: Console, rows: list[Row]) -> Table:
    table = _table(out, "Rows per table", ("table", "state"), ("batches", *COUNTS))
    for row in rows:
        counts = [f"{row[name]:,}" for name in ("batches", *COUNTS)]
        table.add_row(f"{row['source']}.{row['table_name']}", row["states"], *counts)
    return table


def _gates(out: Console, rows: list[Row]) -> Table:
    table = _table(out, "Gates", ("gate", "verdict"), ("checks", "passed", "warned", "failed"))
    for row in rows:
        table.add_row(
            row["gate"],
            row["verdict"],
            *(str(row[name]) for name in ("checks", "passed", "warned", "failed")),
        )
    return table if rows else _nothing(table, "no gate was asked")


def _marts(out: Console, rows: list[Row]) -> Table:
    table = _table(out, "Marts", ("mart",), ("rows", "written", "removed", "seconds"))
    for row in rows:
        took = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
        table.add_row(row["name"], f"{row['rows']:,}", f"{row['inserted']:,}", f"{row['deleted']:,}", took)
    return table if rows else _nothing(table, "no mart exists")


def _seconds(out: Console, done: Pass, seconds: dict[str, float]) -> Table:
    table = _table(out, "Time", ("stage", "tasks"), ("seconds",))
    for stage, took in seconds.items():
        table.add_row(stage, "", f"{took:.1f}")
    for run in done.runs:
        states = [task.state or "none" for task in done.tasks if (task.dag_id, task.run_id) == (run.dag_id, run.run_id)]
        told = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        table.add_row(f"  {run.dag_id}", told, "" if run.seconds is None else f"{run.seconds:.1f}")
    return table


def _nothing(table: Table, text: str) -> Table:
    table.add_row(text)
    return table
