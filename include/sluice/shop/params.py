"""What makes one company different from another, and how its time is counted.

Inside this package an instant is an `int`: milliseconds since the first midnight (UTC) of the simulation.
Instants before the simulation are negative. They become `datetime` only where a row or a file is written.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import isfinite

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class ShopError(Exception):
    """Something that the person who runs the shop must decide or repair; the message says what, and how."""


@dataclass(frozen=True)
class Params:
    """The three values that decide every byte of the company.

    `scale` 1.0 is about 400 customers, 120 products, 60 orders and 1,500 clicks a day; it grows linearly.
    """

    seed: int = 7
    scale: float = 1.0
    start: date = date(2026, 1, 1)

    def __post_init__(self) -> None:
        if not (isfinite(self.scale) and self.scale >= 0.05):
            raise ShopError(f"scale must be 0.05 or more, got {self.scale}; nothing was generated")

    def time(self, instant: int) -> datetime:
        """The instant as a timestamp in UTC."""
        midnight = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        return midnight + timedelta(milliseconds=instant)

    def date(self, day: int) -> date:
        """The calendar date of simulated day `day` (0 is the first)."""
        return self.start + timedelta(days=day)

    def day(self, when: date) -> int:
        """The simulated day of a calendar date; negative before the start."""
        return (when - self.start).days
