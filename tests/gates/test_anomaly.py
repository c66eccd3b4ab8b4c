"""The judgement of a number by those before it. How often it is wrong is measured by `make bench-anomaly`."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from sluice.gates.anomaly import Series, distance, judge_distribution, judge_share

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def _grown(days: int, volume: float = 1000, weekend: float = 1.0, growth: float = 1.0, seed: int = 1) -> Series:
    """A series of so many days, with a noise of 5 %; no day of it may be odd."""
    draw, series = random.Random(seed), Series()
    for day in range(days):
        at = MONDAY + day * DAY
        value = round(volume * growth**day * (weekend if at.weekday() >= 5 else 1) * draw.gauss(1, 0.05))
        assert not series.judge(at, value).is_odd, (day, value)
        series.add(at, value)
    return series


def test_a_short_history_has_no_opinion_whatever_comes():
    series = _grown(7)
    said = series.judge(MONDAY + 7 * DAY, 0)
    assert (said.is_odd, said.learning) == (False, "7 of 8 batches to compare with")


def test_days_that_were_never_seen_are_no_opinion_either():
    series = Series()
    for hour in range(48):
        series.add(MONDAY + hour * timedelta(hours=1), 100)
    assert series.judge(MONDAY + 2 * DAY, 0).learning == "2 of 8 days to compare with"


@pytest.mark.parametrize(("value", "odd"), [(0, True), (100, True), (450, True), (960, False), (2200, True)])
def test_an_outage_a_drop_and_a_doubling_are_odd_and_noise_is_not(value, odd):
    assert _grown(60).judge(MONDAY + 60 * DAY, value).is_odd is odd


def test_an_opinion_does_not_depend_on_the_number_that_is_judged():
    series = _grown(60)
    one, other = (series.judge(MONDAY + 60 * DAY, value) for value in (0, 10**9))
    assert (one.low, one.high, one.expected) == (other.low, other.high, other.expected)


def test_a_closed_weekend_is_no_outage_and_a_closed_monday_is():
    series = _grown(61, weekend=0.0)  # until a Friday
    assert (MONDAY + 61 * DAY).weekday() == 5
    assert not series.judge(MONDAY + 61 * DAY, 0).is_odd
    for day in (61, 62):
        series.add(MONDAY + day * DAY, 0)
    assert series.judge(MONDAY + 63 * DAY, 0).is_odd


def test_growth_is_no_anomaly_and_no_drift():
    series = _grown(120, growth=1.004)
    said = series.judge(MONDAY + 120 * DAY, round(1000 * 1.004**120))
    assert (said.is_odd, said.has_drifted) == (False, False)


def test_a_slow_drift_is_said_although_no_single_day_is_odd():
    series, drifted = _grown(60), []
    for day in range(60, 100):
        value = round(1000 * 0.98 ** (day - 60))
        drifted.append(series.judge(MONDAY + day * DAY, value).has_drifted)
        series.add(MONDAY + day * DAY, value)
    assert any(drifted)
    assert not any(drifted[:7])


def test_few_rows_a_day_are_an_outage_after_several_empty_days():
    draw, series = random.Random(1), Series()
    for day in range(60):
        series.add(MONDAY + day * DAY, max(round(draw.gauss(5, 2)), 1))
    found = []
    for day in range(60, 67):
        found.append(series.judge(MONDAY + day * DAY, 0).is_odd)
        series.add(MONDAY + day * DAY, 0)
    assert found[0] is False
    assert any(found[1:4])


def test_odd_days_are_not_learned_from_until_seven_in_a_row_are_the_new_level():
    series = _grown(60)
    for day in range(60, 66):
        series.add(MONDAY + day * DAY, 3000)
        assert series.judge(MONDAY + (day + 1) * DAY, 3000).is_odd, day
        assert not series.judge(MONDAY + (day + 1) * DAY, 1000).is_odd, day
    series.add(MONDAY + 66 * DAY, 3000)
    assert not series.judge(MONDAY + 67 * DAY, 3000).is_odd
    assert series.judge(MONDAY + 67 * DAY, 1000).is_odd


def test_the_size_of_a_whole_table_is_compared_with_its_last():
    series = Series(is_level=True)
    for day in range(30):
        series.add(MONDAY + day * DAY, 10_000 + 50 * day)
    assert [series.judge(MONDAY + 30 * DAY, value).is_odd for value in (11_500, 7_000, 20_000)] == [False, True, True]


@pytest.mark.parametrize(
    ("usual", "share", "odd"),
    [(0.0, 0.001, False), (0.0, 0.3, True), (0.02, 0.03, False), (0.02, 0.1, True), (0.3, 0.33, False), (0.3, 1, True)],
)
def test_a_share_of_null_is_odd_beyond_chance_and_what_was_before(usual, share, odd):
    draw = random.Random(1)
    history = [(sum(draw.random() < usual for _ in range(1000)) / 1000, 1000) for _ in range(20)]
    assert judge_share(history, share, 1000).is_odd is odd
    assert judge_share(history[:7], share, 1000).learning


def _profile(draw: random.Random, rows: int = 300, factor: float = 1.0, start: float = 0.0) -> dict:
    values = sorted(start + factor * draw.lognormvariate(3.7, 0.6) for _ in range(rows))
    return {"n": rows, "q": [values[rows * step // 20] for step in range(1, 20)]}


@pytest.mark.parametrize(("factor", "odd"), [(1, False), (100, True), (0.01, True), (1.6, True)])
def test_D7_another_unit_is_another_distribution(factor, odd):
    draw = random.Random(1)
    history = [_profile(draw) for _ in range(12)]
    assert judge_distribution(history, _profile(draw, factor=factor)).is_odd is odd


def test_rows_without_a_value_are_no_evidence():
    draw = random.Random(1)
    history = [_profile(draw, rows=60) | {"n": 3000, "nulls": 2940} for _ in range(12)]
    assert not judge_distribution(history, _profile(draw, rows=60, factor=1.2) | {"n": 3000, "nulls": 2940}).is_odd
    few = judge_distribution(history, _profile(draw, rows=20, factor=100) | {"n": 3000, "nulls": 2980})
    assert few.learning == "20 of 30 rows with a value"


def test_an_identifier_that_grows_is_never_odd():
    draw = random.Random(1)
    history = [_profile(draw, start=10_000 * day) for day in range(12)]
    assert not judge_distribution(history, _profile(draw, start=10_000 * 12)).is_odd


def test_D7_hours_and_categories_that_move_are_odd():
    hours = {"n": 400, "hours": {"9": 100, "12": 200, "15": 100}}
    assert not judge_distribution([hours] * 10, hours).is_odd
    assert judge_distribution([hours] * 10, {"n": 400, "hours": {"11": 100, "14": 200, "17": 100}}).is_odd
    values = {"n": 400, "values": {"card": 300, "bank": 100}}
    assert judge_distribution([values] * 10, {"n": 400, "values": {"card": 100, "bank": 300}}).measured == 0.5


def test_a_distance_is_between_0_and_1_and_0_to_itself():
    one, far = {"q": [1.0] * 10 + [2.0] * 9}, {"q": [7.0] * 19}
    assert distance(one, one) == 0
    assert distance(one, far) == pytest.approx(0.95, abs=0.06)
    assert distance({"q": [0.0]}, {"hours": {"1": 2}}) is None
