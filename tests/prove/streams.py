"""What sources may deliver and what may happen while it is loaded, as Hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st

DAYS = range(1, 8)  # of January 2026: few, so that instants tie and days are corrected
CUSTOMERS, ORDERS = range(1, 9), range(0, 9)  # each has a story of its own: more keys cost no more time
NAMES, PHONES = ("a", "b", "c", None), ("1", "2")


@dataclass(frozen=True)
class Deliver:
    """A unit of a table as it is now; a unit that was there before is corrected by it."""

    table: Literal["customers", "orders"]
    unit: tuple[int, int]  # day, part
    rows: Any


@dataclass(frozen=True)
class Kill:
    """What ends at which statement: the process, as far as the database can tell, or its session."""

    statement: int
    how: Literal["process", "session"]


@dataclass(frozen=True)
class Load:
    """Load what is pending of a table."""

    table: Literal["customers", "orders"]
    kill: Kill | None


@dataclass(frozen=True)
class Build:
    """A dbt run."""

    kill: Kill | None


@dataclass(frozen=True)
class AddColumn:
    """The source has a new column, and the declaration says so."""


@dataclass(frozen=True)
class Example:
    """How the two tables are read, and what happens, in order."""

    customers: Literal["full", "append"]
    orders: Literal["append", "cursor"]
    steps: list[Any] = field(default_factory=list)


def kills(most: int) -> st.SearchStrategy[Kill | None]:
    kill = st.builds(Kill, st.integers(1, most), st.sampled_from(["process", "session"]))
    return st.none() | st.none() | kill


units = st.tuples(st.sampled_from(DAYS), st.integers(0, 1))
days = st.tuples(st.sampled_from(DAYS), st.just(0))
instants = st.tuples(st.sampled_from(DAYS), st.integers(0, 1))  # (at, number): many ties

customer_events = st.lists(
    st.tuples(
        st.sampled_from(CUSTOMERS),
        instants,
        st.sampled_from(["u", "u", "u", "d"]),
        st.sampled_from(NAMES),
        st.sampled_from(PHONES),
    ),
    min_size=1,
    max_size=12,
)
# key 0 is always there: an extract that shares no key with what is known is refused, and has its own test
customer_extracts = st.dictionaries(
    st.sampled_from(CUSTOMERS), st.tuples(st.sampled_from(NAMES), st.sampled_from(PHONES)), max_size=8
).map(lambda state: {0: ("always", "0")} | state)
order_values = st.tuples(st.sampled_from(range(0, 11)), st.integers(0, 3), st.sampled_from(DAYS))
order_events = st.lists(
    st.tuples(st.sampled_from(ORDERS), instants, st.sampled_from(["u", "u", "u", "d"]), order_values),
    min_size=1,
    max_size=12,
)
order_states = st.dictionaries(st.sampled_from(ORDERS), st.tuples(order_values, st.sampled_from(DAYS)), max_size=8).map(
    lambda state: {99: ((1, 1, 1), 1)} | state
)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """A story: deliveries in any order, loads and runs between them, some killed, some done twice."""
    customers = draw(st.sampled_from(["full", "append"]))
    orders = draw(st.sampled_from(["append", "cursor"]))
    delivery = st.one_of(
        st.builds(Deliver, st.just("customers"), units, customer_events)
        if customers == "append"
        else st.builds(Deliver, st.just("customers"), days, customer_extracts),
        st.builds(Deliver, st.just("orders"), units, order_events)
        if orders == "append"
        else st.builds(Deliver, st.just("orders"), st.just((0, 0)), order_states),
    )
    load = st.builds(Load, st.sampled_from(["customers", "orders"]), kills(60))
    rounds = st.tuples(st.lists(delivery, min_size=1, max_size=4), st.lists(load, max_size=2), kills(110))
    steps: list[Any] = []
    for deliveries, loads, kill in draw(st.lists(rounds, min_size=1, max_size=3)):
        mixed = draw(st.permutations([*deliveries, *loads]))
        steps += [*mixed, Build(kill)]
    if customers == "full" and draw(st.booleans()):
        steps.insert(draw(st.integers(0, len(steps))), AddColumn())
    return Example(customers, orders, steps)


# What chance tells too rarely: versions that come after the orders that have them, which only `touched_by` finds then,
# also `through` the log.
LATE_VERSION = Example(
    "append",
    "append",
    [
        Deliver("customers", (1, 0), [(1, (1, 0), "u", "a", "1"), (2, (1, 0), "u", "b", "1")]),
        Deliver("orders", (5, 0), [(key, (5, 0), "u", (1 + key % 2, 1, 4)) for key in ORDERS]),
        Load("customers", None),
        Load("orders", None),
        Build(None),
        Deliver("customers", (6, 0), [(1, (3, 0), "u", "c", "2"), (2, (2, 0), "d", "b", "1")]),
    ],
)
