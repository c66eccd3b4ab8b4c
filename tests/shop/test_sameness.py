"""The same parameters give the same company, however its days are cut and whatever interrupts them."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from sluice.shop import Company, Params, ShopError, advance, digest, init, simulation, status
from sluice.shop.apply import AUDITED
from sluice.shop.day import Entry, Phase, entries
from sluice.shop.files import existing_files

SMALL = Params(seed=11, scale=0.4, start=date(2026, 3, 2))


@pytest.fixture(scope="module")
def small_digest(new_database, tmp_path_factory) -> str:
    """The digest of the small company after 14 days at once."""
    url, files = new_database(), tmp_path_factory.mktemp("small")
    init(url, files, SMALL, 14)
    return digest(url, files)


def test_the_same_seed_gives_the_same_digest(small_digest, shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, SMALL, 14)
    assert digest(shop_database_url, tmp_path) == small_digest


def test_seven_and_seven_days_are_fourteen(small_digest, shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, SMALL, 7)
    assert digest(shop_database_url, tmp_path) != small_digest
    advance(shop_database_url, tmp_path, 7)
    assert digest(shop_database_url, tmp_path) == small_digest


@pytest.mark.parametrize(
    "other",
    [
        Params(12, SMALL.scale, SMALL.start),
        Params(11, 0.5, SMALL.start),
        Params(11, SMALL.scale, date(2026, 3, 3)),
    ],
    ids=["seed", "scale", "start"],
)
def test_another_parameter_gives_another_digest(other, small_digest, shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, other, 14)
    assert digest(shop_database_url, tmp_path) != small_digest


def _contents(url: str, files: Path) -> dict[str, object]:
    """Every table that the chance of a seed fills, and every file, without what names the parameters."""
    found: dict[str, object] = {}
    with psycopg.connect(url, options="-c timezone=UTC") as connection:
        for table in ("products", "customers", "addresses", "orders", "order_lines"):
            found[table] = connection.execute(f"select * from {table} order by 1").fetchall()
    return found | {str(path.relative_to(files)): path.read_bytes() for path in existing_files(files)}


def test_another_seed_is_another_company_in_every_table_and_file(new_database, tmp_path):
    companies = []
    for seed in (11, 12):
        url, files = new_database(), tmp_path / str(seed)
        init(url, files, Params(seed, 1.0, SMALL.start), 1)
        companies.append(_contents(url, files))
    one, other = companies
    assert one.keys() == other.keys()
    same = [name for name in one if one[name] == other[name] and not name.endswith(".done") and one[name]]
    assert same == []


def test_a_changed_byte_in_a_file_or_a_row_changes_the_digest(small_digest, shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, SMALL, 14)
    path = tmp_path / "inventory" / "2026-03-04" / "LYS.csv"
    before = path.read_text()
    path.write_text(before.replace("1", "2", 1))
    assert digest(shop_database_url, tmp_path) != small_digest
    path.write_text(before)
    assert digest(shop_database_url, tmp_path) == small_digest
    with psycopg.connect(shop_database_url) as connection:
        connection.execute("update payments set amount = amount + 0.01 where payment_id = 1")
    assert digest(shop_database_url, tmp_path) != small_digest


Moment = tuple[int, int]
"""A simulated day, and how many of its entries have been applied."""


def _interrupting_at(moment: Moment):
    """The days' entries, until the process is killed."""

    def interrupted(company, day):
        for position, entry in enumerate(entries(company, day)):
            if (day, position) == moment:
                raise KeyboardInterrupt
            yield entry

    return interrupted


def _moments(is_wanted: Callable[[dict[str, Entry]], bool]) -> Iterator[Moment]:
    """Moments of the small company, right after a commit, at which the wanted transactions are open."""
    for day in range(2, 14):
        open_now: dict[str, Entry] = {}
        for position, entry in enumerate(entries(Company(SMALL), day)):
            if entry.phase is Phase.OPEN:
                open_now[entry.transaction.name] = entry
            elif entry.transaction.name not in open_now and is_wanted(open_now):
                yield day, position + 1
            else:
                open_now.pop(entry.transaction.name, None)


def _has_an_audited_one(open_now: dict[str, Entry]) -> bool:
    return any(entry.transaction.changes[0].table in AUDITED for entry in open_now.values())


@pytest.mark.parametrize(
    "is_wanted",
    [_has_an_audited_one, lambda open_now: not open_now],
    ids=["with-a-transaction-open", "between-transactions"],
)
def test_a_killed_day_goes_on_where_it_stopped(is_wanted, small_digest, shop_database_url, tmp_path, monkeypatch):
    """Also while a transaction is open: its rows go with the process and come again, none of them twice."""
    moment = next(_moments(is_wanted))
    monkeypatch.setattr("sluice.shop.apply.PIPELINE", 1)
    monkeypatch.setattr(simulation, "entries", _interrupting_at(moment))
    with pytest.raises(KeyboardInterrupt):
        init(shop_database_url, tmp_path, SMALL, 14)
    found = status(shop_database_url, tmp_path)
    assert found.days_done == moment[0]
    assert found.is_mid_day
    monkeypatch.setattr(simulation, "entries", entries)
    init(shop_database_url, tmp_path, SMALL, 14)
    assert digest(shop_database_url, tmp_path) == small_digest


def test_init_again_does_nothing_and_says_so(shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, SMALL, 2)
    again = init(shop_database_url, tmp_path, SMALL, 2)
    assert (again.days_simulated, again.days_done, again.days_of_files_restored) == (0, 2, 0)


def test_other_parameters_are_refused_and_reset_replaces(shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, SMALL, 2)
    before = digest(shop_database_url, tmp_path)
    with pytest.raises(ShopError, match=r"seed is 11, not 99.*--reset"):
        init(shop_database_url, tmp_path, Params(99, SMALL.scale, SMALL.start), 2)
    assert digest(shop_database_url, tmp_path) == before
    init(shop_database_url, tmp_path, Params(99, SMALL.scale, date(2026, 5, 1)), 1, reset=True)
    assert status(shop_database_url, tmp_path).params.seed == 99
    assert sorted(path.name for path in (tmp_path / "inventory").iterdir()) == ["2026-05-01"]


def test_missing_files_are_written_again_the_same(shop_database_url, tmp_path):
    init(shop_database_url, tmp_path, SMALL, 3)
    before = digest(shop_database_url, tmp_path)
    (tmp_path / "clickstream" / "2026-03-03" / "04.jsonl").unlink()
    assert status(shop_database_url, tmp_path).files_missing == 1
    assert init(shop_database_url, tmp_path, SMALL, 3).days_of_files_restored == 1
    assert digest(shop_database_url, tmp_path) == before


def test_only_one_process_simulates(shop_database_url, tmp_path):
    from sluice.shop.database import simulating

    with simulating(shop_database_url), pytest.raises(ShopError, match="another process"):
        init(shop_database_url, tmp_path, SMALL, 1)


def test_nothing_is_advanced_where_there_is_no_shop(shop_database_url, tmp_path):
    with pytest.raises(ShopError, match="sluice shop init"):
        advance(shop_database_url, tmp_path, 1)
