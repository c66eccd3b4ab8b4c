"""The DAGs' pools. A task in a pool that does not exist waits for ever, so they are listed in one
place.

`make run` and the Docker image create them from here; a test asserts that no task names another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from sluice.declarations import Source

DBT = "dbt"
_SOURCE_SLOTS = 4
_DBT_SLOTS = 4


class Pool(TypedDict):
    """A pool as `airflow pools import` reads it."""

    slots: int
    description: str
    include_deferred: bool


def source_pool(connection: str) -> str:
    """The pool that bounds how many tasks read from a connection at once: it has the connection's name."""
    return connection


def required_pools(sources: Iterable[Source]) -> dict[str, Pool]:
    """Every pool that the DAGs of `sources` and the warehouse need, as `airflow pools import` takes them."""
    pools = {DBT: Pool(slots=_DBT_SLOTS, description="dbt nodes at once", include_deferred=False)}
    for source in sources:
        for connection in sorted(source.connections):
            pools[source_pool(connection)] = Pool(
                slots=_SOURCE_SLOTS,
                description=f"Tasks that read from {connection} at once",
                include_deferred=False,
            )
    return pools
