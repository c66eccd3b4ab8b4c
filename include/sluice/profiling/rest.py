"""Profile a JSON resource: where its rows are, how it is paged, and what they hold."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from sluice.declarations.model import Rest
from sluice.errors import SluiceError
from sluice.profiling.files import lists_of_objects, rows_of_objects
from sluice.profiling.http import Service
from sluice.profiling.names import sanitise, spelt_out
from sluice.profiling.places import Place, with_placeholders
from sluice.profiling.profile import Bounds, TableProfile, Wishes, columns_of, key_of, require_key

_PAGES = ("pages", "total_pages", "page_count", "last_page", "totalPages", "pageCount", "num_pages")
_TOTAL = ("total", "total_count", "count", "total_items", "totalCount", "totalItems", "total_results")
_SIZES = ("per_page", "page_size", "limit", "size", "pageSize", "perPage")
_ABOUT_PAGES = ("meta", "pagination", "paging", "page", "page_info", "meta.pagination")
_NEXT = ("next", "next_url", "links.next", "_links.next", "paging.next", "meta.next", "pagination.next")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SECRET = re.compile(r"(?i)(api[-_]?key|token|secret|password|authorization|signature)")
_BY_HAND = "Declare it by hand: docs/reference/declarations.md. Nothing was written"


@dataclass
class _Found:
    """What the first answers said."""

    origin: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = True
    assumed: list[str] = field(default_factory=list)
    start: str = ""


def profile_resource(place: Place, name: str, wishes: Wishes, bounds: Bounds) -> TableProfile:
    """Profile the resource at the place's path."""
    if wishes.mode == "cursor":
        raise SluiceError(
            "mode cursor reads from a database; a resource is full, or append by day. Nothing was written"
        )
    parts = urlsplit(place.path)
    asked = {key: value for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "page"}
    if secret := next((key for key in asked if _SECRET.search(key)), None):
        raise SluiceError(
            f"the parameter {secret} looks like a secret, and a declaration holds none: put it into the connection, "
            "as a header in its extra or as its password, and leave it out of the address. Nothing was written"
        )
    path = "/" + parts.path.lstrip("/")
    with Service(place.connection, bounds.seconds) as service:
        found = _read(service, path, asked, bounds)
    table = name or sanitise(re.sub(r"\{.*?\}", "", with_placeholders(path)).rstrip("/").rsplit("/", 1)[-1])
    fields, rows, quoted = rows_of_objects(found.items)
    columns = columns_of(fields, rows, wishes, quoted=quoted)
    seen = f"{'all' if found.whole else 'the first'} {len(rows):,} rows"
    key = key_of(table, columns, rows, wishes, found.assumed, seen)
    require_key(columns, key)
    mode = wishes.mode or ("append" if found.start else "full")
    why = (
        "one reading for each day, which says what happened then" if found.start else "the resource as it is when read"
    )
    found.assumed.append(f"mode {mode}: {'as asked' if wishes.mode else why}")
    origin = {"connection": place.connection} | found.origin
    Rest.model_validate(origin)
    where = f"{path} at {place.connection}"
    return TableProfile(
        table,
        {"rest": origin},
        columns,
        key,
        mode,
        len(rows),
        found.whole,
        f"{spelt_out(table)}, as {with_placeholders(path)} at {place.connection} states them.",
        where,
        assumed=found.assumed,
        start=found.start,
    )


def _read(service: Service, path: str, asked: dict[str, str], bounds: Bounds) -> _Found:
    """Ask for the first page, find rows and paging in it, and try the next ones."""
    body, headers = service.get(path, asked)
    items = _items(body, path)
    found = _Found({"path": with_placeholders(path)}, list(_at(body, items)))
    if not found.items:
        raise SluiceError(f"{path} gave no rows, so nothing can be said of its columns; nothing was written")
    if dates := _DATE.findall(" ".join([*asked.values(), path])):
        found.start = dates[0]
        found.assumed.append("{date}: the date in the address is asked for day by day")
    if params := {key: with_placeholders(value) for key, value in asked.items() if key not in _SIZES}:
        found.origin["params"] = params
    if items != "items":
        found.origin["items"] = items
    total, pages = _number(body, _TOTAL), _number(body, _PAGES)
    if total:
        found.origin["total"] = total
    size = next((name for name in _SIZES if name in asked or (isinstance(body, dict) and name in body)), None)
    if pages:
        found.origin["page"] = (
            {"param": "page"} | _size(size, asked, body) | ({} if pages == "pages" else {"pages": pages})
        )
        _read_on(service, path, asked, found, items, _at(body, pages), bounds)
    elif follow := _leads_by(body, headers):
        found.origin["page"] = follow | _size(size, asked, body)
        _follow(service, body, headers, found, items, bounds)
    elif (total and _at(body, total) > len(found.items)) or _leads_on(body):
        raise SluiceError(
            f"{path} gave {len(found.items)} rows and says that there are more, but neither a number of pages nor the "
            f"address of the next one, by which it could be paged. {_BY_HAND}, or ask for all at once (?per_page=…)"
        )
    else:
        found.assumed.append(f"no pages: all {len(found.items):,} rows came at once, and nothing speaks of more")
    return found


def _at(body: Any, path: str) -> Any:
    """What stands at a dotted path of a body; `.` is all of it."""
    for name in path.split(".") if path != "." else ():
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _leads_by(body: Any, headers: httpx.Headers) -> dict[str, Any] | None:
    """How the next page's address is given: in the header Link, or in the body."""
    if 'rel="next"' in headers.get("link", "") or "rel=next" in headers.get("link", ""):
        return {"by": "link"}
    for path in _NEXT:
        if isinstance(address := _at(body, path), str) and address.startswith(("http://", "https://", "/")):
            return {"by": "next_url", "next": path}
    return None


def _follow(service: Service, body: Any, headers: httpx.Headers, found: _Found, items: str, bounds: Bounds) -> None:
    """Follow the addresses of next pages while the bounds allow, and never to another host."""
    pages, page = 1, found.origin["page"]
    while address := _next_address(page, body, headers):
        if len(found.items) >= bounds.rows or not service.has_time:
            found.whole = False
            break
        body, headers = service.get(service.own(address), {})
        found.items.extend(_at(body, items) or [])
        pages += 1
    where = "the header Link" if page["by"] == "link" else f"the field {page['next']}"
    found.assumed.append(f"pages by the address in {where}: {pages} were read")


def _next_address(page: dict[str, Any], body: Any, headers: httpx.Headers) -> str:
    if page["by"] == "next_url":
        return _at(body, page["next"]) or ""
    links = [part for part in headers.get("link", "").split(",") if "rel=next" in part.replace('"', "")]
    return links[0].split(">")[0].lstrip(" <") if links else ""


def _items(body: Any, path: str) -> str:
    """Where the rows are: all of the body, or the longest list of objects in it."""
    found = dict(lists_of_objects(body))
    if isinstance(body, list) and body and "" in found:
        return "."
    if not found:
        has = f"it has {', '.join(body) or 'none'}" if isinstance(body, dict) else f"it is a {type(body).__name__}"
        raise SluiceError(f"the body of {path} has no field with a list of objects; {has}. {_BY_HAND}")
    return max(found, key=lambda name: len(found[name]))


def _number(body: Any, names: tuple[str, ...]) -> str | None:
    """The path of a whole number with one of these names: at the top, or in a part about pages."""
    for name in (name for part in ("", *_ABOUT_PAGES) for name in (f"{part}.{one}".lstrip(".") for one in names)):
        if isinstance(value := _at(body, name), int) and not isinstance(value, bool):
            return name
    return None


def _leads_on(body: Any) -> bool:
    return isinstance(body, dict) and any(
        body.get(name) for name in ("next", "next_page", "next_url", "next_cursor", "cursor", "has_more")
    )


def _size(name: str | None, asked: dict[str, str], body: Any) -> dict[str, Any]:
    value = (asked.get(name) or _at(body, name)) if name else None
    return {"size_param": name, "size": int(value)} if value is not None and str(value).isdigit() else {}


def _read_on(
    service: Service, path: str, asked: dict[str, str], found: _Found, items: str, pages: int, bounds: Bounds
) -> None:
    """Read on while the bounds allow. A second page like the first means that `page` is not the parameter."""
    first, number = list(found.items), 1
    while number < pages and len(found.items) < bounds.rows and service.has_time:
        number += 1
        more = _at(service.get(path, asked | {"page": str(number)})[0], items) or []
        if number == 2 and more == first:
            raise SluiceError(f"{path} announces {pages} pages, but ?page=2 gives the rows of the first. {_BY_HAND}")
        found.items.extend(more)
    found.whole = number >= pages
    tried = ", and the second is another one" if pages > 1 else ""
    found.assumed.append(f"pages by number: ?page=1 to {pages}{tried}")
