"""Past intervals again: whatever the order, the clock, and what the scheduler remembers, the log means the same."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from sluice import warehouse as sessions
from sluice.backfill.gaps import gaps
from sluice.declarations import DeclarationError, load_file
from sluice.errors import LeaseHeld
from sluice.loading import RunContext, audit, land, publish
from sluice.readers import reader_of
from tests.loading.conftest import World

SALES = """
sales:
  description: sales of an hour
  from: {files: {connection: drop, path: "sales/{date}/{hour}.csv"}}
  mode: append
  key: [sale_id]
  columns:
    sale_id: {type: bigint, required: true}
    amount: {type: integer, required: true}
stock:
  description: the whole list, each day
  from: {files: {connection: drop, path: "stock/{date}.csv"}}
  mode: full
  key: [sku]
  columns:
    sku: {type: text, required: true}
    pieces: {type: integer, required: true}
accounts:
  description: polled
  from: {postgres: {connection: db, table: accounts}}
  mode: cursor
  cursor: {column: updated_at}
  key: [account_id]
  columns:
    account_id: {type: bigint, required: true}
    balance: {type: bigint, required: true}
    updated_at: {type: timestamptz, required: true}
"""
CLOCK = "start: {start}\nclock: {{connection: db, query: \"select timestamptz '{now}'\"}}\n"


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def one(text: str) -> tuple[datetime, datetime]:
    return day(text), day(text) + timedelta(days=1)


@pytest.fixture
def amsterdam(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker whose own clock has summer time."""
    monkeypatch.setenv("TZ", "Europe/Amsterdam")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("last", ["2026-03-30", "2026-10-26", "2028-03-01", "2027-01-01"])
@pytest.mark.usefixtures("amsterdam")
def test_o3_a_day_has_24_hours_in_summer_time_leap_years_and_at_the_end_of_a_month(world: World, last: str) -> None:
    """One interval an hour, none twice and none missing, in UTC; each sale in its own hour; the sums are those of the
    files. (There is no dimension of local dates: dates in the marts are UTC's.)"""
    days, first = 2, day(last) - timedelta(days=1)
    world.declare(SALES, head=CLOCK.format(start=first.date(), now=day(last) + timedelta(days=1)))
    hours = [first + timedelta(hours=number) for number in range(24 * days)]
    source = load_file(world.sources / "shop.yml")

    def missing() -> list[tuple[datetime, datetime, int]]:
        with sessions.connect() as connection:
            return [(gap.start, gap.end, gap.intervals) for gap in gaps(connection, source, source.tables["sales"])]

    assert missing() == [(first, day(last) + timedelta(days=1), 24 * days)]
    for number, hour in enumerate(hours):
        world.deliver(f"sales/{hour:%Y-%m-%d}/{hour:%H}.csv", f"sale_id,amount\n{number},{number}\n")
    world.load("sales", interval=one(f"{first:%Y-%m-%d}"))
    assert missing() == [(first + timedelta(days=1), day(last) + timedelta(days=1), 24 * (days - 1))]
    world.load("sales")
    assert missing() == []
    found = world.query(
        "select interval_start, interval_end, amount from ops.batch"
        " inner join staging.shop__sales on _batch_id = batch_id order by 1"
    )
    assert found == [(hour, hour + timedelta(hours=1), number) for number, hour in enumerate(hours)]
    assert world.query("select sum(amount) from staging.shop__sales") == [(sum(range(24 * days)),)]


LOCAL = """
till:
  description: what each day of Amsterdam brought, in a file named by that day
  from: {files: {connection: drop, path: "till/{date}.csv", time_zone: Europe/Amsterdam}}
  mode: append
  key: [day]
  columns:
    day: {type: date, required: true, from_path: date}
    amount: {type: integer, required: true}
"""


@pytest.mark.parametrize(("change", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_o3_a_file_of_a_local_day_speaks_for_that_day_with_its_23_or_25_hours(
    world: World, change: str, hours: int
) -> None:
    """The days touch each other without a gap or an overlap, and each is asked for by itself; rows keep the date of
    their file."""
    changes = day(change)
    dates = [changes + timedelta(days=number) for number in (-1, 0, 1)]
    world.declare(LOCAL, head=CLOCK.format(start=dates[0].date(), now=changes + timedelta(days=2)))
    source = load_file(world.sources / "shop.yml")
    begins = changes - timedelta(hours=1 if hours == 23 else 2)  # midnight in Amsterdam
    ends = begins + timedelta(hours=hours)
    edges = [begins - timedelta(days=1), begins, ends, ends + timedelta(days=1)]

    def missing() -> list[tuple[datetime, datetime, int]]:
        with sessions.connect() as connection:
            return [(gap.start, gap.end, gap.intervals) for gap in gaps(connection, source, source.tables["till"])]

    assert missing() == [(edges[0], edges[-1], 3)]
    for number, date in enumerate(dates):
        world.deliver(f"till/{date:%Y-%m-%d}.csv", f"amount\n{number}\n")
    world.load("till", interval=(begins, ends))
    assert missing() == [(edges[0], begins, 1), (ends, edges[3], 1)]
    world.load("till")
    assert missing() == []
    assert world.query(
        "select interval_start, interval_end, effective_at, unit from ops.batch where part = 'unit' order by 1"
    ) == [
        (start, end, end, f"till/{date:%Y-%m-%d}.csv")
        for (start, end), date in zip(itertools.pairwise(edges), dates, strict=True)
    ]
    assert world.query("select day, amount from staging.shop__till where _op = 'upsert' order by 1") == [
        (date.date(), number) for number, date in enumerate(dates)
    ]


def test_o3_an_hour_of_a_local_day_is_refused_since_it_may_come_twice(world: World) -> None:
    world.declare(LOCAL.replace("{date}.csv", "{date}/{hour}.csv"))
    with pytest.raises(DeclarationError, match=r"an hour of a time_zone may come twice"):
        load_file(world.sources / "shop.yml")


@pytest.fixture
def five_days(world: World) -> World:
    """Five days, loaded in order: a list a day, and an account that was polled each day."""
    world.declare(SALES, head="start: 2026-01-01\n")
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table accounts (account_id bigint, balance bigint, updated_at timestamptz)")
    for number in range(1, 6):
        world.deliver(f"stock/2026-01-0{number}.csv", f"sku,pieces\na,{number}\n" + ("b,7\n" if number > 2 else ""))
        with psycopg.connect(world.source_url, autocommit=True) as source:
            source.execute("delete from accounts")
            source.execute("insert into accounts values (1, %s, clock_timestamp())", [number])
        world.load("stock", run=f"scheduled__{number}")
        world.load("accounts", run=f"scheduled__{number}")
    return world


def test_o4_intervals_beside_each_other_never_meet_at_a_unit(world: World) -> None:
    """An interval of the schedule begins at 02:00 and so shares time with two days: it reads the one that it ends. A
    month, which is longer than any of them, is read by each."""
    world.declare(SALES.replace("sales/{date}/{hour}.csv", "sales/{month}.csv"), head="start: 2026-01-01\n")
    source = load_file(world.sources / "shop.yml")
    for number in range(1, 5):
        world.deliver(f"stock/2026-01-0{number}.csv", f"sku,pieces\na,{number}\n")
    world.deliver("sales/2026-01.csv", "sale_id,amount\n1,1\n")
    read = {}
    for number in range(1, 5):
        begin = datetime(2026, 1, number, 2, tzinfo=UTC)
        interval = begin, begin + timedelta(days=1)
        read[number] = [
            unit.name
            for table in ("stock", "sales")
            for unit in reader_of(source.tables[table]).units(source, source.tables[table], interval, None)
        ]
    assert read == {number: [f"stock/2026-01-0{number}.csv", "sales/2026-01.csv"] for number in range(1, 5)}


def meaning(world: World) -> tuple[dict, dict]:
    return world.history("shop__stock", "sku", "pieces"), world.history("shop__accounts", "account_id", "balance")


def mark(world: World) -> datetime:
    return world.query("select value::timestamptz from ops.watermark")[0][0]


def test_o5_an_old_interval_run_again_after_newer_ones_takes_nothing_back(five_days: World) -> None:
    """Case 22. The same content is a no-op; other content changes its own day, and newer ones say what they said."""
    before, read_to = meaning(five_days), mark(five_days)
    for table in ("stock", "accounts"):
        again = five_days.load(table, run="scheduled__2", interval=one("2026-01-02"))
        assert sum(done.rows_applied + done.rows_deleted for done in again) == 0
    assert meaning(five_days) == before
    five_days.deliver("stock/2026-01-02.csv", "sku,pieces\na,200\nc,1\n")
    five_days.load("stock", run="scheduled__2", interval=one("2026-01-02"))
    stock, accounts = meaning(five_days)
    assert [balance for _, balance in accounts[1]] == [1, 2, 3, 4, 5]
    assert accounts == before[1]
    assert mark(five_days) == read_to, "how far the source was read is no matter of the old interval"
    assert stock == {
        "a": [(day(f"2026-01-0{number + 1}"), 200 if number == 2 else number) for number in range(1, 6)],
        "b": [(day("2026-01-04"), 7)],
        "c": [(day("2026-01-03"), 1), (day("2026-01-04"), None)],
    }
    assert five_days.books_balance()


def test_o9_a_scheduler_that_has_forgotten_its_runs_publishes_nothing_again(five_days: World) -> None:
    """Its database was restored from the second day: it runs all days since once more, under the same names. What was
    read is known from the warehouse."""
    before, read_to = meaning(five_days), mark(five_days)
    batches = five_days.query("select max(published_seq) from ops.batch")
    for number in range(3, 6):
        for table in ("stock", "accounts"):
            for interval in (None, one(f"2026-01-0{number}")):
                done = five_days.load(table, run=f"scheduled__{number}", interval=interval)
                assert sum(each.rows_applied + each.rows_deleted for each in done) == 0
    assert meaning(five_days) == before
    assert mark(five_days) >= read_to
    assert five_days.query(
        "select count(*) from ops.batch where published_seq > %s and rows_applied + rows_deleted > 0", *batches[0]
    ) == [(0,)], "the warehouse has nothing to read"


def test_l4_of_a_scheduled_a_manual_and_a_backfill_run_one_reads_an_interval_and_the_others_are_told_which(
    five_days: World,
) -> None:
    source = load_file(five_days.sources / "shop.yml")
    table, interval = source.tables["stock"], one("2026-01-04")
    five_days.deliver("stock/2026-01-04.csv", "sku,pieces\na,400\nb,7\n")
    held = land(source, table, RunContext("scheduled__4"))
    for other, asked in (("manual__now", None), ("backfill__4", interval)):
        with pytest.raises(LeaseHeld, match=r"stock/2026-01-04.csv: scheduled__4 holds the lease until .*LEASE_HELD"):
            land(source, table, RunContext(other, asked))
    assert five_days.query("select holder from ops.lease where unit = 'stock/2026-01-04.csv'") == [("scheduled__4",)]
    audit(held)
    publish(held)
    assert land(source, table, RunContext("backfill__4", interval)) == [], "then there is nothing left to do"


def test_l4_whoever_comes_first_three_runs_at_once_publish_an_interval_once(five_days: World) -> None:
    source = load_file(five_days.sources / "shop.yml")
    table, together, told = source.tables["stock"], threading.Barrier(3), []
    five_days.deliver("stock/2026-01-04.csv", "sku,pieces\na,400\nb,7\n")

    def run(name: str, interval: tuple[datetime, datetime] | None) -> None:
        together.wait()
        try:
            ids = land(source, table, RunContext(name, interval))
            audit(ids)
            told.append("published" if publish(ids) else "nothing to do")
        except LeaseHeld as error:
            told.append("held" if "holds the lease" in str(error) else str(error))

    runs = [("scheduled__4", None), ("manual__now", None), ("backfill__4", one("2026-01-04"))]
    threads = [threading.Thread(target=run, args=each) for each in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(told)["published"] == 1, told
    assert len(told) == 3
    assert five_days.query(
        "select count(*) from ops.batch where unit = 'stock/2026-01-04.csv' and state = 'published' and part = 'unit'"
    ) == [(1,)]
    assert meaning(five_days)[0]["a"][3] == (day("2026-01-05"), 400)
