"""`sluice source`: declare a source from what it really holds, and look at those that are declared."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psycopg
import typer
import yaml

from sluice import settings, warehouse
from sluice.cli.common import show, tables_named
from sluice.cli.status import statuses
from sluice.declarations import Table, load_folder
from sluice.declarations.generated import write_all
from sluice.declarations.load import tree_of
from sluice.declarations.odcs import from_odcs, to_odcs
from sluice.errors import SluiceError
from sluice.loading import evolve
from sluice.profiling import render
from sluice.profiling.add import Addition, Target, must_be_valid, plan
from sluice.profiling.profile import Bounds, Wishes

app = typer.Typer(
    no_args_is_help=True,
    help="Declare a source from what it really holds, and look at those that are declared.",
    rich_markup_mode=None,
)


class AskedMode(StrEnum):
    """What `--mode` takes."""

    APPEND = "append"
    FULL = "full"
    CURSOR = "cursor"


@app.command()
def add(
    what: Annotated[str, typer.Argument(help="A file, a table (with --connection), or an http(s) address")],
    connection: Annotated[
        str, typer.Option("--connection", "-c", help="Id of the connection; without it one is found, or proposed")
    ] = "",
    source: Annotated[str, typer.Option(help="The source's name; that of the connection where nothing is said")] = "",
    table: Annotated[
        str, typer.Option(help="The table's name; that of the file or relation where nothing is said")
    ] = "",
    key: Annotated[str, typer.Option(help="The columns that name a row, as a,b")] = "",
    mode: Annotated[AskedMode | None, typer.Option(help="What a reading says, where the evidence is wrong")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Few values seen become a rule, and no comment")] = False,
    owner: Annotated[str, typer.Option(help="The team or person who is asked; else you")] = "",
    description: Annotated[str, typer.Option(help="What the source is, in a sentence")] = "",
    schedule: Annotated[str, typer.Option(help="Cron expression in UTC, for a new source")] = "0 3 * * *",
    rows: Annotated[int, typer.Option(min=1, help="Look at no more rows than these")] = Bounds.rows,
    seconds: Annotated[float, typer.Option(min=1, help="… and for no longer than this")] = Bounds.seconds,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing")] = False,
) -> None:
    """Profile a real source; write its declaration and its staging model.

    \b
    sluice source add /data/stores/2026-11-01.csv
    sluice source add '/data/stock/{date}/{warehouse}.csv' --source stock
    sluice source add public.orders --connection shop_db
    sluice source add 'https://api.example.org/rates?date=2026-11-01'
    sluice source add invoices -c shop_db --source shop --dry-run

    \b
    A new table of a declared source goes into its file, below the others;
    nothing that is there is changed or overwritten. What was assumed stands
    as comments in the declaration: read it through before you load.

    \b
    Exit codes: 0 written (or printed); 1 refused, nothing was written, and
    the message says what to do (no key found: name it with --key); 2 misused.
    """
    wishes = Wishes(tuple(part.strip() for part in key.split(",") if part.strip()), mode or "", strict)
    target = Target(source, table, owner, description, schedule)
    _must_be_name("--source", source)
    _must_be_name("--table", table)
    addition = plan(what, connection, target, wishes, Bounds(rows=rows, seconds=seconds))
    if dry_run:
        for path, text in addition.texts.items():
            print(f"# {'=' * 20} {_short(path)}\n{text}")
        print("# nothing was written (--dry-run)", file=sys.stderr)
        return
    for path in addition.write():
        print(f"written: {_short(path)}")
    _say(addition)


def _say(addition: Addition) -> None:
    """What was assumed, and the next steps."""
    profile = addition.profile
    print(f"\n{addition.name}: {len(profile.columns)} columns, {profile.seen} looked at. Assumed:")
    for text in profile.assumed:
        print(f"  - {text}")
    notes = sum(len(column.notes) for column in profile.columns)
    if notes:
        print(f"  - and {notes} note{'s' if notes > 1 else ''} on columns, in the declaration")
    print("\nNext:")
    if addition.place and addition.place.export:
        print(f"  {addition.place.export}")
    print(f"  sluice load {addition.name}")
    print(f"  make dev, then: dbt build --select stg_{addition.source}__{profile.name}")


def _must_be_name(option: str, name: str) -> None:
    from sluice.profiling.names import sanitise

    if name and sanitise(name) != name:
        raise typer.BadParameter(
            f"{option} {name}: a name is lower case letters, figures and _, such as {sanitise(name)}"
        )


def _short(path: Path) -> str:
    """A path below the repository without the way to it."""
    try:
        return str(path.relative_to(settings.home()))
    except ValueError:
        return str(path)


class ContractFormat(StrEnum):
    """What `source export` writes."""

    ODCS = "odcs"


@app.command("export")
def export_source(
    name: Annotated[str, typer.Argument(help="The source")],
    format: Annotated[ContractFormat, typer.Option("--format", help="odcs: Open Data Contract Standard 3.1")] = (
        ContractFormat.ODCS
    ),
) -> None:
    """Print a declared source as a data contract, for catalogues and for those who read its tables.

    \b
    sluice source export shop > shop.odcs.yaml

    What the standard has no word for travels in the custom property `sluice`, so that an import gives the declaration
    back. Addresses stay with the connections: a contract names them and no more.
    """
    tables_named(name)  # a name that isn't there is said with those that are
    path = load_folder(settings.sources_dir()).paths[name.partition(".")[0]]
    contract = to_odcs(tree_of(path.read_text(encoding="utf-8")))
    print(yaml.safe_dump(contract, sort_keys=False, allow_unicode=True, width=120), end="")


@app.command("import")
def import_source(
    contract: Annotated[Path, typer.Argument(help="A data contract, Open Data Contract Standard v3, YAML or JSON")],
    connection: Annotated[str, typer.Option("--connection", "-c", help="For a contract that names no server")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the declaration, and write nothing")] = False,
) -> None:
    """Write a declaration from a data contract, and say what of it was left out.

    \b
    sluice source import orders.odcs.yaml --dry-run
    sluice source import orders.odcs.yaml

    \b
    Exit codes: 0 written (or printed), with what was left out on stderr; 1 refused, nothing was written; 2 misused.
    """
    try:
        tree = tree_of(contract.read_text(encoding="utf-8"))
    except Exception as error:  # what is no value of its tag raises whatever Python raises
        raise SluiceError(f"{contract} can't be read ({type(error).__name__}); nothing was written") from None
    try:
        made = from_odcs(tree, connection)
    except RecursionError:
        raise SluiceError(f"{contract} is nested too deeply, or contains itself; nothing was written") from None
    remarks = [f"Imported from {contract.name}. Read it through."] if made.assumed or made.left_out else []
    remarks += [f"- assumed: {text}" for text in made.assumed] + [f"- left out: {text}" for text in made.left_out]
    text = render.declaration_text(made.declaration, remarks)
    path = settings.sources_dir() / f"{made.declaration['source']}.yml"
    must_be_valid(path.name, text)
    for line in remarks[1:]:
        print(line.removeprefix("- "), file=sys.stderr)
    if dry_run:
        print(text, end="")
        return
    if path.exists():
        raise SluiceError(f"{path} is there already; nothing was written")
    path.write_text(text, encoding="utf-8")
    print(f"written: {_short(path)}")
    for other in write_all(list(load_folder(settings.sources_dir()).sources.values()), settings.home()):
        print(f"written: {_short(other)}")


@app.command("list")
def list_sources(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one object for each source")] = False,
) -> None:
    """Every source that can be used, and how it stands.

    Files with a fault are left out here, and named by `sluice validate`.
    """
    found = load_folder(settings.sources_dir())
    tables = [(source, table) for source in found.sources.values() for table in source.tables.values()]
    known = statuses(tables) if tables else []
    by_source = {name: [s for s in known if s.table.startswith(f"{name}.")] for name in found.sources}
    rows = []
    for name, some in by_source.items():
        stamps = [status.last_publish for status in some if status.last_publish]
        opened = sorted({f"{s.connection} {s.circuit}" for s in some if s.circuit not in (None, "closed")})
        rows.append(
            {
                "source": name,
                "tables": len(some),
                "schedule": found.sources[name].schedule,
                "last_publish": max(stamps).isoformat(timespec="seconds") if stamps else None,
                "log_rows": _sum(status.log_rows for status in some),
                "open_quarantine": _sum(status.open_quarantine for status in some),
                "circuit": ", ".join(opened) or ("closed" if some and some[0].circuit else None),
                "owner": found.sources[name].owner,
                "file": found.paths[name].name,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        show(
            ["source", "tables", "schedule (UTC)", "last publish", "rows", "quarantine", "circuit"],
            [
                [
                    r["source"],
                    r["tables"],
                    r["schedule"] or "by hand",
                    _minute(r["last_publish"]),
                    r["log_rows"],
                    r["open_quarantine"],
                    r["circuit"],
                ]
                for r in rows
            ],
            empty="no declaration can be used; see: sluice validate",
        )
    if found.faults:
        print(f"{len(found.faults)} faults; see: sluice validate", file=sys.stderr)


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _minute(stamp: str | None) -> str | None:
    return stamp[:16].replace("T", " ") if stamp else None


@app.command("show")
def show_source(
    name: Annotated[str, typer.Argument(help="<source> or <source>.<table>")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """The tables of a source and how they stand, or the columns of a table.

    \b
    sluice source show shop
    sluice source show shop.orders
    sluice source show shop --json | jq '.[] | select(.open_quarantine > 0)'
    """
    tables = tables_named(name)
    if "." in name:
        ((_, table),) = tables
        _show_columns(table, as_json)
        return
    known = statuses(tables)
    if as_json:
        print(json.dumps([status.as_json() for status in known], indent=2))
        return
    show(
        ["table", "mode", "key", "last publish", "rows", "quarantine", "circuit"],
        [
            [
                s.table.partition(".")[2],
                s.mode,
                ", ".join(s.key),
                _minute(s.last_publish and s.last_publish.isoformat()),
                s.log_rows,
                s.open_quarantine,
                s.circuit,
            ]
            for s in known
        ],
        empty="",
    )
    _show_changes(name)


def _show_columns(table: Table, as_json: bool) -> None:
    columns = [
        {
            "column": name,
            "type": column.type,
            "key": name in table.key,
            "required": column.required or name in table.key,
            "personal": column.personal,
            "meaning": column.description,
        }
        for name, column in table.columns.items()
    ]
    if as_json:
        print(json.dumps(columns, indent=2, ensure_ascii=False))
        return
    print(" ".join(table.description.split()))
    marks = [", ".join(word for word in ("key", "required", "personal") if column[word]) for column in columns]
    show(
        ["column", "type", "rules", "meaning"],
        [[c["column"], c["type"], mark, c["meaning"]] for c, mark in zip(columns, marks, strict=True)],
        empty="",
    )
    if evolved := _evolved(table):
        print("\nThe log has more columns, which the source brought. To adopt them, declare under columns:")
        print("\n".join(f"    {line}" for line in evolved))
    _show_changes(f"{table.source}.{table.name}")


_CHANGES = """
select to_char(event.created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), event.table_name, event.kind,
    event.column_name, case when latest.drift @> jsonb_build_array(jsonb_build_array(kind, column_name)) then 'yes' end,
    event.message
from ops.schema_event as event
left join lateral (
    select details -> 'drift' as drift from ops.batch
    where (batch.source, batch.table_name) = (event.source, event.table_name) and details ? 'drift'
    order by batch_id desc limit 1
) as latest on true
where event.source = %s and %s in ('', event.table_name)
order by event.schema_event_id desc limit 10
"""


def _show_changes(name: str) -> None:
    """What a source, or a table of it, brought of late that is not as its contract says."""
    source, _, table = name.partition(".")
    try:
        with warehouse.connect() as connection:
            found = connection.execute(_CHANGES, [source, table]).fetchall()
    except (psycopg.Error, SluiceError):
        return
    if found:
        print("\nThe source changed its shape, the latest first (UTC):")
        show(["when", "table", "what", "column", "still so", "message"], found, empty="")


def _evolved(table: Table) -> list[str]:
    """The lines that would adopt the evolved columns of a table; none where the warehouse can't be asked."""
    try:
        with warehouse.connect() as connection:
            known = evolve.known(connection, table).evolved_columns
    except (psycopg.Error, SluiceError):
        return []
    return [evolve.declaration(name, column.field or name, column.type) for name, column in known.items()]
