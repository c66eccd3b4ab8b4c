"""JSON over HTTP: pages, `Retry-After`, bounded backoff with jitter, and no half-read unit."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from sluice import settings
from sluice.declarations import Source, Table
from sluice.errors import SluiceError, SourceUnavailable
from sluice.readers.base import Digest, Interval, Read, Readiness, Sink, Unit, day_interval, days, now, overlaps
from sluice.readers.jsonl import as_fields, loads
from sluice.readers.postgres import source_fields

_MAX_WAIT = 60.0  # seconds; a source that asks for longer is unavailable
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class RestReader:
    """A resource that is read whole, or day by day."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether the server answers at all; an error status still is an answer, which reading will deal with."""
        origin = table.origin.rest
        assert origin is not None
        try:
            with _client(origin.connection) as client:
                client.get("", timeout=10.0)
        except httpx.HTTPError as error:
            return Readiness(False, f"connection {origin.connection} does not answer ({type(error).__name__})")
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit per finished day when a parameter has {date}; else the resource as it is now."""
        instant = now(source)
        if not _by_day(table):
            return [Unit(instant.isoformat(), instant)]
        first = table.start or source.start
        every = (
            Unit(day.isoformat(), day_interval(day)[1], day_interval(day), values={"date": day.isoformat()})
            for day in days(first, instant.date())
        )
        return [unit for unit in every if overlaps(interval, unit.interval)]

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Land every page of the unit. A page that can't be had fails the unit as a whole."""
        origin = table.origin.rest
        assert origin is not None
        fields = [*source_fields(table), "_rescued"]
        result, digest = Read(fields), Digest()
        sink.create(fields)
        with _client(origin.connection) as client:
            rows = self._rows(client, table, unit, result, digest)
            sink.rows((number, as_fields(item, fields)) for number, item in enumerate(rows, start=1))
        result.content_hash, result.bytes_read = digest.hex(), digest.size
        return result

    def _rows(
        self, client: httpx.Client, table: Table, unit: Unit, result: Read, digest: Digest
    ) -> Iterator[dict[str, Any]]:
        origin = table.origin.rest
        assert origin is not None
        params = {name: value.format(**unit.values) for name, value in origin.params.items()}
        where = f"{origin.path} at connection {origin.connection}"
        path, number, pages = origin.path.format(**unit.values), 1, 1
        announced: tuple[int | None, int] | None = None
        while number <= pages:
            if origin.page:
                params[origin.page.param] = str(number)
                if origin.page.size_param and origin.page.size:
                    params[origin.page.size_param] = str(origin.page.size)
            body = _get(client, path, params, origin.connection, origin.retries)
            items = body.get(origin.items)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise SourceUnavailable(
                    f"{where}: page {number} has no list {origin.items!r}; the whole unit {unit.name} was left unread"
                )
            total = _whole(body, origin.total, where) if origin.total else None
            pages = _whole(body, origin.page.pages, where) if origin.page else 1
            if announced not in (None, (total, pages)):
                # rows came or went between two pages, so that others moved across the edge of a page, unseen
                raise SourceUnavailable(
                    f"{where} changed while it was read: page {number} announces other totals than the pages before; "
                    f"the whole unit {unit.name} was left unread"
                )
            announced, result.control_total = (total, pages), total
            for _ in digest.over([json.dumps(items, sort_keys=True).encode()]):
                yield from items
            number += 1


def _whole(body: dict[str, Any], field: str, where: str) -> int:
    """A whole number that the body must hold; without it, nobody could say whether all of it was read."""
    value = body.get(field)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SourceUnavailable(f"{where}: the field {field!r} is not a whole number; the whole unit was left unread")
    return value


def _by_day(table: Table) -> bool:
    origin = table.origin.rest
    assert origin is not None
    return any("{date}" in value for value in origin.params.values()) or "{date}" in origin.path


def _client(conn_id: str) -> httpx.Client:
    connection = settings.connection(conn_id)
    base = connection.extra.get("base_url") or (
        f"{connection.scheme if connection.scheme in ('http', 'https') else 'https'}://{connection.host}"
        f"{f':{connection.port}' if connection.port else ''}{connection.path}"
    )
    auth = (connection.login, connection.password) if connection.login else None
    return httpx.Client(base_url=base, headers=connection.extra.get("headers") or {}, auth=auth, timeout=_TIMEOUT)


def _get(client: httpx.Client, path: str, params: dict[str, str], conn_id: str, retries: int) -> dict[str, Any]:
    """One page as a JSON object. 429, 5xx and broken connections are tried again, later each time."""
    where = f"{path} at connection {conn_id}"
    for attempt in range(retries + 1):
        wait = min(_MAX_WAIT, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)
        try:
            response = client.get(path, params=params)
        except httpx.HTTPError as error:
            problem = type(error).__name__
        else:
            if response.status_code in (401, 403):
                raise Refused(
                    f"{where} answered {response.status_code}: check the credentials of connection {conn_id}. Nothing "
                    f"was read"
                )
            if response.status_code != 429 and response.status_code < 500:
                return _body(response, where)
            problem = f"status {response.status_code}"
            wait = max(wait, _retry_after(response))
        if attempt == retries or wait > _MAX_WAIT:
            break
        time.sleep(wait)
    raise SourceUnavailable(f"{where} gave {problem} after {attempt + 1} tries; the whole unit was left unread")


class Refused(SluiceError):
    """The source refuses us; asking again would only lock the account."""


def _body(response: httpx.Response, where: str) -> dict[str, Any]:
    if response.status_code != 200:
        raise SourceUnavailable(f"{where} answered {response.status_code}; the whole unit was left unread")
    try:
        body = loads(response.content)
    except ValueError:
        kind = response.headers.get("content-type", "no content type")
        raise SourceUnavailable(
            f"{where} answered 200 with {kind} that is not JSON; the whole unit was left unread"
        ) from None
    if not isinstance(body, dict):
        raise SourceUnavailable(f"{where} answered 200 with JSON that is not an object; the whole unit was left unread")
    return body


def _retry_after(response: httpx.Response) -> float:
    """Seconds to wait, from either form of the header; 0 without one."""
    text = response.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    try:
        when = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
