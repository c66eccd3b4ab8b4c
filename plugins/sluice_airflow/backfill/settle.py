"""Writes down what the ledger can't know by itself: backfills that the web UI made, and how each of Airflow's ended.

Only the scheduler, the api-server and commands may ask Airflow's database. So the scheduler does it, in a thread, some
seconds after a run of any DAG has ended (`sluice_airflow.listener`), and `airflow sluice backfills` does it at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

# At the top, and so in the thread that asks first: a scheduler forks, and a module that another thread is importing at
# that moment would be waited for in the child for ever.
from sluice import warehouse
from sluice.backfill import Outcome, end_lost, finish, forget, open_records, recorded, start
from sluice_airflow.backfill import engine
from sluice_airflow.connections import use_airflow_connections

log = logging.getLogger("sluice.backfill")

PAUSE = 10.0  # seconds: the scheduler has committed the run's end by then, and ninety ends are few looks
_is_due = threading.Event()


def settle_soon() -> None:
    """Look once, in a moment, beside whatever the process does. Whoever asks meanwhile is served by the same look."""
    if not _is_due.is_set():
        _is_due.set()
        timer = threading.Timer(PAUSE, _look)
        timer.daemon, timer.name = True, "sluice-backfills"
        timer.start()


def _look() -> None:
    _is_due.clear()
    try:
        with ledger() as connection:
            connection.execute("set statement_timeout = '30s'")
            settle_all(connection)
    except Exception as problem:  # the next look, or the command, does it
        log.warning("backfills were not settled: %s", type(problem).__name__)


def settle_all(connection: psycopg.Connection) -> None:
    """Write down backfills of Airflow's that have no record, and the end of those that have ended."""
    made = {(each.engine_id, each.dag_id, each.range_start): each for each in engine.known()}
    for this in sorted(made.keys() - recorded(connection)):
        start(connection, made[this])
    for this in open_records(connection):
        if this in made:
            settle(this[0], connection)
        else:
            forget(connection, this[0])
    end_lost(connection)
    connection.commit()


def settle(engine_id: int, connection: psycopg.Connection) -> Outcome | None:
    """Write down the end of a backfill, if it has ended."""
    runs = engine.runs(engine_id)
    if not runs:  # they were deleted, or are not made yet
        return None if engine.is_open(engine_id) else forget(connection, engine_id)
    if any(state not in engine.ENDED for _, state in runs):
        return None
    by_state = {wanted: [run_id for run_id, state in runs if state == wanted] for wanted in engine.ENDED}
    return finish(connection, engine_id, by_state["success"], by_state["failed"])


@contextmanager
def ledger() -> Iterator[psycopg.Connection]:
    """The warehouse, with Airflow's connections."""
    use_airflow_connections()
    with warehouse.connect() as connection:
        yield connection
