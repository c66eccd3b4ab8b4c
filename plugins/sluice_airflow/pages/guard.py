"""What every answer and every change carries: headers that keep a page to itself, and a token against forged forms."""

import hashlib
import hmac
import time

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TOKEN_SECONDS = 12 * 3600
PAGES = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
# dbt's and Great Expectations' own pages: scripts and styles inside the file, no other host, no form, no way to our API
DOCUMENTS = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox allow-scripts"
)


DATA_DOCS = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


class Headers:
    """Sets the headers of every answer; an answer that has a policy already keeps it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add to the answer."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                for name, value in (
                    (b"content-security-policy", PAGES.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"same-origin"),
                    (b"cache-control", b"no-store"),
                ):
                    if name not in names:
                        message["headers"].append((name, value))
            await send(message)

        await self._app(scope, receive, sending)


class Tokens:
    """Tokens that only we can make, for one person and twelve hours: a form of another site has none."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"sluice.pages.csrf\0" + secret.encode()).digest()

    def make(self, name: str) -> str:
        """A token for a form that this person is shown."""
        stamp = str(int(time.time()))
        return f"{stamp}.{self._sign(name, stamp)}"

    def check(self, request: Request, name: str, token: str | None) -> None:
        """Raise 403 unless one of our forms asks. A bearer token is no cookie: no browser sends it unasked."""
        if request.headers.get("authorization", "").lower().startswith("bearer "):
            return
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise HTTPException(403, "the form came from another site; nothing was changed")
        stamp, _, signature = (token or "").partition(".")
        fresh = stamp.isdecimal() and len(stamp) < 12 and time.time() - int(stamp) < _TOKEN_SECONDS
        if not fresh or not hmac.compare_digest(signature.encode(), self._sign(name, stamp).encode()):
            raise HTTPException(403, "the form is too old or not ours; nothing was changed. Open the page again")

    def _sign(self, name: str, stamp: str) -> str:
        return hmac.new(self._key, f"{name}\0{stamp}".encode(), hashlib.sha256).hexdigest()
