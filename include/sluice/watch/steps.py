"""The heartbeat of a running step: a row of `ops.step` that a thread of its own touches until the step ends.

A step that is killed stops its thread too, so its row stands still, whatever Airflow believes of it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from sluice import settings

log = logging.getLogger("sluice.watch")

EVERY = 10.0  # seconds between two beats
_OPTIONS = "-c timezone=UTC -c statement_timeout=5s -c lock_timeout=5s"

_BEGIN = """
insert into ops.step (job, step, run_id, host, pid) values (%s, %s, %s, %s, %s)
on conflict (job, step, run_id) do update
set host = excluded.host, pid = excluded.pid, started_at = clock_timestamp(), beat_at = clock_timestamp(),
    ended_at = null, succeeded = null
"""
_BEAT = "update ops.step set beat_at = clock_timestamp() where (job, step, run_id, pid) = (%s, %s, %s, %s)"
_END = """
update ops.step set beat_at = clock_timestamp(), ended_at = clock_timestamp(), succeeded = %s
where (job, step, run_id, pid) = (%s, %s, %s, %s)
"""
# One ended row of each step is kept. A success also clears the rows of attempts that were killed before.
_TIDY = """
delete from ops.step
where (job, step) = (%s, %s) and run_id <> %s
    and (ended_at is not null or (%s and beat_at < clock_timestamp() - interval '5 minutes'))
"""


@contextmanager
def beating(job: str, step: str, run_id: str, every: float = EVERY) -> Iterator[None]:
    """Show in `ops.step` that a step is alive, every `every` seconds, until the block is left.

    Never raises of its own, and never waits for the ledger before the step begins: a step is not to fail because it
    could not be watched. A ledger that is away is what the exporter tells about itself.
    """
    beat = _Beat(job, step, run_id, every)
    beat.start()
    try:
        yield
    except BaseException:
        beat.end(succeeded=False)
        raise
    beat.end(succeeded=True)


class _Beat(threading.Thread):
    def __init__(self, job: str, step: str, run_id: str, every: float) -> None:
        super().__init__(name=f"heartbeat {job} {step}", daemon=True)
        self.job, self.step, self.run_id, self.every = job, step, run_id, every
        self.url = settings.warehouse_url()  # here: another thread's context may not be the task's
        self.over = threading.Event()
        self.succeeded: bool | None = None

    def end(self, *, succeeded: bool) -> None:
        self.succeeded = succeeded
        self.over.set()
        self.join(timeout=10)

    def run(self) -> None:
        begun = False
        while True:
            try:
                begun = self._beat_until_over(begun)
                return
            except (psycopg.Error, OSError) as error:
                log.debug("no heartbeat of %s %s: %s", self.job, self.step, type(error).__name__)
                if self.over.wait(self.every):
                    with suppress(psycopg.Error, OSError):  # once more, so that the end is known
                        self._beat_until_over(begun)
                    return

    def _beat_until_over(self, begun: bool) -> bool:
        """One connection's worth of beats; returns when the step has ended, raises when the connection breaks."""
        name, pid = (self.job, self.step, self.run_id), os.getpid()
        with psycopg.connect(
            self.url, autocommit=True, connect_timeout=5, options=_OPTIONS, application_name="sluice heartbeat"
        ) as connection:
            if not begun:
                connection.execute(_BEGIN, [*name, socket.gethostname()[:100], pid])
            while not self.over.wait(self.every):
                connection.execute(_BEAT, [*name, pid])
            connection.execute(_END, [self.succeeded, *name, pid])
            connection.execute(_TIDY, [*name, self.succeeded])
        return True
