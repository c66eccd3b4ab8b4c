"""A source that says itself when it has something starts its DAG: Airflow's asset watchers over our own triggers.

Announcements are hints. They may come twice or be lost: a run reads all that is pending, and the schedule stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from sluice.declarations import Source

_TOGETHER = 2.0  # seconds: what comes so close is one announcement; Airflow would lose the second run of two
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds, until a broken connection is opened again
_ALIVE = 30.0  # seconds between looks at whether the session is still there


def announced_asset(source: Source) -> Asset:
    """The asset that a source's announcements update."""
    trigger = AnnouncementTrigger(source=source.source)
    return Asset(
        name=f"announced.{source.source}",
        uri=f"sluice://source/{source.source}",
        group="sluice",
        watchers=[AssetWatcher(name=f"announced_{source.source}", trigger=trigger)],
    )


class AnnouncementTrigger(BaseEventTrigger):
    """Listens for a source's announcements from the triggerer, for as long as its DAG is active."""

    def __init__(self, *, source: str) -> None:
        super().__init__()
        self.source = source

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How the triggerer builds it again. The rest is in the declaration, and no secret is here."""
        return "sluice_airflow.announcements.AnnouncementTrigger", {"source": self.source}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event per announcement, or per several that come together. A connection that breaks is opened again,
        and then counts as an announcement: what was said meanwhile is not known."""
        pause, was_down = _FIRST_PAUSE, False
        while True:
            try:
                async for what in self._listen(was_down):
                    pause, was_down = _FIRST_PAUSE, False
                    yield TriggerEvent({"source": self.source, "announced_by": what})
            except Exception as error:  # whatever it is, to stop listening would be silent
                # the kind only: a driver's text may repeat the address it was given
                self.log.warning("announcements of %s: %s; again in %.0f s", self.source, type(error).__name__, pause)
                was_down = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _listen(self, was_down: bool) -> AsyncIterator[str]:
        announced = await sync_to_async(_declared, thread_sensitive=False)(self.source)
        listen = self._notified if announced.notify else self._marked
        async for what in listen(announced, was_down):
            yield what

    async def _notified(self, announced: Any, was_down: bool) -> AsyncIterator[str]:
        import psycopg
        from psycopg import sql

        channel = announced.notify.channel
        url = await sync_to_async(_postgres_url, thread_sensitive=False)(announced.connection)
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, application_name="sluice listen", connect_timeout=10, keepalives_idle=20
        )
        async with connection:
            await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
            if was_down:
                yield "connection opened again"
            while True:
                heard = [note async for note in connection.notifies(timeout=_ALIVE, stop_after=1)]
                if not heard:
                    await connection.execute("select")  # raises where the peer is gone
                    continue
                async for _ in connection.notifies(timeout=_TOGETHER):
                    pass
                yield f"notify {channel}"

    async def _marked(self, announced: Any, was_down: bool) -> AsyncIterator[str]:
        look = sync_to_async(_markers, thread_sensitive=False)
        known = None if was_down else await look(announced.marker)
        while True:
            if known is not None:
                await asyncio.sleep(announced.marker.every.total_seconds())
            found = await look(announced.marker)
            if known is None or any(known.get(name) != stamp for name, stamp in found.items()):
                yield f"file {announced.marker.path}"
            known = found


def _declared(source: str) -> Any:
    from sluice import settings
    from sluice.declarations import load_folder

    found = load_folder(settings.sources_dir()).sources.get(source)
    if found is None or found.announced_by is None:
        raise LookupError(f"{source} announces nothing any more")
    return found.announced_by


def _postgres_url(connection: str) -> str:
    from sluice import settings
    from sluice_airflow.connections import use_airflow_connections

    use_airflow_connections()
    return settings.connection(connection).postgres_url()


def _markers(marker: Any) -> dict[str, str]:
    """Every marker file that is there, with what changes when it is written again."""
    from sluice.declarations.files import Files
    from sluice.readers.transport import find_files
    from sluice_airflow.connections import use_airflow_connections

    use_airflow_connections()
    return {file.name: file.stamp for file in find_files(Files(connection=marker.connection, path=marker.path))}
