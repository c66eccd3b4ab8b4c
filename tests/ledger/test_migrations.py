"""The ledger of an older release becomes the present one, once, whoever starts first."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from sluice.ledger import migrate
from sluice.ledger.migrate import migrations
from tests.conftest import PostgresForTests

_FIRST = Path(__file__).with_name("first_schema.sql").read_text()
_SHAPE = """
    select table_name, column_name, data_type, is_nullable from information_schema.columns
    where table_schema = 'ops' order by 1, 2
"""


@pytest.fixture
def first_release(postgres: PostgresForTests) -> str:
    """A database with the first release's ledger and one published batch in it."""
    url = postgres.database()
    with psycopg.connect(url) as connection:
        connection.execute(_FIRST)
        connection.execute(
            "insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq)"
            " values ('shop', 'orders', 'u', 'published', 'append', 'r', 1)"
        )
    return url


def test_a_database_of_the_first_release_becomes_the_present_one_and_keeps_its_rows(
    first_release: str, warehouse: psycopg.Connection
) -> None:
    applied = migrate(first_release)
    assert [name for _, name, _ in migrations()] == applied[1:]
    with psycopg.connect(first_release) as connection:
        assert connection.execute("select unit, state, replay_of from ops.batch").fetchall() == [
            ("u", "published", None)
        ]
        assert connection.execute(_SHAPE).fetchall() == warehouse.execute(_SHAPE).fetchall(), "as if made new"
        recorded = connection.execute("select number, name from ops.migration where number > 0 order by 1").fetchall()
    assert recorded == [(number, name) for number, name, _ in migrations()]


def test_a_second_start_changes_nothing(first_release: str) -> None:
    migrate(first_release)
    assert migrate(first_release) == []


def test_two_processes_at_once_apply_each_migration_once(first_release: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(migrate, [first_release] * 4))
    assert sorted(map(len, results)) == [0, 0, 0, len(migrations()) + 1]


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(
    first_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = migrations()[0]
    target = sys.modules["sluice.ledger.migrate"]  # the package's attribute of that name is the function
    monkeypatch.setattr(target, "migrations", lambda: [good, (9999, "broken", "alter table ops.nowhere add x int")])
    with pytest.raises(psycopg.errors.UndefinedTable):
        migrate(first_release)
    with psycopg.connect(first_release) as connection:
        assert connection.execute("select to_regclass('ops.migration')").fetchone() == (None,)


def test_each_file_has_a_number_of_its_own_and_is_in_order() -> None:
    """Gaps are allowed: numbers are reserved for work that lands later."""
    numbers = [number for number, _, _ in migrations()]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
