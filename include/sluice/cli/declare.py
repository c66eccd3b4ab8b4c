"""`sluice validate`, `sluice generate`, `sluice source`: declarations and what is made from them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sluice import settings
from sluice.cli.common import show, tables_named
from sluice.declarations import load_folder
from sluice.declarations.generated import write_all

source_app = typer.Typer(no_args_is_help=True, help="The declared sources.")


def validate() -> None:
    """Check every declaration and say all faults at once, each with file, line and field."""
    found = load_folder(settings.sources_dir())
    for fault in found.faults:
        print(fault)
    tables = sum(len(source.tables) for source in found.sources.values())
    print(f"{len(found.sources)} sources with {tables} tables can be used; {len(found.faults)} faults")
    if found.faults or not found.sources:
        raise typer.Exit(1)


def generate(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a file is not what it should be.")
    ] = False,
) -> None:
    """Write what follows from the declarations: dbt's sources and the JSON Schema that editors use."""
    found = load_folder(settings.sources_dir())
    for fault in found.faults:
        print(f"{fault} (left out)", file=sys.stderr)
    changed = write_all(list(found.sources.values()), settings.home(), check=check)
    for path in changed:
        print(f"{'differs' if check else 'written'}: {path}")
    if not changed:
        print("all generated files are up to date")
    if (check and changed) or found.faults:
        raise typer.Exit(1)


@source_app.command("list")
def list_sources() -> None:
    """Every source that can be used."""
    found = load_folder(settings.sources_dir())
    rows = [
        [s.source, s.owner, s.schedule or "by hand", len(s.tables), found.paths[s.source].name]
        for s in found.sources.values()
    ]
    show(
        ["source", "owner", "schedule (UTC)", "tables", "file"],
        rows,
        empty="no declaration can be used; see: sluice validate",
    )


@source_app.command("show")
def show_source(name: Annotated[str, typer.Argument(help="<source> or <source>.<table>")]) -> None:
    """The tables of a source, or the columns of a table."""
    tables = tables_named(name)
    if "." in name:
        ((_, table),) = tables
        print(table.description)
        rows = [
            [
                n,
                c.type,
                "required" if c.required or n in table.key else "",
                "key" if n in table.key else "",
                c.description,
            ]
            for n, c in table.columns.items()
        ]
        show(["column", "type", "", "", "meaning"], rows, empty="")
        return
    rows = [
        [t.name, t.mode.value, t.origin.kind.connection, ", ".join(t.key), len(t.columns), t.description]
        for _, t in tables
    ]
    show(["table", "mode", "connection", "key", "columns", "meaning"], rows, empty="")
