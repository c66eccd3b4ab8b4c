"""The shop in databases of its own, and a company that was made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from sluice.shop import Params, init


@pytest.fixture(scope="session")
def new_database(postgres: Any) -> Callable[[], str]:
    """Makes empty databases; returns their URLs."""
    return postgres.database


@pytest.fixture
def shop_database_url(new_database) -> str:
    """An empty database of its own for one test."""
    return new_database()


class Shop(NamedTuple):
    """A company that was made for tests, which only read it."""

    url: str
    files: Path
    params: Params
    days: int

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        """What a query answers."""
        with psycopg.connect(self.url, options="-c timezone=UTC") as connection:
            return connection.execute(query, parameters).fetchall()

    def value(self, query: str, *parameters: object):
        """The one value that a query answers."""
        ((value,),) = self.rows(query, *parameters)
        return value


@pytest.fixture(scope="session")
def shop_of_14_days(new_database, tmp_path_factory) -> Shop:
    """The default company after its default fourteen days."""
    shop = Shop(new_database(), tmp_path_factory.mktemp("shop"), Params(), 14)
    outcome = init(shop.url, shop.files, shop.params, shop.days)
    assert outcome.days_simulated == 14
    return shop
