"""Every way in which a REST source is paged, and every way to say who we are, against a real server."""

from __future__ import annotations

import base64
import json
import logging
import textwrap
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from sluice.declarations import DeclarationError, Source, load_file
from sluice.errors import BadResponse, SourceRefused, SourceUnavailable
from sluice.readers.base import Read
from sluice.readers.rest import RestReader
from sluice.settings import SettingsError
from tests.loading.server import Answer, Request, Server, serving

SECRET = "s3cret-of-the-api"
ROWS = [{"code": f"C{i}", "rate": i} for i in range(8)]
TABLE = """
rates:
  description: rates
  from:
    rest: {{connection: api, path: /rates, {rest}}}
  mode: full
  key: [code]
  columns:
    code: {{type: text, required: true}}
    rate: {{type: numeric}}
"""


class Kept:
    """A sink that keeps rows in memory: how a source is read needs no warehouse."""

    resumed = None

    def __init__(self) -> None:
        self.landed: list[tuple[int, list[str | None]]] = []

    def create(self, fields: list[str], *, keys: bool = False, keep: bool = False, rest: bool = False) -> None:
        self.landed = []

    def rows(self, rows: Iterable[tuple[int, list[str | None]]]) -> int:
        before = len(self.landed)
        self.landed.extend(rows)
        return len(self.landed) - before

    def checkpoint(self, progress: dict) -> None:
        json.dumps(progress)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def api(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("AIRFLOW_CONN_API", server.url)
    server.asked.clear()
    server.path = tmp_path / "shop.yml"
    return server


def declared(api: Server, rest: str, head: str = "") -> Source:
    text = f"source: shop\ndescription: a test\nowner: tests\n{head}tables:\n"
    api.path.write_text(text + textwrap.indent(TABLE.format(rest=rest), "  "))
    return load_file(api.path)


def read(api: Server, rest: str, head: str = "") -> tuple[list[tuple], Read]:
    """Read the resource once: the rows as they would land, and what the reader says of them."""
    source, sink, reader = declared(api, rest, head), Kept(), RestReader()
    table = source.tables["rates"]
    (unit,) = reader.units(source, table, None, None)
    result = reader.read(source, table, unit, sink)  # type: ignore[arg-type]
    return [(number, *values) for number, values in sink.landed], result


def window(request: Request, size: int = 3) -> tuple[list[dict], int]:
    """The rows that a request asks for, and where they end, from whatever parameter it carries."""
    query = request.query
    start = int(query["offset"]) if "offset" in query else (int(query.get("page", 1)) - 1) * size
    start = int(query.get("cursor", start))
    if "after" in query:
        start = [row["code"] for row in ROWS].index(query["after"]) + 1
    return ROWS[start : start + size], start + size


def by_total(request: Request) -> Answer:
    return 200, {}, {"items": window(request)[0], "total": len(ROWS)}


def plain(request: Request) -> Answer:
    return 200, {}, {"items": window(request)[0]}


def capped(request: Request) -> Answer:
    """However many are asked for, two come."""
    return 200, {}, {"items": window(request, 2)[0]}


def nested(request: Request) -> Answer:
    items, end = window(request)
    return 200, {}, {"data": {"rows": items}, "meta": {"more": end < len(ROWS), "count": len(ROWS)}}


def cursor_in_body(request: Request) -> Answer:
    items, end = window(request)
    return 200, {}, {"items": items, "meta": {"next": end if end < len(ROWS) else None}}


def cursor_in_header(request: Request) -> Answer:
    items, end = window(request)
    return 200, {"X-Next": str(end)} if end < len(ROWS) else {}, {"items": items}


def stripe(request: Request) -> Answer:
    items, end = window(request)
    return 200, {}, {"items": items, "has_more": end < len(ROWS)}


def link_header(request: Request) -> Answer:
    items, end = window(request)
    ahead = f'</rates?offset={end}&x=;>; title="a, b"; rel="last next", ' if end < len(ROWS) else ""
    return 200, {"Link": f'{ahead}</rates?offset=0>; rel="first"'}, items


def next_url(request: Request) -> Answer:
    items, end = window(request)
    return 200, {}, {"items": items, "next": f"?cursor={end}&keep=a%2fb+c~" if end < len(ROWS) else None}


def absolute_next_url(request: Request) -> Answer:
    items, end = window(request)
    here = f"http://{request.headers['host']}/rates"
    return 200, {}, {"items": items, "next": f"{here}?cursor={end}" if end < len(ROWS) else ""}


@pytest.mark.parametrize(
    ("rest", "answer", "requests"),
    [
        ("page: {until: short}", plain, 3),
        ("page: {until: empty}", plain, 4),
        ("page: {until: short, size_param: size, size: 5}", capped, 5),
        ("total: total, page: {until: total}", by_total, 3),
        ("total: total, page: {by: offset}", by_total, 3),
        ("page: {by: offset}", plain, 4),
        ("page: {by: offset, until: empty, size_param: limit, size: 5}", capped, 5),
        ("items: data.rows, total: meta.count, page: {has_more: meta.more}", nested, 3),
        ("items: data.rows, page: {by: offset, has_more: meta.more}", nested, 3),
        ("page: {by: cursor, next: meta.next}", cursor_in_body, 3),
        ("page: {by: cursor, next: 'header:X-Next'}", cursor_in_header, 3),
        ("page: {by: cursor, param: after, next: 'item:code', has_more: has_more}", stripe, 3),
        ("items: ., page: {by: link}", link_header, 3),
        ("page: {by: next_url, next: next}", next_url, 3),
        ("page: {by: next_url, next: next}", absolute_next_url, 3),
    ],
    ids=[
        "short",
        "empty",
        "short, and the server caps the size",
        "total",
        "offset, total",
        "offset, empty",
        "offset, and the server caps the size",
        "has_more, nested",
        "offset, has_more",
        "cursor",
        "cursor in a header",
        "last row",
        "link",
        "next url",
        "absolute next url",
    ],
)
def test_every_kind_of_page_is_read_to_the_last_row_and_not_asked_beyond(
    api: Server, rest: str, answer: object, requests: int
) -> None:
    api.answer = answer  # type: ignore[assignment]
    landed, _ = read(api, rest)
    assert landed == [(n, row["code"], str(row["rate"]), None) for n, row in enumerate(ROWS, start=1)]
    assert len(api.asked) == requests
    if answer is next_url:
        assert api.asked[-1].raw.endswith("&keep=a%2fb+c~"), "a URL of the server's is sent as it came"


@pytest.mark.parametrize(
    ("rest", "answer", "says"),
    [
        ("page: {until: empty}", lambda request: (200, {}, {"items": ROWS[:3]}), "the same rows as the page before"),
        (
            "page: {by: cursor, next: next}",
            lambda r: (
                200,
                {},
                {"items": [r.query], "next": {"a": "b", "b": "c", "c": "a"}.get(r.query.get("cursor"), "a")},
            ),
            "leads back to a page that was read",
        ),
        ("page: {has_more: more}", lambda request: (200, {}, {"items": ROWS, "more": "yes"}), "neither true nor false"),
        ("page: {has_more: more}", lambda request: (200, {}, {"items": [], "more": True}), "holds no rows"),
        (
            "page: {by: link}, items: .",
            lambda r: (200, {"Link": "<http://other.test/x>; rel=next"}, ROWS),
            "was not followed",
        ),
    ],
    ids=["same page", "circle", "has_more is text", "more of nothing", "another server"],
)
def test_pages_that_lead_nowhere_are_noticed(api: Server, rest: str, answer: object, says: str) -> None:
    api.answer = answer  # type: ignore[assignment]
    with pytest.raises(BadResponse, match=says):
        read(api, rest)
    assert len(api.asked) < 10


def test_a_total_that_is_never_reached_ends_and_is_the_control_total(api: Server) -> None:
    api.answer = lambda request: (200, {}, {"items": window(request)[0], "total": 9})
    landed, result = read(api, "total: total, page: {by: offset}")
    assert (len(landed), result.control_total) == (8, 9), "the audit compares them"


def test_the_content_of_a_unit_is_the_same_when_it_is_read_again_and_another_when_a_value_is(api: Server) -> None:
    api.answer = plain
    (_, first), (_, again) = read(api, "page: {until: short}"), read(api, "page: {until: short}")
    api.answer = lambda request: (200, {}, {"items": [row | {"rate": 9} for row in window(request)[0]]})
    _, other = read(api, "page: {until: short}")
    assert first.content_hash == again.content_hash != other.content_hash


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("params: {api_key: x}", "is a secret, which belongs into the connection's password"),
        ("page: {by: cursor}", "next says where a cursor"),
        ("page: {by: link, until: short}", "until is for pages by number or offset"),
        ("page: {by: offset, until: total}", "needs the field total"),
        ("rate: fast", "a rate is a whole number of requests"),
        ("auth: {kind: oauth2}", "belong together"),
    ],
)
def test_a_declaration_that_can_not_work_is_refused(api: Server, rest: str, says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        declared(api, rest)


# -- who we are ---------------------------------------------------------------------------------


def connect(monkeypatch: pytest.MonkeyPatch, api: Server, login: str = "me", password: str = SECRET) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_API", f"http://{login}:{password}@127.0.0.1:{api.port}")


@pytest.mark.parametrize(
    ("rest", "where", "expected"),
    [
        ("auth: {kind: api_key}", "x-api-key", SECRET),
        ("auth: {kind: api_key, header: X-Token}", "x-token", SECRET),
        ("auth: {kind: api_key, query: key}", "key", SECRET),
        ("auth: {kind: bearer}", "authorization", f"Bearer {SECRET}"),
        ("auth: {kind: basic}", "authorization", "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()),
        ("items: items", "authorization", "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()),
    ],
    ids=["key", "own header", "query", "bearer", "basic", "a login is basic"],
)
def test_the_secret_of_the_connection_goes_where_the_declaration_says_and_nowhere_else(
    api: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rest: str,
    where: str,
    expected: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    connect(monkeypatch, api)
    api.answer = lambda request: (
        (200, {}, {"items": ROWS})
        if {**request.headers, **request.query}.get(where) == expected
        else (200, {}, {"you sent": dict(request.headers), "and": request.query, "Authorization": "Bearer abcdef"})
    )
    assert len(read(api, rest)[0]) == 8
    assert SECRET not in caplog.text

    api.answer = lambda request: (200, {}, {"you sent": request.headers, "and": request.query, "x": "Bearer abcdef"})
    with pytest.raises(BadResponse) as error:
        read(api, rest)
    kept = error.value.body.decode()
    assert "you sent" in kept
    assert "[redacted]" in kept
    for text in (kept, str(error.value), repr(error.value), caplog.text):
        assert SECRET not in text
        assert expected not in text
        assert "abcdef" not in text


def test_E20_credentials_that_are_refused_fail_at_once_and_name_the_connection(
    api: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, api)
    for status in (401, 403):
        api.asked.clear()
        api.answer = lambda request, status=status: (status, {}, {"error": f"no, {SECRET} is revoked"})
        with pytest.raises(SourceRefused, match="credentials of connection api") as error:
            read(api, "auth: {kind: bearer}")
        assert len(api.asked) == 1
        assert not error.value.retryable
        assert SECRET not in str(error.value)


def test_a_declared_secret_that_the_connection_does_not_hold_is_said_before_anything_is_asked(api: Server) -> None:
    with pytest.raises(SettingsError, match="has no password"):
        read(api, "auth: {kind: bearer}")
    assert api.asked == []


class Oauth:
    """A token endpoint and a resource that takes its tokens."""

    def __init__(self, expires_in: int | None = 3600) -> None:
        self.expires_in, self.issued, self.valid = expires_in, 0, ""
        self.revoke_before: set[str] = set()
        self.token_status: list[int] = []

    def __call__(self, request: Request) -> Answer:
        if request.path == "/token":
            if self.token_status:
                return self.token_status.pop(0), {}, {"error": "x"}
            self.issued += 1
            self.valid, self.form = f"token-{self.issued}", request.body
            self.basic = request.headers.get("authorization", "")
            lifetime = {} if self.expires_in is None else {"expires_in": self.expires_in}
            return 200, {}, {"access_token": self.valid, "token_type": "Bearer", **lifetime}
        if request.query["page"] in self.revoke_before:
            self.revoke_before.remove(request.query["page"])
            self.valid = ""
        if request.headers.get("authorization") != f"Bearer {self.valid}":
            return 401, {}, {"error": "invalid_token"}
        return 200, {}, {"items": window(request)[0]}


OAUTH = "auth: {kind: oauth2, token_url: /token, scope: read}, page: {until: short}"


def test_oauth2_asks_for_one_token_and_sends_the_client_as_declared(
    api: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, api)
    api.answer = oauth = Oauth()
    assert len(read(api, OAUTH)[0]) == 8
    assert oauth.issued == 1
    assert oauth.form == "grant_type=client_credentials&scope=read"
    assert oauth.basic == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    read(api, OAUTH.replace("scope: read", "client_in_body: true"))
    assert oauth.form == f"grant_type=client_credentials&client_id=me&client_secret={SECRET}"
    assert oauth.basic == ""


def test_oauth2_a_token_that_expires_or_is_revoked_is_replaced_once(
    api: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, api)
    api.answer = oauth = Oauth(expires_in=None)
    oauth.revoke_before = {"2"}
    assert len(read(api, OAUTH)[0]) == 8
    assert oauth.issued == 2
    api.answer = oauth = Oauth(expires_in=20)  # gone before it could be used twice
    assert len(read(api, OAUTH)[0]) == 8
    assert oauth.issued == 3
    api.answer = lambda request: (200, {}, {"access_token": "t"}) if request.path == "/token" else (401, {}, {})
    api.asked.clear()
    with pytest.raises(SourceRefused):
        read(api, OAUTH)
    assert [request.path for request in api.asked] == ["/token", "/rates"], "a fresh token is not replaced"


def test_oauth2_a_token_endpoint_that_refuses_is_named_and_one_that_is_down_is_waited_for(
    api: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, api)
    api.answer = oauth = Oauth()
    oauth.token_status = [503]
    assert len(read(api, OAUTH)[0]) == 8
    api.asked.clear()
    oauth.token_status = [400]
    with pytest.raises(SourceRefused, match="the token endpoint of connection api gave no token") as error:
        read(api, OAUTH)
    assert len(api.asked) == 1
    assert SECRET not in str(error.value)


# -- how fast, how long -------------------------------------------------------------------------


def test_requests_keep_to_the_declared_rate_shared_by_the_tasks_of_the_connection(api: Server) -> None:
    api.answer = plain
    read(api, "rate: 20/s, page: {until: short}", head="at_once: {api: 2}\n")
    first, _, last = (request.at for request in api.asked)
    assert last - first > 0.15, "two tasks share 20 a second, so each asks every 100 ms at most"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_E11_retry_after_is_honoured_in_both_forms(api: Server, form: str) -> None:
    storm = iter([429])

    def answer(request: Request) -> Answer:
        if status := next(storm, None):
            when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 s
            return status, {"Retry-After": "1" if form == "seconds" else when}, {}
        return 200, {}, {"items": ROWS}

    api.answer = answer
    read(api, "items: items")
    first, second = (request.at for request in api.asked)
    assert second - first > 0.95


def test_E11_a_wait_that_is_too_long_is_not_begun(api: Server) -> None:
    api.answer = lambda request: (503, {"Retry-After": "3600"}, {})
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="status 503 after 1 tries and asks to wait 3600 s"):
        read(api, "items: items")
    assert time.monotonic() - began < 60


def test_E11_all_tries_together_are_bounded_in_time(api: Server) -> None:
    api.answer = lambda request: (503, {}, {})
    with pytest.raises(SourceUnavailable, match="status 503"):
        read(api, "give_up_after: 2s")
    assert 1 < len(api.asked) < 7, "without the bound it would be tried six times more"
