"""The REST API of the shop's finance office: exchange rates and unit costs, page by page.

It wants a key in `X-API-Key`, and is sometimes slow or answers 429 or 503, as such things do.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice.shop import database
from sluice.shop.company import Company
from sluice.shop.flaky import Mood, Moods
from sluice.shop.params import ShopError
from sluice.shop.rates import cost_items, products_known, rates

DEFAULT_KEY = "shop-demo-key"
LARGEST_PAGE = 500


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is not data."""

    status: int
    message: str
    retry_after: int | None = None


@dataclass(frozen=True)
class Page:
    """Which page was asked for, and how many items one page has."""

    page: int
    per_page: int

    def of(self, total: int) -> dict[str, int]:
        """The page's place among all items. There is at least one page; one beyond the last is empty."""
        pages = max(1, -(-total // self.per_page))
        return {"page": self.page, "pages": pages, "per_page": self.per_page, "total": total}

    def bounds(self, total: int) -> tuple[int, int]:
        """The first and the last item of the page, from 0, the last not included."""
        first = min((self.page - 1) * self.per_page, total)
        return first, min(first + self.per_page, total)


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _number(request: Request, name: str, default: int, highest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= highest):
        raise Refusal(400, f"{name} must be a whole number from 1 to {highest}")
    return int(text)


def _page(request: Request, per_page: int) -> Page:
    return Page(_number(request, "page", 1, 10**8), _number(request, "per_page", per_page, LARGEST_PAGE))


def _date(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"{name} must be a date like 2026-01-31") from None


def _company_and_today(database_url: str) -> tuple[Company, date]:
    """The company and the date on its clock, as the database says now."""
    try:
        with database.connect(database_url) as connection:
            progress = database.need_progress(connection)
            return Company(progress.params), database.clock_date(connection)
    except ShopError as error:
        raise Refusal(503, str(error), retry_after=5) from None


def _not_after(asked: date, today: date, name: str) -> date:
    if asked > today:
        raise Refusal(404, f"{name} {asked} is not known yet: the company's clock shows {today}")
    return asked


def _exchange_rates(database_url: str, request: Request) -> Response:
    """The rates of one date, by currency."""
    when, page = _date(request, "date"), _page(request, 50)
    if when is None:
        raise Refusal(400, "date is missing, for example ?date=2026-01-31")
    company, today = _company_and_today(database_url)
    items = rates(company.seed, _not_after(when, today, "date"))
    first, last = page.bounds(len(items))
    return _json({"date": when.isoformat(), **page.of(len(items)), "items": items[first:last]})


def _product_costs(database_url: str, request: Request) -> Response:
    """The unit costs of all products, by product, as of the company's today or an earlier date."""
    asked, page = _date(request, "as_of"), _page(request, 100)
    company, today = _company_and_today(database_url)
    when = _not_after(asked or today, today, "as_of")
    total = products_known(company, when)
    first, last = page.bounds(total)
    items = cost_items(company, when, first + 1, last)
    return _json({"as_of": when.isoformat(), **page.of(total), "items": items})


def _health(_: Request) -> Response:
    return _json({"status": "ok"})


def create_app(database_url: str, *, api_key: str | None = None, flaky: bool | None = None) -> Starlette:
    """The API over one company.

    `api_key` is else SLUICE_SHOP_API_KEY, else `shop-demo-key`; `flaky` is else SLUICE_SHOP_API_FLAKY,
    else on.
    """
    key = api_key or os.environ.get("SLUICE_SHOP_API_KEY") or DEFAULT_KEY
    if flaky is None:
        flaky = os.environ.get("SLUICE_SHOP_API_FLAKY", "1").lower() not in ("0", "false", "no", "off")
    moods = Moods(flaky)

    def _meet() -> None:
        met = moods.next()
        if met.mood is Mood.TOO_MANY:
            raise Refusal(429, "too many requests; come back after Retry-After seconds", retry_after=1)
        if met.mood is Mood.UNAVAILABLE:
            raise Refusal(503, "unavailable for a moment; try again")
        time.sleep(met.seconds)

    def guarded(answer: Callable[[str, Request], Response]) -> Callable[[Request], Response]:
        """Ask for the key, then misbehave or answer. It runs in a thread, so that waiting blocks nobody."""

        def endpoint(request: Request) -> Response:
            try:
                given = request.headers.get("x-api-key", "")
                if not secrets.compare_digest(given.encode(), key.encode()):
                    raise Refusal(401, "the X-API-Key header is missing or wrong")
                _meet()
                return answer(database_url, request)
            except Refusal as refusal:
                headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
                return _json({"error": refusal.message}, refusal.status, headers)

        return endpoint

    return Starlette(
        routes=[
            Route("/health", _health),
            Route("/v1/exchange-rates", guarded(_exchange_rates)),
            Route("/v1/product-costs", guarded(_product_costs)),
        ]
    )
