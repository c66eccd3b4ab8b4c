"""The finance office's API, over a real socket."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import httpx
import pytest
import uvicorn

from sluice.shop.api import create_app
from sluice.shop.flaky import Mood, meeting

KEY = {"X-API-Key": "shop-demo-key"}


@contextmanager
def _serving(database_url: str, *, flaky: bool) -> Iterator[httpx.Client]:
    """The API on a free port, and a client of it."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(database_url, flaky=flaky)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(5)
        listening.close()


@pytest.fixture(scope="module")
def api(shop_of_14_days) -> Iterator[httpx.Client]:
    """A well-behaved API."""
    with _serving(shop_of_14_days.url, flaky=False) as client:
        yield client


def _all(api: httpx.Client, path: str, **query: object) -> list[dict]:
    """The items of all pages."""
    items, page, pages = [], 0, 1
    while page < pages:
        page += 1
        answer = api.get(path, params={**query, "page": page}, headers=KEY).raise_for_status().json()
        pages, items = answer["pages"], items + answer["items"]
    assert len(items) == answer["total"]
    return items


def test_health_needs_no_key_and_data_does(api):
    assert api.get("/health").status_code == 200
    for path in ("/v1/exchange-rates?date=2026-01-05", "/v1/product-costs"):
        assert api.get(path).status_code == 401
        assert api.get(path, headers={"X-API-Key": "wrong"}).status_code == 401
        assert api.get(path, headers=KEY).status_code == 200


@pytest.mark.parametrize("per_page", [1, 7, 10, 30, 50])
def test_the_pages_of_rates_are_complete_whatever_their_size(api, per_page):
    items = _all(api, "/v1/exchange-rates", date="2026-01-05", per_page=per_page)
    assert len({item["currency"] for item in items}) == 30
    assert all(item["rate_date"] == "2026-01-05" and item["base_currency"] == "EUR" for item in items)
    assert all(float(item["rate"]) > 0 and len(item["rate"].split(".")[1]) == 6 for item in items)


def test_a_date_has_one_answer_to_the_byte(api):
    ask = lambda when: api.get("/v1/exchange-rates", params={"date": when}, headers=KEY).content  # noqa: E731
    assert ask("2026-01-05") == ask("2026-01-05") != ask("2026-01-06")


def test_a_date_after_the_companys_clock_is_not_known(api):
    known = api.get("/v1/exchange-rates?date=2026-01-15", headers=KEY)
    unknown = api.get("/v1/exchange-rates?date=2026-01-16", headers=KEY)
    assert (known.status_code, unknown.status_code) == (200, 404)
    assert "clock" in unknown.json()["error"]
    assert api.get("/v1/product-costs?as_of=2026-01-16", headers=KEY).status_code == 404


@pytest.mark.parametrize(
    "query",
    ["", "date=soon", "date=2026-01-05&page=0", "date=2026-01-05&per_page=501", "date=2026-01-05&page=x"],
)
def test_a_wrong_question_is_refused(api, query):
    answer = api.get(f"/v1/exchange-rates?{query}", headers=KEY)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_costs_cover_all_products_and_change_with_time(api, shop_of_14_days):
    skus = {sku for (sku,) in shop_of_14_days.rows("select sku from products")}
    items = _all(api, "/v1/product-costs", per_page=50)
    assert {item["sku"] for item in items} == skus
    assert len(items) == len(skus)
    earlier = {item["sku"]: item for item in _all(api, "/v1/product-costs", as_of="2026-01-01")}
    assert len(earlier) < len(items)
    changed = [item for item in items if item["sku"] in earlier and earlier[item["sku"]] != item]
    assert 5 < len(changed) < 80
    assert all(date(2026, 1, 1) < date.fromisoformat(item["valid_from"]) <= date(2026, 1, 15) for item in changed)
    assert all(float(item["unit_cost"]) > 0 for item in items)


def test_a_page_beyond_the_last_is_empty_and_says_how_many_there_are(api):
    answer = api.get("/v1/exchange-rates?date=2026-01-05&page=9&per_page=10", headers=KEY).json()
    assert (answer["items"], answer["pages"], answer["total"]) == ([], 3, 30)


def test_an_api_over_no_company_is_unavailable(shop_database_url):
    with _serving(shop_database_url, flaky=False) as client:
        answer = client.get("/v1/product-costs", headers=KEY)
        assert answer.status_code == 503
        assert "sluice shop init" in answer.json()["error"]


def test_one_request_in_twelve_is_refused_and_says_when_to_come_back(shop_of_14_days):
    with _serving(shop_of_14_days.url, flaky=True) as client:
        answers = [client.get("/v1/exchange-rates?date=2026-01-05", headers=KEY) for _ in range(24)]
    assert Counter(answer.status_code for answer in answers) == {200: 22, 429: 1, 503: 1}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert "items" not in refused.json()
    assert max(answer.elapsed.total_seconds() for answer in answers) >= 0.3


def test_slow_answers_take_between_three_and_eight_tenths_of_a_second():
    met = [meeting(number) for number in range(1, 1_201)]
    slow = [one.seconds for one in met if one.mood is Mood.SLOW]
    assert len(slow) == 60
    assert 0.3 <= min(slow) < 0.4
    assert 0.7 < max(slow) <= 0.8
    assert sum(one.mood in (Mood.TOO_MANY, Mood.UNAVAILABLE) for one in met) == 100
