"""The dbt project as the reports need it, from dbt's artefacts: what is built from what, and what was said of it.

A file is read again only when it changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sluice import settings

LAYERS = ("staging", "snapshots", "intermediate", "marts")


@dataclass(frozen=True)
class Field:
    """A column of a model, as its YAML says. `personal`: it speaks of a person."""

    name: str
    type: str = ""
    description: str = ""
    personal: bool = False


@dataclass(frozen=True)
class Test:
    """A data test of a model, or of one of its columns. `kind` is what it asks, such as not_null; `alias` its name as
    dbt shortens it for the database, under which the gate inside a model's transaction records it."""

    name: str
    kind: str
    column: str | None
    severity: str
    alias: str


@dataclass(frozen=True)
class Node:
    """A model or snapshot. `inputs` are ids of nodes; `logs` (source, table) of the change logs that it reads."""

    id: str
    name: str
    layer: str
    relation: str
    description: str
    owner: str
    is_view: bool
    inputs: tuple[str, ...]
    logs: tuple[tuple[str, str], ...]
    columns: tuple[Field, ...]
    tests: tuple[Test, ...]
    unique_key: tuple[str, ...] = ()
    compiled: str = field(default="", repr=False)


@dataclass(frozen=True)
class Exposure:
    """Something outside that reads the warehouse: a dashboard, a notebook, an application."""

    name: str
    label: str
    kind: str
    owner: str
    url: str
    description: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Project:
    """All nodes by id, in an order in which each comes after its inputs."""

    nodes: dict[str, Node] = field(default_factory=dict)
    exposures: tuple[Exposure, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes.values()}

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Of each node, and of each change log as `<source>.<table>`: who reads it directly."""
        found: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for given in (*node.inputs, *(f"{source}.{table}" for source, table in node.logs)):
                found.setdefault(given, []).append(node.id)
        return {given: tuple(ids) for given, ids in found.items()}

    def downstream(self, start: str) -> list[Node]:
        """Everything that is made from a node or a change log, nearest first."""
        seen, queue = dict.fromkeys(self.readers.get(start, ())), list(self.readers.get(start, ()))
        for each in queue:
            for reader in self.readers.get(each, ()):
                if reader not in seen:
                    seen[reader] = None
                    queue.append(reader)
        return [self.nodes[each] for each in seen]

    def upstream_logs(self, start: str) -> set[tuple[str, str]]:
        """The change logs that a node is made from, at any distance."""
        return self._logs[start]

    @cached_property
    def _logs(self) -> dict[str, set[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        for node in self.nodes.values():  # inputs come first
            found[node.id] = set(node.logs).union(*(found.get(each, set()) for each in node.inputs))
        return found

    def used_by(self, node: Node) -> tuple[Exposure, ...]:
        """The exposures that read a node, directly or not."""
        below = {node.id, *(each.id for each in self.downstream(node.id))}
        return tuple(each for each in self.exposures if below & set(each.inputs))


def manifest_path() -> Path:
    """The manifest that the running DAGs use: `SLUICE_DBT_MANIFEST`, or that in the project's `target/`."""
    place = settings.variable("SLUICE_DBT_PROJECT") or settings.home() / "dbt_project"
    return Path(settings.variable("SLUICE_DBT_MANIFEST") or Path(place) / "target" / "manifest.json").absolute()


def read_project(path: Path | None = None) -> Project:
    """The project of the manifest at `path`; an empty one where dbt has written none yet."""
    path = path or manifest_path()
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Project()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _modified: int, _size: int) -> Project:
    tree = json.loads(path.read_bytes())
    tests = _tests(tree)
    nodes = {
        key: node
        for key, raw in tree["nodes"].items()
        if raw["resource_type"] in ("model", "snapshot") and (node := _node(raw, tree, tests.get(key, []))) is not None
    }
    exposures = tuple(_exposure(raw, nodes) for raw in tree.get("exposures", {}).values())
    return Project(_ordered(nodes), exposures)


def _node(raw: dict[str, Any], tree: dict[str, Any], tests: list[Test]) -> Node | None:
    folder = Path(raw["original_file_path"]).parts[1]
    layer = "snapshots" if raw["resource_type"] == "snapshot" else folder
    materialized = raw["config"].get("materialized")
    if layer not in LAYERS or materialized == "ephemeral":
        return None
    given, meta = raw["depends_on"]["nodes"], _meta(raw)
    sources = [tree["sources"][each] for each in given if each in tree["sources"]]
    return Node(
        id=raw["unique_id"],
        name=raw["name"],
        layer=layer,
        relation=f"{raw['schema']}.{raw['alias']}",
        description=" ".join((raw.get("description") or "").split()),
        owner=str(meta.get("owner") or ""),
        is_view=materialized == "view",
        inputs=tuple(each for each in given if each in tree["nodes"]),
        logs=tuple((source["source_name"], source["name"]) for source in sources),
        columns=tuple(_field(column) for column in raw["columns"].values()),
        tests=tuple(tests),
        unique_key=_listed(raw["config"].get("unique_key")),
        compiled=raw.get("compiled_code") or "",
    )


def _listed(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _meta(raw: dict[str, Any]) -> dict[str, Any]:
    return {**(raw.get("meta") or {}), **((raw.get("config") or {}).get("meta") or {})}


def _field(raw: dict[str, Any]) -> Field:
    said = " ".join((raw.get("description") or "").split())
    return Field(raw["name"], raw.get("data_type") or "", said, bool(_meta(raw).get("personal")))


def _tests(tree: dict[str, Any]) -> dict[str, list[Test]]:
    found: dict[str, list[Test]] = {}
    for raw in tree["nodes"].values():
        if raw["resource_type"] == "test" and raw.get("attached_node"):
            kind = (raw.get("test_metadata") or {}).get("name") or raw["name"]
            test = Test(raw["name"], kind, raw.get("column_name"), raw["config"]["severity"].lower(), raw["alias"])
            found.setdefault(raw["attached_node"], []).append(test)
    return found


def _exposure(raw: dict[str, Any], nodes: dict[str, Node]) -> Exposure:
    owner = raw.get("owner") or {}
    return Exposure(
        raw["name"],
        raw.get("label") or raw["name"],
        raw.get("type") or "",
        owner.get("name") or owner.get("email") or "",
        raw.get("url") or "",
        " ".join((raw.get("description") or "").split()),
        tuple(each for each in raw["depends_on"]["nodes"] if each in nodes),
    )


def _ordered(nodes: dict[str, Node]) -> dict[str, Node]:
    done: dict[str, Node] = {}

    def visit(key: str) -> None:
        if key in done or key not in nodes:
            return
        for given in nodes[key].inputs:
            visit(given)
        done[key] = nodes[key]

    for key in nodes:
        visit(key)
    return done
