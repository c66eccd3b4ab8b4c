"""The ingest DAG of a declared source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronDataIntervalTimetable, TaskGroup

from sluice.declarations import Source, Table
from sluice_airflow.announcements import announced_asset
from sluice_airflow.assets import staging_asset
from sluice_airflow.batches import AnnounceOperator, AuditOperator, LandOperator, PublishOperator
from sluice_airflow.deadlines import deadline
from sluice_airflow.sensors import ReadySensor
from sluice_airflow.steps import DEFAULTS

_SHORT = timedelta(minutes=10)
_DEADLINE = timedelta(hours=6)  # where a declaration names none


def ingest_dag(source: Source, path: Path) -> DAG:
    """Build `ingest_<source>`: for each table wait → land → audit → publish, then one announcement."""
    with DAG(
        dag_id=f"ingest_{source.source}",
        description=" ".join(source.description.split())[:200],
        doc_md=_page(source, path),
        schedule=_schedule(source),
        start_date=datetime(source.start.year, source.start.month, source.start.day, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={**DEFAULTS, "owner": source.owner},
        tags={"ingest", *source.tags},
        deadline=deadline(f"ingest_{source.source}", source.owner, source.deadline or _DEADLINE),
    ) as dag:
        announce = AnnounceOperator(
            task_id="announce",
            source=source,
            outlets=[staging_asset(source.source)],
            execution_timeout=_SHORT,
        ).as_teardown()
        for table in source.tables.values():
            _steps(source, table) >> announce
    return dag


def _schedule(source: Source) -> Any:
    """By the clock, by the source's own announcement, or by either."""
    timetable = CronDataIntervalTimetable(source.schedule, timezone="UTC") if source.schedule else None
    if source.announced_by is None:
        return timetable
    asset = announced_asset(source)
    return AssetOrTimeSchedule(timetable=timetable, assets=[asset]) if timetable else [asset]


def _steps(source: Source, table: Table) -> PublishOperator:
    """The four tasks of one table; returns the last."""
    pool = table.origin.kind.connection  # each connection has a pool of its name
    with TaskGroup(group_id=table.name, tooltip=" ".join(table.description.split())):
        wait = ReadySensor(
            task_id="wait",
            source=source,
            table=table,
            pool=pool,
            # A deferred task keeps its clock: it must outlast the wait itself, and the reading in a backfill.
            execution_timeout=DEFAULTS["execution_timeout"] + source.wait,
        )
        land = LandOperator(
            task_id="land",
            source=source,
            table=table,
            pool=pool,
            execution_timeout=DEFAULTS["execution_timeout"] + source.wait,  # it may wait too
        )
        audit = AuditOperator(task_id="audit", batch_ids=land.output)
        publish = PublishOperator(task_id="publish", table=table, batch_ids=audit.output)
        wait >> land
    return publish


def _page(source: Source, path: Path) -> str:
    """What a person reads about the DAG in the web UI: all of it from the declaration."""
    tables = "\n".join(
        f"| `{table.name}` | {table.mode.value} | {', '.join(table.key)} | {' '.join(table.description.split())} |"
        for table in source.tables.values()
    )
    connections = "\n".join(f"- `{name}`" for name in sorted(source.connections))
    return dedent(
        """\
            # {name}

            {description}

            Asked when it is red: **{owner}**. Declared in `{file}`: everything here follows from that file.

            ## Steps, for each table

            1. **wait** until there is something complete to read; after {wait} it gives up
               and says what was missing.
            2. **land** reads every pending unit into a table of its own that nobody else sees.
            3. **audit** judges it. A refused batch fails the task at once; staging keeps the rows it had.
            4. **publish** moves it into the change log, in one transaction.

            **announce** wakes the `warehouse` DAG if a row was applied, and is skipped if none was.

            | table | mode | key | |
            |---|---|---|---|
            {tables}

            ## Connections

            {connections}

            ## Run it again

            - A failed task: clear it. What was landed or published already is recognised, never loaded twice.
            - Everything that is pending: trigger the DAG. It takes no parameters.
            - Past intervals: `airflow dags backfill ingest_{source} -s … -e … --reset-dagruns`. There **wait** does
              all steps of its table and skips the others. The warehouse converges by itself.
            - What came of it: `sluice gate show`, or `ops.batch` and `ops.quarantine` in the warehouse.
        """
    ).format(
        tables=tables,
        connections=connections,
        name=source.source,
        description=" ".join(source.description.split()),
        owner=source.owner,
        file=f"include/sources/{path.name}",
        wait=source.wait,
        source=source.source,
    )
