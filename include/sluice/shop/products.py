"""Categories and products: a nearly still tree, and goods whose prices move."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from sluice.shop.changes import Change, Transaction, insert, name, update
from sluice.shop.company import HISTORY_DAYS, Company
from sluice.shop.draw import Draw
from sluice.shop.params import DAY, HOUR
from sluice.shop.words import ADJECTIVES, CATEGORIES, LEAVES, MATERIALS, Category

PRICE_MEAN_DAYS = 26
"""Days between two changes of one product, on average."""


class ProductEvent(StrEnum):
    """What happens to a product in one night."""

    PRICE = "price"
    MOVE = "move"
    DISCONTINUE = "discontinue"


class ProductChange(NamedTuple):
    """One event in a product's life; `number` counts them from 1."""

    at: int
    kind: ProductEvent
    number: int


@dataclass(frozen=True, slots=True)
class Product:
    """A product as it is at one instant. Prices are cents of EUR."""

    product_id: int
    sku: str
    name: str
    category_id: int
    first_price_cents: int
    price_cents: int
    weight_grams: int
    is_active: bool
    created_at: int
    updated_at: int


def product_of(company: Company, product_id: int) -> Product:
    """A product as it came into being."""
    draw = Draw(company.seed, "product", product_id)
    created_at = company.products.instant(product_id, draw.unit())
    category = draw.choice(LEAVES)
    good = draw.choice(category.goods)
    euros = good.low * (good.high / good.low) ** draw.unit()
    cents = max(1, round(euros)) * 100 - draw.choice((1, 5, 10, 0))
    title = f"{draw.choice(ADJECTIVES)} {draw.choice(MATERIALS)} {good.name}"
    return Product(
        product_id=product_id,
        sku=f"{category.code}-{product_id:06d}",
        name=title,
        category_id=category.category_id,
        first_price_cents=cents,
        price_cents=cents,
        weight_grams=round(euros * draw.between(8, 40)) + 20,
        is_active=True,
        created_at=created_at,
        updated_at=created_at,
    )


def product_changes(company: Company, product_id: int, until_day: int) -> Iterator[ProductChange]:
    """The events of a product's life up to the end of `until_day`, at most one a day, between 5 and 8."""
    draw = Draw(company.seed, "product-life", product_id)
    day = company.products.day_of(product_id)
    number = 0
    while True:
        day += 1 + int(draw.exponential(PRICE_MEAN_DAYS))
        at = day * DAY + 5 * HOUR + int(draw.unit() * 3 * HOUR)
        kinds = (ProductEvent.PRICE, ProductEvent.MOVE, ProductEvent.DISCONTINUE)
        kind = draw.weighted(kinds, (0.84, 0.07, 0.09))
        number += 1
        if day > until_day:
            return
        yield ProductChange(at, kind, number)


def changed(company: Company, product: Product, change: ProductChange) -> Product:
    """The product after an event. A product that is off sale comes back at its next event."""
    draw = Draw(company.seed, "product-change", product.product_id, change.number)
    if not product.is_active:
        return replace(product, is_active=True, updated_at=change.at)
    if change.kind is ProductEvent.DISCONTINUE and product.product_id > 3:
        return replace(product, is_active=False, updated_at=change.at)
    if change.kind is ProductEvent.MOVE:
        return replace(product, category_id=draw.choice(LEAVES).category_id, updated_at=change.at)
    step = draw.choice((-0.20, -0.10, -0.05, 0.03, 0.05, 0.08, 0.10, 0.15))
    cents = max(1, round(product.price_cents * (1 + step) / 100)) * 100 - draw.choice((1, 5, 10, 0))
    return replace(product, price_cents=cents, updated_at=change.at)


def product_at(company: Company, product_id: int, instant: int) -> Product:
    """The product as it is at an instant after it came into being."""
    product = product_of(company, product_id)
    for change in product_changes(company, product_id, instant // DAY):
        if change.at <= instant:
            product = changed(company, product, change)
    return product


def product_row(company: Company, product: Product) -> dict[str, object]:
    """The product as a row of `products`."""
    return {
        "product_id": product.product_id,
        "sku": product.sku,
        "name": product.name,
        "category_id": product.category_id,
        "list_price": Decimal(product.price_cents) / 100,
        "currency": "EUR",
        "weight_grams": product.weight_grams,
        "is_active": product.is_active,
        "created_at": company.params.time(product.created_at),
        "updated_at": company.params.time(product.updated_at),
    }


def _update_product(company: Company, before: Product, after: Product) -> Change:
    """The columns in which two versions of a product differ."""
    old, new = product_row(company, before), product_row(company, after)
    values = {column: value for column, value in new.items() if value != old[column]}
    return update("products", after.product_id, **values)


def product_transactions(company: Company, day: int) -> Iterator[Transaction]:
    """Every transaction on products that commits on a day."""
    for product_id in company.products.of(day):
        product = product_of(company, product_id)
        row = product_row(company, product)
        at = product.created_at
        yield Transaction(at, at, name("product", product_id, 0), (insert("products", row),))
    for product_id in range(1, company.products.before(day) + 1):
        for change in product_changes(company, product_id, day):
            if change.at // DAY == day:
                before = product_at(company, product_id, change.at - 1)
                after = changed(company, before, change)
                changes = (_update_product(company, before, after),)
                yield Transaction(change.at, change.at, name("product", product_id, change.number), changes)


def category_row(company: Company, category: Category) -> dict[str, object]:
    """A category as the company opened with it."""
    return {
        "category_id": category.category_id,
        "name": category.name,
        "parent_category_id": category.parent,
        "updated_at": company.params.time(-HISTORY_DAYS * DAY),
    }


def category_transactions(company: Company, day: int) -> Iterator[Transaction]:
    """The categories that get their new name on a day: each once, after two months on average."""
    for category in CATEGORIES:
        draw = Draw(company.seed, "category", category.category_id)
        if 3 + int(draw.exponential(60)) == day:
            at = day * DAY + 9 * HOUR + int(draw.unit() * HOUR)
            change = update(
                "categories", category.category_id, name=category.new_name, updated_at=company.params.time(at)
            )
            yield Transaction(at, at, name("category", category.category_id, 1), (change,))


def popular_product(company: Company, draw: Draw, day: int) -> int:
    """A product id that existed before `day`, roughly Zipf: low ids sell far more than high ones."""
    known = company.products.before(day)
    return min(known, 1 + int(8 * ((known / 8 + 1) ** draw.unit() - 1)))


def product_on_sale(company: Company, draw: Draw, instant: int) -> Product:
    """A popular product that is on sale at an instant (the first products are never discontinued)."""
    for _ in range(20):
        product = product_at(company, popular_product(company, draw, instant // DAY), instant)
        if product.is_active:
            return product
    return product_at(company, 1, instant)
