"""How the values of a column are spread, out of what Postgres' statistics know: common values with their shares, and
bounds between which equally many of the other rows lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

BINS = 16
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
_TIMES = ("date", "timestamp", "timestamp with time zone", "timestamp without time zone")


def numbers(values: Sequence[str], type_: str) -> dict[str, float]:
    """Each value as a number on the axis of its type; empty where the type has none. Times are seconds."""
    kind = type_.partition("(")[0]
    if kind in _NUMBERS:
        return {value: math.inf if value == "NaN" else float(value) for value in values}
    if kind in _TIMES:
        return {value: _instant(value) for value in values}
    return {}


def _instant(text: str) -> float:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:  # infinity, and years of more or fewer than four digits
        return -math.inf if text.startswith("-") or text.endswith("BC") else math.inf
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def bins(
    axis: Mapping[str, float], common: Sequence[tuple[str, float]], bounds: Sequence[str], known: float
) -> list[float]:
    """Shares of all rows in equal steps from the least to the greatest finite value. `known` is the share of rows that
    have a value. Empty where there is only one."""
    finite = [number for number in axis.values() if math.isfinite(number)]
    if not finite or min(finite) == max(finite):
        return []
    low, step = min(finite), (max(finite) - min(finite)) / BINS
    found = [0.0] * BINS
    for value, share in common:
        if math.isfinite(axis[value]):
            found[min(int((axis[value] - low) / step), BINS - 1)] += share
    edges = [axis[value] for value in bounds]
    rest = max(known - sum(share for _, share in common), 0.0) / max(len(edges) - 1, 1)
    for start, end in pairwise(edges):
        if math.isfinite(start) and math.isfinite(end):
            _spread(found, rest, (start - low) / step, (end - low) / step)
    return [round(share, 4) for share in found]


def _spread(found: list[float], share: float, start: float, end: float) -> None:
    """Add a share evenly over the bins between two places; they count bins."""
    for n in range(min(int(start), BINS - 1), min(int(end), BINS - 1) + 1):
        part = (min(end, n + 1) - max(start, n)) / (end - start) if end > start else 1.0
        found[n] += share * max(part, 0.0)
