"""A few polite requests to a JSON service, within bounds: for profiling only; the loader has a reader of its own."""

from __future__ import annotations

import time
from typing import Any

import httpx

from sluice import settings
from sluice.errors import SluiceError
from sluice.profiling.places import base_of
from sluice.readers.jsonl import loads

_TRIES = 8


class Service:
    """A connection's service, asked for JSON until the time is up."""

    def __init__(self, connection: str, seconds: float) -> None:
        known = settings.connection(connection)
        self._connection, self._until = connection, time.monotonic() + seconds
        self._client = httpx.Client(
            base_url=base_of(connection),
            headers=known.extra.get("headers") or {},
            auth=(known.login, known.password) if known.login else None,
            timeout=httpx.Timeout(min(30.0, seconds), connect=10.0),
            follow_redirects=True,
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def has_time(self) -> bool:
        """Whether there is time for another request."""
        return time.monotonic() < self._until

    def own(self, address: str) -> str:
        """An address that a page gave, if it is of this service: credentials are sent nowhere else."""
        whole, base = self._client.base_url.join(address), self._client.base_url
        if (whole.scheme, whole.host, whole.port) != (base.scheme, base.host, base.port):
            raise SluiceError(
                f"the next page of connection {self._connection} is at another host, {whole.host}; it was not asked, "
                "and nothing was written"
            )
        return str(whole)

    def get(self, path: str, params: dict[str, str]) -> tuple[Any, httpx.Headers]:
        """The JSON that the service answers, and the headers. Busy signals are waited for; all else is said."""
        where, problem = f"{path} at connection {self._connection}", ""
        for attempt in range(_TRIES):
            try:
                response = self._client.get(path, params=params or None)  # {} would take the address's own away
            except httpx.HTTPError as error:
                problem, wait = f"does not answer ({type(error).__name__})", 0.2 * 2**attempt
            else:
                if response.status_code != 429 and response.status_code < 500:
                    return self._json(response, where), response.headers
                problem, wait = f"answered {response.status_code}", 0.2 * 2**attempt
                asked = response.headers.get("retry-after", "")
                wait = float(asked) if asked.isdigit() else wait
            if time.monotonic() + wait > self._until:
                break
            time.sleep(wait)
        raise SluiceError(f"{where} {problem}; nothing was written")

    def _json(self, response: httpx.Response, where: str) -> Any:
        if response.status_code in (401, 403):
            raise SluiceError(
                f"{where} answered {response.status_code}: credentials are missing or wrong. Set AIRFLOW_CONN_"
                f"{self._connection.upper()} with a login, or with headers in its extra. Nothing was written"
            )
        if response.status_code != 200:
            raise SluiceError(f"{where} answered {response.status_code}; nothing was written")
        try:
            return loads(response.content)
        except RecursionError:
            raise SluiceError(f"{where} answered with JSON that is nested too deeply; nothing was written") from None
        except ValueError:
            kind = response.headers.get("content-type", "no content type")
            raise SluiceError(f"{where} answered with {kind} that is not JSON; nothing was written") from None
