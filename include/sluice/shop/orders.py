"""An order's course, as a pure function of its id: when each step happens, and what it is worth.

What the steps write is in `order_rows`.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from sluice.shop.company import Company
from sluice.shop.customers import country_of, life_of, newest_customer
from sluice.shop.draw import Draw
from sluice.shop.params import DAY, HOUR, MINUTE
from sluice.shop.products import product_on_sale
from sluice.shop.rates import MICRO, rate_micros

LONGEST_LIFE_DAYS = 19
"""No order has a step this many days after the day it was placed, or later."""

HELD_SHARE = 0.025
"""The share of transactions that commit later than the time in their rows says."""


class Step(StrEnum):
    """What can happen to an order."""

    PLACE = "place"
    EDIT_LINE = "edit_line"
    DELETE_LINE = "delete_line"
    REQUEST = "request"
    """A payment is asked for and pending."""
    FAIL = "fail"
    CAPTURE = "capture"
    """The payment is captured and the order is paid."""
    SHIP = "ship"
    DELIVER = "deliver"
    CANCEL = "cancel"
    RETURN = "return"


class Event(NamedTuple):
    """One step of one order; `number` counts an order's steps from 0."""

    at: int
    commit_at: int
    step: Step
    number: int


class Line(NamedTuple):
    """One line of an order. Money is in cents of the order's currency."""

    number: int
    product_id: int
    quantity: int
    unit_price: int
    discount: int

    @property
    def amount(self) -> int:
        """What the line costs after its discount."""
        return self.quantity * self.unit_price - self.discount


class Course:
    """Collects an order's events; each begins at least a minute after the one before it has committed."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.events: list[Event] = []

    @property
    def latest(self) -> int:
        """When the last event committed."""
        return self.events[-1].commit_at

    def add(self, step: Step, at: int) -> None:
        """The next event, at `at` or as soon as possible after it."""
        if self.events:
            at = max(at, self.latest + MINUTE)
        held, lag = self._draw.chance(HELD_SHARE), self._draw.between(10 * MINUTE, 5 * HOUR)
        self.events.append(Event(at, at + lag if held else at, step, len(self.events)))

    def after(self, step: Step, low: int, high: int) -> None:
        """The next event, between `low` and `high` after the last."""
        self.add(step, self.latest + self._draw.between(low, high))

    def in_hours(self, step: Step, low_days: int, high_days: int, opens: int, closes: int) -> None:
        """The next event, some days later and in working hours."""
        day = self.latest // DAY + self._draw.between(low_days, high_days)
        at = day * DAY + self._draw.between(opens * HOUR, closes * HOUR)
        self.add(step, at if at > self.latest else at + DAY)


@dataclass(frozen=True)
class Order:
    """An order with everything that follows from its id."""

    company: Company
    order_id: int

    @cached_property
    def _head(self) -> tuple[int, str, str, list[Event]]:
        draw = Draw(self.company.seed, "order", self.order_id)
        placed_at = self.company.orders.instant(self.order_id, draw.unit())
        channel = draw.weighted(("web", "store", "phone"), (0.70, 0.21, 0.09))
        method = draw.weighted(("card", "wallet", "transfer"), (0.60, 0.25, 0.15))
        method = "card" if channel == "store" and method == "transfer" else method
        return placed_at, channel, method, _course(draw, placed_at, method)

    @property
    def placed_at(self) -> int:
        """When the customer placed it."""
        return self._head[0]

    @property
    def channel(self) -> str:
        """web, store or phone."""
        return self._head[1]

    @property
    def method(self) -> str:
        """How the customer pays."""
        return self._head[2]

    @property
    def events(self) -> list[Event]:
        """All steps, in order."""
        return self._head[3]

    @cached_property
    def customer_id(self) -> int:
        """Who placed it."""
        return _customer(self.company, self.order_id, self.placed_at)

    @cached_property
    def currency(self) -> str:
        """The currency of the customer's country."""
        return country_of(self.company, self.customer_id).currency

    @cached_property
    def placed_lines(self) -> list[Line]:
        """The lines as they were ordered."""
        return _lines(self)

    @cached_property
    def edited(self) -> Line:
        """The line that an edit changes (as it is afterwards) or deletes (as it was)."""
        draw = Draw(self.company.seed, "order-edit", self.order_id)
        line = draw.choice(self.placed_lines)
        quantity = draw.choice([quantity for quantity in (1, 2, 3, 4) if quantity != line.quantity])
        if self.deletes_line:
            return line
        return line._replace(quantity=quantity, discount=line.discount * quantity // line.quantity)

    @property
    def deletes_line(self) -> bool:
        """Whether the edit deletes a line; the last line of an order is never deleted."""
        return len(self.placed_lines) > 1 and any(event.step is Step.DELETE_LINE for event in self.events)

    @cached_property
    def final_lines(self) -> list[Line]:
        """The lines that are paid for."""
        if self.events[1].step not in (Step.EDIT_LINE, Step.DELETE_LINE):
            return self.placed_lines
        kept = [line for line in self.placed_lines if line.number != self.edited.number]
        return kept if self.deletes_line else sorted([*kept, self.edited])

    @property
    def total(self) -> int:
        """What is paid, in cents."""
        return sum(line.amount for line in self.final_lines)


def _course(draw: Draw, placed_at: int, method: str) -> list[Event]:
    """Place, perhaps edit, pay, ship, deliver; some fail, are cancelled or come back."""
    course = Course(draw)
    course.add(Step.PLACE, placed_at)
    edit = draw.unit()
    if edit < 0.11:
        course.after(Step.EDIT_LINE if edit < 0.06 else Step.DELETE_LINE, 4 * MINUTE, 80 * MINUTE)
    course.after(Step.REQUEST, MINUTE, 15 * MINUTE)
    if draw.chance(0.06):
        course.after(Step.FAIL, MINUTE, 5 * MINUTE)
        course.after(Step.REQUEST, 2 * MINUTE, 40 * MINUTE)
    if draw.chance(0.04):
        course.after(Step.CANCEL, DAY, 3 * DAY)
        return course.events
    course.after(Step.CAPTURE, *((DAY // 2, 2 * DAY) if method == "transfer" else (MINUTE, 10 * MINUTE)))
    if draw.chance(0.025):
        course.after(Step.CANCEL, HOUR, 12 * HOUR)
        return course.events
    course.in_hours(Step.SHIP, 0, 2, 8, 18)
    course.in_hours(Step.DELIVER, 1, 4, 8, 20)
    if draw.chance(0.06):
        course.in_hours(Step.RETURN, 1, 5, 9, 17)
    return course.events


def _customer(company: Company, order_id: int, instant: int) -> int:
    """Who orders: one who just signed up and whose row is not yet committed, or one from before the day."""
    draw = Draw(company.seed, "order-customer", order_id)
    newest = newest_customer(company, instant)
    if newest and instant < newest.committed_at and draw.chance(0.6):
        return newest.customer_id
    day = instant // DAY
    for _ in range(20):
        customer_id = 1 + int(company.customers.before(day) * draw.unit() ** 1.35)
        life = life_of(company, customer_id, day)
        if life.is_there(instant):
            return customer_id
    raise RuntimeError(f"no customer could be found for order {order_id}; this is a bug in sluice.shop")


def _lines(order: Order) -> list[Line]:
    """One to five lines of different products at that day's prices, some with a discount."""
    draw = Draw(order.company.seed, "order-lines", order.order_id)
    rate = rate_micros(order.company.seed, order.currency, order.company.params.time(order.placed_at).date())
    wanted = draw.weighted((1, 2, 3, 4, 5), (0.36, 0.28, 0.18, 0.11, 0.07))
    lines: list[Line] = []
    seen: set[int] = set()
    for _ in range(wanted):
        product = product_on_sale(order.company, draw, order.placed_at)
        quantity = draw.weighted((1, 2, 3, 4, 6), (0.64, 0.22, 0.08, 0.04, 0.02))
        share = draw.choice((5, 10, 10, 15, 20)) if draw.chance(0.16) else 0
        if product.product_id not in seen:
            seen.add(product.product_id)
            unit_price = max(1, (product.price_cents * rate + MICRO // 2) // MICRO)
            discount = quantity * unit_price * share // 100
            lines.append(Line(len(lines) + 1, product.product_id, quantity, unit_price, discount))
    return lines
