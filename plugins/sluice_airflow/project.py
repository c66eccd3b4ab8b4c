"""The dbt project as the DAG needs it: the models and separate tests of each layer, and which code they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sluice.gates import Model

LAYERS = ("staging", "snapshots", "intermediate", "marts")
# What Cosmos selects for each of them.
SELECT = {
    "staging": ["path:models/staging"],
    "snapshots": ["path:snapshots"],
    "intermediate": ["path:models/intermediate"],
    "marts": ["path:models/marts"],
}
# Materializations that run the tests attached to them in their own transaction (macros/sluice/gate.sql).
_GATED = ("convergent", "snapshot")


@dataclass(frozen=True)
class Test:
    """A data test that no model runs itself: of a view, of a source, or a singular one."""

    name: str
    layer: str  # before whose gate it runs
    object: str
    warns: bool


@dataclass(frozen=True)
class Project:
    """Every node that a run builds. `fingerprint` changes when a model, a test or a macro does."""

    models: tuple[Model, ...]
    tests: tuple[Test, ...]
    fingerprint: str

    def layer(self, name: str) -> tuple[Model, ...]:
        """The models of one layer."""
        return tuple(model for model in self.models if model.layer == name)

    def tests_before(self, gate: str) -> tuple[Test, ...]:
        """The tests that a task of their own runs before the gate of a layer."""
        return tuple(test for test in self.tests if test.layer == gate)


def read_project(path: Path) -> Project:
    """Read the manifest at `path`, or say how it is written."""
    try:
        state = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist. Write it with: dbt parse (make run does)") from None
    return _read(path, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, _modified: int) -> Project:
    tree = json.loads(path.read_text(encoding="utf-8"))
    nodes = tree["nodes"].values()
    models = [
        _model(node, tree["sources"])
        for node in nodes
        if node["resource_type"] in ("model", "snapshot") and _layer(node) and _is_built(node)
    ]
    known = {**tree["nodes"], **tree["sources"]}
    tests = [_test(node, known) for node in nodes if node["resource_type"] == "test" and not _is_gated(node, known)]
    return Project(
        tuple(sorted(models, key=lambda model: model.name)),
        tuple(sorted(tests, key=lambda test: test.name)),
        _fingerprint(nodes, tree["macros"]),
    )


def _is_built(node: dict[str, Any]) -> bool:
    return node["config"].get("materialized") != "ephemeral"


def _layer(node: dict[str, Any]) -> str | None:
    if node["resource_type"] == "snapshot":
        return "snapshots"
    folder = Path(node["original_file_path"]).parts[1]
    return folder if folder in LAYERS else None


def _model(node: dict[str, Any], sources: dict[str, Any]) -> Model:
    is_view = node["config"].get("materialized") == "view"
    given = [sources[name] for name in node["depends_on"]["nodes"] if name in sources]
    log = (given[0]["source_name"], given[0]["name"]) if is_view and given else None
    return Model(node["name"], f"{node['schema']}.{node['alias']}", _layer(node) or "", is_view, log)


def _is_gated(test: dict[str, Any], known: dict[str, Any]) -> bool:
    attached = known.get(test.get("attached_node"))
    return bool(attached and test.get("test_metadata") and attached["config"].get("materialized") in _GATED)


def _test(node: dict[str, Any], known: dict[str, Any]) -> Test:
    """What is read first is tested first: views of staging and sources before its gate, all else at the end."""
    about = known.get(node.get("attached_node"))
    if about is None and node.get("test_metadata"):
        about = next((known[name] for name in node["depends_on"]["nodes"] if name in known), None)
    warns = node["config"]["severity"].lower() == "warn"
    if about is None:
        return Test(node["name"], "marts", "marts", warns)
    is_early = about["resource_type"] == "source" or _layer(about) == "staging"
    relation = f"{about['schema']}.{about.get('alias') or about['name']}"
    return Test(node["name"], "staging" if is_early else "marts", relation, warns)


def _fingerprint(nodes: Any, macros: dict[str, Any]) -> str:
    parts = [
        (
            node["unique_id"],
            node.get("raw_code"),
            node["config"],
            node.get("test_metadata"),
            {name: column.get("data_type") for name, column in node["columns"].items()},
        )
        for node in nodes
    ]
    parts += [
        (name, macro["macro_sql"])
        for name, macro in macros.items()
        if macro["package_name"] not in ("dbt", "dbt_postgres")
    ]
    text = json.dumps(sorted(parts, key=lambda part: part[0]), sort_keys=True, default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
