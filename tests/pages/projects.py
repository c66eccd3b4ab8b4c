"""A manifest as dbt writes it, in the few fields that the pages read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def model(
    name: str,
    layer: str,
    *,
    logs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    sql: str = "",
    columns: Mapping[str, str] | Sequence[str] = (),
    description: str = "",
    tests: Sequence[tuple[str, str]] = (),
    personal: Sequence[str] = (),
) -> dict[str, Any]:
    """One node. `logs` are `source.table`, `tests` pairs of kind and column."""
    kind = "snapshot" if layer == "snapshots" else "model"
    folder = "snapshots" if kind == "snapshot" else f"models/{layer}"
    given = [f"source.sluice.{each}" for each in logs] + [f"{_kind(each)}.sluice.{each}" for each in inputs]
    said = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
    return {
        "unique_id": f"{kind}.sluice.{name}",
        "name": name,
        "alias": name,
        "schema": layer,
        "database": "warehouse",
        "resource_type": kind,
        "original_file_path": f"{folder}/{name}.sql",
        "config": {"materialized": "view" if layer in ("staging", "intermediate") else "convergent", "meta": _META},
        "depends_on": {"nodes": given},
        "columns": {
            column: {"name": column, "data_type": "text", "description": text, "meta": {"personal": column in personal}}
            for column, text in said.items()
        },
        "description": description,
        "compiled_code": sql,
        "_tests": list(tests),
    }  # fmt: skip


_META = {"owner": "sales"}


def _kind(name: str) -> str:
    return "snapshot" if name.startswith("snap_") else "model"


def write(path: Path, models: Sequence[dict[str, Any]], exposures: Sequence[dict[str, Any]] = ()) -> Path:
    """The manifest of these models at `path`."""
    nodes = {each["unique_id"]: each for each in models}
    for each in models:
        for kind, column in each["_tests"]:
            name = f"{kind}_{each['name']}_{column}"
            nodes[f"test.sluice.{name}"] = {
                "unique_id": f"test.sluice.{name}", "name": name, "alias": f"{kind}_{column}_shortened",
                "resource_type": "test",
                "original_file_path": "models/x.yml", "attached_node": each["unique_id"], "column_name": column,
                "test_metadata": {"name": kind, "kwargs": {}}, "config": {"severity": "error"},
                "depends_on": {"nodes": [each["unique_id"]]}, "columns": {}, "schema": "", "database": "",
            }  # fmt: skip
    sources = {
        given: {"source_name": given.split(".")[2], "name": given.split(".")[3], "schema": "staging",
                "identifier": "__".join(given.split(".")[2:])}
        for each in models for given in each["depends_on"]["nodes"] if given.startswith("source.")
    }  # fmt: skip
    path.write_text(json.dumps({"nodes": nodes, "sources": sources, "exposures": {e["name"]: e for e in exposures}}))
    return path


def exposure(name: str, inputs: Sequence[str], **given: Any) -> dict[str, Any]:
    """A dashboard that reads these models."""
    nodes = [f"{_kind(each)}.sluice.{each}" for each in inputs]
    return {"name": name, "type": "dashboard", "owner": {"name": "sales"}, "depends_on": {"nodes": nodes}, **given}
