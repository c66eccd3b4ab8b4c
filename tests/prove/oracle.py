"""What the warehouse must hold, in plain Python, from what the sources said. It knows no batch, no order of arrival."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

BEGINNING, END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Said(NamedTuple):
    """A source said: from `at` on these are the key's values; None: it is gone. `n` orders what is of one instant."""

    key: int
    at: datetime
    n: int
    values: tuple[Any, ...] | None


class Version(NamedTuple):
    """A row of the snapshot."""

    key: int
    name: str | None
    phone: str | None
    begins: datetime
    ends: datetime
    is_deleted: bool


Rank = Callable[[Said], Any]  # decides between what was said of one key, at one instant, with one number


def of_extracts(days: dict[datetime, dict[int, tuple[Any, ...]]]) -> list[Said]:
    """What complete extracts say, by the instant they speak for."""
    said, known = [], {}
    for at in sorted(days):
        for key in known.keys() | days[at].keys():
            if days[at].get(key) != known.get(key):
                said.append(Said(key, at, 0, days[at].get(key)))
        known = days[at]
    return said


def by_instant(said: Iterable[Said], rank: Rank) -> dict[int, list[Said]]:
    """{key: one saying per instant, in order}."""
    decided: dict[tuple[int, datetime], Said] = {}
    for one in sorted(said, key=lambda one: (one.n, one.values is not None, rank(one))):
        decided[one.key, one.at] = one
    chains: dict[int, list[Said]] = {}
    for _, one in sorted(decided.items()):
        chains.setdefault(one.key, []).append(one)
    return chains


def snapshot(said: Iterable[Said], rank: Rank) -> set[Version]:
    """One version for each stretch in which the name (type 2) did not change; the latest phone (type 1) in all."""
    rows = set()
    for key, chain in by_instant(said, rank).items():
        phones = [one.values[1] for one in chain if one.values]
        opened: list[tuple[datetime, str | None, bool]] = []
        for one in chain:
            name = one.values[0] if one.values else (opened[-1][1] if opened else None)
            was_never_there = not opened and one.values is None
            if not was_never_there and (not opened or (name, one.values is None) != opened[-1][1:]):
                opened.append((one.at if opened else BEGINNING, name, one.values is None))
        ends = [begins for begins, _, _ in opened[1:]] + [END]
        for (begins, name, is_deleted), until in zip(opened, ends, strict=False):
            rows.add(Version(key, name, phones[-1], begins, until, is_deleted))
    return rows


def current(said: Iterable[Said], rank: Rank) -> dict[int, tuple[Any, ...]]:
    """{key: its latest values}, without those that are gone."""
    last = {key: chain[-1].values for key, chain in by_instant(said, rank).items()}
    return {key: values for key, values in last.items() if values is not None}


def version_key(key: int, begins: datetime) -> str:
    """The surrogate key of a version."""
    microseconds = (begins - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    packed = struct.pack(">q", -(2**63) if begins == BEGINNING else microseconds)
    return hashlib.md5(json.dumps([key]).encode() + packed).hexdigest()


def marts(versions: set[Version], orders: dict[int, tuple[Any, ...]]) -> tuple[set[tuple], set[tuple]]:
    """The dimension, with a member for each customer that only orders name, and the fact that points into it."""
    dimension = {(version_key(v.key, v.begins), v.key, v.name, v.begins, v.ends, False) for v in versions}
    unknown = {customer for customer, _, _ in orders.values()} - {v.key for v in versions}
    dimension |= {(version_key(key, BEGINNING), key, None, BEGINNING, END, True) for key in unknown}
    return dimension, {
        (order, customer, row[0], amount, ordered)
        for order, (customer, amount, ordered) in orders.items()
        for row in dimension
        if row[1] == customer and row[3] <= ordered < row[4]
    }
