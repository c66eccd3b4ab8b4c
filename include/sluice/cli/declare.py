"""`sluice validate`, `sluice generate`: declarations and what is made from them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sluice import settings
from sluice.declarations import load_folder
from sluice.declarations.generated import write_all


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
