"""Files of a web server, as a place (`places.py`)."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import fsspec
import httpx

from sluice import settings
from sluice.errors import SourceUnavailable
from sluice.readers.places import BLOCK, Info, faults, refused

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class HttpPlace:
    """Files below a URL; folders are the pages that link to them."""

    def __init__(self, conn_id: str, base: str, connection: settings.Connection) -> None:
        for name in ("httpx", "httpcore"):  # they log every URL
            logging.getLogger(name).setLevel(logging.WARNING)
        self._conn_id, self.base = conn_id, base
        self._headers = {"Accept-Encoding": "identity"} | dict(connection.extra.get("headers") or {})
        if bearer := connection.extra.get("bearer"):
            self._headers["Authorization"] = f"Bearer {bearer}"
        self._auth = (connection.login, connection.password) if connection.login else None

    def glob(self, pattern: str) -> list[str]:
        """By the links of the pages that the server shows for folders."""
        headers = dict(self._headers)
        if self._auth:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(self._auth).encode()).decode()
        with faults(self._conn_id):
            pages = fsspec.filesystem(
                "http", headers=headers, use_listings_cache=False, skip_instance_cache=True, same_scheme=True
            )
            return sorted(pages.glob(pattern))

    def stat(self, location: str) -> Info | None:
        """By HEAD where the server knows it; None where there is no such file."""
        with faults(self._conn_id), self._client() as client:
            response = client.head(location)
            if response.status_code in (405, 501):  # no HEAD here: ask for the file, and leave its body unread
                with client.stream("GET", location) as response:
                    return self._info(response)
            return self._info(response)

    def _info(self, response: httpx.Response) -> Info | None:
        if response.status_code in (404, 410):
            return None
        self._must_be_good(response)
        size, modified = response.headers.get("content-length"), response.headers.get("last-modified")
        etag = response.headers.get("etag")
        changed = parsedate_to_datetime(modified).astimezone(UTC) if modified else None
        version = f"{size}-{etag or ''}"  # a page made on request is always new by its time
        return Info(int(size) if size else None, changed, f"{size}-{etag or modified or ''}", version)

    @contextmanager
    def open(self, location: str) -> Iterator[Any]:
        """The body, as it comes."""
        with faults(self._conn_id), self._client() as client, client.stream("GET", location) as response:
            self._must_be_good(response)
            yield _Body(response)

    def _client(self) -> httpx.Client:
        return httpx.Client(headers=self._headers, auth=self._auth, timeout=_TIMEOUT, follow_redirects=True)

    def _must_be_good(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise refused(self._conn_id, f"status {response.status_code}")
        if response.status_code != 200:
            raise SourceUnavailable(f"connection {self._conn_id} answered {response.status_code}; nothing was read")


class _Body:
    """The body of an answer, read like a file."""

    def __init__(self, response: httpx.Response) -> None:
        self._blocks, self._rest = response.iter_raw(BLOCK), b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._blocks, b"")
        block, self._rest = self._rest[:size], self._rest[size:]
        return block
