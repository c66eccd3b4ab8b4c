"""A JSON resource over HTTP: how it is paged, who we are to it, and how hard it may be asked."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sluice.declarations.base import Declared, Duration, Name

_RATE = re.compile(r"^\s*(\d+)\s*/\s*(s|m|h)\s*$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SECRET = re.compile(r"(?i)^(api[-_]?key|access[-_]?token|client[-_]?secret|secret|password|authorization)$")
_WHERE = "a path of names in the body (meta.next), or header:<Name>"


def _rate(value: Any) -> str:
    """Check '5/s', '120/m', '1000/h'."""
    found = _RATE.match(str(value))
    if not found or int(found[1]) == 0:
        raise ValueError("a rate is a whole number of requests, a slash and one of s, m, h, such as 5/s or 120/m")
    return str(value)


class Page(Declared):
    """How a resource is read in pages, and how its last page is known."""

    by: Literal["number", "offset", "cursor", "link", "next_url"] = Field(
        default="number",
        description="number: 1, 2, …; offset: rows so far; cursor: a token that the page before gave; link: the header "
        "Link with rel=next; next_url: a URL that the page before gave",
    )
    param: str | None = Field(
        default=None, description="Query parameter of the number, offset or cursor; by default page, offset or cursor"
    )
    first: int = Field(default=1, ge=0, description="Number of the first page")
    size_param: str | None = Field(default=None, description="Query parameter of the page's size")
    size: int | None = Field(
        default=None, ge=1, description="Rows to ask for; offset goes by rows that came, not by it"
    )
    next: str | None = Field(
        default=None, description=f"cursor, next_url: where the next one is: {_WHERE}, or item:<field> of the last row"
    )
    until: Literal["pages", "total", "short", "empty"] | None = Field(
        default=None,
        description="number, offset: the last page is the one named by the field `pages`, that which completes "
        "`total`, one with fewer rows than the first, or the one before an empty one. By default pages for number; for "
        "offset total where it is declared, else empty",
    )
    pages: str = Field(default="pages", description=f"Where the number of pages is: {_WHERE}")
    has_more: str | None = Field(default=None, description=f"Where true or false says if more follows: {_WHERE}")

    @model_validator(mode="after")
    def _consistent(self) -> Page:
        if (self.by in ("cursor", "next_url")) != (self.next is not None):
            raise ValueError("next says where a cursor or a next_url is; give it with those, and only with those")
        if self.until and (self.by not in ("number", "offset") or self.has_more):
            raise ValueError("until is for pages by number or offset without has_more; the others end by themselves")
        return self

    @property
    def parameter(self) -> str:
        """The query parameter that says which page."""
        return self.param or ("page" if self.by == "number" else self.by)


class Auth(Declared):
    """Who we are. The secret is always the connection's password, and the user or client its login."""

    kind: Literal["basic", "bearer", "api_key", "oauth2"] = Field(
        description="oauth2: client credentials, with login and password as the client's id and secret"
    )
    header: str | None = Field(default=None, description="api_key: the header that carries it; X-API-Key by default")
    query: str | None = Field(default=None, description="api_key: the query parameter that carries it, instead")
    token_url: str | None = Field(default=None, description="oauth2: path or URL of the token endpoint")
    scope: str | None = Field(default=None, description="oauth2: scopes to ask for, with spaces between")
    client_in_body: bool = Field(default=False, description="oauth2: send id and secret in the body, not as basic auth")

    @model_validator(mode="after")
    def _consistent(self) -> Auth:
        if (self.header or self.query) and (self.kind != "api_key" or (self.header and self.query)):
            raise ValueError("header or query, one of them, says how an api_key is sent")
        if (self.kind == "oauth2") != (self.token_url is not None):
            raise ValueError("kind oauth2 and the field token_url belong together")
        return self


class Rest(Declared):
    """A JSON resource over HTTP."""

    connection: Name = Field(description="Id of the connection to the service")
    path: str = Field(description="Path of the resource below the connection's address; {date} makes one unit per day")
    params: dict[str, str] = Field(default_factory=dict, description="Query parameters; {date} makes one unit per day")
    items: str = Field(
        default="items", description="Where the rows are: a path of names in the body (data.orders), or . for all of it"
    )
    total: str | None = Field(
        default=None, description=f"Where the row count is, which becomes the control total: {_WHERE}"
    )
    page: Page | None = Field(default=None, description="How the resource is paged; without it, one answer is all")
    auth: Auth | None = Field(
        default=None,
        description="Without it: basic if the connection has a login; headers of its extra are always sent",
    )
    rate: Annotated[str, BeforeValidator(_rate)] | None = Field(
        default=None, description="Requests that the connection allows, such as 5/s or 120/m; its tasks share them"
    )
    retries: int = Field(
        default=6, ge=0, le=20, description="Tries after the first, for 429, 5xx and broken connections"
    )
    give_up_after: Duration = Field(
        default=timedelta(minutes=5), description="How long one page may take, with all tries and waits"
    )
    resume_within: Duration = Field(
        default=timedelta(hours=1),
        description="How old the pages of a failed attempt may be for the next attempt to go on after them; 0s: never",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Rest:
        if secret := next((name for name in self.params if _SECRET.match(name)), None):
            raise ValueError(
                f"params.{secret} is a secret, which belongs into the connection's password; say how it is sent with "
                f"auth: {{kind: api_key, query: {secret}}}"
            )
        if self.page and self.page.until == "total" and not self.total:
            raise ValueError("page.until: total needs the field total")
        return self

    @property
    def seconds_between(self) -> float:
        """Seconds from one request to the next that `rate` asks for; 0 without one."""
        found = _RATE.match(self.rate or "")
        return _SECONDS[found[2]] / int(found[1]) if found else 0.0
