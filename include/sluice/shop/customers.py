"""Customers and their addresses: who they are, how they change, when they leave."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple

from sluice.shop.changes import Change, Transaction, delete, insert, name, update
from sluice.shop.company import Company, time_of_day
from sluice.shop.draw import Draw
from sluice.shop.params import DAY, HOUR, MINUTE
from sluice.shop.words import COUNTRIES, COUNTRY_SHARES, Country

CHANGE_MEAN_DAYS = 38
"""Days between two changes of one customer, on average."""
LEAVE_MEAN_DAYS = 700
"""Days that a customer stays, on average."""


class CustomerEvent(StrEnum):
    """What changes about a customer. `TOUCH` is a row written again with nothing new in it."""

    SEGMENT = "segment"
    EMAIL = "email"
    PHONE = "phone"
    CONSENT = "consent"
    MOVE = "move"
    TOUCH = "touch"


EVENT_SHARES = (0.20, 0.15, 0.20, 0.18, 0.22, 0.05)


class CustomerChange(NamedTuple):
    """One event in a customer's life; `number` counts them from 1."""

    at: int
    commit_at: int
    kind: CustomerEvent
    number: int


@dataclass(slots=True)
class Life:
    """When a customer comes, changes and goes. `changes` reach no further than the day that was asked for."""

    customer_id: int
    created_at: int
    committed_at: int
    deleted_at: int | None
    changes: list[CustomerChange]

    def is_there(self, instant: int) -> bool:
        """Whether the customer has come and not left (their row may still wait for its commit)."""
        return self.created_at <= instant and (self.deleted_at is None or instant < self.deleted_at)


def life_of(company: Company, customer_id: int, until_day: int) -> Life:
    """A customer's life up to the end of `until_day`. Two events are at least a full day apart."""
    draw = Draw(company.seed, "customer-life", customer_id)
    created_at = company.customers.instant(customer_id, draw.unit())
    held = draw.chance(0.15) and created_at >= 0
    lag = draw.between(HOUR, 4 * HOUR)
    first_day = company.customers.day_of(customer_id) if created_at >= 0 else -2
    leave_day = first_day + 2 + int(draw.exponential(LEAVE_MEAN_DAYS))
    deleted_at = leave_day * DAY + time_of_day(draw.unit()) if leave_day <= until_day else None
    changes = _changes(draw, first_day, min(until_day, leave_day - 2))
    return Life(customer_id, created_at, created_at + lag if held else created_at, deleted_at, changes)


def _changes(draw: Draw, first_day: int, until_day: int) -> list[CustomerChange]:
    """The events between two days; one in thirty commits up to six hours after the time it carries."""
    changes: list[CustomerChange] = []
    day = first_day
    while True:
        day += 2 + int(draw.exponential(CHANGE_MEAN_DAYS))
        at = day * DAY + time_of_day(draw.unit())
        kind = draw.weighted(tuple(CustomerEvent), EVENT_SHARES)
        lag = draw.between(10 * MINUTE, 6 * HOUR) if draw.chance(1 / 30) else 0
        if day > until_day:
            return changes
        changes.append(CustomerChange(at, at + lag, kind, len(changes) + 1))


def country_of(company: Company, customer_id: int) -> Country:
    """The country in which a customer lives all their life."""
    return Draw(company.seed, "customer-country", customer_id).weighted(COUNTRIES, COUNTRY_SHARES)


def _email(full_name: str, customer_id: int, number: int) -> str:
    """An address at a reserved domain; unique by the customer's id."""
    local = ".".join(part for part in full_name.lower().split() if part.isascii() and part.isalpha())
    host = ("example.com", "example.org", "example.net")[number % 3]
    return f"{local or 'kunde'}.{customer_id}{'' if number == 0 else f'+{number}'}@{host}"


def _phone(draw: Draw, country: Country) -> str:
    return f"{country.dialling} {draw.between(100, 999)} {draw.between(0, 9_999_999):07d}"


def customer_row(company: Company, life: Life) -> dict[str, object]:
    """A customer as they signed up."""
    country = country_of(company, life.customer_id)
    draw = Draw(company.seed, "customer", life.customer_id)
    full_name = f"{draw.choice(country.first_names)} {draw.choice(country.last_names)}"
    created_at = company.params.time(life.created_at)
    return {
        "customer_id": life.customer_id,
        "email": _email(full_name, life.customer_id, 0),
        "full_name": full_name,
        "phone": _phone(draw, country),
        "birth_date": date(1948, 1, 1) + timedelta(days=draw.between(0, 58 * 365)),
        "segment": draw.weighted(("consumer", "business", "vip"), (0.78, 0.17, 0.05)),
        "marketing_consent": draw.chance(0.55),
        "created_at": created_at,
        "updated_at": created_at,
    }


def changed_values(company: Company, row: dict[str, object], change: CustomerChange) -> dict[str, object]:
    """The columns of a customer that an event changes, given the row before it."""
    customer_id = int(str(row["customer_id"]))
    draw = Draw(company.seed, "customer-change", customer_id, change.number)
    values: dict[str, object] = {}
    if change.kind is CustomerEvent.SEGMENT:
        promoted = {"consumer": draw.choice(("business", "vip")), "business": "vip", "vip": "consumer"}
        values["segment"] = promoted[str(row["segment"])]
    elif change.kind is CustomerEvent.EMAIL:
        values["email"] = _email(str(row["full_name"]), customer_id, change.number)
    elif change.kind is CustomerEvent.PHONE:
        values["phone"] = _phone(draw, country_of(company, customer_id))
    elif change.kind is CustomerEvent.CONSENT:
        values["marketing_consent"] = not row["marketing_consent"]
    return values | {"updated_at": company.params.time(change.at)}


def address_ids(company: Company, customer_id: int) -> list[tuple[int, str]]:
    """(address_id, kind) of a customer's addresses: always one to ship to, for a third another to bill to."""
    addresses = [(2 * customer_id - 1, "shipping")]
    if Draw(company.seed, "has-billing", customer_id).chance(0.35):
        addresses.append((2 * customer_id, "billing"))
    return addresses


def _place(company: Company, customer_id: int, address_id: int, move: int) -> dict[str, object]:
    """Where an address is after move number `move` (0: at sign-up)."""
    country = country_of(company, customer_id)
    draw = Draw(company.seed, "place", address_id, move)
    city, region = draw.choice(country.places)
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    fill = {"#": lambda: str(draw.between(1, 9)), "@": lambda: draw.choice(letters)}
    return {
        "street": f"{draw.choice(country.streets)} {draw.between(1, 180)}",
        "city": city,
        "postal_code": "".join(fill[mark]() if mark in fill else mark for mark in country.postal),
        "region": region,
        "country_code": country.code,
    }


def address_rows(company: Company, life: Life) -> Iterator[dict[str, object]]:
    """A customer's addresses at sign-up."""
    created_at = company.params.time(life.created_at)
    for address_id, kind in address_ids(company, life.customer_id):
        row: dict[str, object] = {"address_id": address_id, "customer_id": life.customer_id, "kind": kind}
        place = _place(company, life.customer_id, address_id, 0)
        yield row | place | {"created_at": created_at, "updated_at": created_at}


def _move(company: Company, customer_id: int, change: CustomerChange) -> Iterator[Change]:
    """The shipping address moves; every second time the billing address moves too."""
    draw = Draw(company.seed, "move", customer_id, change.number)
    with_billing = draw.chance(0.5)
    for address_id, kind in address_ids(company, customer_id):
        if kind == "shipping" or with_billing:
            place = _place(company, customer_id, address_id, change.number)
            yield update("addresses", address_id, **place, updated_at=company.params.time(change.at))


def _sign_up(company: Company, life: Life) -> Transaction:
    rows = [insert("customers", customer_row(company, life))]
    rows += [insert("addresses", row) for row in address_rows(company, life)]
    return Transaction(life.created_at, life.committed_at, name("customer", life.customer_id, 0), tuple(rows))


def _erasure(company: Company, customer_id: int, at: int) -> Transaction:
    """The customer leaves and asks to be forgotten: their rows go, their orders stay."""
    rows = [delete("addresses", address_id) for address_id, _ in address_ids(company, customer_id)]
    rows.append(delete("customers", customer_id))
    return Transaction(at, at, name("customer", customer_id, 999), tuple(rows))


def _updates(company: Company, life: Life, day: int) -> Iterator[Transaction]:
    """The updates of one customer that commit on a day."""
    if all(change.commit_at // DAY != day for change in life.changes):
        return
    row = customer_row(company, life)
    for change in life.changes:
        values = changed_values(company, row, change)
        if change.commit_at // DAY == day:
            if change.kind is CustomerEvent.MOVE:
                changes = tuple(_move(company, life.customer_id, change))
            else:
                changes = (update("customers", life.customer_id, **values),)
            yield Transaction(change.at, change.commit_at, name("customer", life.customer_id, change.number), changes)
        row |= values


def customer_transactions(company: Company, day: int) -> Iterator[Transaction]:
    """Every transaction on customers and addresses that commits on a day."""
    for customer_id in range(1, company.customers.before(day + 1) + 1):
        life = life_of(company, customer_id, day)
        if life.created_at >= 0 and life.committed_at // DAY == day:
            yield _sign_up(company, life)
        yield from _updates(company, life, day)
        if life.deleted_at is not None and life.deleted_at // DAY == day:
            yield _erasure(company, customer_id, life.deleted_at)


def newest_customer(company: Company, instant: int) -> Life | None:
    """The last customer who signed up on the same day before an instant."""
    day = instant // DAY
    ids = company.customers.of(day)
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if life_of(company, ids[middle], day).created_at <= instant:
            low = middle + 1
        else:
            high = middle
    return life_of(company, ids[low - 1], day) if low else None
