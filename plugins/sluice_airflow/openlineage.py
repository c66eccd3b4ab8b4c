"""OpenLineage: what a task read and wrote, by column, for whichever receiver Airflow's provider is told of.

Off until one is named, by `AIRFLOW__OPENLINEAGE__TRANSPORT` or `OPENLINEAGE_URL`; nothing here is called before that.
Tables are named as OpenLineage names those of PostgreSQL; what a source holds is `sluice://<source>`, by its table.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from sluice import settings, warehouse
from sluice.declarations import Table
from sluice.reports import lineage
from sluice.reports.project import read_project


def of_model(name: str, compiled: str) -> Any:
    """The inputs and the output of a model or snapshot, by the SQL that has just run."""
    project = read_project()
    node = project.by_name.get(name)
    if node is None:
        return None
    inputs = lineage.inputs_of(node, project)
    with warehouse.connect() as connection:
        columns = {
            relation: tuple(names)
            for relation, names in connection.execute(
                "select wanted.name, array_agg(attname::text order by attnum) from unnest(%s::text[]) as wanted (name)"
                " inner join pg_attribute on attrelid = to_regclass(wanted.name) and attnum > 0 and not attisdropped"
                " group by 1",
                [list(inputs)],
            )
        }
    return _told(lineage.of_node(replace(node, compiled=compiled or node.compiled), project, columns))


def of_table(table: Table) -> Any:
    """The source's table as input, its change log as output."""
    return _told(lineage.of_table(table))


def _told(found: lineage.Lineage) -> Any:
    """Of what was followed last, and of what it was made from."""
    from airflow.providers.openlineage.extractors.base import OperatorLineage
    from openlineage.client.event_v2 import InputDataset

    made = found.tables[-1]
    return OperatorLineage(
        inputs=[InputDataset(*_named(each)) for each in made.inputs], outputs=[_written(made, found)]
    )


def _written(made: lineage.Tabled, found: lineage.Lineage) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import column_lineage_dataset, schema_dataset

    schema = [schema_dataset.SchemaDatasetFacetFields(name) for name in made.columns]
    facets: dict[str, Any] = {"schema": schema_dataset.SchemaDatasetFacet(schema)}
    fields = {}
    for name in made.columns:
        given = [lineage.split(key) for key in found.edges.get(f"{made.id}.{name}", ())]
        if given:
            read = [column_lineage_dataset.InputField(*_named(table), column) for table, column in given]
            fields[name] = column_lineage_dataset.Fields(read)
    if fields:
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(fields=fields)
    return OutputDataset(*_named(made.id), facets=facets)


_SCHEMAS = ("staging", "snapshots", "intermediate", "marts")


def _named(table: str) -> tuple[str, str]:
    """Namespace and name. `shop.orders` is a table at its source, `marts.x` one of the warehouse."""
    place, _, name = table.partition(".")
    if place not in _SCHEMAS:
        return f"sluice://{place}", name
    url = urlsplit(settings.warehouse_url())
    return f"postgres://{url.hostname or 'localhost'}:{url.port or 5432}", f"{url.path.lstrip('/')}.{table}"
