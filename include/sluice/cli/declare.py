"""`sluice validate`, `sluice generate`: declarations and what is made from them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from sluice import settings
from sluice.declarations import DeclarationError, Declarations, Fault, load_folder
from sluice.declarations.expectations import faults_of_expectations
from sluice.declarations.files import Custom
from sluice.declarations.generated import write_all
from sluice.declarations.layers import load_layers
from sluice.declarations.load import line_of
from sluice.readers.formats.custom import Unusable, make


class Format(StrEnum):
    """How faults are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def validate(
    format: Annotated[
        Format, typer.Option("--format", help="text for people, json for editors, github for annotations of a CI run")
    ] = Format.TEXT,
) -> None:
    """Check every declaration, what is promised of the layers (include/layers.yml) and expected of them
    (include/expectations), and say all faults at once, each with file, line and field.

    \b
    sluice validate
    sluice validate --format json | jq '.faults[].message'
    sluice validate --format github

    \b
    A broken file breaks only its own source; the others go on. A connection
    that is not set here is a warning: it may be set where Airflow runs. With
    github, each fault stands beside its line in a pull request.

    \b
    Exit codes: 0 no fault (warnings or not); 1 a fault, or no source at all;
    2 misused.
    """
    found = load_folder(settings.sources_dir())
    errors = [*found.faults, *_unusable_readers(found), *_of_the_layers()]
    faults = [*errors, *_unset_connections(found)]
    tables = sum(len(source.tables) for source in found.sources.values())
    if format is Format.JSON:
        print(
            json.dumps(
                {"sources": len(found.sources), "tables": tables, "faults": [asdict(f) for f in faults]}, indent=2
            )
        )
    else:
        for fault in faults:
            print(_annotation(fault) if format is Format.GITHUB else fault)
    if format is Format.TEXT:
        warned = f", {len(faults) - len(errors)} warnings" if len(faults) > len(errors) else ""
        print(f"{len(found.sources)} sources with {tables} tables can be used; {len(errors)} faults{warned}")
    if errors or not found.sources:
        raise typer.Exit(1)


def _of_the_layers() -> list[Fault]:
    """Faults of what is promised and expected of the warehouse's layers."""
    try:
        load_layers()
    except DeclarationError as error:
        return [*error.faults, *faults_of_expectations()]
    return faults_of_expectations()


def _unusable_readers(found: Declarations) -> list[Fault]:
    """Formats of the project's own whose class can't be had. It is imported here, and by no DAG that is parsed."""
    faults = []
    for name, source in found.sources.items():
        for table in source.tables.values():
            options = table.origin.files.format if table.origin.files else None
            if not isinstance(options, Custom):
                continue
            try:
                make(options)
            except Unusable as problem:
                where = ["tables", table.name, "from", "files", "format", "reader"]
                path = found.paths[name]
                faults.append(Fault(str(path), line_of(path, where), ".".join(where), f"{options.reader} {problem}"))
    return faults


def _unset_connections(found: Declarations) -> list[Fault]:
    """A warning for each connection that can't be resolved here, at the first place that names it."""
    warnings = []
    for name, source in found.sources.items():
        for connection in sorted(source.connections):
            try:
                settings.connection(connection)
            except settings.SettingsError:
                path = found.paths[name]
                lines = path.read_text(encoding="utf-8").splitlines()
                line = next(
                    (
                        n
                        for n, text in enumerate(lines, start=1)
                        if re.search(rf"connection: *['\"]?{connection}\b", text)
                    ),
                    1,
                )
                message = f"the connection {connection} is not set here: AIRFLOW_CONN_{connection.upper()}"
                warnings.append(Fault(str(path), line, "connection", message, "warning"))
    return warnings


def _annotation(fault: Fault) -> str:
    """A fault as a workflow command of GitHub's."""

    def escaped(text: str, more: str = "") -> str:
        for char in "%\r\n" + more:
            text = text.replace(char, f"%{ord(char):02X}")
        return text

    place = f"file={escaped(_relative(fault.file), ',:')},line={fault.line},title={escaped(fault.field, ',:')}"
    return f"::{fault.severity} {place}::{escaped(fault.message)}"


def _relative(path: str) -> str:
    home = f"{settings.home()}/"
    return path.removeprefix(home)


def generate(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a file is not what it should be.")
    ] = False,
) -> None:
    """Write what follows from the declarations and their model: dbt's sources, Airflow's pools, the JSON Schema that
    editors use, and the reference of all fields.

    \b
    Exit codes: 0 written, or nothing to do; 1 with --check a file differs, or a declaration has faults; 2 misused.
    """
    found = load_folder(settings.sources_dir())
    for fault in found.faults:
        print(f"{fault}{' (left out)' if fault in found.left_out else ''}", file=sys.stderr)
    changed = write_all(list(found.sources.values()), settings.home(), check=check)
    for path in changed:
        print(f"{'differs' if check else 'written'}: {path}")
    if not changed:
        print("all generated files are up to date")
    if (check and changed) or found.faults:
        raise typer.Exit(1)
