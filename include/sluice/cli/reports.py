"""`sluice board`, `sluice lineage`, `sluice catalogue`, `sluice cost`: what the web pages show, without a browser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from sluice import settings
from sluice.cli.common import Json, print_json, show
from sluice.declarations import Source, load_folder
from sluice.errors import SluiceError
from sluice.reports import board as boards
from sluice.reports import build as builder
from sluice.reports import catalogue as catalogues
from sluice.reports import cost as costs
from sluice.reports import lineage as lineages
from sluice.reports.project import read_project


def _sources() -> Iterable[Source]:
    return load_folder(settings.sources_dir()).sources.values()


def board(
    attention: Annotated[bool, typer.Option("--attention", help="Only what is not good")] = False,
    as_json: Json = False,
) -> None:
    """Is the data right, right now? Every table from source to mart. Exit code 1 if one is not."""
    found = boards.board(_sources(), read_project())
    if as_json:
        print_json(asdict(found))
    else:
        lines = [line for line in found.lines if not attention or line.tone in ("bad", "warn")]
        show(
            ["table", "layer", "state", "last publish", "gate", "in", "out", "quarantine", "why"],
            [
                [
                    line.name,
                    line.layer,
                    line.state,
                    line.last_publish and f"{line.last_publish:%F %T}",
                    line.gate,
                    line.rows_in,
                    line.rows_out,
                    line.open_quarantine or None,
                    "; ".join(filter(None, [line.why, line.affects and f"affects {', '.join(line.affects[:5])}"])),
                ]
                for line in lines
            ],
            empty="every table is good" if found.lines else "no source is declared",
        )
    if found.tone == "bad":
        raise typer.Exit(1)


def lineage(
    name: Annotated[
        str, typer.Argument(help="<table>.<column> or a table: shop.orders at the source, else schema.table")
    ] = "",
    build: Annotated[bool, typer.Option("--build", help="Build lineage, dbt's docs, profiles and sizes anew")] = False,
    as_json: Json = False,
) -> None:
    """What feeds what: all that a column goes into and is made from, by the compiled SQL."""
    if build:
        builder.build(lambda text, *values: print(text % values))
    found = lineages.read()
    if found is None:
        raise SluiceError("no lineage was built yet; build it with: sluice lineage --build, or the DAG operations")
    if name in found.by_id or not name:
        up, down = lineages.around(found, name) if name else ([], list(found.by_id))
        if as_json:
            print_json({"table": name, "upstream": up, "downstream": down})
        else:
            rows = [["upstream", each] for each in up] + [["downstream", each] for each in down]
            show(["table", "where"], [[each, where] for where, each in rows], empty=f"nothing feeds or reads {name}")
        return
    table, _, column = name.rpartition(".")
    traced = lineages.trace(found, table, column)
    if traced is None:
        raise SluiceError(f"the lineage has no table or column {name}; sluice lineage lists the tables")
    if as_json:
        print_json(asdict(traced))
        return
    rows = [(each, "goes into it") for each in traced.upstream] + [(each, "is fed by it") for each in traced.downstream]
    rows += [(each, "reads the end of it") for each in traced.exposures]
    show(["column", "how"], rows, empty=f"nothing goes into {name}, and it goes into nothing")


def catalogue(
    name: Annotated[str, typer.Argument(help="A table as schema.table; or a word to search for; empty for all")] = "",
    as_json: Json = False,
) -> None:
    """What is there: tables, or the columns of one with tests, last results and profile."""
    project = read_project()
    relations = {node.relation for node in project.nodes.values()}
    relations |= {f"staging.{table.log_name}" for source in _sources() for table in source.tables.values()}
    if name not in relations:
        entries = catalogues.entries(_sources(), project, search=name)
        if as_json:
            print_json([asdict(each) for each in entries])
            return
        show(
            ["relation", "owner", "columns", "tests", "rows", "description"],
            [[e.relation, e.owner, e.columns, e.tests, e.rows, e.description[:100]] for e in entries],
            empty=f"nothing has {name} in its name, description or columns" if name else "no table is declared",
        )
        return
    found = catalogues.table(name, _sources(), project)
    if as_json:
        print_json(asdict(found))
        return
    show(
        ["column", "type", "personal", "nulls", "distinct", "tests", "description"],
        [
            [
                c.name,
                c.type,
                "personal" if c.personal else None,
                f"{c.profile.null_share:.1%}" if c.profile and c.profile.null_share is not None else None,
                c.profile and c.profile.distinct,
                ", ".join(f"{t.kind if t.kind != 'contract' else t.name}: {t.verdict or 'no result'}" for t in c.tests),
                c.description,
            ]
            for c in found.columns
        ],
        empty=f"{name} has no column",
    )


def cost(as_json: Json = False) -> None:
    """What it takes: time, rows, bytes and WAL of the last 30 days per part, table and model, the dearest first; what
    grows."""
    found = costs.cost(read_project())
    if as_json:
        print_json(asdict(found))
        return
    heads = ["name", "part", "runs", "seconds", "30 days before", "rows", "bytes read", "bytes stored", "WAL bytes"]
    show(
        heads,
        [
            [s.name, s.kind if s.kind == "part" else s.layer, s.runs, f"{s.seconds:.1f}", f"{s.before:.1f}", s.rows,
             s.bytes_read, s.bytes_stored, s.wal_bytes]
            for s in (*found.parts, *found.spent)
        ],
        empty="nothing was loaded or built in the last 30 days",
    )  # fmt: skip
    show(
        ["relation", "rows", "bytes", "bytes per day", "bytes in 90 days"],
        [
            [g.relation, g.rows, g.bytes, "too early" if g.per_day is None else f"{g.per_day:.0f}", g.projected]
            for g in found.grown
        ],
        empty="no size was measured yet: the DAG operations does it every morning",
    )
