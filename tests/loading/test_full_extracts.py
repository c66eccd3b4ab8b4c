"""Full extracts: the log keeps what changed, whatever the order in which the extracts come."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.cli.batch import approve
from sluice.declarations import load_file
from sluice.errors import GateRefused
from sluice.loading import RunContext, audit, land, publish
from tests.loading.conftest import World

THINGS = """
things:
  description: a daily full extract
  from: {files: {connection: drop, path: "{date}/things.csv"}}
  mode: full
  key: [id]
  max_reject_share: 1
  deletes: {max_share: 1}
  columns:
    id: {type: integer, required: true}
    value: {type: text, accepted: [a, b, c]}
"""

State = dict[int, str]
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")


def deliver(world: World, day: str, state: State) -> None:
    world.deliver(f"{day}/things.csv", "id,value\n" + "".join(f"{k},{v}\n" for k, v in state.items()))


def meaning_of(extracts: dict[str, State]) -> dict[int, list[tuple[str, str | None]]]:
    """The oracle: what a series of extracts says, in plain Python. 'x' is a rejected value, which says nothing new."""
    now: dict[int, str] = {}
    history: dict[int, list[tuple[str, str | None]]] = {}
    for day in sorted(extracts):
        instant = f"{day[:-1]}{int(day[-1]) + 1}"  # an extract speaks for the end of its day
        for key in now.keys() | extracts[day].keys():
            value = extracts[day].get(key)
            value = now.get(key) if value == "x" else value
            if value != now.get(key):
                history.setdefault(key, []).append((instant, value))
        now = {k: (now.get(k) if v == "x" else v) for k, v in extracts[day].items()}
        now = {k: v for k, v in now.items() if v is not None}
    return history


def meaning_in(world: World) -> dict[int, list[tuple[str, str | None]]]:
    found = world.history("shop__things", "id", "value")
    return {key: [(f"{at:%Y-%m-%d}", value) for at, value in chain] for key, chain in found.items()}


# key 0 is always there: an extract that shares no key with what is known is refused, and has its own test
states = st.dictionaries(st.integers(1, 4), st.sampled_from(["a", "b", "c", "x"]), max_size=4).map(
    lambda state: {0: "a"} | state
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extracts=st.lists(states, min_size=2, max_size=4),
    order=st.permutations(range(4)),
    corrected=st.dictionaries(st.integers(0, 3), states, max_size=2),
)
def test_any_order_of_extracts_and_corrections_means_the_same(
    world: World, extracts: list[State], order: list[int], corrected: dict[int, State]
) -> None:
    for name in ("lease", "quarantine", "schema_event", "gate_result", "watermark", "batch"):
        world.warehouse.execute(f"truncate ops.{name} cascade")
    world.warehouse.execute("drop table if exists staging.shop__things")
    for file in world.files.glob("*/things.csv"):
        file.unlink()
    world.declare(THINGS)
    final = {DAYS[i]: state for i, state in enumerate(extracts)}
    for index in (i for i in order if i < len(extracts)):
        first = corrected.get(index)
        if first is not None:  # what came first was wrong; the right one follows in its place in the order
            deliver(world, DAYS[index], first)
            world.load("things")
        deliver(world, DAYS[index], final[DAYS[index]])
        world.load("things")
    assert meaning_in(world) == meaning_of(final)
    assert world.books_balance()


def test_tuesday_after_thursday(world: World) -> None:
    """The example of the design: what Tuesday alone had is closed on Thursday, though Thursday was loaded first."""
    world.declare(THINGS)
    for day, state in (("2026-01-01", {1: "a"}), ("2026-01-03", {1: "a"}), ("2026-01-02", {1: "b", 2: "c"})):
        deliver(world, day, state)
        world.load("things")
    assert meaning_in(world) == {
        1: [("2026-01-02", "a"), ("2026-01-03", "b"), ("2026-01-04", "a")],
        2: [("2026-01-03", "c"), ("2026-01-04", None)],
    }
    assert world.query("select unit, part, rows_applied from ops.batch where part = 'supplement'") == [
        ("2026-01-03/things.csv", "supplement", 2)
    ]


def test_only_what_changed_is_stored(world: World) -> None:
    world.declare(THINGS)
    for day in DAYS:
        deliver(world, day, dict.fromkeys(range(1, 50), "a") | {50: "abca"[int(day[-1]) - 1]})
        world.load("things")
    assert world.query("select count(*) from staging.shop__things") == [(53,)]


def test_E9_an_empty_extract_is_refused_and_closes_nothing(world: World) -> None:
    world.declare(THINGS.replace("deletes: {max_share: 1}", ""))
    deliver(world, DAYS[0], {1: "a", 2: "b"})
    world.load("things")
    deliver(world, DAYS[1], {})
    with pytest.raises(GateRefused, match="EMPTY_SOURCE"):
        world.load("things")
    assert {chain[-1][1] for chain in meaning_in(world).values()} == {"a", "b"}


def test_E10_a_mass_delete_is_refused_until_a_person_approves_it(world: World) -> None:
    world.declare(THINGS.replace("deletes: {max_share: 1}", "deletes: {max_share: 0.3}"))
    deliver(world, DAYS[0], {1: "a", 2: "b"})
    world.load("things")
    deliver(world, DAYS[1], {1: "a"})
    with pytest.raises(GateRefused, match=r"1 of 2 keys vanished, more than 30%; nothing was closed \(MASS_DELETE\)"):
        world.load("things")
    (refused,) = world.query("select batch_id from ops.batch where state = 'refused'")
    approve(refused[0], "the range was cut")
    (published,) = world.load("things")
    assert published.rows_deleted == 1
    assert world.query("select approved_reason from ops.batch where approved_by is not null") == [
        ("the range was cut",)
    ]


def test_S1_equal_rows_of_a_key_count_once_and_conflicting_ones_are_not_believed(world: World) -> None:
    world.declare(THINGS)
    world.deliver(f"{DAYS[0]}/things.csv", "id,value\n1,a\n1,a\n2,a\n2,b\n3,c\n")
    (published,) = world.load("things")
    assert (published.rows_applied, published.rows_duplicate, published.rows_quarantined) == (2, 1, 2)
    assert world.query("select distinct code from ops.quarantine") == [("DUPLICATE_KEY",)]
    deliver(world, DAYS[1], {1: "a", 2: "b", 3: "c"})
    world.load("things")
    assert meaning_in(world)[2] == [("2026-01-03", "b")]


def test_a_row_that_hides_its_key_lets_no_other_key_be_taken_for_deleted(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a", 2: "b"})
    world.load("things")
    world.deliver(f"{DAYS[1]}/things.csv", "id,value\n1,a\n?,b\n")
    (published,) = world.load("things")
    assert published.rows_deleted == 0
    assert meaning_in(world)[2] == [("2026-01-02", "b")]
    ((verdict, message),) = world.query(
        "select verdict, message from ops.gate_result where check_name = 'deletes' and batch_id = %s",
        published.batch_id,
    )
    assert verdict == "warn"
    assert message.startswith("the keys of 1 rejected rows can't be read, so no key is taken for vanished")


def test_E9_an_empty_extract_is_refused_also_when_it_comes_together_with_the_one_before(world: World) -> None:
    world.declare(THINGS)
    deliver(world, DAYS[0], {1: "a", 2: "b"})
    deliver(world, DAYS[1], {})
    with pytest.raises(GateRefused, match="EMPTY_SOURCE"):
        world.load("things")
    assert {chain[-1][1] for chain in meaning_in(world).values()} == {"a", "b"}


def test_a_refusal_stays_one_when_its_task_is_cleared(world: World) -> None:
    world.declare(THINGS.replace("max_reject_share: 1", "max_reject_share: 0"))
    deliver(world, DAYS[0], {1: "x"})
    source = load_file(world.sources / "shop.yml")
    ids = land(source, source.tables["things"], RunContext("run"))
    for step in (audit, audit, publish):
        with pytest.raises(GateRefused):
            step(ids)


def test_a_type_that_the_log_does_not_have_is_refused_and_not_rounded(world: World) -> None:
    world.declare(THINGS.replace("value: {type: text, accepted: [a, b, c]}", "value: {type: 'numeric(8,2)'}"))
    world.deliver(f"{DAYS[0]}/things.csv", "id,value\n1,1.25\n")
    world.load("things")
    world.declare(THINGS.replace("value: {type: text, accepted: [a, b, c]}", "value: {type: 'numeric(8,4)'}"))
    world.deliver(f"{DAYS[1]}/things.csv", "id,value\n1,1.2345\n")
    with pytest.raises(GateRefused, match=r"numeric\(8,2\), and the declaration now says numeric\(8,4\)"):
        world.load("things")
