"""How old is what we have? Judged from `ops`, which is readable when the scheduler is dead."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import psycopg

from sluice import warehouse
from sluice.declarations import Source
from sluice.gates import override
from sluice.gates.results import Check, Verdict, record

_LAST = """
select read_at, extract(epoch from clock_timestamp() - read_at)::bigint as age
from ops.table_read where source = %s and table_name = %s
"""


def judge_freshness(sources: Iterable[Source], run_id: str) -> Verdict:
    """Compare how long ago each table was known to hold what its source holds with its declared `freshness`;
    record it.

    A reading that found nothing new counts: the table is known to be current.
    """
    checks = []
    with warehouse.connect() as connection:
        for source in sources:
            for table in source.tables.values():
                if table.freshness is not None:
                    checks.append(_check(connection, source, table.name, table.freshness))
        checks = override.applied(connection, run_id, "freshness", checks)
        record(connection, run_id, "freshness", checks)
    return Verdict("freshness", checks)


def _check(connection: psycopg.Connection, source: Source, table: str, allowed: timedelta) -> Check:
    last, seconds = connection.execute(_LAST, (source.source, table)).fetchone() or (None, None)
    name = f"staging.{source.source}__{table}"
    if last is None:
        # a source that nobody has tried to read yet is not in use, which is worth a word and no alarm
        tried = connection.execute("select 1 from ops.batch where source = %s limit 1", [source.source]).fetchone()
        read = connection.execute("select 1 from ops.table_read where source = %s limit 1", [source.source]).fetchone()
        in_use = bool(tried or read)
        return Check(
            "is_fresh",
            name,
            "missing",
            severity="block" if in_use else "warn",
            bound=str(allowed),
            message=f"never read; ask {source.owner}"
            if in_use
            else f"{source.source} was never read: it is not in use yet",
        )
    age = timedelta(seconds=seconds)
    return Check(
        "is_fresh",
        name,
        "pass" if age <= allowed else "fail",
        observed=str(age),
        bound=str(allowed),
        message=None if age <= allowed else f"last read {last:%Y-%m-%d %H:%M} UTC; ask {source.owner}",
    )
