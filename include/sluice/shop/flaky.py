"""An API that misbehaves on schedule: by the number of the request, so that a run can be repeated."""

from dataclasses import dataclass
from enum import StrEnum
from threading import Lock


class Mood(StrEnum):
    """What a request meets."""

    FINE = "fine"
    SLOW = "slow"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Meeting:
    """A mood, and for a slow one how many seconds it takes."""

    mood: Mood
    seconds: float = 0.0


def meeting(number: int) -> Meeting:
    """What request `number` (from 1) meets: one in 12 is refused, 429 and 503 in turn, one in 20 is slow."""
    if number % 12 == 0:
        return Meeting(Mood.TOO_MANY if number // 12 % 2 else Mood.UNAVAILABLE)
    if number % 20 == 10:
        return Meeting(Mood.SLOW, 0.3 + (number * 37 % 51) / 100)
    return Meeting(Mood.FINE)


class Moods:
    """Counts requests. With `flaky` off every one of them is fine."""

    def __init__(self, flaky: bool) -> None:
        self._flaky = flaky
        self._number = 0
        self._lock = Lock()

    def next(self) -> Meeting:
        """What the next request meets."""
        if not self._flaky:
            return Meeting(Mood.FINE)
        with self._lock:
            self._number += 1
            return meeting(self._number)
