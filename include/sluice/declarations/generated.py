"""Files that follow from the declarations, committed where people read them and checked for drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sluice.declarations.model import Source, Table
from sluice.declarations.pools import required_pools
from sluice.declarations.schema import reference_text, schema_text

_HEAD = "# Generated from the declaration include/sources/{source}.yml by `sluice generate`; edit that file.\n"


class _Dumper(yaml.SafeDumper):
    """Indents the items of a list below their key, as people here do and yamllint wants."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def write_all(sources: list[Source], home: Path, *, check: bool = False) -> list[Path]:
    """Write dbt's `sources.yml` of each source, the JSON Schema and the reference of declarations, and Airflow's
    pools. Returns the files that differed.

    With `check` nothing is written.
    """
    wanted = {
        home / "docs" / "reference" / "source.schema.json": schema_text(),
        home / "docs" / "reference" / "declarations.md": reference_text(),
        home / "config" / "pools.json": json.dumps(required_pools(sources), indent=2) + "\n",
    }
    for source in sources:
        folder = home / "dbt_project" / "models" / "staging" / source.source
        wanted[folder / f"_{source.source}__sources.yml"] = dbt_sources_text(source)
    differing = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if not check:
        for path in differing:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
    return differing


def dbt_sources_text(source: Source) -> str:
    """The change logs of a source, as dbt knows them."""
    entry = {
        "name": source.source,
        "schema": "staging",
        "description": source.description.strip(),
        "config": {"meta": {"owner": source.owner}},
        "tables": [_dbt_table(table) for table in source.tables.values()],
    }
    text = yaml.dump({"version": 2, "sources": [entry]}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return _HEAD.format(source=source.source) + text


def _dbt_table(table: Table) -> dict[str, Any]:
    columns = [
        {"name": name, "data_type": column.type, "description": column.description}
        | ({"config": {"meta": {"personal": True}}} if column.personal else {})
        for name, column in table.columns.items()
    ]
    return {
        "name": table.name,
        "identifier": table.log_name,
        "description": f"Change log. {table.description.strip()}",
        "config": {"meta": {"key": list(table.key), "mode": table.mode.value}},
        "columns": columns,
    }
