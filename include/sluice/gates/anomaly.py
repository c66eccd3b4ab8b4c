"""Is this number odd, given the numbers before it? Pure functions of a table's own history.

Why this way: docs/decisions/anomalies.md. Measured: benchmarks/results/anomaly.md.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist, median

ALARM = 3e-4  # how improbable a number must be, each way, before anything is said
MINIMUM = 8  # points before which there is no opinion
_SEASONS = 6  # of the same weekday or hour are remembered: the level of six weeks at most
_KNOWN_SEASON = 4  # of the same weekday or hour make a season
_KNOWN_ERRORS = 4  # of the forecast make a spread, a wide one
_LEVEL = 7  # points that say where the level is now
_ADOPTED = 7  # odd points in a row, in one direction, are the new level
_SURPRISES = 60  # forecast errors from which the spread is estimated
_WEEK = timedelta(days=8)  # each weekday was seen before a daily number is judged
_SMALLEST_SPREAD = 0.05  # a table of always 1,000 rows may have 1,050 one day
_MAD = 1.4826  # of a normal distribution: standard deviations in one median absolute deviation
_MAD_EFFICIENCY = 0.37  # what n points say about a spread through their MAD, as points of a standard deviation
_DRIFT = math.log(1.35)  # a level so far from that of the weeks before is worth a word
_COARSE = 4.0  # before seasons are known, only numbers so many times outside everything seen are odd


@dataclass(frozen=True)
class Opinion:
    """What a history says of a number. `learning` says what it lacks, and then it says nothing else."""

    low: float = 0.0
    high: float = math.inf
    expected: float = 0.0
    is_odd: bool = False
    measured: float = 0.0  # of a distribution: its distance from the usual
    drift: float = 0.0  # of the present level from that of the weeks before, as a factor less one
    has_drifted: bool = False
    learning: str = ""


class Series:
    """Counts of one table, taken in their order. `judge` looks only at what was added before.

    Seasons: a number is compared with those of the same weekday (points about a day apart) or of the same hour of the
    week (an hour apart), and with the level of the last points. The spread is that of the errors which the same
    forecast made before, so growth, noise and few points widen it by themselves. Odd points are not learned from,
    until seven in a row say that this is how it is now.
    """

    def __init__(self, *, is_level: bool = False) -> None:
        """`is_level`: each number is the size of a whole table, so the last one is the best forecast."""
        self._is_level = is_level
        self._count = 0
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._gaps: deque[float] = deque(maxlen=21)
        self._all: deque[float] = deque(maxlen=_SURPRISES)
        self._lags: dict[str, deque[float]] = {}
        self._seen: dict[str, dict[object, deque[float]]] = {}
        self._errors: dict[str, deque[tuple[float, float]]] = {}
        for name in ("none", "weekday", "hour"):
            self._lags[name] = deque(maxlen=1 if is_level else _LEVEL)
            self._seen[name] = defaultdict(lambda: deque(maxlen=1 if is_level else _SEASONS))
            self._errors[name] = deque(maxlen=_SURPRISES)
        self._odd: list[tuple[datetime, float, bool]] = []
        self._zeros = 0.0  # log of the chance of the zeros just seen in a row

    def add(self, at: datetime, value: float) -> None:
        """Learn from one more number. What looks odd now waits until it is confirmed."""
        opinion = self.judge(at, value)
        self._zeros = self._zeros + self._chance_of_zero(opinion) if value == 0 and not opinion.learning else 0.0
        if not opinion.is_odd:
            self._odd.clear()
            self._learn(at, value)
            return
        is_low = value < opinion.expected
        if self._odd and self._odd[-1][2] != is_low:
            self._odd.clear()
        self._odd.append((at, value, is_low))
        if len(self._odd) >= _ADOPTED:
            adopted, self._odd = self._odd, []
            for known in self._lags.values():
                known.clear()
            for then, number, _ in adopted:
                self._learn(then, number)

    def judge(self, at: datetime, value: float) -> Opinion:
        """What the numbers so far say of this one."""
        if self._count < MINIMUM:
            return Opinion(learning=f"{self._count} of {MINIMUM} batches to compare with")
        season = self._season(at)
        if season is None:
            return self._coarse(at, value)
        forecast, spread = self._forecast(season, at)
        expected = max(math.exp(forecast) - 0.5, 0.0)
        reach = _t_quantile(1 - ALARM, _MAD_EFFICIENCY * len(self._errors[season])) * spread
        low, high = (max(math.exp(forecast + sign * reach) - 0.5, 0.0) for sign in (-1, 1))
        relative = math.sqrt(max(spread**2 - 1 / (expected + 0.5), _SMALLEST_SPREAD**2))
        is_odd = value > high or (value < low and _chance_of_at_most(value, expected, relative) < ALARM)
        if value == 0 and not is_odd:  # too few for one zero to mean anything; not for several in a row
            is_odd = self._zeros + _log_chance_of_zero(expected, relative) < math.log(ALARM)
        lags = self._lags[season]
        drift = median(lags) if len(lags) == _LEVEL and not self._is_level else 0.0
        return Opinion(
            low,
            high,
            expected,
            is_odd,
            drift=math.exp(drift) - 1,
            has_drifted=abs(drift) > max(_DRIFT, 4 * 1.2533 * spread / math.sqrt(_LEVEL)),
        )

    # -- what is known ----------------------------------------------------------------------------

    def _learn(self, at: datetime, value: float) -> None:
        number = math.log(value + 0.5)
        for season in ("none", "weekday", "hour"):
            before = self._seen[season][_bucket(season, at)]
            if len(before) >= (1 if self._is_level else 3):
                usual, lags = median(before), self._lags[season]
                lag = number - usual
                if lags or self._is_level:
                    level = 0.0 if self._is_level else median(lags)
                    self._errors[season].append((lag - level, usual + level))
                lags.append(lag)
            before.append(number)
        if self._last is not None:
            self._gaps.append((at - self._last).total_seconds())
        self._first, self._last = self._first or at, at
        self._all.append(value)
        self._count += 1

    def _season(self, at: datetime) -> str | None:
        """The finest season of which enough is known, or None where there may be one that is not known yet."""
        gap = median(self._gaps)
        wanted = "none" if self._is_level or gap > 36 * 3600 else "weekday" if gap > 4 * 3600 else "hour"
        enough = 1 if self._is_level else _KNOWN_SEASON
        known = len(self._seen[wanted][_bucket(wanted, at)]) >= enough
        return wanted if known and len(self._errors[wanted]) >= _KNOWN_ERRORS else None

    def _forecast(self, season: str, at: datetime) -> tuple[float, float]:
        """The log of what is expected, and one standard deviation of it."""
        before = self._seen[season][_bucket(season, at)]
        usual = median(before)
        level = median(self._lags[season]) if self._lags[season] and not self._is_level else 0.0
        errors = self._errors[season]
        counted = [(error, 1 / math.exp(max(size, 0.0))) for error, size in errors]  # the noise of counting
        beyond = max(median([error * error / 0.455 - noise for error, noise in counted]), _SMALLEST_SPREAD**2)
        scaled = [abs(error) / math.sqrt(beyond + noise) for error, noise in counted]
        scale = max(1.0, _MAD * median(scaled))
        return usual + level, scale * math.sqrt(beyond + 1 / math.exp(max(usual + level, 0.0)))

    def _coarse(self, at: datetime, value: float) -> Opinion:
        """Seasons may be hidden in so few points: only what lies far outside everything seen is odd."""
        assert self._first is not None
        if at - self._first < _WEEK and self._count < 10 * _SURPRISES:
            return Opinion(learning=f"{(at - self._first).days} of {_WEEK.days} days to compare with")
        least, most = min(self._all), max(self._all)
        low, high = least / _COARSE, (most + 3 * math.sqrt(most) + 3) * _COARSE
        is_odd = value > high or (value < low and _chance_of_at_most(value, least, 0.3) < ALARM)
        return Opinion(low, high, median(self._all), is_odd)

    def _chance_of_zero(self, opinion: Opinion) -> float:
        return _log_chance_of_zero(opinion.expected, 0.5) if opinion.expected > 0 else 0.0


def _bucket(season: str, at: datetime) -> object:
    if season == "weekday":
        return at.weekday()
    return (at.weekday(), at.hour) if season == "hour" else None


def _chance_of_at_most(value: float, expected: float, relative: float) -> float:
    """P(count <= value) of a negative binomial: counting noise, and a relative spread of what is counted."""
    if expected <= 0:
        return 1.0
    if value > 60:
        return 0.0  # far from where single events matter: the spread alone decides
    shape = 1 / relative**2
    success = shape / (shape + expected)
    term = math.exp(shape * math.log(success))
    total = term
    for k in range(1, int(value) + 1):
        term *= (k - 1 + shape) / k * (1 - success)
        total += term
    return total


def _log_chance_of_zero(expected: float, relative: float) -> float:
    shape = 1 / relative**2
    return shape * math.log(shape / (shape + expected))


def _t_quantile(p: float, freedom: float) -> float:
    """Of Student's t, by the Cornish-Fisher series; bounded where it no longer holds."""
    z, v = NormalDist().inv_cdf(p), max(freedom, 3.0)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


# -- shares ---------------------------------------------------------------------------------------


def judge_share(history: Sequence[tuple[float, int]], share: float, rows: int, *, among: int = 1) -> Opinion:
    """Whether a share, such as of NULL among `rows`, is higher than those of (share, rows) before.

    `among`: how many columns are judged with it; with more, each must be odder, so that a batch is not.
    """
    if len(history) < MINIMUM:
        return Opinion(learning=f"{len(history)} of {MINIMUM} batches to compare with")
    usual = median(s for s, _ in history)
    angles = [math.asin(math.sqrt(s)) for s, _ in history]
    centre = median(angles)
    noise = [(a - centre) ** 2 / 0.455 - 1 / (4 * max(n, 1)) for a, (_, n) in zip(angles, history, strict=True)]
    spread = math.sqrt(max(median(noise), 0.01**2) + 1 / (4 * max(rows, 1)))
    # half the chance: shares that vary by a factor have a longer tail than angles
    reach = _t_quantile(1 - ALARM / 2 / among, _MAD_EFFICIENCY * len(history)) * spread
    high = math.sin(min(centre + reach, math.pi / 2)) ** 2
    high = max(high, usual + 0.01, max(s for s, _ in history))
    return Opinion(0.0, high, usual, share > high and _chance_of_at_least(round(share * rows), rows, high, usual))


def _chance_of_at_least(count: int, rows: int, high: float, usual: float) -> bool:
    """Whether so many of so few could not be chance: a small sample needs more than two."""
    return count >= 3 and (usual > 0 or count / max(rows, 1) > 0.01)


# -- distributions --------------------------------------------------------------------------------


_KINDS = ("q", "values", "hours")


def distance(reference: dict, current: dict) -> float | None:
    """How far apart two distributions are, 0 to 1, or None where they can't be compared.

    Quantiles: the largest difference of the two distribution functions (Kolmogorov-Smirnov). Shares of values or of
    hours: what would have to move (total variation).
    """
    if "q" in reference and "q" in current:
        return _quantile_distance(reference["q"], current["q"])
    for kind in ("values", "hours"):
        if kind in reference and kind in current:
            ours, theirs = _shares(reference[kind]), _shares(current[kind])
            return sum(abs(ours.get(key, 0.0) - theirs.get(key, 0.0)) for key in {*ours, *theirs}) / 2
    return None


def _shares(counts: dict[str, float]) -> dict[str, float]:
    whole = sum(counts.values()) or 1.0
    return {key: count / whole for key, count in counts.items()}


def _quantile_distance(one: Sequence[float], other: Sequence[float]) -> float:
    return max(_furthest(one, other), _furthest(other, one))


def _furthest(reference: Sequence[float], values: Sequence[float]) -> float:
    """The largest difference of the two distribution functions at the values of one of them."""
    furthest, index, steps = 0.0, 0, len(values) + 1
    while index < len(values):
        following = bisect_right(values, values[index], index)
        below, up_to = _ranks(reference, values[index])
        furthest = max(furthest, abs((index + 1) / steps - below), abs(following / steps - up_to))
        index = following
    return furthest


def _ranks(values: Sequence[float], value: float) -> tuple[float, float]:
    """The shares of a distribution, given by its quantiles, below a value and up to it: apart where it jumps."""
    steps, first, last = len(values) + 1, bisect_left(values, value), bisect_right(values, value)
    if first < last:
        return (first + 1) / steps, last / steps
    if first in (0, len(values)):
        return (first / len(values),) * 2
    left, right = values[first - 1], values[first]
    return ((first + (value - left) / (right - left)) / steps,) * 2


def typical(profiles: Iterable[dict]) -> dict:
    """One distribution in the middle of several: medians of their quantiles, or of their shares."""
    known = list(profiles)
    quantiles = [p["q"] for p in known if "q" in p]
    if quantiles and len(quantiles) >= len(known) / 2:
        return {"q": [median(column) for column in zip(*quantiles, strict=True)]}
    for kind in ("values", "hours"):
        tables = [_shares(p[kind]) for p in known if kind in p]
        if tables and len(tables) >= len(known) / 2:
            keys = {key for table in tables for key in table}
            return {kind: {key: median(table.get(key, 0.0) for table in tables) for key in keys}}
    return {}


def _values(profile: dict) -> int:
    return profile.get("n", 0) - profile.get("nulls", 0)


def judge_distribution(history: Sequence[dict], current: dict, *, among: int = 1) -> Opinion:
    """Whether a column's distribution is further from the usual than those before were from theirs.

    Each profile has `n`, its rows, and `nulls` of them, beside what `distance` compares. Identifiers that grow are far
    from their past each time, and so never odd.
    """
    rows = _values(current)
    if rows < 30:
        return Opinion(learning=f"{rows} of 30 rows with a value")
    comparable = [p for p in history if _values(p) >= 30 and any(kind in p and kind in current for kind in _KINDS)]
    if len(comparable) < MINIMUM:
        return Opinion(learning=f"{len(comparable)} of {MINIMUM} batches to compare with")
    middle = typical(comparable)
    measured = distance(middle, current) or 0.0
    past = [distance(middle, profile) or 0.0 for profile in comparable]
    usual = median(past)
    spread = max(_MAD * median(abs(d - usual) for d in past), 0.01)
    chance = math.sqrt(-math.log(ALARM / among / 2) / 2 * (1 / rows + 1 / median(_values(p) for p in comparable)))
    high = max(usual + _t_quantile(1 - ALARM / among, _MAD_EFFICIENCY * len(past)) * spread, chance, 0.1, max(past))
    return Opinion(0.0, high, usual, measured > high, measured)
