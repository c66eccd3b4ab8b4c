"""What the steps of an order write into `orders`, `order_lines` and `payments`."""

from collections.abc import Iterator
from decimal import Decimal

from sluice.shop.changes import Change, Transaction, delete, insert, name, update
from sluice.shop.company import Company
from sluice.shop.orders import LONGEST_LIFE_DAYS, Event, Line, Order, Step
from sluice.shop.params import DAY


def line_id(order_id: int, number: int) -> int:
    """The key of an order's line."""
    return order_id * 10 + number


def payment_id(order: Order, event: Event) -> int:
    """The key of the payment that an event is about: the first try of an order, or the second."""
    tries = sum(1 for other in order.events[: event.number + 1] if other.step is Step.REQUEST)
    return order.order_id * 2 - 2 + tries


def _money(cents: int) -> Decimal:
    return Decimal(cents) / 100


def _line_row(order: Order, line: Line, at: object) -> dict[str, object]:
    return {
        "order_line_id": line_id(order.order_id, line.number),
        "order_id": order.order_id,
        "line_number": line.number,
        "product_id": line.product_id,
        "quantity": line.quantity,
        "unit_price": _money(line.unit_price),
        "discount_amount": _money(line.discount),
        "updated_at": at,
    }


def _place(order: Order, at: object) -> Iterator[Change]:
    """The order and its lines, in one transaction."""
    yield insert(
        "orders",
        {
            "order_id": order.order_id,
            "customer_id": order.customer_id,
            "shipping_address_id": 2 * order.customer_id - 1,
            "status": "placed",
            "channel": order.channel,
            "currency": order.currency,
            "placed_at": at,
            "updated_at": at,
        },
    )
    for line in order.placed_lines:
        yield insert("order_lines", _line_row(order, line, at))


def _edit(order: Order, at: object) -> Iterator[Change]:
    """A line is changed or hard deleted. The order's own row does not notice: its `updated_at` stays."""
    line = order.edited
    key = line_id(order.order_id, line.number)
    if order.deletes_line:
        yield delete("order_lines", key)
    else:
        discount = _money(line.discount)
        yield update("order_lines", key, quantity=line.quantity, discount_amount=discount, updated_at=at)


def _request(order: Order, event: Event, at: object) -> Iterator[Change]:
    yield insert(
        "payments",
        {
            "payment_id": payment_id(order, event),
            "order_id": order.order_id,
            "method": order.method,
            "amount": _money(order.total),
            "currency": order.currency,
            "status": "pending",
            "created_at": at,
            "updated_at": at,
        },
    )


def _pay(order: Order, event: Event, at: object, status: str) -> Change:
    return update("payments", payment_id(order, event), status=status, updated_at=at)


def _cancel(order: Order, event: Event, at: object) -> Iterator[Change]:
    """A captured payment is refunded, a pending one fails."""
    was_paid = any(other.step is Step.CAPTURE for other in order.events)
    yield _pay(order, event, at, "refunded" if was_paid else "failed")
    yield update("orders", order.order_id, status="cancelled", cancelled_at=at, updated_at=at)


def _changes(order: Order, event: Event) -> Iterator[Change]:
    """The rows that one step changes."""
    at = order.company.params.time(event.at)
    match event.step:
        case Step.PLACE:
            yield from _place(order, at)
        case Step.EDIT_LINE | Step.DELETE_LINE:
            yield from _edit(order, at)
        case Step.REQUEST:
            yield from _request(order, event, at)
        case Step.FAIL:
            yield _pay(order, event, at, "failed")
        case Step.CAPTURE:
            yield _pay(order, event, at, "captured")
            yield update("orders", order.order_id, status="paid", paid_at=at, updated_at=at)
        case Step.SHIP:
            yield update("orders", order.order_id, status="shipped", shipped_at=at, updated_at=at)
        case Step.DELIVER:
            yield update("orders", order.order_id, status="delivered", delivered_at=at, updated_at=at)
        case Step.CANCEL:
            yield from _cancel(order, event, at)
        case Step.RETURN:
            yield _pay(order, event, at, "refunded")
            yield update("orders", order.order_id, status="returned", returned_at=at, updated_at=at)


def order_transactions(company: Company, day: int) -> Iterator[Transaction]:
    """Every transaction on orders, their lines and payments that commits on a day."""
    for placed_day in range(day - LONGEST_LIFE_DAYS, day + 1):
        for order_id in company.orders.of(placed_day):
            order = Order(company, order_id)
            for event in order.events:
                if event.commit_at // DAY == day:
                    title = name("order", order_id, event.number)
                    yield Transaction(event.at, event.commit_at, title, tuple(_changes(order, event)))
