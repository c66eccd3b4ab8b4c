"""A REST source that misbehaves: a real local server, and no unit that is only half read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from sluice.errors import SourceUnavailable
from tests.loading.conftest import World

RATES = """
rates:
  description: rates
  from:
    rest: {connection: api, path: /rates, total: total, retries: 2, page: {param: page, size_param: size, size: 3}}
  mode: full
  key: [code]
  columns:
    code: {type: text, required: true}
    rate: {type: numeric}
    extra: {type: jsonb}
"""
Answer = tuple[int, dict[str, str], object]


class Api:
    """Answers with what the test says; remembers what was asked."""

    def __init__(self) -> None:
        self.rows = [{"code": f"C{i}", "rate": i} for i in range(8)]
        self.asked: list[int] = []
        self.answer: Callable[[int], Answer | None] = lambda page: None

    def page(self, number: int) -> Answer:
        self.asked.append(number)
        rows = self.rows[(number - 1) * 3 : number * 3]
        body = {"items": rows, "total": len(self.rows), "pages": -(-len(self.rows) // 3)}
        return self.answer(number) or (200, {}, body)


@pytest.fixture
def api(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = made.page(int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0]))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AIRFLOW_CONN_API", f"http://127.0.0.1:{server.server_port}")
    world.declare(RATES)
    yield made
    server.shutdown()
    server.server_close()


def test_every_page_is_read_and_the_last_one_too(world: World, api: Api) -> None:
    (published,) = world.load("rates")
    assert published.rows_applied == 8
    assert api.asked == [1, 2, 3]


def test_E11_a_storm_of_429_and_503_is_waited_out(world: World, api: Api) -> None:
    storm = iter([(429, {"Retry-After": "0"}, {}), (503, {}, {})])
    api.answer = lambda page: next(storm, None) if page == 2 else None
    assert world.load("rates")[0].rows_applied == 8


def test_E11_a_source_that_stays_down_commits_nothing(world: World, api: Api) -> None:
    api.answer = lambda page: (503, {}, {}) if page == 3 else None
    with pytest.raises(SourceUnavailable, match=r"status 503 after 3 tries; the whole unit was left unread"):
        world.load("rates")
    assert world.query("select state from ops.batch") == [("abandoned",)]
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"content-type": "text/html"}, b"<html>maintenance</html>"),
        (200, {}, b'{"items": [{"code"'),
        (200, {}, {"error": "no"}),
        (200, {}, {"items": [], "total": "8", "pages": 3}),
        (200, {}, {"items": [], "total": 8}),
        (404, {}, {"error": "gone"}),
    ],
    ids=["html", "truncated", "no items", "total is text", "no pages", "404"],
)
def test_E13_an_answer_that_is_no_data_fails_the_unit_as_a_whole(world: World, api: Api, answer: Answer) -> None:
    api.answer = lambda page: answer if page == 2 else None
    with pytest.raises(SourceUnavailable, match="left unread"):
        world.load("rates")


def test_rows_that_move_between_pages_are_noticed(world: World, api: Api) -> None:
    def lose_one(page: int) -> None:
        if page == 2:
            api.rows.pop(0)

    api.answer = lose_one  # type: ignore[assignment]
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        world.load("rates")


def test_numbers_keep_their_digits(world: World, api: Api) -> None:
    api.rows = []
    body = b'{"total": 1, "pages": 1, "items": [{"code": "A", "rate": 12345678901234567.890, "extra": {"x": 0.10}}]}'
    api.answer = lambda page: (200, {}, body)
    world.load("rates")
    assert world.query("select rate::text, extra::text from staging.shop__rates") == [
        ("12345678901234567.890", '{"x": 0.10}')
    ]
