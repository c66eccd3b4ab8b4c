"""What the reports show and cannot ask at each visit: dbt's docs, lineage, profiles, sizes. `operations` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from sluice import settings, warehouse
from sluice.declarations import Source, load_folder
from sluice.errors import SluiceError
from sluice.reports import artefacts, distribution, lineage
from sluice.reports.project import Project, read_project

Say = Callable[..., None]


def build(say: Say = lambda *_: None) -> None:
    """All of it. What was built before stays in place until what is new is complete."""
    with tempfile.TemporaryDirectory(prefix="sluice-docs-") as folder:
        docs = document(Path(folder))
        project = read_project(Path(folder) / "manifest.json")
    sources = load_folder(settings.sources_dir()).sources.values()
    found = lineage.build(project, sources)
    lineage.write(found)
    say("lineage of %s tables and %s columns", len(found.tables), len(found.edges))
    for each in found.unknown:
        say("the columns of %s could not be followed: %s", each.table, each.why)
    with warehouse.connect() as connection:
        artefacts.write(connection, "dbt-docs", docs)
        say("profiles of %s columns", measure(connection, project, sources))


def document(target: Path) -> bytes:
    """Let dbt write its docs into `target`, with the compiled SQL; returns them as one page that needs no server."""
    place = Path(settings.variable("SLUICE_DBT_PROJECT") or settings.home() / "dbt_project").absolute()
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-use-colors", "--log-path", str(target / "logs"),
        *("docs", "generate", "--static", "--project-dir", str(place), "--profiles-dir", str(place)),
        *("--profile", "sluice", "--target", "prod", "--target-path", str(target), "--no-populate-cache"),
    ]  # fmt: skip
    # of the warehouse that everybody reads, also when asked from a developer's shell
    environment = {**settings.written_environment(), **os.environ, "SLUICE_SCHEMA_PREFIX": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    page = target / "static_index.html"
    if done.returncode or not page.exists():
        told = (done.stdout + done.stderr).strip().splitlines()[-8:]
        raise SluiceError("dbt could not write its docs; the earlier ones stay:\n" + "\n".join(told))
    return page.read_bytes()


def measure(connection: psycopg.Connection, project: Project, sources: Iterable[Source]) -> int:
    """Take profiles from Postgres' own statistics, and the size of each relation today. Reads no row of a table.

    A personal column has no value in its profile, nor has what is made of one. Returns how many columns have one.
    """
    personal = {
        (f"staging.{table.log_name}", name)
        for source in sources
        for table in source.tables.values()
        for name, column in table.columns.items()
        if column.personal
    }
    personal |= {(node.relation, c.name) for node in project.nodes.values() for c in node.columns if c.personal}
    # a column that is made of a personal one may be as personal
    found = lineage.read()
    if found is not None:
        for relation, name in list(personal):
            traced = lineage.trace(found, relation, name)
            personal |= {lineage.split(key) for key in traced.downstream} if traced else set()
    hidden = [list(column) for column in zip(*sorted(personal), strict=True)] if personal else [[], []]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_SIZES)
        profiles = [_profile(*row) for row in cursor.execute(_STATISTICS, hidden)]
        cursor.execute("delete from ops.column_profile")
        cursor.executemany(_INSERT, profiles)
    return len(profiles)


def _profile(
    relation: str, name: str, position: int, type_: str, rows: int, nulls: float, distinct: float, width: int,
    values: list[str] | None, shares: list[float] | None, bounds: list[str] | None,
) -> tuple[Any, ...]:  # fmt: skip
    """A row of `ops.column_profile`."""
    common = list(zip(values or [], shares or [], strict=True))
    points = [value for value, _ in common] + (bounds or [])
    numbers = distribution.numbers(points, type_)
    ordered = sorted(points, key=lambda text: numbers[text] if numbers else text)  # type: ignore[arg-type, return-value]
    bins = distribution.bins(numbers, common, bounds or [], 1 - nulls) if numbers else []
    every = max(len(bounds or ()) // 10, 1)
    return (
        relation, name, position, type_, rows, nulls, round(distinct if distinct >= 0 else -distinct * rows), width,
        ordered[0][:80] if ordered else None, ordered[-1][:80] if ordered else None,
        Jsonb([{"value": value[:80], "share": share} for value, share in common[:8]]) if common else None,
        Jsonb([value[:80] for value in bounds[::every]]) if bounds else None, Jsonb(bins) if bins else None,
    )  # fmt: skip


_SIZES = """
insert into ops.relation_size (relation, measured_on, bytes, rows)
select
    schema.nspname || '.' || relation.relname, current_date,
    sum(pg_total_relation_size(leaf.oid)), sum(greatest(leaf.reltuples, 0))::bigint
from pg_class as relation
inner join pg_namespace as schema on schema.oid = relation.relnamespace
left join lateral pg_partition_tree(relation.oid) as part on true -- empty for a table without partitions
inner join pg_class as leaf on leaf.oid = coalesce(part.relid, relation.oid)
where schema.nspname in ('staging', 'snapshots', 'intermediate', 'marts', 'ops')
    and relation.relkind in ('r', 'p') and not relation.relispartition
group by 1
on conflict (relation, measured_on) do update set bytes = excluded.bytes, rows = excluded.rows
"""

_STATISTICS = """
with hidden as (
    select * from unnest(%s::text[], %s::text[]) as hidden (relation, column_name)
),

profiled as (
    select
        stats.schemaname || '.' || stats.tablename as relation, stats.attname::text as column_name,
        attribute.attnum as position, format_type(attribute.atttypid, attribute.atttypmod) as type,
        greatest(relation.reltuples, 0)::bigint as rows, stats.null_frac, stats.n_distinct, stats.avg_width,
        stats.most_common_vals::text::text[] as common_values, stats.most_common_freqs as common_shares,
        stats.histogram_bounds::text::text[] as bounds
    from pg_stats as stats
    inner join pg_namespace as schema on schema.nspname = stats.schemaname
    inner join pg_class as relation on relation.relnamespace = schema.oid and relation.relname = stats.tablename
    inner join pg_attribute as attribute on attribute.attrelid = relation.oid and attribute.attname = stats.attname
    where stats.schemaname in ('staging', 'snapshots', 'marts') and not relation.relispartition
        and (relation.relkind <> 'p' or stats.inherited)
),

shown as (
    select
        profiled.*,
        -- what the contract does not know may speak of a person, too
        hidden.relation is null and profiled.type not in ('jsonb', 'bytea') as may_show
    from profiled
    left join hidden using (relation, column_name)
)

select
    relation, column_name, position, type, rows, null_frac, n_distinct, avg_width,
    case when may_show then common_values end, case when may_show then common_shares end,
    case when may_show then bounds end
from shown
"""

_INSERT = """
insert into ops.column_profile (
    relation, column_name, position, type, rows, null_share, distinct_count, average_bytes, minimum, maximum, common,
    histogram, bins
) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict do nothing
"""
