"""The same parameters give the same company, however its days are cut and whatever interrupts them."""

from datetime import date

import psycopg
import pytest

from sluice.shop import Params, ShopError, advance, digest, init, simulation, status
from sluice.shop.day import Entry, Phase, entries

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


def _interrupting_after(number: int):
    """The day's entries, until the process is killed after `number` of them."""

    def interrupted(company, day):
        for position, entry in enumerate(entries(company, day)):
            if day == 5 and position == number:
                raise KeyboardInterrupt
            yield entry

    return interrupted


@pytest.mark.parametrize("while_open", [True, False], ids=["with-a-transaction-open", "between-transactions"])
def test_a_killed_day_goes_on_where_it_stopped(
    while_open, small_digest, shop_database_url, tmp_path, monkeypatch
):
    """Also while a transaction is open: its rows go with the process and come again, none of them twice."""
    monkeypatch.setattr("sluice.shop.apply.PIPELINE", 1)
    day_five = list(entries(simulation.Company(SMALL), 5))
    cut = _moment_with_one_open(day_five) if while_open else _moment_with_none_open(day_five)
    monkeypatch.setattr(simulation, "entries", _interrupting_after(cut))
    with pytest.raises(KeyboardInterrupt):
        init(shop_database_url, tmp_path, SMALL, 14)
    found = status(shop_database_url, tmp_path)
    assert found.days_done == 5
    assert found.is_mid_day
    monkeypatch.setattr(simulation, "entries", entries)
    init(shop_database_url, tmp_path, SMALL, 14)
    assert digest(shop_database_url, tmp_path) == small_digest


def _open_counts(day: list[Entry]) -> list[int]:
    """How many transactions are open after each entry."""
    counts, opened = [], set()
    for entry in day:
        opened ^= (
            {entry.transaction.name}
            if entry.phase is Phase.OPEN or entry.transaction.name in opened
            else set()
        )
        counts.append(len(opened))
    return counts


def _moment_with_one_open(day: list[Entry]) -> int:
    """After an entry that committed while another transaction was open."""
    counts = _open_counts(day)
    return next(n + 1 for n in range(1, len(day)) if counts[n] and day[n].phase is Phase.COMMIT)


def _moment_with_none_open(day: list[Entry]) -> int:
    return len(day) // 2 + _open_counts(day)[len(day) // 2 - 1 :].index(0)


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
