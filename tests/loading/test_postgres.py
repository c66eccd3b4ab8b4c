"""Postgres sources: every value exactly, whichever way it travels; nothing lost while clocks and rows move."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner, Result

from sluice.cli import app
from sluice.declarations import DeclarationError, load_file
from sluice.errors import GateRefused, SluiceError, SourceUnavailable
from sluice.readers import postgres as reader
from sluice.readers import wire
from tests.loading.conftest import World

ORDERS = """
orders:
  description: orders
  from: {postgres: {connection: db, table: public.orders}}
  mode: cursor
  cursor: {column: updated_at}
  key: [id]
  max_reject_share: 1
  columns:
    id: {type: bigint, required: true}
    amount: {type: "numeric(8,2)"}
    updated_at: {type: timestamptz, required: true}
"""


@pytest.fixture
def source(world: World) -> Iterator[psycopg.Connection]:
    with psycopg.connect(world.source_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def orders(world: World, source: psycopg.Connection) -> psycopg.Connection:
    world.declare(ORDERS)
    source.execute("create table orders (id bigint, amount numeric, updated_at timestamptz default now())")
    return source


@pytest.fixture(params=["text", "values", "two streams"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way that rows can take."""
    monkeypatch.setattr(reader, "BINARY_FROM", 10**9 if request.param == "text" else 0)
    monkeypatch.setattr(reader, "PARALLEL_FROM", 0 if request.param == "two streams" else 10**9)
    return request.param


def values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BINARY_FROM", 0)


def ids(world: World) -> list[int]:
    return [row[0] for row in world.query("select distinct id from staging.shop__orders order by 1")]


def last_amounts(world: World) -> dict[int, str]:
    return dict(
        world.query(
            "select distinct on (id) id, amount::text from staging.shop__orders"
            " order by id, _effective_at desc, _sequence desc"
        )
    )


# -- values, exactly ----------------------------------------------------------------------------

KINDS = """
kinds:
  description: a column of each kind
  from: {postgres: {connection: db, table: public.kinds}}
  mode: full
  key: [id]
  columns:
    id: {type: bigint, required: true}
    exact: {type: numeric}
    whole: {type: numeric}
    name: {type: text}
    padded: {type: text}
    label: {type: text}
    tags: {type: text}
    address: {type: text}
    yes: {type: text}
    day: {type: date}
    at: {type: timestamptz}
    local: {type: timestamp}
    clock: {type: time}
    flag: {type: boolean}
    uid: {type: uuid}
    body: {type: jsonb}
    single: {type: real}
    ratio: {type: "double precision"}
    small: {type: integer}
"""


def test_every_type_arrives_exactly_and_means_the_same_whichever_way_it_travels(
    world: World, source: psycopg.Connection, way: str
) -> None:
    world.declare(KINDS)
    source.execute("create type mood as enum ('sad', 'so, so \"x\"')")
    source.execute("create domain cents as bigint check (value > 0)")
    source.execute(
        "create table kinds (id cents, exact numeric(40,20), whole int, name varchar(20), padded char(4), label mood,"
        " tags text[], address inet, yes boolean, day date, at timestamptz, local timestamp, clock time, flag boolean,"
        " uid uuid, body jsonb, single real, ratio float8, small smallint)"
    )
    source.execute(
        "insert into kinds values (1, 12345678901234567890.12345678901234567890, 7, E'tab\\tand \\\\N', 'ab', 'sad',"
        " array['a,b', null, 'c\"'], '10.0.0.1', true, '0044-03-15 BC', '2026-03-29 01:59:59.999999+00',"
        " '2026-01-01 00:00:00.000001', '24:00', false, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": 1.10}',"
        " 0.1, 0.1, -3)"
    )
    source.execute("insert into kinds (id) values (2)")
    for connection in (source, world.warehouse):
        connection.execute("set timezone to 'UTC'")
    published = world.load("kinds")[0]
    assert (published.rows_read, published.rows_applied) == (2, 2)
    columns = [
        row[0]
        for row in source.execute(
            "select attname from pg_attribute where attrelid = 'kinds'::regclass and attnum > 0 order by attnum"
        )
    ]
    as_text = ", ".join(f"format('%s', {name})" for name in columns)
    expected = source.execute(f"select {as_text} from kinds order by id").fetchall()
    found = world.query(f"select {as_text} from staging.shop__kinds order by id")
    for name, one, other in zip(columns, expected[0], found[0], strict=True):
        assert one == other, name
    assert set(found[1][1:]) == {""}
    assert world.query("select max(details ->> 'typed_rows') from ops.batch") == [("0" if way == "text" else "2",)]


def test_L7_what_the_contract_does_not_take_is_quarantined_with_its_position_whichever_way(
    world: World, orders: psycopg.Connection, way: str
) -> None:
    orders.execute("alter table orders add filler text")  # so that two streams have two pages to read
    orders.execute(
        "insert into orders select i, case i when 3 then 'NaN' when 5 then 1.005 when 6 then 'Infinity' else i end,"
        " '2026-01-01', repeat('x', 1500) from generate_series(1, 12) as i"
    )
    (published,) = world.load("orders")
    assert (published.rows_read, published.rows_applied, published.rows_quarantined) == (12, 9, 3)
    assert world.query("select row_number, code, raw::jsonb ->> 'amount' from ops.quarantine order by 1") == [
        (3, "NOT_FINITE", "NaN"),
        (5, "PRECISION", "1.005"),
        (6, "NOT_FINITE", "Infinity"),
    ]
    assert world.query("select count(*) from staging.shop__orders where id <> _row_number") == [(0,)], "in its order"
    assert world.books_balance()


def test_a_type_that_might_not_be_read_goes_as_text_so_that_a_bad_value_costs_only_its_row(
    world: World, source: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    values(monkeypatch)
    world.declare(ORDERS)
    source.execute("create table orders (id text, amount text, updated_at timestamptz default now())")
    source.execute("insert into orders values ('1', '1.50'), ('2', 'much'), ('three', '3')")
    (published,) = world.load("orders")
    assert (published.rows_applied, published.rows_quarantined) == (1, 2)


def test_streams_read_each_row_of_one_snapshot_once_partitioned_or_not(
    world: World, source: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that move from one half to the other while we read are where they were."""
    values(monkeypatch)
    monkeypatch.setattr(reader, "PARALLEL_FROM", 0)
    world.declare(ORDERS)
    source.execute("create table orders (id bigint, amount numeric, updated_at timestamptz) partition by range (id)")
    source.execute("create table orders_1 partition of orders for values from (0) to (3000)")
    source.execute("create table orders_2 partition of orders for values from (3000) to (100000)")
    source.execute("insert into orders select i, 1, '2026-01-01' from generate_series(1, 10000) as i")
    real, seen = wire.pipe, []

    def move_rows_first(connection: psycopg.Connection, conn_id: str, queries: list, *rest: object) -> object:
        seen.extend(queries)
        source.execute("update orders set amount = 2, updated_at = now()")
        source.execute("vacuum orders")
        return real(connection, conn_id, queries, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(wire, "pipe", move_rows_first)
    (published,) = world.load("orders")
    assert len(seen) == 2, "two streams"
    assert (published.rows_read, published.rows_applied) == (10000, 10000)
    assert world.query("select count(distinct id), max(amount)::int, max(_row_number) from staging.shop__orders") == [
        (10000, 1, 10000)
    ]
    monkeypatch.setattr(wire, "pipe", real)
    world.load("orders")
    assert set(last_amounts(world).values()) == {"2.00"}


@pytest.mark.parametrize("broken", ["source", "warehouse"])
def test_L10_a_stream_that_breaks_midway_publishes_nothing_and_names_the_connection(
    world: World, orders: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, postgres: object, broken: str
) -> None:
    values(monkeypatch)
    orders.execute("insert into orders select i, 1, '2026-01-01' from generate_series(1, 200000) as i")
    killed = threading.Event()
    add = reader.Digest.add

    def kill_once(self: reader.Digest, block: bytes) -> None:
        add(self, block)
        if self.size > 100_000 and not killed.is_set():
            killed.set()
            url = postgres.superuser_url(world.source_url)  # type: ignore[attr-defined]
            query = "copy (select%" if broken == "source" else "copy%typed%from stdin%"
            with psycopg.connect(url, autocommit=True) as admin:
                ended = admin.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity where query ilike %s", [query]
                ).fetchone()
            assert ended == (1,)

    monkeypatch.setattr(reader.Digest, "add", kill_once)
    with pytest.raises(SourceUnavailable) as error:
        world.load("orders")
    assert killed.is_set()
    assert ("connection db" in str(error.value)) == (broken == "source")
    assert error.value.counts == (broken == "source"), "a warehouse that fails is not held against the source"
    assert world.query("select state from ops.batch") == [("abandoned",)]
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]
    monkeypatch.setattr(reader.Digest, "add", add)
    assert world.load("orders")[0].rows_applied == 200000


def test_options_of_a_connection_that_only_libpq_knows_do_not_hinder(
    world: World, orders: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    values(monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_DB", world.source_url + "?keepalives_idle=20&sslmode=prefer&connect_timeout=5")
    orders.execute("insert into orders values (1, 1)")
    assert world.load("orders")[0].rows_applied == 1


# -- the watermark ------------------------------------------------------------------------------


def test_E2_rows_of_one_stamp_at_the_boundary_are_none_lost_and_none_doubled(
    world: World, orders: psycopg.Connection
) -> None:
    orders.execute("insert into orders select i, i from generate_series(1, 50) as i")
    world.load("orders")
    boundary = world.query("select value from ops.watermark")[0][0]
    orders.execute("insert into orders select i, i, %s from generate_series(51, 100) as i", [boundary])
    for _ in range(2):
        world.load("orders")
    assert ids(world) == list(range(1, 101))
    assert world.query("select count(*) from staging.shop__orders") == [(100,)]


def test_E3_a_row_that_changes_while_it_is_read_ends_as_the_source_has_it(
    world: World, orders: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.execute("insert into orders select i, 1 from generate_series(1, 10) as i")
    real = reader._copy

    def change_midway(connection: psycopg.Connection, query: object) -> Iterator[bytes]:
        for number, block in enumerate(real(connection, query)):  # type: ignore[arg-type]
            if number == 3:
                orders.execute("update orders set amount = 2, updated_at = clock_timestamp()")
            yield block

    monkeypatch.setattr(reader, "_copy", change_midway)
    assert world.load("orders")[0].rows_applied == 10
    monkeypatch.setattr(reader, "_copy", real)
    assert set(last_amounts(world).values()) == {"1.00"}, "one snapshot, not some rows before and some after"
    (published,) = world.load("orders")
    assert (published.rows_applied, published.rows_unchanged) == (10, 0)
    assert set(last_amounts(world).values()) == {"2.00"}
    assert world.books_balance()


@pytest.fixture
def clock(orders: psycopg.Connection, world: World) -> psycopg.Connection:
    """The source's clock is as far from ours as `set_clock` says."""
    name = world.source_url.rsplit("/", 1)[1]
    orders.execute("create schema fake")
    orders.execute("create table fake.shift as select interval '0' as by")
    orders.execute(
        "create function fake.clock_timestamp() returns timestamptz language sql as "
        "'select pg_catalog.clock_timestamp() + by from fake.shift'"
    )
    orders.execute(f"alter database {name} set search_path = fake, public, pg_catalog")
    return orders


def set_clock(source: psycopg.Connection, by: timedelta) -> datetime:
    """Move it; returns what it shows."""
    source.execute("update fake.shift set by = %s", [by])
    return datetime.now(UTC) + by


def test_E4_a_clock_that_goes_back_loses_no_row_and_the_watermark_stays(
    world: World, clock: psycopg.Connection
) -> None:
    clock.execute("insert into orders values (1, 1)")
    world.load("orders")
    (before,) = world.query("select value::timestamptz from ops.watermark")
    stamp = set_clock(clock, timedelta(minutes=-10))
    for number in (2, 3):
        clock.execute("insert into orders values (%s, 1, %s)", [number, stamp])
        world.load("orders")
    assert ids(world) == [1, 2, 3]
    assert world.query("select value::timestamptz from ops.watermark") == [before]
    events = world.query("select code, connection, table_name, message from ops.source_event")
    assert [event[:3] for event in events] == [("CLOCK_SKEW", "db", "orders")], "said once"
    assert "went back by 600 s" in events[0][3]
    set_clock(clock, timedelta(0))
    clock.execute("insert into orders values (4, 1)")
    world.load("orders")
    assert ids(world) == [1, 2, 3, 4]
    assert world.query("select value::timestamptz > %s from ops.watermark", *before) == [(True,)]


def test_E5_rows_from_the_future_wait_in_quarantine_and_do_not_carry_the_watermark_along(
    world: World, clock: psycopg.Connection
) -> None:
    world.declare(ORDERS.replace("{column: updated_at}", "{column: updated_at, max_future: 1h}"))
    tomorrow = set_clock(clock, timedelta(days=1))
    clock.execute("insert into orders values (1, 1, %s), (2, 1, now())", [tomorrow])
    (published,) = world.load("orders")
    assert (published.rows_applied, published.rows_quarantined) == (1, 1)
    assert world.query("select code, column_name, reason from ops.quarantine") == [
        ("FUTURE", "updated_at", "updated_at is stamped more than 1:00:00 after it was read")
    ]
    assert world.query("select value::timestamptz < now() + interval '61 minutes' from ops.watermark") == [(True,)]
    set_clock(clock, timedelta(0))
    clock.execute("insert into orders values (3, 1)")
    world.load("orders")
    assert ids(world) == [2, 3], "a row of today is read though yesterday's clock showed tomorrow"


def test_E7_stamps_that_differ_by_a_microsecond_are_told_apart(world: World, orders: psycopg.Connection) -> None:
    orders.execute("insert into orders values (1, 1)")
    world.load("orders")
    boundary = datetime.fromisoformat(world.query("select value from ops.watermark")[0][0])
    assert boundary.microsecond % 1000, "the watermark keeps its microseconds"
    micro = timedelta(microseconds=1)
    orders.execute("insert into orders values (2, 1, %s), (3, 1, %s)", [boundary, boundary + micro])
    world.load("orders")
    assert ids(world) == [1, 2, 3]
    assert world.query("select _effective_at from staging.shop__orders where id = 3") == [(boundary + micro,)]


# -- queries and totals -------------------------------------------------------------------------

DAILY = """
daily:
  description: orders of a day
  from:
    postgres:
      connection: db
      query: select id, amount, '{}'::jsonb as extra from orders where updated_at >= {start} and updated_at < {end}
      control_total: {query: "select count(*) from orders where updated_at >= {start} and updated_at < {end}"}
  mode: append
  key: [id]
  start: 2026-01-01
  columns:
    id: {type: bigint, required: true}
    amount: {type: numeric}
    extra: {type: jsonb}
"""
CLOCK = "clock: {connection: db, query: select timestamptz '2026-01-04 01:00+00'}\n"


def test_a_query_with_an_interval_is_a_unit_for_each_finished_day(world: World, orders: psycopg.Connection) -> None:
    world.declare(DAILY, head=CLOCK)
    orders.execute(
        "insert into orders values (1, 1, '2026-01-01 00:00+00'), (2, 2, '2026-01-01 23:59:59.999999+00'),"
        " (3, 3, '2026-01-02 00:00+00'), (4, 4, '2026-01-04 00:30+00')"
    )
    assert [(p.unit, p.rows_applied) for p in world.load("daily")] == [
        ("2026-01-01", 2),
        ("2026-01-02", 1),
        ("2026-01-03", 0),
    ]
    assert world.load("daily") == []
    orders.execute("insert into orders values (5, 5, '2026-01-02 12:00+00')")
    day = datetime(2026, 1, 2, tzinfo=UTC)
    (again,) = world.load("daily", interval=(day, day + timedelta(days=1)))
    assert (again.unit, again.rows_applied) == ("2026-01-02", 2)
    assert world.query("select control_total from ops.batch where state = 'published' order by unit") == [
        (2,),
        (2,),
        (0,),
    ]


def test_E17_a_row_count_that_the_source_announces_is_compared_in_the_same_snapshot(
    world: World, orders: psycopg.Connection
) -> None:
    total = "table: public.orders, control_total: {query: select count(*) from orders where amount >= 0}"
    world.declare(ORDERS.replace("table: public.orders", total))
    orders.execute("insert into orders values (1, 1), (2, 2)")
    world.load("orders")
    world.warehouse.execute("delete from ops.watermark")
    orders.execute("insert into orders values (3, -1)")
    with pytest.raises(GateRefused, match="announces 2 rows but 3 were read"):
        world.load("orders")
    world.declare(ORDERS.replace("table: public.orders", total.replace("count(*)", "'many'::text")))
    with pytest.raises(SluiceError, match="control_total must return one whole number"):
        world.load("orders")


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (DAILY.replace("and updated_at < {end}", ""), "an interval needs both"),
        (
            DAILY.replace("mode: append", "mode: cursor\n  cursor: {column: at}").replace(
                "columns:", "columns:\n    at: {type: timestamptz}"
            ),
            "finds its own interval",
        ),
    ],
)
def test_a_query_that_can_not_work_is_refused(world: World, tables: str, says: str) -> None:
    world.declare(tables)
    with pytest.raises(DeclarationError, match=says):
        load_file(world.sources / "shop.yml")


def test_mode_full_of_a_table_that_travels_as_values_is_diffed_like_any_other(
    world: World, orders: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    values(monkeypatch)
    full = ORDERS.replace("mode: cursor", "mode: full").replace("  cursor: {column: updated_at}\n", "")
    world.declare(full.replace("max_reject_share: 1", "max_reject_share: 1\n  deletes: {max_share: 0.5}"))
    orders.execute("insert into orders select i, i, '2026-01-01' from generate_series(1, 10) as i")
    assert world.load("orders")[0].rows_applied == 10
    assert world.load("orders")[0].rows_unchanged == 10
    orders.execute("update orders set amount = 0 where id = 1")
    orders.execute("delete from orders where id = 2")
    (published,) = world.load("orders")
    assert (published.rows_applied, published.rows_unchanged, published.rows_deleted) == (1, 8, 1)


@pytest.mark.parametrize(
    ("kind", "declared"),
    [
        ("real", "double precision"),  # 0.1 would be another number
        ("bigint", "integer"),
        ("bigint", "double precision"),
        ("date", "timestamptz"),
        ("json", "jsonb"),
        ("text", "bigint"),
        ("bytea", "uuid"),
    ],
)
def test_a_cast_that_could_change_or_refuse_a_value_is_not_left_to_the_source(
    source: psycopg.Connection, kind: str, declared: str
) -> None:
    relation = sql.SQL("(select null::{} as it) as one").format(sql.SQL(kind))
    assert wire.values(source, relation, {"it": "it"}, {"it": declared}) is None
    assert wire.values(source, relation, {"it": "it"}, {"it": "text"}) is not None


# -- the source changes its shape ---------------------------------------------------------------


def events(world: World) -> list[tuple]:
    return world.query("select kind, column_name from ops.schema_event order by schema_event_id")


def test_D1_a_column_that_a_database_has_anew_is_rescued_and_one_that_was_left_out_at_first_is_not_asked_for(
    world: World, orders: psycopg.Connection, way: str
) -> None:
    orders.execute("alter table orders add column internal text default 'nobody asked for it'")
    orders.execute("insert into orders values (1, 1.5)")
    world.load("orders")
    assert events(world) == []
    orders.execute("alter table orders add column body json, add column raw bytea")
    orders.execute("""insert into orders values (2, 2.5, now(), 'x', '{"a": [1]}', '\\x00ff')""")
    world.load("orders")
    world.load("orders")
    assert events(world) == [("new_column", "body"), ("new_column", "raw")]
    assert world.query("select distinct id, amount::text, _rescued from staging.shop__orders order by 1") == [
        (1, "1.50", None),
        (2, "2.50", {"body": '{"a": [1]}', "raw": "\\x00ff"}),
    ]
    assert world.books_balance()


def test_D1_a_column_that_is_declared_no_more_is_not_read_as_if_it_were_new(
    world: World, orders: psycopg.Connection
) -> None:
    orders.execute("insert into orders values (1, 1.5)")
    world.load("orders")
    world.declare(ORDERS.replace('    amount: {type: "numeric(8,2)"}\n', ""))
    orders.execute("insert into orders values (2, 2.5)")
    world.load("orders")
    assert world.query("select count(*) from staging.shop__orders where _rescued is not null") == [(0,)]
    assert events(world) == []


def test_D1_a_column_that_a_database_has_anew_is_refused_where_the_policy_is_block(
    world: World, orders: psycopg.Connection
) -> None:
    world.declare(ORDERS.replace("  key:", "  drift: {new_column: block}\n  key:"))
    orders.execute("insert into orders values (1, 1.5)")
    world.load("orders")
    orders.execute("alter table orders add column colour text")
    orders.execute("insert into orders values (2, 2.5)")
    for _ in range(2):
        with pytest.raises(GateRefused, match="has the fields colour, unknown to the contract; nothing was published"):
            world.load("orders")
    assert ids(world) == [1]


def test_D2_an_optional_column_that_a_database_dropped_is_null_and_said_with_the_one_that_has_its_values(
    world: World, orders: psycopg.Connection
) -> None:
    orders.execute("insert into orders select g, g + 0.25 from generate_series(1, 20) g")
    world.load("orders")
    orders.execute("alter table orders rename column amount to total")
    orders.execute("update orders set updated_at = now()")
    world.load("orders")
    assert events(world) == [("new_column", "total"), ("missing_column", "amount")]
    assert (
        "declare columns.amount.field: total"
        in world.query("select string_agg(message, ' ') from ops.schema_event")[0][0]
    )


def test_D2_a_renamed_column_is_told_by_the_load_and_by_what_shows_the_source_and_the_batch(
    world: World, orders: psycopg.Connection
) -> None:
    def sluice(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments])

    orders.execute("insert into orders select g, g + 0.25 from generate_series(1, 20) g")
    assert "changed its shape" not in sluice("load", "shop").stderr + sluice("source", "show", "shop").stdout
    orders.execute("alter table orders rename column amount to total")
    orders.execute("update orders set updated_at = now()")
    told = (
        "  the source changed its shape: missing column amount, new column total. See: sluice source show shop.orders\n"
    )
    assert told in sluice("load", "shop").stderr
    assert "changed its shape" not in sluice("load", "shop").stderr
    ((batch,),) = world.query("select max(batch_id) from ops.schema_event")
    for shown in (("source", "show", "shop"), ("source", "show", "shop.orders"), ("batch", "show", str(batch))):
        output = sluice(*shown).stdout
        assert "The source changed its shape".lower() in output.lower()
        assert "declare columns.amount.field: total" in output
        assert ("\tmissing_column\tamount\tyes\t" in output) == (shown[0] == "source")


def test_D2_a_database_without_a_column_that_reading_needs_is_refused_by_its_name(
    world: World, orders: psycopg.Connection
) -> None:
    orders.execute("insert into orders values (1, 1)")
    world.load("orders")
    orders.execute("alter table orders rename column updated_at to changed_at")
    with pytest.raises(GateRefused, match=r"has no column updated_at \(new in it: changed_at\); nothing was published"):
        world.load("orders")
    orders.execute("alter table orders rename to sales")
    with pytest.raises(SluiceError, match=r'connection db: relation "public.orders" does not exist; nothing was read'):
        world.load("orders")


def test_D2_a_database_that_lost_the_mark_of_deleted_rows_revives_none(
    world: World, orders: psycopg.Connection
) -> None:
    world.declare(ORDERS.replace("  key:", "  deleted_by: {field: op, value: d}\n  key:"))
    orders.execute("alter table orders add column op text")
    orders.execute("insert into orders values (1, 1, now(), 'd')")
    world.load("orders")
    orders.execute("alter table orders drop column op")
    orders.execute("insert into orders values (2, 2)")
    with pytest.raises(GateRefused, match="has no column op"):
        world.load("orders")


def test_D5_columns_of_a_database_are_found_without_regard_to_case(
    world: World, source: psycopg.Connection, way: str
) -> None:
    world.declare(ORDERS.replace("public.orders", "public.Orders"))
    source.execute('create table "Orders" ("ID" bigint primary key, "Amount" numeric, updated_at timestamptz)')
    source.execute("""insert into "Orders" values (1, 1, now() - interval '1 h')""")
    world.load("orders")
    source.execute("""insert into "Orders" values (2, 2, now())""")
    world.load("orders")
    assert last_amounts(world) == {1: "1.00", 2: "2.00"}
