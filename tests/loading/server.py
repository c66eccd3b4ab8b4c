"""A real HTTP server whose answers a test decides, and which remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, dict[str, str], object]  # status, headers, body: bytes, or something to write as JSON


@dataclass
class Request:
    """What the server was asked."""

    method: str
    raw: str  # path and query as they came
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str
    at: float


@dataclass
class Server:
    """Answers with what the test says."""

    port: int = 0
    asked: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda request: (200, {}, {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pages(self, parameter: str = "page") -> list[str | None]:
        """The value of a query parameter in each request for data."""
        return [request.query.get(parameter) for request in self.asked if request.method == "GET"]


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread of this process."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            request = Request(
                self.command,
                self.path,
                parts.path,
                dict(parse_qsl(parts.query)),
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length).decode(),
                time.monotonic(),
            )
            server.asked.append(request)
            status, headers, body = server.answer(request)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = http.server_port
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
