"""The words in which a day of the company is told: changes of rows, and the transactions that carry them."""

from enum import StrEnum
from typing import NamedTuple

from sluice.shop.params import DAY


class Op(StrEnum):
    """What a change does to its row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Change(NamedTuple):
    """One row of `table` inserted, updated or hard deleted. The first column of a table is its key."""

    op: Op
    table: str
    key: int
    values: dict[str, object]


class Transaction(NamedTuple):
    """Changes that become visible together.

    `at` is what the rows say (`updated_at`); `commit_at` is when others can see them, up to six hours later.
    `name` makes the order among transactions of the same instant definite.
    """

    at: int
    commit_at: int
    name: str
    changes: tuple[Change, ...]

    @property
    def day(self) -> int:
        """The simulated day to which the transaction belongs: the one on which it commits."""
        return self.commit_at // DAY


def insert(table: str, row: dict[str, object]) -> Change:
    """A new row; its key is its first value."""
    key = next(iter(row.values()))
    assert isinstance(key, int)
    return Change(Op.INSERT, table, key, row)


def update(table: str, key: int, **values: object) -> Change:
    """New values for some columns of a row."""
    return Change(Op.UPDATE, table, key, values)


def delete(table: str, key: int) -> Change:
    """A hard delete: the row leaves no trace in its own table."""
    return Change(Op.DELETE, table, key, {})


def name(kind: str, key: int, number: int) -> str:
    """A transaction's name, which sorts like (kind, key, number)."""
    return f"{kind}/{key:012d}/{number:03d}"
