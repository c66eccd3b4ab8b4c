"""The dbt project as `verify` needs it: which relations a rebuild makes, and which live ones they stand for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.gates import Model

PREFIX = "sluice_verify"  # of the shadow schemas: sluice_verify_marts stands for marts


@dataclass(frozen=True)
class Node:
    """One model or snapshot. `key` names a row to a person; `personal` columns are never shown."""

    name: str
    schema: str
    identifier: str
    materialized: str
    key: tuple[str, ...]
    grain: tuple[str, ...]  # what makes a row one row
    slice: tuple[str, ...]  # what is recomputed as a whole
    personal: frozenset[str]
    log: tuple[str, str] | None
    reads: frozenset[str]  # names of the models and snapshots it reads
    dated: str | None  # the column whose day a row belongs to
    partition: str | None  # the column of which each month has a partition
    closed: tuple[str, str] | None  # of closed periods: the column, and what becomes of a correction

    @property
    def live(self) -> str:
        """`schema.table` that readers use."""
        return f"{self.schema}.{self.identifier}"

    @property
    def shadow(self) -> str:
        """`schema.table` of the rebuild."""
        return f"{PREFIX}_{self.schema}.{self.identifier}"

    @property
    def is_compared(self) -> bool:
        """Whether its rows are kept, and a function of the change logs."""
        return self.materialized in ("convergent", "snapshot")

    def as_model(self) -> Model:
        """The node as `pending` knows it: the live one."""
        return Model(self.name, self.live, self.schema, self.materialized == "view", self.log)


def read_nodes(manifest: Path, declared_personal: frozenset[str]) -> list[Node]:
    """Every model and snapshot of a manifest that was parsed with the prefix.

    `declared_personal` are columns that a declaration marks; a model that forgets to mark its copy still masks it.
    """
    tree = json.loads(manifest.read_text(encoding="utf-8"))
    nodes = (
        _node(node, tree["sources"], declared_personal)
        for node in tree["nodes"].values()
        if node["resource_type"] in ("model", "snapshot") and node["config"].get("materialized") != "ephemeral"
    )
    return sorted(nodes, key=lambda node: node.live)


def _node(node: dict[str, Any], sources: dict[str, Any], declared_personal: frozenset[str]) -> Node:
    config = node["config"]
    is_snapshot = node["resource_type"] == "snapshot"
    unique = _names(config.get("unique_key"))
    marked = {name for name, column in node["columns"].items() if _meta(column).get("personal")}
    given = [sources[name] for name in node["depends_on"]["nodes"] if name in sources]
    is_log = config["materialized"] == "view" and given
    return Node(
        node["name"],
        node["schema"].removeprefix(f"{PREFIX}_"),
        node["alias"],
        "snapshot" if is_snapshot else config["materialized"],
        (*unique, "dbt_valid_from") if is_snapshot else unique,
        ("dbt_scd_id",) if is_snapshot else unique,
        unique if is_snapshot else _names(config.get("recompute_by")) or unique,
        declared_personal | marked,
        (given[0]["source_name"], given[0]["name"]) if is_log else None,
        frozenset(name.split(".")[2] for name in node["depends_on"]["nodes"]),
        "dbt_valid_from" if is_snapshot else _dated(config),
        (config.get("partition_by") or {}).get("column"),
        (closed["column"], closed["correction"]) if (closed := config.get("closed_periods")) else None,
    )


def _dated(config: dict[str, Any]) -> str | None:
    """The column of a model that says when: the one it is partitioned or closed by, at which it looks up, or from
    which a version holds."""
    for place in ("partition_by", "closed_periods"):
        if config.get(place):
            return config[place]["column"]
    touches = (config.get("touched_by") or {}).values()
    at = {touch["at"] for touch in touches if isinstance(touch, dict) and "at" in touch}
    return at.pop() if len(at) == 1 else (config.get("validity") or {}).get("from")


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _meta(column: dict[str, Any]) -> dict[str, Any]:
    return {**(column.get("meta") or {}), **(column.get("config", {}).get("meta") or {})}
