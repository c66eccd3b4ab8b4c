"""Real servers that take messages: SMTP, and a webhook that can be told to refuse."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sluice.alerts import channels
from tests.watch.conftest import exporting, world  # noqa: F401


class Hook:
    """A webhook on this machine: keeps what it was sent, and answers with `status`."""

    def __init__(self) -> None:
        self.status, self.got, self.pause = 200, [], 0.0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(hook.pause)
                if hook.status == 200:
                    hook.got.append({"path": self.path, **body})
                self.send_response(hook.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """As apprise names it."""
        return f"json://127.0.0.1:{self.port}/hook"

    def titles(self) -> list[str]:
        return [message["title"] for message in self.got]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """The only channel beside the log."""
    made = Hook()
    monkeypatch.setenv(f"{channels.PREFIX}HOOK", made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


class Mail:
    """What a real SMTP server on this machine was given."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        from email import message_from_bytes, policy

        self.got.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[attr-defined, arg-type]
        return "250 taken"


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    """An SMTP server as the channel `mail`."""
    from aiosmtpd.controller import Controller

    from sluice.runtime.ports import free_port

    taken = Mail()
    controller = Controller(taken, hostname="127.0.0.1", port=free_port())
    controller.start()
    monkeypatch.setenv(
        f"{channels.PREFIX}MAIL",
        f"mailto://127.0.0.1:{controller.port}?from=sluice@example.org&to=oncall@example.org&mode=insecure",
    )
    yield taken
    controller.stop()
