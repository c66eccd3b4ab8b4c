"""Chance that depends only on (seed, kind, ids): the same question always gets the same answer.

Only `random.Random.random` is used, the one method whose sequence Python promises to keep between versions.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from math import log
from random import Random
from typing import TypeVar

T = TypeVar("T")


def hash64(seed: int, kind: str, *ids: object) -> int:
    """64 well mixed bits for one thing of one company."""
    name = f"{seed}/{kind}/{'/'.join(map(str, ids))}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def fraction(seed: int, kind: str, *ids: object) -> float:
    """One number in [0, 1) for one thing; cheaper than a `Draw` when a single number is enough."""
    return (hash64(seed, kind, *ids) >> 11) / (1 << 53)


class Draw:
    """A sequence of random values that belongs to one thing of one company."""

    __slots__ = ("unit",)

    def __init__(self, seed: int, kind: str, *ids: object) -> None:
        self.unit = Random(hash64(seed, kind, *ids)).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], each as likely."""
        return low + int(self.unit() * (high - low + 1))

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[int(self.unit() * len(options))]

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """One of the options, as likely as its weight; the weights add up to 1."""
        point = self.unit()
        for option, bound in zip(options, accumulate(weights), strict=True):
            if point < bound:
                return option
        return options[-1]

    def exponential(self, mean: float) -> float:
        """A waiting time with the given mean."""
        return -mean * log(1.0 - self.unit())
