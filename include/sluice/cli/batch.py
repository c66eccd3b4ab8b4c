"""`sluice batch`: what was loaded, what was refused, and a person's word for a refusal."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from sluice import warehouse
from sluice.cli.common import Json, must_be_known, print_json, show
from sluice.loading import approval
from sluice.loading.batch import STATES
from sluice.reports import flow
from sluice.reports.project import read_project

app = typer.Typer(no_args_is_help=True, help="Batches: the units that were read, and what became of them.")
_PARTS = [name for name, _ in flow.Books().parts]


@app.command("list")
def list_batches(
    name: Annotated[str, typer.Argument(help="<source> or <source>.<table>; without it, all")] = "",
    state: Annotated[str, typer.Option(help="Only batches in this state, such as refused")] = "",
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only those that began then (UTC)")] = None,
    before: Annotated[int | None, typer.Option(help="Only older ones than this batch")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest first")] = 30,
    as_json: Json = False,
) -> None:
    """The latest batches with their books; of one table also those of the last 30 days together."""
    if state and state not in STATES:
        raise typer.BadParameter(f"{state} is not a state of a batch; those are {', '.join(STATES)}")
    must_be_known(name)
    source, _, table = name.partition(".")
    found = flow.batches(flow.Wanted(source, table, state, day.date() if day else None, before), limit=limit)
    if as_json:
        print_json([asdict(line) for line in found])
        return
    show(
        ["batch", "table", "unit", "state", "read", *_PARTS, "deleted", "verdict"],
        [
            [
                line.batch_id,
                f"{line.source}.{line.table_name}",
                line.unit,
                line.state,
                line.books.read,
                *(rows for _, rows in line.books.parts),
                line.books.deleted,
                line.verdict,
            ]
            for line in found
        ],
        empty=_none(name, state, narrowed=bool(day or before)),
    )
    if table and found:
        print(f"the last 30 days: {_added_up(flow.totals(source, table))}")


def _none(name: str, state: str, *, narrowed: bool) -> str:
    """Why a list is empty: nothing is so, or nothing was loaded yet."""
    of = f" of {name}" if name else ""
    if narrowed:
        return f"no batch{of} matches"
    if state:
        return f"no batch{of} is {state}"
    return f"no batch{of} yet; `sluice load {name or '<source>'}` or an ingest DAG makes one"


@app.command("show")
def show_batch(
    batch_id: Annotated[int, typer.Argument(help="As `sluice batch list` names it")],
    as_json: Json = False,
) -> None:
    """Where the rows of a batch went, hop by hop; its checks and rejects."""
    found = flow.batch(batch_id, read_project())
    if as_json:
        print_json(asdict(found))
        return
    line = found.line
    print(f"batch {batch_id} of {line.source}.{line.table_name}, {line.unit}: {line.state}")
    if line.verdict:
        print(line.verdict)
    print(_added_up(line.books, published=line.published_at is not None))
    for change in found.events:
        print(f"the source changed its shape: {change}")
    show(
        ["model", "run", "committed", "written", "removed"],
        [[h.model, h.run_id or h.state, h.committed_at, h.inserted, h.deleted] for h in found.hops],
        empty="no model has anything to read of it",
    )
    show(
        ["check", "verdict", "severity", "observed", "bound", "message"],
        [[c.check, c.verdict, c.severity, c.observed, c.bound, c.message] for c in found.checks],
        empty="no check is recorded",
    )
    if found.rejected:
        rows = [[r.code, r.column, r.reason, r.state, r.rows] for r in found.rejected]
        show(["code", "column", "reason", "state", "rows"], rows, empty="")


def _added_up(books: flow.Books, *, published: bool = True) -> str:
    if books.missing and not published:
        return f"{books.read} read: nothing of it was published"
    parts = " + ".join(f"{rows} {name}" for name, rows in books.parts)
    told = "it adds up" if books.missing == 0 else f"{books.missing} rows are nowhere"
    return f"{books.read} read = {parts}: {told}; {books.deleted} tombstones"


@app.command()
def approve(
    batch_id: Annotated[int, typer.Argument(help="A refused batch; see `sluice batch list --state refused`")],
    reason: Annotated[str, typer.Option(help="Why it is right; kept in the ledger")],
) -> None:
    """Let a refused batch through: vanished keys, or a unit that came late. It is published when it is read the next
    time, with this content, if nothing else refuses it and no more keys vanish than now."""
    with warehouse.connect() as connection:
        table, approved = approval.approve(connection, batch_id, by=getpass.getuser(), reason=reason)
    words = {"late": "that the unit comes late ({} rows)", "deletes": "that {} keys vanished"}
    what = " and ".join(words[check].format(count) for check, count in approved.items())
    source = table.partition(".")[0]
    print(f"approved: {what}. Publish it with: sluice load {table}, or run the DAG ingest_{source} again")


@app.command()
def decline(
    batch_id: Annotated[int, typer.Argument(help="A refused batch; see `sluice batch list --state refused`")],
    reason: Annotated[str, typer.Option(help="Why its unit is to be left as it is; kept in the ledger")],
) -> None:
    """Say that a refused batch is rightly so: its unit is not judged again until its content or its contract
    changes."""
    with warehouse.connect() as connection:
        unit = approval.decline(connection, batch_id, by=getpass.getuser(), reason=reason)
    print(f"declined. {unit} is judged again when its content or its contract changes")
