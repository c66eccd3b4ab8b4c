"""A batch against its own table's history. What each does is in tests/gates/test_every_check.py."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from sluice.errors import GateRefused
from sluice.gates import override
from tests.loading.conftest import World

TABLE = """
payments:
  description: payments
  from: {files: {connection: drop, path: "{date}/payments.csv"}}
  mode: append
  key: [id]
  start: 2026-01-05
  checks: {CHECKS}
  columns:
    id: {type: integer, required: true}
    amount: {type: "numeric(12,2)"}
    method: {type: text}
    note: {type: text}
    paid_at: {type: timestamptz}
"""
FIRST = datetime(2026, 1, 5, tzinfo=UTC)
DAYS = 16
_ids = iter(range(1, 10**9))


def declare(world: World, checks: str = "") -> None:
    world.declare(TABLE.replace("{CHECKS}", "{" + checks + "}"))


def deliver(world: World, day: int, rows: int = 300, cents: int = 1, hours: int = 0, nulls: float = 0.02) -> None:
    """A day of payments: amounts around 40, most of them in the afternoon, a note on nearly each."""
    draw, at = random.Random(day), FIRST + timedelta(days=day)
    lines = [
        f"{next(_ids)},{draw.lognormvariate(3.7, 0.6) * cents:.2f},{draw.choices(['card', 'bank'], [8, 2])[0]},"
        f"{'' if draw.random() < nulls else 'thanks'},"
        f"{at + timedelta(hours=min(max(draw.gauss(15, 3), 0), 20) + hours):%Y-%m-%d %H:%M:%S+00}"
        for _ in range(rows)
    ]
    world.deliver(f"{at:%Y-%m-%d}/payments.csv", "\n".join(["id,amount,method,note,paid_at", *lines, ""]))


def results(world: World, *checks: str) -> dict[str, tuple]:
    """The latest result of each check: severity, verdict, message."""
    rows = world.query(
        "select distinct on (check_name) check_name, severity, verdict, message from ops.gate_result"
        " where check_name = any(%s) order by check_name, gate_result_id desc",
        list(checks),
    )
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
def past(world: World) -> World:
    """Sixteen ordinary days, loaded in their order."""
    declare(world)
    for day in range(DAYS):
        deliver(world, day, rows=270 + 60 * (day % 2))
    assert len(world.load("payments")) == DAYS
    return world


def test_an_ordinary_day_passes_every_check_of_the_history(past: World) -> None:
    deliver(past, DAYS, rows=290)
    past.load("payments")
    found = results(past, "volume", "level", "empty", "nulls", "distribution")
    assert {name: row[1] for name, row in found.items()} == dict.fromkeys(found, "pass")
    assert len(found) == 5
    assert all(row[2] is None for row in found.values()), found


def test_a_short_history_says_that_it_is_learning_and_nothing_else(world: World) -> None:
    declare(world, "volume: block, nulls: block, distribution: block")
    for day in range(4):
        deliver(world, day)
    world.load("payments")
    deliver(world, 4, rows=3000, cents=100, nulls=0.9)
    world.load("payments")
    found = results(world, "volume", "nulls", "distribution")
    assert {row[1] for row in found.values()} == {"pass"}
    assert all(row[2].startswith("learning: 4 of 8 ") for row in found.values()), found


def test_a_column_has_a_word_of_its_own_beside_that_of_its_table(past: World) -> None:
    past.declare(
        TABLE.replace("{CHECKS}", "{volume: none}").replace(
            'amount: {type: "numeric(12,2)"}', 'amount: {type: "numeric(12,2)", severity: {distribution: block}}'
        )
    )
    deliver(past, DAYS, cents=100, nulls=0.5)
    with pytest.raises(GateRefused, match=r"the values of amount are distributed otherwise than before \(the middle"):
        past.load("payments")
    assert results(past, "nulls:note")["nulls:note"][:2] == ("warn", "warn")


def test_personal_values_are_in_no_profile_and_no_message(world: World) -> None:
    world.declare(TABLE.replace("{CHECKS}", "{}").replace("note: {type: text}", "note: {type: text, personal: true}"))
    deliver(world, 0)
    world.load("payments")
    ((columns,),) = world.query("select columns from ops.batch_profile")
    assert columns["note"].keys() == {"n", "nulls"}
    assert columns["method"]["values"].keys() == {"card", "bank"}
    assert len(columns["amount"]["q"]) == 19
    assert sum(columns["paid_at"]["hours"].values()) == 300


def test_a_number_larger_than_any_float_is_profiled_and_refuses_nothing(world: World) -> None:
    world.declare(TABLE.replace("{CHECKS}", "{}").replace('"numeric(12,2)"', "numeric"))
    world.deliver(
        "2026-01-05/payments.csv", f"id,amount,method,note,paid_at\n1,{10**400},card,,\n2,-{10**400},card,,\n"
    )
    assert [done.rows_applied for done in world.load("payments")] == [2]
    ((columns,),) = world.query("select columns from ops.batch_profile")
    assert columns["amount"]["q"][0] == pytest.approx(-9e299)
    assert columns["paid_at"] == {"n": 2, "nulls": 2}


def test_L7_a_number_smaller_than_any_float_is_profiled_and_refuses_nothing(world: World) -> None:
    world.declare(TABLE.replace("{CHECKS}", "{}").replace('"numeric(12,2)"', "numeric"))
    world.deliver("2026-01-05/payments.csv", "id,amount,method,note,paid_at\n1,1e-400,card,,\n2,-1e-400,card,,\n")
    assert [done.rows_applied for done in world.load("payments")] == [2]


def test_a_large_batch_is_profiled_by_a_sample(world: World) -> None:
    declare(world)
    deliver(world, 0, rows=70_000)
    world.load("payments")
    ((rows, profiled, columns),) = world.query("select rows_read, rows_profiled, columns from ops.batch_profile")
    assert rows == 70_000
    assert 1000 < profiled < 4000
    assert columns["amount"]["q"][9] == pytest.approx(40.4, rel=0.15)
    assert columns["note"]["nulls"] / profiled == pytest.approx(0.02, abs=0.02)


def test_a_refused_batch_is_published_once_a_person_overrides_the_check(past: World) -> None:
    """By the same content, in whatever run; other content is judged anew."""
    declare(past, "volume: block, distribution: none, level: none")
    deliver(past, DAYS, rows=30)
    with pytest.raises(GateRefused):
        past.load("payments")
    ((batch,),) = past.query("select batch_id from ops.batch where state = 'refused'")
    assert override.give(past.warehouse, "volume", by="ann", reason="a holiday", batch=batch) == (
        "batch",
        "shop.payments",
    )
    assert [done.state for done in past.load("payments")] == ["published"]
    severity, verdict, message = results(past, "volume")["volume"]
    assert (severity, verdict) == ("warn", "warn")
    assert message.startswith("overridden by ann: a holiday; was: 30 rows, where ")

    deliver(past, DAYS, rows=20)
    with pytest.raises(GateRefused):
        past.load("payments")


@pytest.mark.parametrize("severity", ["block", "warn", "none"])
def test_a_feed_that_drifts_slowly_does_what_its_severity_says(world: World, severity: str) -> None:
    """Sixty days of 200 rows, then 2 % less each day: no single day is odd, and the level is."""
    declare(world, f"volume: block, level: {severity}")
    for day in range(90):
        rows = round(200 * 0.98 ** max(day - 60, 0))
        world.warehouse.execute(
            """
            with made as (
                insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq, effective_at)
                values ('shop', 'payments', %(unit)s, 'published', 'append', 'r', ops.next_seq(), %(at)s)
                returning batch_id
            )
            insert into ops.batch_profile (batch_id, source, table_name, unit, instant, kind, rows_read, rows_profiled,
                columns)
            select batch_id, 'shop', 'payments', %(unit)s, %(at)s, 'rows', %(rows)s, 0, '{}' from made
            """,
            {"unit": f"day {day}", "at": FIRST - timedelta(days=89 - day), "rows": rows},
        )
    deliver(world, 0, rows=round(200 * 0.98**30))
    if severity == "block":
        with pytest.raises(
            GateRefused, match=r"the level of the last batches lies -\d\d% from that of the weeks before"
        ):
            world.load("payments")
    else:
        assert [done.state for done in world.load("payments")] == ["published"]
    expected = {"block": ("block", "fail"), "warn": ("warn", "warn"), "none": None}[severity]
    found = results(world, "level").get("level")
    assert (found and found[:2]) == expected
    assert results(world, "volume")["volume"][:2] == ("block", "pass")
