"""Wait until a table can be read, without holding a worker while waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from sluice.declarations import Source, Table
from sluice_airflow.steps import engine, is_backfill, run_context, told_as

_POLL = timedelta(seconds=15)


class ReadySensor(BaseOperator, SkipMixin):
    """Succeed when there is something complete to read. The first look costs one short task; only a wait is
    deferred.

    A run of a backfill has nothing to wait for: its interval is over. There this task does all the steps of its table
    and skips the others, since a task costs more than what a past day has to be read: 12 tasks an interval of the shop
    instead of 45.

    Needs `retries` of at least 1: Airflow 3.3 fails a deferred task whose trigger fires before the
    scheduler has noticed that it was deferred (apache/airflow 72716). Giving up after the source's `wait`
    is final and is not retried.
    """

    def __init__(self, *, source: Source, table: Table, poll: timedelta = _POLL, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source, self.table, self.poll = source, table, poll

    def execute(self, context: Any) -> None:
        """Look once; defer if it is not ready."""
        from sluice.loading import ready

        if is_backfill(context["dag_run"]):
            self._load(context)
        since = datetime.now(UTC)
        with engine(self.execution_timeout):
            found = ready(self.source, self.table)
        if not found.ready:
            self.log.info("%s waits for: %s", self.table.log_name, found.waiting_for)
            self.defer(trigger=waiting(self.source, self.table, since, self.poll), method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Go on, or say what was waited for, and since when."""
        must_be_ready(self.source, self.table, event)
        self.log.info("%s is ready", self.table.log_name)
        if is_backfill(context["dag_run"]):
            self._load(context)

    def _load(self, context: Any) -> NoReturn:
        """Land, audit and publish the run's interval; then end as a task that skips those that would."""
        from sluice.errors import CircuitOpen
        from sluice.loading import load
        from sluice.watch import beating

        run = run_context(context)
        with engine(self.execution_timeout), beating(self.dag_id, self.task_id, run.run_id):
            try:
                done = load(self.source, self.table, run)
            except CircuitOpen as open_circuit:
                self.log.info("%s waits: %s", self.table.log_name, open_circuit)
                self.defer(trigger=waiting(self.source, self.table, datetime.now(UTC)), method_name="resume")
        for published in done:
            self.log.info("%s", published)
        self.log.info("%s: %s units of the interval; its other steps are skipped", self.table.log_name, len(done))
        in_group = self.task_group.children.values()
        self.skip(context["ti"], [task for task in in_group if task.node_id != self.node_id])
        raise AssertionError("skip() ends the task")


def waiting(source: Source, table: Table, since: datetime, poll: timedelta = _POLL) -> ReadyTrigger:
    """What a task defers to until the table can be read, or the source's `wait` from `since` on is over."""
    return ReadyTrigger(
        source=source.source,
        table=table.name,
        since=since.isoformat(),
        until=(since + source.wait).isoformat(),
        poll_seconds=poll.total_seconds(),
    )


def must_be_ready(source: Source, table: Table, event: dict[str, Any]) -> None:
    """Fail for good if the wait ended without success."""
    if not event["ready"]:
        told = (
            f"{table.log_name}: gave up. Waited since {event['since'][:16].replace('T', ' ')} UTC for: "
            f"{event['waiting_for']}. Nothing was read. Ask {source.owner}; then clear this task"
        )
        raise told_as(AirflowFailException(told), "task_failed")  # the alert says it, too


class ReadyTrigger(BaseTrigger):
    """Looks again and again from the triggerer until a table is ready or the wait is over."""

    def __init__(self, *, source: str, table: str, since: str, until: str, poll_seconds: float) -> None:
        super().__init__()
        self.source, self.table = source, table
        self.since, self.until, self.poll_seconds = since, until, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How the triggerer builds it again."""
        return (
            "sluice_airflow.sensors.ReadyTrigger",
            {
                "source": self.source,
                "table": self.table,
                "since": self.since,
                "until": self.until,
                "poll_seconds": self.poll_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll in a thread: the engine's readers block."""
        until = datetime.fromisoformat(self.until)
        turn = await _turn(self.source, self.table)
        while True:
            async with turn:
                is_ready, waiting_for = await sync_to_async(_look, thread_sensitive=False)(self.source, self.table)
            left = (until - datetime.now(UTC)).total_seconds()
            if is_ready or left <= 0:
                yield TriggerEvent({"ready": is_ready, "waiting_for": waiting_for, "since": self.since})
                return
            await asyncio.sleep(min(self.poll_seconds, max(left, 0.1)))


_turns: dict[str, asyncio.Semaphore] = {}


async def _turn(source_name: str, table_name: str) -> asyncio.Semaphore:
    """As many looks at a connection at once as its pool has slots: the pool itself does not count who waits."""
    connection, slots = await sync_to_async(_connection_of, thread_sensitive=False)(source_name, table_name)
    return _turns.setdefault(connection, asyncio.Semaphore(slots))


def _connection_of(source_name: str, table_name: str) -> tuple[str, int]:
    from sluice import settings
    from sluice.declarations import load_folder
    from sluice.declarations.pools import slots

    source = load_folder(settings.sources_dir()).sources.get(source_name)
    if source is None or table_name not in source.tables:
        return "", 1
    connection = source.tables[table_name].origin.kind.connection
    return connection, slots(source, connection)


def _look(source_name: str, table_name: str) -> tuple[bool, str]:
    """Ask the engine. A source that does not answer is one more thing to wait for."""
    from sluice import settings
    from sluice.declarations import load_folder
    from sluice.errors import SluiceError
    from sluice.loading import ready
    from sluice_airflow.connections import use_airflow_connections

    use_airflow_connections()
    source = load_folder(settings.sources_dir()).sources.get(source_name)
    if source is None or table_name not in source.tables:
        return False, f"a usable declaration of {source_name}.{table_name}"
    try:
        found = ready(source, source.tables[table_name])
    except (SluiceError, settings.SettingsError) as error:
        return False, str(error)
    return found.ready, found.waiting_for
