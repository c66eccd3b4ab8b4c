"""One simulated day of the database as a stream of entries in the order in which they reach Postgres."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from sluice.shop.changes import Transaction
from sluice.shop.company import Company
from sluice.shop.customers import customer_transactions
from sluice.shop.order_rows import order_transactions
from sluice.shop.params import DAY
from sluice.shop.products import category_transactions, product_transactions
from sluice.shop.sorting import sort_by_key


class Phase(StrEnum):
    """Whether an entry begins a transaction that stays open, or commits one."""

    OPEN = "a-open"
    COMMIT = "b-commit"


class Entry(NamedTuple):
    """A moment in the life of a transaction. `commit_key` is the place of its commit in the day's order."""

    phase: Phase
    commit_key: str
    transaction: Transaction


def sort_key(instant: int, phase: Phase, name: str) -> str:
    """A text that sorts as the moments do, and is unique to one moment of one transaction."""
    return f"{instant:015d}/{phase}/{name}"


def transactions(company: Company, day: int) -> Iterator[Transaction]:
    """Every transaction that commits on a day, in no particular order."""
    return chain(
        category_transactions(company, day),
        product_transactions(company, day),
        customer_transactions(company, day),
        order_transactions(company, day),
    )


def _moments(transactions: Iterable[Transaction], day: int) -> Iterator[tuple[str, Entry]]:
    """A commit for each transaction, and an opening before it when it stays open for a while on this day.

    What was held over from the day before is only committed, so that nothing is open when a day ends.
    """
    for transaction in transactions:
        commit_key = sort_key(transaction.commit_at, Phase.COMMIT, transaction.name)
        if day * DAY <= transaction.at < transaction.commit_at:
            open_key = sort_key(transaction.at, Phase.OPEN, transaction.name)
            yield open_key, Entry(Phase.OPEN, commit_key, transaction)
        yield commit_key, Entry(Phase.COMMIT, commit_key, transaction)


def entries(company: Company, day: int) -> Iterator[Entry]:
    """The day's entries in order of time, in bounded memory."""
    for _, entry in sort_by_key(_moments(transactions(company, day), day)):
        yield entry
