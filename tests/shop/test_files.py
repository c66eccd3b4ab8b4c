"""Stock lists and clickstream: complete, damaged exactly as announced, late and repeated."""

import csv
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest

from sluice.shop import Company, clickstream_damage, inventory_damage
from sluice.shop.files import existing_files, whole_file
from sluice.shop.inventory import COLUMNS

DATES = [date(2026, 1, 1) + timedelta(days=day) for day in range(14)]


def test_every_file_of_every_day_is_there_and_no_unfinished_one(shop_of_14_days):
    assert len(existing_files(shop_of_14_days.files)) == 14 * (3 * 2 + 24)
    assert not [path for path in shop_of_14_days.files.rglob("*") if path.name.endswith(".tmp")]


def test_stock_lists_hold_the_products_on_sale_and_their_marker_the_number_of_rows(shop_of_14_days):
    active = shop_of_14_days.value("select count(*) from products where is_active")
    for when in DATES:
        for warehouse in ("AMS", "LYS", "BER"):
            path = shop_of_14_days.files / "inventory" / when.isoformat() / f"{warehouse}.csv"
            with path.open(newline="") as file:
                header, *rows = csv.reader(file)
            assert tuple(header) == COLUMNS
            assert int(path.with_name(f"{warehouse}.csv.done").read_text()) == len(rows)
            assert len({row[0] for row in rows}) == len(rows) > 100
            assert all(row[4].startswith(when.isoformat()) for row in rows)
    assert len(rows) == active


def test_the_announced_damage_of_stock_lists_is_the_damage_in_them(shop_of_14_days):
    total = Counter()
    for item in inventory_damage(Company(shop_of_14_days.params), 14):
        path = shop_of_14_days.files / "inventory" / item.date.isoformat() / f"{item.warehouse}.csv"
        with path.open(newline="") as file:
            found = Counter(row["on_hand"] for row in csv.DictReader(file))
        assert (found["n/a"], found["-1"], found.total()) == (item.not_a_number, item.negative, item.rows)
        total.update(bad=item.not_a_number + item.negative, rows=item.rows)
    assert total["rows"] / 800 < total["bad"] < total["rows"] / 200


@pytest.fixture(scope="module")
def received(shop_of_14_days) -> list[tuple[datetime, dict | None]]:
    """Every line of the clickstream: the hour of its file, and the event, or None where it is no JSON."""
    lines = []
    for path in sorted((shop_of_14_days.files / "clickstream").rglob("*.jsonl")):
        hour = datetime.fromisoformat(f"{path.parent.name}T{path.stem}:00:00+00:00")
        for line in path.read_text().splitlines():
            try:
                lines.append((hour, json.loads(line)))
            except ValueError:
                lines.append((hour, None))
    return lines


def _occurred(event: dict) -> datetime:
    return datetime.fromisoformat(event["occurred_at"])


def test_the_clickstream_has_the_promised_size_and_form(received):
    assert 1_200 * 14 < len(received) < 1_800 * 14
    events = [event for _, event in received if event]
    assert {event["event_type"] for event in events} == {
        "page_view", "product_view", "add_to_cart", "checkout", "purchase",
    }  # fmt: skip
    assert {event["device"] for event in events} == {"desktop", "mobile", "tablet"}
    assert all(event["occurred_at"].endswith("Z") and len(event["occurred_at"]) == 24 for event in events)
    assert all((event["product_id"] is None) == (event["event_type"] not in ("product_view", "add_to_cart"))
               for event in events)  # fmt: skip


def test_some_events_are_late_and_some_cross_a_day(received):
    lags = [hour - _occurred(event) for hour, event in received if event]
    late = [lag for lag in lags if lag > timedelta(minutes=30)]
    assert 0.015 < len(late) / len(lags) < 0.05
    assert max(lags) <= timedelta(hours=23)
    crossing = [
        event
        for hour, event in received
        if event and hour.date() > _occurred(event).date() and hour - _occurred(event) > timedelta(hours=1)
    ]
    assert crossing


def test_some_events_come_twice_exactly(received):
    copies: dict[str, list[tuple[datetime, dict]]] = {}
    for hour, event in received:
        if event:
            copies.setdefault(event["event_id"], []).append((hour, event))
    twice = [found for found in copies.values() if len(found) > 1]
    assert 0.005 < len(twice) / len(copies) < 0.02
    assert all(found[0][1] == found[1][1] for found in twice)
    assert any(found[0][0] != found[1][0] for found in twice)
    assert any(found[0][0] == found[1][0] for found in twice)


def test_the_announced_damage_of_the_clickstream_is_the_damage_in_it(shop_of_14_days, received):
    announced = list(clickstream_damage(Company(shop_of_14_days.params), 14))
    lines = Counter(hour.date() for hour, _ in received)
    broken = Counter(hour.date() for hour, event in received if event is None)
    assert {item.date: item.lines for item in announced} == lines
    assert {item.date: item.malformed for item in announced if item.malformed} == broken
    assert 1 <= broken.total() <= 15


def test_purchases_in_the_clickstream_are_orders_in_the_database(shop_of_14_days, received):
    orders = dict(shop_of_14_days.rows("select order_id, customer_id from orders where channel = 'web'"))
    bought = {
        event["properties"]["order_id"]: event["customer_id"]
        for _, event in received
        if event and event["event_type"] == "purchase"
    }
    assert len(bought) > 0.9 * len(orders)
    assert all(orders.get(order_id, customer_id) == customer_id for order_id, customer_id in bought.items())
    assert len(bought.keys() - orders.keys()) <= 5  # placed on the last day, committed on the next


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a" / "b.csv"

    def write_half() -> None:
        with whole_file(path) as file:
            file.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list((tmp_path / "a").iterdir()) == []
    with whole_file(path) as file:
        file.write("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_no_event_is_received_before_it_happened(received):
    starts = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=1)
    for hour, event in received:
        if event:
            assert starts < _occurred(event) < hour + timedelta(hours=1)
