"""Memory follows neither the scale nor the number of days."""

import random
import tracemalloc
from collections.abc import Callable, Iterable

import pytest

from sluice.shop import Company, Params
from sluice.shop.clickstream import deliveries
from sluice.shop.day import entries
from sluice.shop.inventory import counts
from sluice.shop.sorting import BLOCK, sort_by_key


def _peak(make: Callable[[], Iterable[object]]) -> tuple[int, int]:
    """(bytes at the peak, items) while a stream is read to its end."""
    tracemalloc.start()
    try:
        number = sum(1 for _ in make())
        return tracemalloc.get_traced_memory()[1], number
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("stream", "small", "large"),
    [
        (lambda company: entries(company, 3), 8, 32),
        (lambda company: deliveries(company, 1), 3, 12),
        (lambda company: counts(company, 3, "AMS"), 5, 20),
    ],
    ids=["database", "clickstream", "inventory"],
)
def test_a_day_four_times_as_large_takes_the_same_memory(stream, small, large):
    list(stream(Company(Params(scale=0.1))))  # what is loaded once is loaded now
    small_peak, small_items = _peak(lambda: stream(Company(Params(scale=small))))
    large_peak, large_items = _peak(lambda: stream(Company(Params(scale=large))))
    assert large_items > 3.5 * small_items
    assert large_peak < 1.5 * small_peak


def test_a_late_day_needs_nothing_of_the_days_before():
    company = Company(Params(scale=1))
    peak, items = _peak(lambda: entries(company, 400))
    assert items > 300
    assert peak < 12_000_000


@pytest.mark.parametrize("number", [0, 1, 7, 8, 16, 17, 1_000])
def test_sorting_in_runs_equals_sorting_at_once(number):
    keys = [f"{key:06d}" for key in range(number)]
    random.Random(1).shuffle(keys)
    items = [(key, {"value": key}) for key in keys]
    assert list(sort_by_key(iter(items), run=8)) == sorted(items, key=lambda item: item[0])
    assert list(sort_by_key(iter(items), run=BLOCK + 3)) == sorted(items, key=lambda item: item[0])
