"""What visitors do on the web shop, and how the collector hands it on: late, twice, now and then broken."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import orjson

from sluice.shop.company import Company
from sluice.shop.customers import life_of
from sluice.shop.draw import Draw, hash64
from sluice.shop.files import clickstream_path, whole_file
from sluice.shop.orders import Order
from sluice.shop.params import DAY, HOUR, MINUTE
from sluice.shop.products import popular_product
from sluice.shop.sorting import sort_by_key

LATE_SHARE, LATEST = 0.03, 20 * HOUR
TWICE_SHARE, TWICE_LATEST = 0.01, 3 * HOUR
BROKEN_SHARE = 1 / 5_000
SITE = "https://shop.example"
REFERRERS = (
    None,
    None,
    "https://search.example/",
    "https://news.example/reviews",
    "https://social.example/feed",
)
CAMPAIGNS = (None, None, None, "winter", "newsletter", "spring-sale")


class Click(NamedTuple):
    """One thing a visitor did."""

    occurred_at: int
    event_type: str
    customer_id: int | None
    product_id: int | None
    path: str
    properties: dict[str, object]


class Visit(NamedTuple):
    """Who came, with what, and from where; the clicks follow. The collector does not tell visits apart."""

    name: str
    visitor_id: str
    device: str
    referrer: str | None
    clicks: list[Click]


class Delivery(NamedTuple):
    """One line of one file."""

    received_at: int
    event_id: str
    copy: int
    line: bytes
    occurred_at: int
    is_broken: bool

    @property
    def is_late(self) -> bool:
        """Whether it stands in the file of a later hour than the one in which it happened."""
        return self.received_at // HOUR > self.occurred_at // HOUR


def _visitor(company: Company, *who: object) -> str:
    return f"v-{hash64(company.seed, 'visitor', *who):016x}"


def _customers_visitor(company: Company, draw: Draw, customer_id: int) -> tuple[str, str]:
    """(visitor id, device): every customer has a computer and some a telephone, which is another visitor."""
    device = draw.weighted(("desktop", "mobile", "tablet"), (0.52, 0.40, 0.08))
    return _visitor(company, customer_id, device), device


def _times(draw: Draw, number: int, end: int) -> list[int]:
    """`number` instants that end at `end`, up to four minutes apart."""
    times = [end]
    while len(times) < number:
        times.append(times[-1] - 900 - min(int(draw.exponential(40_000)), 4 * MINUTE - 900))
    return times[::-1]


def _buying(company: Company, order_id: int) -> Visit | None:
    """The visit that ends in a web order; None when the order was placed elsewhere."""
    order = Order(company, order_id)
    if order.channel != "web":
        return None
    draw = Draw(company.seed, "visit-buying", order_id)
    customer = order.customer_id
    visitor_id, device = _customers_visitor(company, draw, customer)
    known: int | None = customer if draw.chance(0.4) else None
    steps: list[tuple[str, int | None, int | None, str, dict[str, object]]] = []
    steps.append(("page_view", known, None, "/", {"page": "home"}))
    for line in order.placed_lines:
        path = f"/products/{line.product_id}"
        steps.append(("product_view", known, line.product_id, path, {"position": draw.between(1, 24)}))
        steps.append(("add_to_cart", known, line.product_id, path, {"quantity": line.quantity}))
    value = sum(line.amount for line in order.placed_lines)
    bought = {"order_id": order_id, "value": f"{value // 100}.{value % 100:02d}", "currency": order.currency}
    steps.append(("checkout", customer, None, "/checkout", {"step": "payment"}))
    steps.append(("purchase", customer, None, "/checkout/thanks", bought))
    times = _times(draw, len(steps), order.placed_at)
    clicks = [Click(time, *step) for time, step in zip(times, steps, strict=True)]
    return Visit(f"order/{order_id}", visitor_id, device, draw.choice(REFERRERS), clicks)


def _looking(company: Company, visit_id: int) -> Visit:
    """A visit that ends without an order: a customer's, or a stranger's."""
    draw = Draw(company.seed, "visit", visit_id)
    start = company.visits.instant(visit_id, draw.unit())
    day = start // DAY
    customer: int | None = 1 + int(company.customers.before(day) * draw.unit())
    if draw.chance(0.4) and life_of(company, customer or 1, day).is_there(start):
        visitor_id, device = _customers_visitor(company, draw, customer or 1)
        customer = customer if draw.chance(0.5) else None
    else:
        device = draw.weighted(("mobile", "desktop", "tablet"), (0.58, 0.35, 0.07))
        customer, visitor_id = (
            None,
            _visitor(company, "stranger", int(3_000 * company.params.scale * draw.unit())),
        )
    clicks = _browse(company, draw, start, customer)
    return Visit(f"visit/{visit_id}", visitor_id, device, draw.choice(REFERRERS), clicks)


def _browse(company: Company, draw: Draw, start: int, customer: int | None) -> list[Click]:
    """Some pages and products, sometimes a cart, rarely a checkout that is left."""
    campaign = draw.choice(CAMPAIGNS)
    clicks = [Click(start, "page_view", customer, None, "/", {"page": "home", "campaign": campaign})]
    for _ in range(min(12, int(draw.exponential(4.2)))):
        at = clicks[-1].occurred_at + 700 + min(int(draw.exponential(45_000)), 4 * MINUTE - 700)
        kind = draw.weighted(("product_view", "page_view", "add_to_cart", "checkout"), (0.58, 0.27, 0.12, 0.03))
        if kind in ("product_view", "add_to_cart"):
            product = popular_product(company, draw, start // DAY)
            extra = {"position": draw.between(1, 24)} if kind == "product_view" else {"quantity": draw.between(1, 2)}
            clicks.append(Click(at, kind, customer, product, f"/products/{product}", extra))
        elif kind == "checkout":
            clicks.append(Click(at, kind, customer, None, "/checkout", {"step": "address"}))
        else:
            page = draw.choice(("search", "sale", "about", "delivery"))
            clicks.append(Click(at, kind, customer, None, f"/{page}", {"page": page}))
    return clicks


def visits(company: Company, day: int) -> Iterator[Visit]:
    """Every visit that begins, or ends in an order, on a day."""
    for order_id in company.orders.of(day):
        visit = _buying(company, order_id)
        if visit:
            yield visit
    for visit_id in company.visits.of(day):
        yield _looking(company, visit_id)


def _line(company: Company, visit: Visit, click: Click, event_id: str) -> bytes:
    occurred_at = company.params.time(click.occurred_at).isoformat(timespec="milliseconds")
    return orjson.dumps(
        {
            "event_id": event_id,
            "visitor_id": visit.visitor_id,
            "customer_id": click.customer_id,
            "event_type": click.event_type,
            "product_id": click.product_id,
            "url": f"{SITE}{click.path}",
            "referrer": visit.referrer,
            "device": visit.device,
            "occurred_at": occurred_at.replace("+00:00", "Z"),
            "properties": click.properties,
        }
    )


def _deliveries(company: Company, visit: Visit, day: int) -> Iterator[Delivery]:
    """The lines of a visit's clicks. None is received before its day begins or after the next day ends."""
    draw = Draw(company.seed, "delivery", visit.name)
    first, last = day * DAY, (day + 2) * DAY - 1
    for number, click in enumerate(visit.clicks):
        event_id = str(
            UUID(
                int=hash64(company.seed, "event", visit.name, number) << 64
                | hash64(company.seed, "event-tail", visit.name, number),
                version=4,
            )
        )
        line = _line(company, visit, click, event_id)
        late = draw.between(HOUR, LATEST) if draw.chance(LATE_SHARE) else draw.between(150, 4_000)
        received = min(max(click.occurred_at + late, first), last)
        copies = [received]
        if draw.chance(TWICE_SHARE):
            copies.append(min(received + draw.between(0, TWICE_LATEST), last))
        for copy, at in enumerate(copies):
            broken = draw.chance(BROKEN_SHARE)
            text = line[: draw.between(20, len(line) - 2)] if broken else line
            yield Delivery(at, event_id, copy, text, click.occurred_at, broken)


def deliveries(company: Company, day: int) -> Iterator[Delivery]:
    """Every line that is received on a day, in order, in bounded memory."""
    lines = (
        (f"{line.received_at:015d}/{line.event_id}/{line.copy}", line)
        for visit_day in (day - 1, day)
        for visit in visits(company, visit_day)
        for line in _deliveries(company, visit, visit_day)
        if line.received_at // DAY == day
    )
    for _, line in sort_by_key(lines):
        yield line


def write_clickstream(company: Company, root: Path, day: int) -> None:
    """Write the day's 24 files, one for each hour of reception; a quiet hour has an empty file."""
    when = company.params.date(day)
    lines = deliveries(company, day)
    line = next(lines, None)
    for hour in range(24):
        with ExitStack() as stack:
            file = stack.enter_context(whole_file(clickstream_path(root, when, hour)))
            while line and line.received_at % DAY // HOUR == hour:
                file.write(line.line.decode("utf-8") + "\n")
                line = next(lines, None)
