"""Files: what is read, what is rejected, and that nothing is lost between. Codes are those of
docs/reference/faults.md."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import psycopg
import pytest

from sluice.errors import GateRefused
from tests.loading.conftest import World

STOCK = """
stock:
  description: a daily list
  from: {files: {connection: drop, path: "stock/{date}.csv", done: "{path}.done", done_holds_rows: true}}
  mode: append
  key: [day, sku]
  max_reject_share: 0.5
  columns:
    day: {type: date, required: true, from_path: date}
    sku: {type: text, required: true}
    pieces: {type: integer, required: true, minimum: 0}
    price: {type: "numeric(8,2)"}
    note: {type: text}
"""


def deliver(world: World, day: str, body: str | bytes, rows: int) -> None:
    world.deliver(f"stock/{day}.csv", body)
    world.deliver(f"stock/{day}.csv.done", str(rows))


def quarantine(world: World) -> list[tuple]:
    return world.query(
        "select row_number, column_name, code from ops.quarantine where state = 'open' order by row_number"
    )


def test_rows_become_typed_values_and_the_books_balance(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", 'sku,pieces,price,note\na,1,2.50,"two\nlines, ""quoted"""\nb,0,,\n', 2)
    (published,) = world.load("stock")
    assert (published.rows_read, published.rows_applied) == (2, 2)
    assert world.query("select day::text, sku, pieces, price::text, note from staging.shop__stock order by sku") == [
        ("2026-01-01", "a", 1, "2.50", 'two\nlines, "quoted"'),
        ("2026-01-01", "b", 0, None, None),
    ]
    assert world.books_balance()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a,x,1\n", (1, "pieces", "TYPE")),
        ("a,-1,1\n", (1, "pieces", "RANGE")),
        ("a,,1\n", (1, "pieces", "REQUIRED")),
        (",1,1\n", (1, "sku", "NULL_KEY")),
        ("a,1,1.005\n", (1, "price", "PRECISION")),
        ("a,1,NaN\n", (1, "price", "NOT_FINITE")),
        ("a,99999999999,1\n", (1, "pieces", "TYPE")),
        ("a,1\n", (1, None, "FIELD_COUNT")),
        ("a,1,1,1\n", (1, None, "FIELD_COUNT")),
        (b"a\0,1,1\n", (1, None, "NUL_BYTE")),
        (b"\xff,1,1\n", (1, None, "ENCODING")),
    ],
    ids=lambda value: value[2] if isinstance(value, tuple) else None,
)
def test_E18_E19_L5_L7_S2_one_bad_row_waits_in_quarantine_and_the_rest_is_published(
    world: World, body: str | bytes, expected: tuple
) -> None:
    world.declare(STOCK)
    bad = body.encode() if isinstance(body, str) else body
    deliver(world, "2026-01-01", b"sku,pieces,price\n" + bad + b"good,1,1\nfine,2,2\n", 3)
    (published,) = world.load("stock")
    assert (published.rows_read, published.rows_applied, published.rows_quarantined) == (3, 2, 1)
    assert quarantine(world) == [expected]
    raw, raw_bytes = world.query("select raw, raw_bytes from ops.quarantine")[0]
    assert raw or bytes(raw_bytes) == bad, "the rejected row itself is kept"
    assert world.query("select sku from staging.shop__stock order by 1") == [("fine",), ("good",)]


def test_E14_a_file_without_its_marker_is_not_read(world: World) -> None:
    world.declare(STOCK)
    world.deliver("stock/2026-01-01.csv", "sku,pieces\na,1\n")
    assert world.load("stock") == []
    world.deliver("stock/2026-01-01.csv.done", "1")
    assert len(world.load("stock")) == 1


def test_E17_a_control_total_that_does_not_match_blocks_the_file(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "sku,pieces\na,1\n", 2)
    with pytest.raises(GateRefused, match="announces 2 rows but 1 were read; nothing was published"):
        world.load("stock")
    assert world.query("select count(*) from staging.shop__stock") == [(0,)]
    deliver(world, "2026-01-01", "sku,pieces\na,1\nb,2\n", 2)
    assert world.load("stock")[0].rows_applied == 2


def test_the_same_file_again_is_a_no_op_with_an_audit_row(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "sku,pieces\na,1\n", 1)
    world.load("stock")
    deliver(world, "2026-01-01", "sku,pieces\na,1\n", 1)  # touched, not changed
    assert world.load("stock") == []
    assert world.query("select state from ops.batch order by batch_id") == [("published",), ("unchanged",)]


def test_E16_a_file_with_other_content_supersedes_and_takes_its_removed_rows_along(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "sku,pieces\na,1\nb,2\n", 2)
    world.load("stock")
    deliver(world, "2026-01-01", "sku,pieces\na,5\n", 1)
    world.load("stock")
    assert world.history("shop__stock", "sku", "pieces").keys() == {"a"}
    assert world.query("select state, superseded_seq > 0 from ops.batch order by batch_id") == [
        ("superseded", True),
        ("published", None),
    ]
    assert world.query("select count(*) from staging.shop__stock") == [(3,)], "the log is only ever added to"


def test_E15_events_delivered_again_under_another_name_are_a_no_op(world: World) -> None:
    world.declare("""
        events:
          description: events
          from: {files: {connection: drop, path: "{name}.jsonl", format: jsonl}}
          mode: append
          key: [id]
          columns: {id: {type: bigint, required: true}}
    """)
    world.deliver("one.jsonl", '{"id": 1}\n{"id": 2}\n{"id": 2}\n')
    (first,) = world.load("events")
    assert (first.rows_applied, first.rows_duplicate) == (2, 1)
    world.deliver("renamed.jsonl", '{"id": 1}\n{"id": 2}\n{"id": 2}\n')
    assert world.load("events") == []
    assert world.query("select verdict from ops.batch where state = 'unchanged'") == [
        ("the same content as one.jsonl",)
    ]


EVENTS = """
    events:
      description: events
      from: {files: {connection: drop, path: "{name}.jsonl", format: jsonl}}
      mode: append
      key: [id]
      columns: {id: {type: bigint, required: true}}
"""


def test_E15_two_files_of_equal_content_in_one_run_are_one_delivery(world: World) -> None:
    world.declare(EVENTS)
    for name in ("one", "copy of one"):
        world.deliver(f"{name}.jsonl", '{"id": 1}\n{"id": 2}\n')
    assert sorted((published.state, published.rows_applied) for published in world.load("events")) == [
        ("published", 2),
        ("unchanged", 0),
    ]
    assert world.query("select count(*) from staging.shop__events") == [(2,)]
    assert world.query("select verdict like 'the same content as %', rows_read, rows_unchanged from ops.batch"
                       " where state = 'unchanged'") == [(True, 2, 2)]  # fmt: skip
    assert world.query("select count(*) from pg_class where relnamespace = 'landing'::regnamespace") == [(0,)]
    assert world.load("events") == [], "both are known"


def test_E15_what_held_the_content_is_superseded_in_the_same_run_so_its_copy_is_published(world: World) -> None:
    world.declare(EVENTS)
    world.deliver("a.jsonl", '{"id": 1}\n')
    world.load("events")
    world.deliver("a.jsonl", '{"id": 2}\n')
    world.deliver("b.jsonl", '{"id": 1}\n')
    world.load("events")
    world.load("events")
    assert world.query(
        "select id from staging.shop__events inner join ops.batch on batch_id = _batch_id"
        " where state = 'published' order by 1"
    ) == [(1,), (2,)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_equal_rows_of_two_intervals_are_two_deliveries(world: World, one_by_one: bool) -> None:
    """Of a query by day, and of files by day: that Tuesday sold as much as Monday is no copy of Monday."""
    world.declare(
        """
        counts:
          description: counts
          from: {postgres: {connection: db, query: "select store, n from counts where day >= {start} and day < {end}"}}
          mode: append
          key: [store]
          columns: {store: {type: text, required: true}, n: {type: bigint}}
        files:
          description: counts
          from: {files: {connection: drop, path: "{date}/{part}.csv"}}
          mode: append
          key: [store]
          columns: {store: {type: text, required: true}, n: {type: bigint}}
        """,
        head=f"start: {date.today() - timedelta(days=3)}\n",
    )
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table counts as select now() - interval '1 day' * i as day, 'A' as store, 5 as n"
                       " from generate_series(1, 3) as i")  # fmt: skip
    days = [datetime.combine(date.today() - timedelta(days=i), time(), UTC) for i in (3, 2, 1)]
    for start in days:
        for part in ("a", "copy of a"):
            world.deliver(f"{start:%Y-%m-%d}/{part}.csv", "store,n\nA,5\n")
        if one_by_one:
            for table in ("counts", "files"):
                world.load(table, interval=(start, start + timedelta(days=1)))
    for table in ("counts", "files"):
        world.load(table)
        assert world.query(f"select store, n, _effective_at from staging.shop__{table} order by 3") == [
            ("A", 5, start + timedelta(days=1)) for start in days
        ]
    assert world.books_balance()


def test_L6_a_file_of_rejects_is_refused_and_its_rows_stay_in_quarantine(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "sku,pieces\na,x\nb,y\n", 2)
    with pytest.raises(GateRefused, match="2 of 2 rows break the contract"):
        world.load("stock")
    assert len(quarantine(world)) == 2
    assert world.query("select state from ops.batch") == [("refused",)]


def test_one_refused_file_does_not_hold_up_the_others(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "sku,pieces\na,x\n", 1)
    deliver(world, "2026-01-02", "sku,pieces\na,1\n", 1)
    with pytest.raises(GateRefused):
        world.load("stock")
    assert world.query("select unit, state from ops.batch order by unit") == [
        ("stock/2026-01-01.csv", "refused"),
        ("stock/2026-01-02.csv", "published"),
    ]


def test_D1_a_field_that_the_contract_does_not_know_is_rescued_and_said_once(world: World) -> None:
    world.declare(STOCK)
    for day in ("2026-01-01", "2026-01-02"):
        deliver(world, day, "sku,pieces,colour\na,1,red\n", 1)
    world.load("stock")
    assert world.query("select distinct _rescued->>'colour' from staging.shop__stock") == [("red",)]
    assert world.query("select kind, column_name from ops.schema_event where kind = 'new_column'") == [
        ("new_column", "colour")
    ]


def test_D2_a_required_field_that_is_missing_refuses_the_file(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "sku,amount\na,1\n", 1)
    with pytest.raises(GateRefused, match="no field for the required columns pieces"):
        world.load("stock")


def test_D5_order_and_case_of_fields_do_not_matter_but_an_ambiguous_name_does(world: World) -> None:
    world.declare(STOCK)
    deliver(world, "2026-01-01", "Pieces,SKU\n1,a\n", 1)
    world.load("stock")
    assert world.query("select sku, pieces from staging.shop__stock") == [("a", 1)]
    deliver(world, "2026-01-02", "sku,Sku,pieces\na,b,1\n", 1)
    with pytest.raises(GateRefused, match="occur more than once"):
        world.load("stock")


def test_a_message_never_holds_a_value(world: World) -> None:
    world.declare(STOCK.replace("max_reject_share: 0.5", "max_reject_share: 0"))
    deliver(world, "2026-01-01", "sku,pieces\na,canary-4711\n", 1)
    with pytest.raises(GateRefused) as refusal:
        world.load("stock")
    recorded = world.query("select coalesce(string_agg(message, ''), '') from ops.gate_result")[0][0]
    reasons = world.query("select string_agg(reason, '') from ops.quarantine")[0][0]
    assert "4711" not in str(refusal.value) + recorded + reasons


def test_E19_a_quote_that_never_closes_fails_the_file_and_swallows_no_rows(world: World) -> None:
    world.declare(STOCK.replace(', done: "{path}.done", done_holds_rows: true', ""))
    rows = "".join(f"{i},{i},note\n" for i in range(50))
    world.deliver("stock/2026-01-01.csv", "sku,pieces,note\n" + rows.replace("30,30,note", '30,30,"note'))
    with pytest.raises(GateRefused, match="left unread"):
        world.load("stock")
    assert world.query("select count(*) from ops.batch where state = 'published'") == [(0,)]


def test_one_unreadable_file_does_not_hold_up_those_that_landed(world: World) -> None:
    world.declare(STOCK.replace(', done: "{path}.done", done_holds_rows: true', ""))
    world.deliver("stock/2026-01-01.csv", "sku,pieces\na,1\n")
    world.deliver("stock/2026-01-02.csv", "")
    world.deliver("stock/2026-01-03.csv", "sku,pieces\na,3\n")
    with pytest.raises(GateRefused, match="is empty, it has not even a header"):
        world.load("stock")
    assert world.query("select pieces from staging.shop__stock order by 1") == [(1,), (3,)]
    assert world.query("select count(*) from ops.lease where expires_at > now()") == [(0,)]


def test_what_held_the_content_of_a_superseded_file_is_read_for_itself(world: World) -> None:
    world.declare("""
        events:
          description: events
          from: {files: {connection: drop, path: "{name}.jsonl", format: jsonl}}
          mode: append
          key: [id]
          columns: {id: {type: bigint, required: true}}
    """)
    world.deliver("a.jsonl", '{"id": 1}\n')
    world.load("events")
    world.deliver("b.jsonl", '{"id": 1}\n')
    world.load("events")
    world.deliver("a.jsonl", '{"id": 2}\n')
    world.load("events")
    world.load("events")
    assert sorted(world.history("shop__events", "id", "id")) == [1, 2]


def test_E18_half_a_surrogate_pair_is_one_rejected_row_and_numbers_keep_their_digits(world: World) -> None:
    world.declare("""
        events:
          description: events
          from: {files: {connection: drop, path: "{name}.jsonl", format: jsonl}}
          mode: append
          key: [id]
          max_reject_share: 0.5
          columns: {id: {type: bigint, required: true}, amount: {type: numeric}}
    """)
    world.deliver("a.jsonl", b'{"id": 1, "amount": 12345678901234567.890}\n{"id": 2, "x": "\\ud83d"}\n')
    world.load("events")
    assert world.query("select amount::text from staging.shop__events") == [("12345678901234567.890",)]
    assert quarantine(world) == [(2, None, "ENCODING")]


def test_D1_all_unknown_fields_are_rescued_however_many(world: World) -> None:
    world.declare(STOCK)
    names = [f"extra{i}" for i in range(70)]
    deliver(world, "2026-01-01", f"sku,pieces,{','.join(names)}\na,1,{','.join('x' for _ in names)}\n", 1)
    world.load("stock")
    assert world.query("select count(*) from staging.shop__stock, jsonb_object_keys(_rescued)") == [(70,)]
