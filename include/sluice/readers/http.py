"""HTTP as a source speaks it: who we are to it, how fast we ask, how long we try.

Secrets come from the connection. They are in no message, no log and no dead letter.
"""

from __future__ import annotations

import base64
import logging
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from sluice import settings
from sluice.declarations.rest import Auth, Rest
from sluice.errors import BadResponse, SourceRefused, SourceUnavailable

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 60.0  # seconds between tries, where the server names none
_LARGEST_PAGE = 256 << 20  # bytes; a page is held in memory
_DEAD_LETTER = 16 << 10  # bytes of a body that are kept
_EXPIRY_MARGIN = 30.0  # seconds; a token that expires on its way is of no use
_SHORTEST_SECRET = 4  # characters; a shorter one would black out half a text
_LOOKS_SECRET = re.compile(
    rb"""(?i)((?:bearer|basic)\s+|["']?(?:access_token|refresh_token|client_secret|password|api_?key)["']?\s*[:=]\s*["']?)"""
    rb"""[^\s"'&,<>}]+"""
)


@dataclass(frozen=True)
class Answer:
    """A 200: its whole body and its headers."""

    body: bytes
    headers: httpx.Headers
    url: httpx.URL


class PageGone(BadResponse):
    """The server no longer knows the page that it named itself: its cursor has expired."""


class Session:
    """One task's talk with the server of a connection."""

    def __init__(self, origin: Rest, *, at_once: int = 1) -> None:
        """`at_once` tasks may read from the connection; each takes its share of the declared rate."""
        # httpx logs every URL, and a key may be in it
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._origin = origin
        self._connection = settings.connection(origin.connection)
        self._between = origin.seconds_between * at_once
        self._auth = _auth(origin, self._connection)
        self._client = httpx.Client(
            base_url=_base_url(self._connection),
            headers=self._connection.extra.get("headers") or {},
            auth=self._auth,
            timeout=_TIMEOUT,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def bare(self, url: httpx.URL) -> str:
        """A URL as it may be kept in the ledger: without our key, which is sent anew with each request."""
        declared = self._origin.auth
        return str(url.copy_remove_param(declared.query) if declared and declared.query else url)

    def answers(self) -> None:
        """Whether anybody is there. An error status is an answer too; reading will deal with it."""
        try:
            self._client.get("", auth=None, timeout=10.0)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceUnavailable(
                f"connection {self._origin.connection} does not answer ({type(error).__name__})",
                kind=type(error).__name__,
            ) from None

    def ask_once(self, path: str) -> tuple[int, bytes]:
        """The status and the body of one request, without another try."""
        status, answer = self._ask(self._within(path), {})
        return status, answer.body

    def get(self, path: str, params: dict[str, str], *, page: int = 1, named_by_server: bool = False) -> Answer:
        """One page. 429, 5xx and broken connections are tried again, later each time, within `give_up_after`."""
        url = self._within(path)
        where = f"{url.path} at connection {self._origin.connection}"
        until = time.monotonic() + self._origin.give_up_after.total_seconds()
        tries = 0
        while True:
            tries += 1
            _pace(self._origin.connection, self._between)
            try:
                status, answer = self._ask(url, params)
            except _TooLarge:
                raise BadResponse(
                    f"{where}: page {page} is larger than {_LARGEST_PAGE >> 20} MiB; nothing was published. "
                    "Declare pages",
                    page=page,
                ) from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem, asked_wait = _named(error), 0.0
            else:
                if status == 200:
                    return answer
                if status in (401, 403):
                    raise SourceRefused(
                        f"{where} answered {status}: check the credentials of connection {self._origin.connection}. "
                        "Nothing was published, and it is not tried again"
                    )
                problem, asked_wait = f"status {status}", _retry_after(answer.headers)
                if status != 429 and status < 500:
                    kind = PageGone if named_by_server and status in (400, 404, 410, 422) else BadResponse
                    raise kind(
                        f"{where} answered {status} for page {page}; nothing was published",
                        body=self.dead_letter(answer.body),
                        page=page,
                        kind=problem,
                    )
            wait = max(min(_LONGEST_WAIT, _FIRST_WAIT * 2**tries) * random.uniform(0.5, 1.0), asked_wait)
            if tries > self._origin.retries or time.monotonic() + wait > until:
                asked = f" and asks to wait {asked_wait:.0f} s" if asked_wait else ""
                raise SourceUnavailable(
                    f"{where} gave {problem} after {tries} tries{asked}; page {page} is missing, and nothing "
                    "was published",
                    kind=problem,
                )
            time.sleep(wait)

    def dead_letter(self, body: bytes) -> bytes:
        """A body as it may be kept: the beginning of it, without anything that looks like a secret."""
        body = body[: 2 * _DEAD_LETTER]
        for secret in self._secrets():
            body = body.replace(secret, b"[redacted]")
        return _LOOKS_SECRET.sub(rb"\1[redacted]", body)[:_DEAD_LETTER]

    def _secrets(self) -> list[bytes]:
        """Every secret that we know, in the forms in which it travels; the longest first: one may hold another."""
        known = self._connection
        values = [known.password, *(known.extra.get("headers") or {}).values()]
        if isinstance(self._auth, _ClientCredentials):
            values.append(self._auth.token)
        forms = {str(value).encode() for value in values}
        forms.add(base64.b64encode(f"{known.login}:{known.password}".encode()))
        return sorted((form for form in forms if len(form) >= _SHORTEST_SECRET), key=len, reverse=True)

    def _within(self, path: str) -> httpx.URL:
        """The absolute URL; one that leads to another server would carry our secret there."""
        base = self._client.base_url
        url = httpx.URL(path) if path.startswith(("http:", "https:")) else base.join(f"{base.path}{path.lstrip('/')}")
        if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
            here, there = (f"{u.scheme}://{u.host}{f':{u.port}' if u.port else ''}" for u in (base, url))
            raise BadResponse(
                f"connection {self._origin.connection} leads to {here}, and its next page to {there}; it was "
                "not followed, since the credentials are for the first only. Nothing was published"
            )
        return url

    def _ask(self, url: httpx.URL, params: dict[str, str]) -> tuple[int, Answer]:
        """One request, its body read up to the limit."""
        # a URL that the server gave may be signed: it is sent as it came
        with self._client.stream("GET", url.copy_merge_params(params) if params else url) as response:
            blocks, size = [], 0
            for block in response.iter_bytes():
                size += len(block)
                if size > _LARGEST_PAGE:
                    raise _TooLarge
                blocks.append(block)
            return response.status_code, Answer(b"".join(blocks), response.headers, url)


class _TooLarge(Exception):
    """More than a page may be."""


# -- who we are ---------------------------------------------------------------------------------


def base_url(conn_id: str) -> str:
    """Where a connection leads; no secret is in it."""
    return str(httpx.URL(_base_url(settings.connection(conn_id))).copy_with(userinfo=b"", query=None))


def _base_url(connection: settings.Connection) -> str:
    return str(connection.extra.get("base_url") or "") or (
        f"{connection.scheme if connection.scheme in ('http', 'https') else 'https'}://{connection.host}"
        f"{f':{connection.port}' if connection.port else ''}{connection.path}"
    )


def _auth(origin: Rest, connection: settings.Connection) -> httpx.Auth | None:
    """The declared way to say who we are, with the connection's secret."""
    declared = origin.auth or (Auth(kind="basic") if connection.login else None)
    if declared is None:
        return None
    if not connection.password and declared.kind != "basic":
        raise settings.SettingsError(
            f"the connection {origin.connection!r} has no password, and the {declared.kind} of {origin.path} is kept "
            "there; nothing was read"
        )
    match declared.kind:
        case "basic":
            return httpx.BasicAuth(connection.login, connection.password)
        case "bearer":
            return _Sent("Authorization", f"Bearer {connection.password}")
        case "api_key" if declared.query:
            return _SentInQuery(declared.query, connection.password)
        case "api_key":
            return _Sent(declared.header or "X-API-Key", connection.password)
        case _:
            return _ClientCredentials(declared, connection, origin.connection)


class _Sent(httpx.Auth):
    """A secret in a header."""

    def __init__(self, header: str, value: str) -> None:
        self._header, self._value = header, value

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._header] = self._value
        yield request


class _SentInQuery(httpx.Auth):
    """A secret in the query."""

    def __init__(self, parameter: str, value: str) -> None:
        self._parameter, self._value = parameter, value

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.url = request.url.copy_set_param(self._parameter, self._value)
        yield request


class _ClientCredentials(httpx.Auth):
    """OAuth 2.0 client credentials (RFC 6749, 4.4): a token before the first page, and one more after a 401."""

    requires_response_body = False

    def __init__(self, declared: Auth, connection: settings.Connection, conn_id: str) -> None:
        self._declared, self._connection, self._conn_id = declared, connection, conn_id
        self.token, self._expires = "", 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        fresh = not self.token or time.monotonic() > self._expires
        if fresh:
            self._keep((yield self._token_request()))
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401 and not fresh:  # revoked before its time; a fresh one that is refused stays so
            self._keep((yield self._token_request()))
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request

    def _token_request(self) -> httpx.Request:
        who = (self._connection.login, self._connection.password)
        data = {"grant_type": "client_credentials"}
        if self._declared.scope:
            data["scope"] = self._declared.scope
        headers = {"Accept": "application/json"}
        if self._declared.client_in_body:
            data |= {"client_id": who[0], "client_secret": who[1]}
        else:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(who).encode()).decode()
        url = httpx.URL(_base_url(self._connection)).join(self._declared.token_url or "")
        return httpx.Request("POST", url, data=data, headers=headers)

    def _keep(self, response: httpx.Response) -> None:
        response.read()
        where = f"the token endpoint of connection {self._conn_id}"
        if response.status_code == 429 or response.status_code >= 500:
            raise _TokenUnavailable(f"status {response.status_code} of {where}")
        try:
            body = response.json() if response.status_code == 200 else {}
            self.token = str(body["access_token"])
            self._expires = time.monotonic() + float(body.get("expires_in") or 1e9) - _EXPIRY_MARGIN
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SourceRefused(
                f"{where} gave no token but status {response.status_code}: check the credentials of connection "
                f"{self._conn_id}. Nothing was published, and it is not tried again"
            ) from None


class _TokenUnavailable(httpx.HTTPError):
    """The token endpoint is down; its text holds no secret."""


def _named(error: Exception) -> str:
    """What broke, without the URL that httpx's own texts may hold."""
    return str(error) if isinstance(error, _TokenUnavailable) else type(error).__name__


# -- how fast, how long -------------------------------------------------------------------------

_turns: dict[str, float] = defaultdict(float)  # per connection: when the next request may go out
_turn = threading.Lock()


def _pace(conn_id: str, between: float) -> None:
    """Wait for our turn: requests of one process to one connection go out evenly."""
    if not between:
        return
    with _turn:
        now = time.monotonic()
        mine = max(now, _turns[conn_id])
        _turns[conn_id] = mine + between
    time.sleep(mine - now)


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds to wait, from either form of the header; 0 without one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
