"""How many customers, products, orders and visits the company has, day by day.

Ids are dense and given in order of time, so that the ids of a day are a range, known without the days before.
"""

from bisect import bisect_left
from collections.abc import Callable

from sluice.shop.draw import fraction
from sluice.shop.params import DAY, HOUR, Params

WEEKDAYS = (1.0, 0.95, 0.97, 1.02, 1.18, 1.08, 0.80)
HOURS = (1, 0.5, 0.3, 0.3, 0.4, 0.8, 2, 4, 6, 7, 7.5, 7.5, 8, 7.5, 7, 6.5, 6.5, 7, 8, 9, 9.5, 8, 5, 2.5)
HISTORY_DAYS = 730
"""How long the company had existed, in days, before the simulation begins."""


def time_of_day(quantile: float) -> int:
    """The instant of a day by which the share `quantile` of the day's business is done."""
    left = quantile * sum(HOURS)
    for hour, weight in enumerate(HOURS):
        if left < weight:
            return int((hour + left / weight) * HOUR)
        left -= weight
    return DAY - 1


class Series:
    """Ids 1, 2, 3, … of one kind of thing, and on which day each one came into being."""

    def __init__(self, opening: int, on_day: Callable[[int], int]) -> None:
        self._on_day = on_day
        self._before = [opening]

    def before(self, day: int) -> int:
        """The highest id that exists when `day` begins (for day 0: what the company opened with)."""
        while len(self._before) <= day:
            self._before.append(self._before[-1] + self._on_day(len(self._before) - 1))
        return self._before[max(day, 0)]

    def of(self, day: int) -> range:
        """The ids that come into being on `day`; none before the simulation."""
        return range(1, 1) if day < 0 else range(self.before(day) + 1, self.before(day + 1) + 1)

    def day_of(self, number: int) -> int:
        """The day on which an id came into being; -1 when the company opened with it."""
        while self._before[-1] < number:
            self.before(len(self._before))
        return bisect_left(self._before, number) - 1

    def instant(self, number: int, jitter: float) -> int:
        """When the id came into being. Rises with the id; `jitter` in [0, 1) moves it inside its share."""
        day = self.day_of(number)
        if day < 0:
            return -int((1 - (number - 1 + jitter) / self._before[0]) * HISTORY_DAYS * DAY) - 1
        ids = self.of(day)
        return day * DAY + time_of_day((number - ids.start + jitter) / len(ids))


class Company:
    """The company that (seed, scale, start) describe: its calendar of ids, one integer per day and series."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.seed = params.seed
        self.customers = Series(max(5, round(400 * params.scale)), lambda day: self._count("customers", day, 4.0))
        self.products = Series(max(10, round(120 * params.scale)), lambda day: self._count("products", day, 0.3))
        self.orders = Series(0, lambda day: self._count("orders", day, 60.0))
        self.visits = Series(0, lambda day: self._count("visits", day, 245.0))

    def _count(self, kind: str, day: int, at_scale_one: float) -> int:
        """How many of a kind come on a day: growth, the weekday, and up to 10 % of luck either way."""
        luck = 0.9 + 0.2 * fraction(self.seed, f"{kind}-luck", day)
        weekday = WEEKDAYS[self.params.date(day).weekday()]
        expected = at_scale_one * self.params.scale * (1 + 0.004 * day) * weekday * luck
        return int(expected + fraction(self.seed, f"{kind}-rounding", day))
