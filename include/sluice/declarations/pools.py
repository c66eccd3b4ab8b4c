"""Airflow's pools, as the declarations need them. A task in a pool that does not exist waits for ever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from sluice.declarations.model import Source

DBT = "dbt"
_DEFAULT_SLOTS = 64
_DBT_SLOTS = 4
_CONNECTION_SLOTS = 2


class Pool(TypedDict):
    """A pool as `airflow pools import` reads it."""

    slots: int
    description: str
    include_deferred: bool


def required_pools(sources: Iterable[Source]) -> dict[str, Pool]:
    """Every pool that the DAGs need: one for each connection, with its name and its `at_once` slots, and that of dbt.

    Two sources that share a connection share its pool; the smaller number holds.
    """
    pools = {
        "default_pool": Pool(slots=_DEFAULT_SLOTS, description="tasks that wait or decide", include_deferred=False),
        DBT: Pool(slots=_DBT_SLOTS, description="dbt nodes at once in the warehouse", include_deferred=False),
    }
    for source in sources:
        for connection in sorted(source.connections):
            count = slots(source, connection)
            if connection in pools:
                count = min(count, pools[connection]["slots"])
            pools[connection] = Pool(
                slots=count, description=f"tasks that read from {connection} at once", include_deferred=False
            )
    return pools


def slots(source: Source, connection: str) -> int:
    """How many tasks of a source may read from a connection at once."""
    return source.at_once.get(connection, _CONNECTION_SLOTS)
