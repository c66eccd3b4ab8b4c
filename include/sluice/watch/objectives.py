"""What was promised, written down in `ops`, so that it is known to those who read nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
from pydantic import TypeAdapter, ValidationError

from sluice import settings
from sluice.declarations import load_folder
from sluice.declarations.base import Duration
from sluice.declarations.layers import Layers, load_layers
from sluice.declarations.load import DeclarationError
from sluice.errors import LedgerError

_PROMISE = """
insert into ops.objective as known (kind, subject, source, owner, freshness, max_quiet, deadline)
values (%s, %s, %s, %s, %s, %s, %s)
on conflict (kind, subject) do update
set source = excluded.source, owner = excluded.owner, freshness = excluded.freshness, max_quiet = excluded.max_quiet,
    deadline = excluded.deadline, read_at = clock_timestamp()
"""


def record_objectives(connection: psycopg.Connection) -> None:
    """Write down what the declarations promise now; the caller commits.

    A promise is withdrawn only by a declaration that can be read and no longer holds it, or by a file that is gone:
    as long as one file is left out for a fault, nothing is taken away, since it may be that one's.
    """
    found = load_folder(settings.sources_dir())
    rows: list[tuple] = []
    for source in found.sources.values():
        for table in source.tables.values():
            name = f"{source.source}.{table.name}"
            rows.append(("table", name, source.source, source.owner, table.freshness, table.max_quiet, source.deadline))
    layers, is_whole = _layers(), not found.left_out
    if layers is not None:
        for name, layer in layers.items():
            rows.append(("layer", name, None, layers.owner, layer.freshness, None, layer.deadline))
    with connection.cursor() as cursor:
        cursor.executemany(_PROMISE, rows)
    if is_whole:
        connection.execute(
            "delete from ops.objective where kind = 'table' and not subject = any(%s)",
            [[row[1] for row in rows if row[0] == "table"]],
        )


def _layers() -> Layers | None:
    try:
        return load_layers()
    except DeclarationError:
        return None  # said by the DAG of the warehouse, which has it as an import error


def record_lineage(connection: psycopg.Connection, manifest: Path) -> None:
    """Write down from which declared tables each relation of the dbt manifest is made; the caller commits."""
    rows = lineage(json.loads(manifest.read_text(encoding="utf-8")))
    known = connection.execute(
        "select relation, layer, source, table_name, extract(epoch from horizon)::float from ops.lineage"
    ).fetchall()
    if set(known) == rows:
        return
    connection.execute("delete from ops.lineage")
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.lineage (relation, layer, source, table_name, horizon)"
            " values (%s, %s, %s, %s, make_interval(secs => %s))",
            sorted(rows, key=str),
        )


def lineage(tree: dict) -> set[tuple[str, str, str, str, float | None]]:
    """(relation, layer, source, table, horizon in seconds) for every model and snapshot of a manifest, through all that
    lies between."""
    nodes = {name: node for name, node in tree["nodes"].items() if node["resource_type"] in ("model", "snapshot")}
    found: dict[str, frozenset[tuple[str, str]]] = {}

    def sources_of(name: str) -> frozenset[tuple[str, str]]:
        if name in tree["sources"]:
            source = tree["sources"][name]
            return frozenset({(source["source_name"], source["name"])})
        if name not in nodes:
            return frozenset()
        if name not in found:
            found[name] = frozenset().union(*map(sources_of, nodes[name]["depends_on"]["nodes"]))
        return found[name]

    return {
        (f"{node['schema']}.{node['alias']}", _layer(node), source, table, _horizon(node))
        for name, node in nodes.items()
        for source, table in sources_of(name)
    }


def _horizon(node: dict) -> float | None:
    """After how long the model is taken for complete, as its `config.meta.horizon` says."""
    text = node.get("config", {}).get("meta", {}).get("horizon")
    try:
        return None if text is None else TypeAdapter(Duration).validate_python(text).total_seconds()
    except ValidationError:
        raise LedgerError(
            f"{node['original_file_path']}: config.meta.horizon of {node['name']} is no length of time; "
            "nothing was built. Write 1d or 6h"
        ) from None


def _layer(node: dict) -> str:
    if node["resource_type"] == "snapshot":
        return "snapshots"
    return Path(node["original_file_path"]).parts[1]
