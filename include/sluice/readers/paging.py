"""Which page comes next, and where in an answer things are. No network here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluice.declarations.rest import Page, Rest

Position = str | int | None
"""Where a page is: its number, its offset, a token, a URL. None: a first page that needs none."""

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s",;]+))?)*)')
_REL = re.compile(r'(?i);\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]+))')


class Malformed(ValueError):
    """An answer lacks what its declaration says is there. The text names the field and holds no value."""


@dataclass(frozen=True)
class Content:
    """What one page holds: its rows, and the totals that it announces."""

    items: list[dict[str, Any]]
    total: int | None
    pages: int | None


def first(page: Page | None) -> Position:
    """Where to begin."""
    return {"number": page.first, "offset": 0}.get(page.by) if page else None


def request(origin: Rest, position: Position, values: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Path and query of the page at `position`; `values` fill the placeholders."""
    page = origin.page
    if page and page.by in ("link", "next_url") and position is not None:
        return str(position), {}  # the server's own URL, with all that belongs to it
    params = {name: value.format(**values) for name, value in origin.params.items()}
    if page and page.size_param and page.size:
        params[page.size_param] = str(page.size)
    if page and position is not None:
        params[page.parameter] = str(position)
    return origin.path.format(**values), params


def content(origin: Rest, body: Any, headers: Mapping[str, str]) -> Content:
    """The rows and totals of an answer. Raises `Malformed`: without them nobody could say whether all was read."""
    items = body if origin.items == "." else find(origin.items, body, headers)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed(f"has no list {origin.items!r} of objects")
    return Content(
        items,
        _whole(origin.total, body, headers) if origin.total else None,
        _whole(origin.page.pages, body, headers) if origin.page and _until(origin) == "pages" else None,
    )


def following(
    origin: Rest, position: Position, this: Content, rows: int, first_count: int, body: Any, headers: Mapping[str, str]
) -> Position:
    """Where the next page is, or None after the last. `rows` have come so far; the first page had `first_count`."""
    page = origin.page
    if page is None or (page.has_more and not _true(page.has_more, body, headers)):
        return None
    if page.by == "link":
        return linked(headers.get("link", ""))
    if page.by in ("cursor", "next_url"):
        return _next(page, this, body, headers)
    assert isinstance(position, int)
    if not this.items and page.has_more:
        raise Malformed(f"says in {page.has_more!r} that more follows, and holds no rows")
    ended = {
        "pages": position - page.first + 1 >= (this.pages or 0),
        "total": not this.items or rows >= (this.total or 0),
        "short": len(this.items) < first_count or not this.items,
        "empty": not this.items,
        None: False,  # has_more has spoken
    }[_until(origin)]
    if ended:
        return None
    return position + 1 if page.by == "number" else rows


def find(where: str, body: Any, headers: Mapping[str, str]) -> Any:
    """The value at `where`: `header:<Name>`, or a path of names in the body. None if it isn't there."""
    if where.startswith("header:"):
        return headers.get(where.removeprefix("header:"))
    for name in where.split("."):
        if not isinstance(body, dict):
            return None
        body = body.get(name)
    return body


def linked(header: str) -> str | None:
    """The target of `rel=next` in a Link header (RFC 8288): relations may be several, and without quotes."""
    for target, parameters in _LINK.findall(header):
        relations = _REL.search(parameters)
        if relations and "next" in (relations[1] or relations[2] or "").lower().split():
            return target
    return None


def _until(origin: Rest) -> str | None:
    """What ends pages by number or offset."""
    page = origin.page
    if page is None or page.has_more or page.by not in ("number", "offset"):
        return None
    return page.until or ("pages" if page.by == "number" else "total" if origin.total else "empty")


def _next(page: Page, this: Content, body: Any, headers: Mapping[str, str]) -> Position:
    assert page.next is not None
    if page.next.startswith("item:"):
        found = this.items[-1].get(page.next.removeprefix("item:")) if this.items else None
        if this.items and found in (None, ""):
            raise Malformed(f"has a last row without {page.next.removeprefix('item:')!r}, which names the next page")
    else:
        found = find(page.next, body, headers)
    if found in (None, "", False):
        return None
    if not isinstance(found, str | int):
        raise Malformed(f"has in {page.next!r} neither text nor a number")
    return str(found)


def _whole(where: str, body: Any, headers: Mapping[str, str]) -> int:
    value = find(where, body, headers)
    if where.startswith("header:") and isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed(f"has in {where!r} no whole number")
    return value


def _true(where: str, body: Any, headers: Mapping[str, str]) -> bool:
    value = find(where, body, headers)
    if where.startswith("header:") and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise Malformed(f"has in {where!r} neither true nor false")
    return value
