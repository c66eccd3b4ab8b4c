"""Exchange rates and unit costs: pure functions of the seed and a date."""

from datetime import date
from math import exp, pi, sin
from typing import NamedTuple

from sluice.shop.company import Company
from sluice.shop.draw import fraction
from sluice.shop.products import product_of
from sluice.shop.words import EURO_RATES, SUPPLIERS

MICRO = 1_000_000


class UnitCost(NamedTuple):
    """What one piece costs the company, from a date on. `micros` are millionths of the currency."""

    sku: str
    micros: int
    currency: str
    supplier: str
    valid_from: date


def rate_micros(seed: int, currency: str, when: date) -> int:
    """How many millionths of `currency` one euro buys on a date: two slow waves and a little noise."""
    if currency == "EUR":
        return MICRO
    day = when.toordinal()
    slow = 0.020 * sin(2 * pi * (day / 97 + fraction(seed, "rate-slow", currency)))
    fast = 0.006 * sin(2 * pi * (day / 23 + fraction(seed, "rate-fast", currency)))
    noise = 0.004 * (fraction(seed, "rate-noise", currency, day) - 0.5)
    return round(EURO_RATES[currency] * exp(slow + fast + noise) * MICRO)


def decimal_text(micros: int) -> str:
    """Millionths as a decimal string with six places, as the API writes it."""
    return f"{micros // MICRO}.{micros % MICRO:06d}"


def rates(seed: int, when: date) -> list[dict[str, str]]:
    """All exchange rates of a date, by currency."""
    return [
        {
            "rate_date": when.isoformat(),
            "base_currency": "EUR",
            "currency": currency,
            "rate": decimal_text(rate_micros(seed, currency, when)),
        }
        for currency in sorted(EURO_RATES)
    ]


def _cost_month(seed: int, product_id: int, when: date) -> tuple[int, int]:
    """(month number, day of month) of the last cost change up to a date; seven months in ten bring one."""
    change_day = 1 + int(fraction(seed, "cost-day", product_id) * 28)
    month = when.year * 12 + when.month - 1 - (when.day < change_day)
    while fraction(seed, "cost-changes", product_id, month) >= 0.7:
        month -= 1
    return month, change_day


def unit_cost(company: Company, product_id: int, when: date) -> UnitCost:
    """The unit cost of a product on a date: 45 to 70 % of its first list price, moving monthly or so."""
    seed = company.seed
    product = product_of(company, product_id)
    month, day = _cost_month(seed, product_id, when)
    supplier, currency = SUPPLIERS[int(fraction(seed, "supplier", product_id) * len(SUPPLIERS))]
    share = 0.45 + 0.25 * fraction(seed, "cost-share", product_id)
    swing = 1 + 0.08 * (fraction(seed, "cost-swing", product_id, month) - 0.5)
    euros = product.first_price_cents / 100 * share * swing
    local = euros * EURO_RATES.get(currency, 1.0)
    created = company.params.time(product.created_at).date()
    valid_from = max(date(month // 12, month % 12 + 1, day), created)
    return UnitCost(product.sku, round(local * 10_000) * 100, currency, supplier, valid_from)


def cost_items(company: Company, when: date, first: int, last: int) -> list[dict[str, str]]:
    """The unit costs of products `first` to `last` (ids, inclusive) as the API shows them."""
    costs = (unit_cost(company, product_id, when) for product_id in range(first, last + 1))
    return [
        {
            "sku": cost.sku,
            "unit_cost": decimal_text(cost.micros)[:-2],
            "currency": cost.currency,
            "supplier": cost.supplier,
            "valid_from": cost.valid_from.isoformat(),
        }
        for cost in costs
    ]


def products_known(company: Company, when: date) -> int:
    """How many products exist at the end of a date."""
    day = company.params.day(when)
    if day >= 0:
        return company.products.before(day + 1)
    low, high = 0, company.products.before(0)
    while low < high:
        middle = (low + high + 1) // 2
        if company.params.time(product_of(company, middle).created_at).date() <= when:
            low = middle
        else:
            high = middle - 1
    return low
