"""Postgres sources: no row is lost between two readings, whatever is open while we read."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest

from sluice.cli.batch import approve
from sluice.declarations import load_file
from sluice.errors import GateRefused, LandingLost, SluiceError, SourceUnavailable
from sluice.loading import RunContext, audit, backdated, land, publish
from sluice.readers import postgres as reader
from tests.loading.conftest import World

ORDERS = """
orders:
  description: orders
  from: {postgres: {connection: db, table: public.orders}}
  mode: cursor
  cursor: {column: updated_at}
  deletes: {detect: key_scan, max_share: 0.6}
  key: [id]
  max_reject_share: 1
  columns:
    id: {type: bigint, required: true}
    amount: {type: "numeric(8,2)"}
    updated_at: {type: timestamptz, required: true}
"""


@pytest.fixture
def source(world: World, postgres: object) -> psycopg.Connection:
    world.declare(ORDERS)
    with psycopg.connect(world.source_url, autocommit=True) as connection:
        connection.execute("create table orders (id bigint, amount numeric, updated_at timestamptz default now())")
        yield connection


def ids(world: World) -> list[int]:
    return [row[0] for row in world.query("select distinct id from staging.shop__orders order by 1")]


def test_E1_a_row_of_a_transaction_that_was_open_while_we_read_arrives_with_the_next_batch(
    world: World, source: psycopg.Connection
) -> None:
    source.execute("insert into orders values (1, 1)")
    with psycopg.connect(world.source_url) as late:
        late.execute("insert into orders values (2, 2)")  # stamped now, committed after the next two readings
        source.execute("insert into orders values (3, 3)")
        world.load("orders")
        world.load("orders")
        assert ids(world) == [1, 3]
        late.commit()
    world.load("orders")
    assert ids(world) == [1, 2, 3]


def test_rows_that_are_read_again_are_recognised(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders select i, i, '2026-01-01' from generate_series(1, 10) as i")
    assert [p.rows_applied for p in world.load("orders")] == [10]
    world.warehouse.execute("delete from ops.watermark")
    (again,) = world.load("orders")
    assert (again.rows_read, again.rows_applied, again.rows_unchanged) == (10, 0, 10)


def test_L2_the_watermark_moves_with_the_rows_and_never_back(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 1)")
    world.load("orders")
    (first,) = world.query("select value::timestamptz from ops.watermark")
    source.execute("insert into orders values (2, 'NaN')")
    world.declare(ORDERS.replace("max_reject_share: 1", "max_reject_share: 0"))
    with pytest.raises(GateRefused):
        world.load("orders")
    assert world.query("select value::timestamptz from ops.watermark") == [first], "a refused batch moves nothing"


def test_E6_a_row_without_a_cursor_value_is_quarantined_not_skipped(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 1, now()), (2, 2, null)")
    world.load("orders")
    assert world.query("select code from ops.quarantine") == [("NULL_CURSOR",)]


def test_E8_a_hard_delete_is_found_by_the_key_scan(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 1), (2, 2)")
    world.load("orders")
    source.execute("delete from orders where id = 2")
    (published,) = world.load("orders")
    assert published.rows_deleted == 1
    assert [value for _, value in world.history("shop__orders", "id", "amount")[2]][-1] is None
    assert world.load("orders")[0].rows_deleted == 0, "a key is buried once"


def test_E8_a_key_that_returns_is_alive_again(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 1), (2, 2)")
    world.load("orders")
    source.execute("delete from orders where id = 2")
    world.load("orders")
    source.execute("insert into orders values (2, 3)")
    world.load("orders")
    assert [str(value) for _, value in world.history("shop__orders", "id", "amount")[2]] == ["2.00", "None", "3.00"]


def test_E20_a_source_that_refuses_us_is_named_and_its_secret_is_not(
    world: World, source: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", "postgresql://nobody:hunter2@127.0.0.1:1/none")
    with pytest.raises(SourceUnavailable, match="connection db can't be opened") as error:
        world.load("orders")
    assert 'server at "127.0.0.1", port 1 failed: Connection refused; nothing was read' in str(error.value)
    assert "hunter2" not in str(error.value)


def test_values_survive_exactly(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 123456.78, '2026-03-29 01:59:59.999999+00')")
    world.load("orders")
    assert world.query(
        "select amount::text, updated_at = '2026-03-29 01:59:59.999999+00' from staging.shop__orders"
    ) == [("123456.78", True)]


def test_a_row_that_changed_while_its_stamp_did_not_ends_as_the_source_has_it(
    world: World, source: psycopg.Connection
) -> None:
    source.execute("insert into orders select i, 1, '2026-01-01' from generate_series(1, 20) as i")
    world.load("orders")
    source.execute("update orders set amount = 2")
    world.warehouse.execute("delete from ops.watermark")
    assert world.load("orders")[0].rows_applied == 20
    last = "select distinct on (id) amount from staging.shop__orders order by id, _effective_at desc, _sequence desc"
    assert {str(amount) for (amount,) in world.query(last)} == {"2.00"}
    world.warehouse.execute("delete from ops.watermark")
    assert world.load("orders")[0].rows_applied == 0


def test_E8_a_key_that_returns_with_an_older_stamp_is_alive_again(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 1), (2, 2)")
    world.load("orders")
    source.execute("delete from orders where id = 2")
    world.load("orders")
    source.execute("insert into orders values (2, 2, '2026-01-01')")  # restored as it was
    for _ in range(2):
        world.load("orders")
    assert world.history("shop__orders", "id", "amount")[2][-1][1] is not None


def test_a_row_that_changes_while_its_stamp_goes_back_is_seen(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders values (1, 1), (2, 5)")
    world.load("orders")
    source.execute("update orders set amount = 2, updated_at = '2026-01-01' where id = 1")
    read = [world.load("orders")[0] for _ in range(2)]
    assert [str(amount) for _, amount in world.history("shop__orders", "id", "amount")[1]][-2:] == ["1.00", "2.00"]
    assert str(world.query("select min(updated_at) from staging.shop__orders")[0][0].date()) == "2026-01-01"
    before = world.query("select count(*) from staging.shop__orders")
    source.execute("update orders set updated_at = clock_timestamp() - interval '1 day', amount = 3 where id = 1")
    read += world.load("orders")
    assert str(world.history("shop__orders", "id", "amount")[1][-1][1]) == "3.00", "forward, but below the watermark"
    source.execute("update orders set updated_at = default, amount = 4 where id = 1")
    world.load("orders")
    assert str(world.history("shop__orders", "id", "amount")[1][-1][1]) == "4.00"
    assert before == [(4,)], "the version that it had, the one that it has, and that it has it since now"
    assert world.books_balance()


def test_a_row_that_appears_below_the_watermark_is_seen_once(world: World, source: psycopg.Connection) -> None:
    """INV-6: also of a key of several columns, with a control total, and when its values break the contract."""
    source.execute("create table lines (doc text, line int, amount text, updated_at timestamptz default now())")
    world.declare(
        ORDERS.replace("orders", "lines")
        .replace("key: [id]", "key: [doc, line]")
        .replace("id: {type: bigint, required: true}", "doc: {type: text}\n    line: {type: bigint}")
        .replace(
            "table: public.lines",
            'table: public.lines, control_total: {query: "select count(*) from lines '
            'where updated_at >= {start} and updated_at < {end}"}',
        )
    )
    source.execute("insert into lines values ('a', 1, '1'), ('a''b', 1, '1')")
    world.load("lines")
    source.execute("insert into lines values ('a''b', 2, '7', '2026-01-01'), ('x', 1, 'much', '2026-01-01')")
    (late,) = world.load("lines")
    assert (late.rows_applied, late.rows_quarantined) == (1, 1)
    again = world.load("lines")[0]
    assert (again.rows_applied, again.rows_quarantined) == (0, 0), "what waits in quarantine is no news"
    assert world.query("select doc, line from staging.shop__lines where amount = 7") == [("a'b", 2)]
    assert world.books_balance()


def test_a_source_restored_from_a_backup_is_read_once_as_a_whole(
    world: World, source: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backdated, "MOST", 3)
    source.execute("insert into orders select i, i from generate_series(1, 5) as i")
    world.load("orders")
    source.execute("update orders set amount = -id, updated_at = '2026-01-01'")
    assert world.load("orders")[0].rows_read == 5
    assert [str(chain[-1][1]) for chain in world.history("shop__orders", "id", "amount").values()] == [
        f"-{i}.00" for i in range(1, 6)
    ]


def test_a_scan_that_was_overtaken_does_not_say_what_holds(world: World, source: psycopg.Connection) -> None:
    """INV-4: two readings that are published in the other order end as the later one saw it."""
    declared = load_file(world.sources / "shop.yml")
    source.execute("insert into orders values (1, 1)")
    world.load("orders")
    source.execute("update orders set amount = 2, updated_at = default")
    early = land(declared, declared.tables["orders"], RunContext("early"))
    source.execute("update orders set amount = 3, updated_at = clock_timestamp()")
    world.load("orders")
    audit(early)
    publish(early)
    assert str(world.history("shop__orders", "id", "amount")[1][-1][1]) == "3.00"


def test_E8_a_row_that_is_marked_as_deleted_is_not_revived_by_the_scan_that_finds_its_key(
    world: World, source: psycopg.Connection
) -> None:
    source.execute("alter table orders add gone boolean default false")
    world.declare(ORDERS.replace("  key: [id]", "  deleted_by: {field: gone, value: 't'}\n  key: [id]"))
    source.execute("insert into orders values (1, 1)")
    world.load("orders")
    source.execute("update orders set gone = true, updated_at = clock_timestamp()")
    for _ in range(2):
        world.load("orders")
    assert world.history("shop__orders", "id", "amount")[1][-1][1] is None


def test_a_reader_that_cannot_see_open_transactions_is_refused_and_told_what_to_grant(
    world: World, source: psycopg.Connection, postgres: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres.superuser_url(world.source_url), autocommit=True) as admin:  # type: ignore[attr-defined]
        admin.execute("drop role if exists plain_reader")
        admin.execute("create role plain_reader login password 'x' in role pg_read_all_data")
        admin.execute(f"grant connect on database {world.source_url.rsplit('/', 1)[1]} to plain_reader")
    parts = urlsplit(world.source_url)
    url = parts._replace(netloc=f"plain_reader:x@{parts.hostname}:{parts.port}").geturl()
    monkeypatch.setenv("AIRFLOW_CONN_DB", url)
    with pytest.raises(SluiceError, match="grant pg_read_all_stats to plain_reader"):
        world.load("orders")


def test_E10_a_mass_delete_that_a_key_scan_found_can_be_approved(world: World, source: psycopg.Connection) -> None:
    source.execute("insert into orders select i, i from generate_series(1, 10) as i")
    world.load("orders")
    source.execute("delete from orders where id > 2")
    with pytest.raises(GateRefused, match="MASS_DELETE"):
        world.load("orders")
    (refused,) = world.query("select batch_id from ops.batch where state = 'refused'")
    approve(refused[0], "the range was cut")
    assert world.load("orders")[0].rows_deleted == 8
    source.execute("insert into orders select i, i from generate_series(11, 30) as i")
    world.load("orders")
    source.execute("delete from orders where id > 5")
    with pytest.raises(GateRefused, match="MASS_DELETE"):
        world.load("orders")  # an approval holds once


@pytest.mark.parametrize("stamp", ["null", "now() + interval '1 year'"])
@pytest.mark.parametrize("first_as", ["text", "values"])
def test_E6_a_row_that_is_rejected_at_every_reading_waits_once_and_stops_nothing(
    world: World, source: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, stamp: str, first_as: str
) -> None:
    """Also where the first reading was large, and took values, and those after it are small, and take text."""
    declared = ORDERS.replace("max_reject_share: 1", "max_reject_share: 0.05")
    world.declare(declared.replace("{column: updated_at}", "{column: updated_at, max_future: 1d}"))
    source.execute("insert into orders select i, i, '2026-01-01' from generate_series(1, 100) as i")
    source.execute(f"insert into orders values (1000, 1.50, {stamp})")
    monkeypatch.setattr(reader, "BINARY_FROM", 1 if first_as == "values" else 10_000)
    world.load("orders")
    monkeypatch.setattr(reader, "BINARY_FROM", 10_000)
    for number in range(1, 4):
        source.execute("update orders set amount = 0, updated_at = now() where id = %s", [number])
        (published,) = world.load("orders")
        assert (published.rows_applied, published.rows_quarantined) == (1, 0)
        assert published.rows_unchanged == published.rows_read - 1, "the one that waits is nothing new"
    assert world.query("select count(*), min(batch_id) from ops.quarantine") == [(1, 1)]
    world.warehouse.execute("update ops.quarantine set state = 'discarded'")
    source.execute("update orders set amount = 0, updated_at = now() where id = 50")
    assert world.load("orders")[0].rows_quarantined == 0, "what a person decided is not asked again"
    source.execute("update orders set amount = 2.50 where id = 1000")
    with pytest.raises(GateRefused, match=r"1 of \d rows break the contract"):
        world.load("orders")  # other content is another row
    assert world.books_balance()


def test_L6_a_reading_that_was_refused_lets_no_reject_of_the_next_one_pass(
    world: World, source: psycopg.Connection
) -> None:
    """Only what a published batch left behind waits; what a refused one rejected is judged again, and kept once."""
    world.declare(ORDERS.replace("max_reject_share: 1", "max_reject_share: 0"))
    source.execute("insert into orders values (1, 1, now()), (2, 2, null)")
    for _ in range(3):
        with pytest.raises(GateRefused, match="1 of 2 rows break the contract"):
            world.load("orders")
    assert world.query("select state, count(*) from ops.quarantine group by 1 order by 1") == [
        ("open", 1),
        ("superseded", 2),
    ]


def test_of_two_readings_of_one_stamp_the_one_published_last_need_not_be_the_later(
    world: World, source: psycopg.Connection
) -> None:
    """The earlier reading is given up, and the next one says what the source holds."""
    source.execute("insert into orders values (1, 1, now() - interval '1 minute')")
    world.load("orders")
    declared = load_file(world.sources / "shop.yml")
    source.execute("insert into orders values (2, 10, now())")
    earlier = land(declared, declared.tables["orders"], RunContext("earlier"))
    source.execute("update orders set amount = 20 where id = 2")
    later = land(declared, declared.tables["orders"], RunContext("later"))
    for ids_ in (later, earlier):
        audit(ids_)
    publish(later)
    with pytest.raises(LandingLost, match=r"1 of its rows differ from what batch 3 published under the same stamp"):
        publish(earlier)
    for _ in range(2):
        world.load("orders")
    assert world.query("select amount::int from staging.shop__orders where id = 2 order by _sequence") == [(20,)]
    assert world.books_balance()


def test_readings_beside_each_other_that_do_not_differ_are_both_published(
    world: World, source: psycopg.Connection
) -> None:
    source.execute("insert into orders values (1, 1, now())")
    declared = load_file(world.sources / "shop.yml")
    both = [land(declared, declared.tables["orders"], RunContext(run)) for run in ("one", "other")]
    for batch_ids in both:
        audit(batch_ids)
    found = [publish(batch_ids)[0] for batch_ids in reversed(both)]
    assert [(published.rows_applied, published.rows_unchanged) for published in found] == [(1, 0), (0, 1)]
