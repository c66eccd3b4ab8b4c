"""The cases of docs/reference/scd2-cases.md that the loader decides, each under its number.

Those of models and snapshots are in tests/dbt/test_scd2_cases.py.
"""

from __future__ import annotations

import json

import psycopg

from tests.loading.conftest import World

PARTS = """
parts:
  description: a daily full extract
  from: {files: {connection: drop, path: "{date}/parts.jsonl", format: jsonl}}
  mode: full
  key: [plant, code]
  max_reject_share: 1
  deletes: {max_share: 1}
  columns:
    plant: {type: text, required: true}
    code: {type: integer, required: true}
    weight: {type: double precision}
    price: {type: "numeric(8,2)"}
    spec: {type: jsonb}
"""

EVENTS = """
events:
  description: what happened
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: append
  key: [id]
  columns:
    id: {type: integer, required: true}
    note: {type: text}
"""


def part(plant: str | None, code: int | None, rest: str) -> str:
    return f'{{"plant": {json.dumps(plant)}, "code": {json.dumps(code)}, {rest}}}\n'


def test_case_06_a_change_without_a_new_stamp_is_found_within_the_overlap(world: World) -> None:
    """Beyond the overlap it is not: nothing compares the whole table with its source. See the page of the cases."""
    table = """
    orders:
      description: orders
      from: {postgres: {connection: db, table: public.orders}}
      mode: cursor
      cursor: {column: updated_at, overlap: 30d}
      key: [id]
      columns:
        id: {type: bigint, required: true}
        amount: {type: integer}
        updated_at: {type: timestamptz, required: true}
    """
    world.declare(table)
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table orders (id bigint, amount int, updated_at timestamptz)")
        source.execute(
            "insert into orders values (1, 1, now() - interval '29 days'), (2, 1, now() - interval '31 days')"
        )
        world.load("orders")
        source.execute("update orders set amount = 2")
        world.load("orders")
    assert world.query(
        "select distinct on (id) id, amount from staging.shop__orders order by id, _effective_at desc, _sequence desc"
    ) == [(1, 2), (2, 1)]


def test_case_11_equal_rows_of_a_key_count_once_and_conflicting_ones_are_believed_neither(world: World) -> None:
    world.declare(PARTS)
    same, other = part("a", 1, '"price": 1'), part("b", 2, '"price": 1')
    world.deliver(
        "2026-01-01/parts.jsonl", same + same + other + part("b", 2, '"price": 2') + part("c", 3, '"price": 3')
    )
    (published,) = world.load("parts")
    assert (published.rows_applied, published.rows_duplicate, published.rows_quarantined) == (2, 1, 2)
    assert world.query("select plant from staging.shop__parts order by 1") == [("a",), ("c",)]
    assert world.query("select distinct code from ops.quarantine") == [("DUPLICATE_KEY",)]


def test_case_12_a_row_without_a_part_of_its_key_waits_and_is_not_a_new_row_at_every_reading(world: World) -> None:
    world.declare(PARTS)
    for day in (1, 2, 3):
        rows = part(None, 1, '"price": 1') + part("a", None, '"price": 1') + part("a|b", 1, '"price": 1')
        world.deliver(f"2026-01-0{day}/parts.jsonl", rows + part("a", 1, f'"price": {day}'))
        world.load("parts")
    # an extract that hides a key asserts all it knows: the log repeats, and what it means does not change
    chains = world.history("shop__parts", "plant", "price::text")
    assert {plant: [value for _, value in chain] for plant, chain in chains.items()} == {
        "a": ["1.00", "2.00", "3.00"],
        "a|b": ["1.00"],
    }
    assert world.query("select code, count(*) from ops.quarantine group by 1") == [("NULL_KEY", 6)]


def test_case_20_a_column_that_the_source_dropped_is_said_and_loses_no_history(world: World) -> None:
    table = (
        PARTS.replace("parts.jsonl", "parts.csv")
        .replace(", format: jsonl", "")
        .replace("    spec: {type: jsonb}\n", "")
    )
    world.declare(table)
    world.deliver("2026-01-01/parts.csv", "plant,code,weight,price\na,1,2.5,1\n")
    world.load("parts")
    world.deliver("2026-01-02/parts.csv", "plant,code,price\na,1,1\n")
    world.load("parts")
    assert world.query("select unit, kind, column_name from ops.schema_event") == [
        ("2026-01-02/parts.csv", "missing_column", "weight")
    ]
    world.declare(table.replace("    weight: {type: double precision}\n", ""))
    world.deliver("2026-01-03/parts.csv", "plant,code,price\na,1,2\n")
    world.load("parts")
    assert world.query("select weight, price::text from staging.shop__parts order by _effective_at") == [
        (2.5, "1.00"),
        (None, "1.00"),
        (None, "2.00"),
    ]


def test_case_27_the_order_of_json_keys_blanks_and_digits_is_no_change(world: World) -> None:
    world.declare(PARTS)
    world.deliver("2026-01-01/parts.jsonl", part("a", 1, '"weight": 1.50, "price": 2, "spec": {"a": 1, "b": [1, 2]}'))
    assert [p.rows_applied for p in world.load("parts")] == [1]
    world.deliver("2026-01-02/parts.jsonl", part("a", 1, '"price": 2.00, "spec": {"b":[1,2],  "a":1}, "weight": 15e-1'))
    assert [(p.rows_applied, p.rows_unchanged) for p in world.load("parts")] == [(0, 1)]


def test_case_30_a_gap_of_days_is_made_up_day_by_day_and_in_order(world: World) -> None:
    """O1: what a dead scheduler left undone."""
    world.declare(EVENTS)
    world.deliver("2026-01-01.csv", "id,note\n1,a\n")
    world.load("events")
    for day in range(2, 7):
        world.deliver(f"2026-01-0{day}.csv", f"id,note\n{day},a\n")
    done = world.load("events")
    assert [published.unit for published in done] == [f"2026-01-0{day}.csv" for day in range(2, 7)]
    assert world.query(
        "select array_agg(unit order by published_seq) = array_agg(unit order by unit) from ops.batch"
    ) == [(True,)]
    assert world.load("events") == []
