"""Stock lists: every warehouse counts every product on sale, once an evening. A few rows are damaged."""

import csv
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from sluice.shop.company import Company
from sluice.shop.draw import Draw, fraction
from sluice.shop.files import WAREHOUSES, done_path, inventory_path, whole_file
from sluice.shop.params import DAY, HOUR, SECOND
from sluice.shop.products import product_at

COLUMNS = ("sku", "on_hand", "reserved", "reorder_point", "counted_at")
DAMAGE_SHARE = 1 / 400


class Damage(StrEnum):
    """What can be wrong with a row of a stock list."""

    NOT_A_NUMBER = "not_a_number"
    """`on_hand` is the text n/a."""
    NEGATIVE = "negative"
    """`on_hand` is -1."""


class Count(NamedTuple):
    """One row of a stock list, and what is wrong with it."""

    cells: tuple[str, str, str, str, str]
    damage: Damage | None


def _on_hand(company: Company, product_id: int, warehouse: str, day: int) -> tuple[int, int]:
    """(on hand, reorder point): stock falls day by day and is filled up again every few weeks."""
    draw = Draw(company.seed, "stock", product_id, warehouse)
    period, phase = draw.between(9, 35), draw.between(0, 34)
    a_day = draw.between(1, 6) + 40 // (product_id + 4)
    reorder_point = a_day * draw.between(3, 6)
    left = period - 1 - (day + phase) % period
    noise = fraction(company.seed, "stock-noise", product_id, warehouse, day)
    return reorder_point // 2 + int((left + noise) * a_day), reorder_point


def _damage(company: Company, product_id: int, warehouse: str, day: int) -> Damage | None:
    point = fraction(company.seed, "stock-damage", product_id, warehouse, day)
    if point >= DAMAGE_SHARE:
        return None
    return Damage.NOT_A_NUMBER if point < DAMAGE_SHARE / 2 else Damage.NEGATIVE


def counts(company: Company, day: int, warehouse: str) -> Iterator[Count]:
    """The stock list of a warehouse: the products that are on sale when the count begins, at 20:00."""
    opens = day * DAY + 20 * HOUR
    for product_id in range(1, company.products.before(day + 1) + 1):
        product = product_at(company, product_id, opens)
        if product.created_at > opens or not product.is_active:
            continue
        on_hand, reorder_point = _on_hand(company, product_id, warehouse, day)
        reserved = int(on_hand * 0.2 * fraction(company.seed, "reserved", product_id, warehouse, day))
        seconds = int(fraction(company.seed, "counted", product_id, warehouse, day) * 7_200)
        damage = _damage(company, product_id, warehouse, day)
        shown = {None: str(on_hand), Damage.NOT_A_NUMBER: "n/a", Damage.NEGATIVE: "-1"}[damage]
        counted_at = company.params.time(opens + seconds * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Count((product.sku, shown, str(reserved), str(reorder_point), counted_at), damage)


def write_inventory(company: Company, root: Path, day: int) -> None:
    """Write the stock lists of a day, each followed by its marker with the number of rows."""
    for warehouse in WAREHOUSES:
        path = inventory_path(root, company.params.date(day), warehouse)
        rows = 0
        with whole_file(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for count in counts(company, day, warehouse):
                writer.writerow(count.cells)
                rows += 1
        with whole_file(done_path(path)) as file:
            file.write(f"{rows}\n")
