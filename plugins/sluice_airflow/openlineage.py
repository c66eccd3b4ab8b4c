"""OpenLineage: what a task read and wrote, by column, for whichever receiver Airflow's provider is told of.

Off until one is named, by `AIRFLOW__OPENLINEAGE__TRANSPORT` or `OPENLINEAGE_URL`; nothing here is called before that.
Tables are named as OpenLineage names those of PostgreSQL; what a source holds is `sluice://<source>`, by its table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from sluice import settings
from sluice.reports import lineage
from sluice.reports.project import read_project


def of_model(name: str) -> Any:
    """The inputs and the output of a model or snapshot. Without a lineage file the tables are known, and not their
    columns."""
    from airflow.providers.openlineage.extractors.base import OperatorLineage

    project, found = read_project(), lineage.read()
    node = project.by_name.get(name)
    if node is None:
        return None
    known = found.by_id.get(node.relation) if found else None
    inputs = known.inputs if known else [project.nodes[each].relation for each in node.inputs if each in project.nodes]
    output = _written(node.relation, [column.name for column in node.columns], found)
    return OperatorLineage(inputs=[_read(each) for each in inputs], outputs=[output])


def of_table(source: str, table: str, columns: Iterable[str]) -> Any:
    """The source's table as input, its change log as output."""
    from airflow.providers.openlineage.extractors.base import OperatorLineage

    output = _written(f"staging.{source}__{table}", columns, lineage.read())
    return OperatorLineage(inputs=[_read(f"{source}.{table}")], outputs=[output])


def _read(table: str) -> Any:
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(*_named(table))


def _written(table: str, columns: Iterable[str], found: lineage.Lineage | None) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import column_lineage_dataset, schema_dataset

    known = found.by_id.get(table) if found else None
    names = known.columns if known else tuple(columns)
    facets: dict[str, Any] = {
        "schema": schema_dataset.SchemaDatasetFacet([schema_dataset.SchemaDatasetFacetFields(name) for name in names])
    }
    fields = {}
    for name in names if found else ():
        given = [key.rpartition(".") for key in found.edges.get(f"{table}.{name}", ())]
        if given:
            columns_read = [column_lineage_dataset.InputField(*_named(from_), column) for from_, _, column in given]
            fields[name] = column_lineage_dataset.Fields(columns_read)
    if fields:
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(fields=fields)
    return OutputDataset(*_named(table), facets=facets)


_SCHEMAS = ("staging", "snapshots", "intermediate", "marts")


def _named(table: str) -> tuple[str, str]:
    """Namespace and name. `shop.orders` is a table at its source, `marts.x` one of the warehouse."""
    place, _, name = table.partition(".")
    if place not in _SCHEMAS:
        return f"sluice://{place}", name
    url = urlsplit(settings.warehouse_url())
    return f"postgres://{url.hostname or 'localhost'}:{url.port or 5432}", f"{url.path.lstrip('/')}.{table}"
