"""Rejected rows come back: the log means what it would have meant had they never been rejected."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sluice.cli import app
from sluice.errors import SluiceError
from sluice.loading import quarantine, replay
from sluice.loading.quarantine import Where
from sluice.loading.replay import Corrections
from tests.loading.conftest import Killed, World
from tests.loading.test_full_extracts import DAYS, THINGS, State, deliver, meaning_in, meaning_of, states

run = CliRunner().invoke
NARROW = THINGS
WIDE = THINGS.replace("accepted: [a, b, c]", "accepted: [a, b, c, x]")
OPEN = Where(source="shop", table="things", state="open")

SALES = """
sales:
  description: events
  from: {files: {connection: drop, path: "sales/{date}.csv"}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns:
    day: {type: date, from_path: date}
    id: {type: integer, required: true}
    kind: {type: text, accepted: [web, shop]}
    buyer: {type: text, personal: true}
"""
FIXED = SALES.replace("accepted: [web, shop]", "accepted: [web, shop, phone]")
BODY = "id,kind,buyer,extra\n1,web,ann,e1\n2,phone,bob,e2\n2,phone,bob,e2\n3,shop,eve,\n1,web,ann,e1\n"


def again(
    where: Where = OPEN, corrections: Corrections = replay.NOTHING, *, rehearse: bool = False
) -> list[replay.Replayed]:
    return replay.replay(where, by="tester", reason="mended", corrections=corrections, rehearse=rehearse)


def log_of(world: World, table: str) -> list[tuple]:
    """Every row that readers see, whole, without the batch it is in."""
    return world.query(
        f"""
        select (to_jsonb(log) - '_batch_id')::text from staging.shop__{table} as log
        where not exists (select from ops.batch where batch_id = log._batch_id and superseded_seq is not null)
        order by 1
        """
    )


def wipe(world: World, table: str) -> None:
    names = ("lease", "quarantine", "schema_event", "gate_result", "watermark", "contract", "batch")
    world.warehouse.execute("truncate " + ", ".join(f"ops.{name}" for name in names) + ", ops.table_read cascade")
    world.warehouse.execute(f"drop table if exists staging.shop__{table}")


# -- meaning ------------------------------------------------------------------------------------


def test_append_a_replay_leaves_the_log_that_a_load_with_the_mended_contract_makes(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", BODY)
    world.load("sales")
    world.declare(FIXED)
    (done,) = again(Where(source="shop", table="sales"))
    assert (done.asked, done.applied, done.duplicate, done.still) == (2, 1, 1, ())
    replayed = log_of(world, "sales")
    assert world.books_balance()
    wipe(world, "sales")
    world.load("sales")
    assert replayed == log_of(world, "sales")


def test_append_a_replayed_row_leaves_with_its_unit(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", BODY)
    world.load("sales")
    world.declare(FIXED)
    again(Where(source="shop"))
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n7,web,zoe\n")
    world.load("sales")
    assert [key for key in world.history("shop__sales", "id", "kind")] == [7]
    assert world.query("select part, state from ops.batch order by batch_id") == [
        ("unit", "superseded"),
        ("replay", "superseded"),
        ("unit", "published"),
    ]


def test_append_a_row_that_its_unit_holds_already_is_a_duplicate(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,web,ann\n1,wob,ann\n")
    world.load("sales")
    (done,) = again(Where(source="shop"), Corrections({"kind": "web"}, {}))
    assert (done.applied, done.duplicate) == (0, 1)
    assert world.query("select count(*) from staging.shop__sales") == [(1,)]
    assert world.query("select state from ops.quarantine") == [("replayed",)]


hidden = st.lists(st.tuples(st.integers(0, 3), st.integers(5, 6)), min_size=1, max_size=2, unique=True)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extracts=st.lists(states, min_size=2, max_size=4),
    order=st.permutations(range(4)),
    mended_after=st.integers(0, 4),
    twice=st.booleans(),
    hides=hidden,
    corrected=st.dictionaries(st.integers(0, 3), states, max_size=1),
)
def test_full_rejected_rows_replayed_at_any_moment_mean_what_they_would_have_meant_at_first(
    world: World,
    extracts: list[State],
    order: list[int],
    mended_after: int,
    twice: bool,
    hides: list[tuple[int, int]],
    corrected: dict[int, State],
) -> None:
    """Extracts in any order, some corrected by a later delivery, some with a row that hides its key (it is a word), the
    contract mended and the rejected replayed somewhere between. The oracle never rejects anything."""
    wipe(world, "things")
    for file in world.files.glob("*/things.csv"):
        file.unlink()
    final = {DAYS[i]: dict(state) for i, state in enumerate(extracts)}
    secret = {(DAYS[i], key) for i, key in hides if i < len(extracts)}

    def write(day: str, state: State) -> None:
        lines = [f"{k},{v}\n" for k, v in state.items()] + [f"k{k},a\n" for d, k in sorted(secret) if d == day]
        world.deliver(f"{day}/things.csv", "id,value\n" + "".join(lines))

    def mend() -> None:
        rows = list(quarantine.rows(OPEN))
        each = {}
        for row in rows:
            value = (row.fields or {}).get("id") or ""
            if re.match("k[0-9]", value):
                each[row.quarantine_id] = {"id": value[1:]}
        for part in [rows[::2], rows[1::2]] if twice else [rows]:
            if part:
                again(Where(ids=tuple(row.quarantine_id for row in part)), Corrections({}, each))

    world.declare(NARROW)
    loads = [index for index in order if index < len(extracts)]
    for done, index in enumerate(loads):
        if done == mended_after:
            world.declare(WIDE)
            mend()
        if index in corrected:
            write(DAYS[index], corrected[index])
            world.load("things")
        write(DAYS[index], final[DAYS[index]])
        world.load("things")
    world.declare(WIDE)
    mend()
    assert world.query("select count(*) from ops.quarantine where state = 'open'") == [(0,)]
    whole = {day: state | {k: "a" for d, k in secret if d == day} for day, state in final.items()}
    expected = meaning_of({day: {k: v.replace("x", "X") for k, v in s.items()} for day, s in whole.items()})
    assert meaning_in(world) == {k: [(at, v and v.lower()) for at, v in chain] for k, chain in expected.items()}
    assert world.books_balance()


def test_full_once_no_key_is_hidden_the_extract_closes_what_it_lacked(world: World) -> None:
    world.declare(NARROW)
    deliver(world, DAYS[0], {0: "a", 1: "a", 2: "a"})
    world.load("things")
    world.deliver(f"{DAYS[1]}/things.csv", "id,value\n0,a\nk2,b\nk3,b\n")
    world.load("things")
    deliver(world, DAYS[2], {0: "a", 1: "a", 2: "a", 3: "b"})
    world.load("things")
    rows = {row.fields["id"]: row.quarantine_id for row in quarantine.rows(OPEN)}
    (done,) = again(Where(ids=(rows["k2"],)), Corrections({"id": "2"}, {}))
    assert done.deleted == 0, "k3 still hides its key: it might be 1"
    (done,) = again(OPEN, Corrections({"id": "3"}, {}))
    assert done.deleted == 1
    assert meaning_in(world) == {
        0: [("2026-01-02", "a")],
        1: [("2026-01-02", "a"), ("2026-01-03", None), ("2026-01-04", "a")],
        2: [("2026-01-02", "a"), ("2026-01-03", "b"), ("2026-01-04", "a")],
        3: [("2026-01-03", "b")],
    }


def test_full_a_second_value_for_a_key_that_the_extract_holds_is_not_believed(world: World) -> None:
    world.declare(NARROW)
    deliver(world, DAYS[0], {0: "a", 1: "a"})
    world.load("things")
    world.deliver(f"{DAYS[1]}/things.csv", "id,value\n0,a\n1,a\n1,x\n")
    world.load("things")
    world.declare(WIDE)
    (done,) = again()
    assert [(still.code, still.rows) for still in done.still] == [("DUPLICATE_KEY", 1)]
    assert meaning_in(world)[1] == [("2026-01-02", "a")]
    assert world.query("select state from ops.quarantine") == [("open",)]


def test_full_a_readable_key_is_not_changed_by_a_correction(world: World) -> None:
    world.declare(NARROW)
    world.deliver(f"{DAYS[0]}/things.csv", "id,value\n0,a\n1,x\n")
    world.load("things")
    (done,) = again(OPEN, Corrections({"id": "2", "value": "a"}, {}))
    assert [(still.code, still.rows) for still in done.still] == [("KEY_CHANGED", 1)]
    assert list(meaning_in(world)) == [0]


def test_full_absence_that_would_close_too_much_stays_withheld_and_is_said(world: World) -> None:
    world.declare(NARROW.replace("deletes: {max_share: 1}", "deletes: {max_share: 0.1}"))
    deliver(world, DAYS[0], {0: "a", 1: "a", 2: "a"})
    world.load("things")
    world.deliver(f"{DAYS[1]}/things.csv", "id,value\n0,a\nk3,a\n")
    world.load("things")
    (done,) = again(OPEN, Corrections({"id": "3"}, {}))
    assert (done.applied, done.deleted) == (1, 0)
    assert "2 keys that this extract lacks stay open" in done.note
    assert meaning_in(world)[1] == [("2026-01-02", "a")]
    assert world.query(
        "select part, gate_result.verdict from ops.gate_result inner join ops.batch using (batch_id)"
        " where check_name = 'deletes' and severity = 'warn' order by batch_id"
    ) == [("unit", "warn"), ("replay", "warn")]


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
    status: {type: text, accepted: [new, paid]}
    updated_at: {type: timestamptz, required: true}
"""


def test_cursor_a_replayed_version_takes_its_place_between_those_read_before_and_after_it(world: World) -> None:
    world.declare(ORDERS)
    stamp = "2999-01-01T10:00:00Z"  # always above the watermark, so that it is read every time
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table orders (id bigint, status text, updated_at timestamptz)")
        for number, status in enumerate(("new", "odd", "paid")):  # three readings, and the stamp did not move
            source.execute("truncate orders")
            source.execute("insert into orders values (1, %s, %s), (2, %s, %s)", [status, stamp, "odd", stamp])
            world.load("orders", run=f"r{number}")
    world.declare(ORDERS.replace("[new, paid]", "[new, paid, odd]"))
    done = again(Where(source="shop", table="orders"))
    assert [(d.asked, d.applied, d.unchanged) for d in done] == [(1, 1, 0), (1, 1, 0)], "row 2 waits once"
    chain = "select status from staging.shop__orders where id = %s order by _effective_at, _sequence, _row_hash"
    assert world.query(chain, 1)[-1] == ("paid",), "what was read last still holds"
    assert sorted(world.query(chain, 1)) == [("new",), ("odd",), ("paid",)]
    assert world.query(chain, 2) == [("odd",)]
    assert world.books_balance()


def test_cursor_a_reject_that_comes_again_after_another_version_is_news(world: World) -> None:
    """Its stamp did not move; what was read last holds."""
    world.declare(ORDERS)
    with psycopg.connect(world.source_url, autocommit=True) as source:
        source.execute("create table orders (id bigint, status text, updated_at timestamptz)")
        for status in ("odd", "odd", "paid", "odd", "odd"):
            source.execute("truncate orders")
            source.execute("insert into orders values (1, %s, '2999-01-01T10:00:00Z')", [status])
            world.load("orders")
    assert world.query("select batch_id, rows_quarantined, rows_unchanged from ops.batch order by 1") == [
        (1, 1, 0), (2, 0, 1), (3, 0, 0), (4, 1, 0), (5, 0, 1)
    ]  # fmt: skip
    world.declare(ORDERS.replace("[new, paid]", "[new, paid, odd]"))
    again(Where(source="shop", table="orders"))
    chain = "select status from staging.shop__orders order by _effective_at, _sequence, _row_hash"
    assert world.query(chain) == [("odd",), ("paid",), ("odd",)]


# -- what stays, what is said -------------------------------------------------------------------


def test_rows_that_still_break_a_rule_stay_open_and_the_others_go(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,phone,ann\nx,phone,bob\n3,fax,eve\n4,web\n")
    world.load("sales")
    world.declare(FIXED)
    (done,) = again(Where(source="shop"))
    assert (done.asked, done.applied) == (4, 1)
    assert sorted((still.code, still.rows) for still in done.still) == [
        ("ACCEPTED", 1),
        ("FIELD_COUNT", 1),
        ("TYPE", 1),
    ]
    assert sorted(world.query("select code, state from ops.quarantine")) == [
        ("ACCEPTED", "open"), ("ACCEPTED", "replayed"), ("FIELD_COUNT", "open"), ("TYPE", "open"),
    ]  # fmt: skip
    assert world.query("select rows_read, rows_applied, rows_quarantined from ops.batch order by batch_id") == [
        (4, 0, 4),
        (1, 1, 0),
    ]
    assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]


def test_a_rehearsal_says_the_same_and_changes_nothing(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", BODY)
    world.load("sales")
    world.declare(FIXED)
    before = [world.query(f"select * from {name}") for name in ("ops.quarantine", "ops.batch", "staging.shop__sales")]
    (said,) = again(Where(source="shop"), rehearse=True)
    after = [world.query(f"select * from {name}") for name in ("ops.quarantine", "ops.batch", "staging.shop__sales")]
    assert before == after
    (done,) = again(Where(source="shop"))
    assert (said.asked, said.applied, said.duplicate) == (done.asked, done.applied, done.duplicate) == (2, 1, 1)
    assert said.replay_batch is None
    assert done.replay_batch is not None


def test_a_replay_again_finds_nothing_and_doubles_nothing(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", BODY)
    world.load("sales")
    world.declare(FIXED)
    again(Where(source="shop"))
    with pytest.raises(SluiceError, match="2 rows that match are replayed; none is open; nothing was replayed"):
        again(Where(source="shop"))
    assert world.query("select replayed_by, state_by, state_reason from ops.quarantine limit 1") == [
        (2, "tester", "mended")
    ]


def test_L1_a_replay_killed_at_any_statement_did_all_or_nothing(
    world: World, kill_at: Callable[[int | None], Callable[[], int]]
) -> None:
    world.declare(NARROW)
    for day, state in ((DAYS[0], {0: "a", 1: "a"}), (DAYS[1], {0: "a", 1: "x"}), (DAYS[2], {0: "a", 1: "a"})):
        deliver(world, day, state)
        world.load("things")
    world.declare(WIDE)
    before, k = meaning_in(world), 0
    while True:
        k += 1
        statements = kill_at(k)
        try:
            again()
        except Killed:
            assert (meaning_in(world), world.query("select state from ops.quarantine")) == (before, [("open",)])
            continue
        finally:
            kill_at(None)
        break
    assert k > 15, "the sweep went over the whole replay"
    assert statements() < k
    assert meaning_in(world)[1] == [("2026-01-02", "a"), ("2026-01-03", "x"), ("2026-01-04", "a")]
    assert world.books_balance()


def test_rows_of_a_superseded_batch_cannot_be_replayed_and_say_why(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", BODY)
    world.load("sales")
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,web,ann\n")
    world.load("sales")
    with pytest.raises(SluiceError, match=r"are superseded \(of batch 1, for one: batch 2 judged its unit anew"):
        again(Where(batch_id=1))


def test_rows_of_a_refused_batch_wait_for_their_unit(world: World) -> None:
    world.declare(SALES.replace("max_reject_share: 1", "max_reject_share: 0"))
    world.deliver("sales/2026-01-01.csv", BODY)
    with pytest.raises(SluiceError):
        world.load("sales")
    (done,) = again(Where(source="shop"))
    assert (done.passed, done.still[0].rows) == (0, 2)
    assert "was refused as a whole; its unit is read again by: sluice load shop.sales" in done.still[0].reason


def test_what_the_contract_has_learnt_to_know_is_taken_out_of_the_rescued_fields(world: World) -> None:
    declared = """
        events:
          description: events
          from: {files: {connection: drop, path: "{name}.jsonl", format: jsonl}}
          mode: append
          key: [id]
          max_reject_share: 1
          columns: {id: {type: bigint, required: true}, kind: {type: text, accepted: [web]}%s}
    """
    world.declare(declared % "")
    world.deliver("a.jsonl", '{"id": 1, "kind": "fax", "amount": 1.50, "more": [1]}\n')
    world.load("events")
    world.declare((declared % ", amount: {type: numeric}").replace("[web]", "[web, fax]"))
    again(Where(source="shop"))
    replayed = log_of(world, "events")
    assert '"amount": 1.50' in replayed[0][0]
    assert '"_rescued": {"more": [1]}' in replayed[0][0]
    wipe(world, "events")
    world.load("events")
    assert replayed == log_of(world, "events")


# -- the command --------------------------------------------------------------------------------


def test_rows_are_exported_corrected_and_replayed_and_masked_values_stay_what_they_were(
    world: World, tmp_path: Path
) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,wob,ann-secret\n2,web,bob-secret,x\n3,shap,eve-secret\n")
    world.load("sales")
    file = tmp_path / "rows.csv"
    assert run(app, ["quarantine", "list", "shop", "--export", str(file)]).exit_code == 0
    assert "secret" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    lines = list(csv.DictReader(file.open()))
    for line in lines:
        line["kind"] = {"wob": "web", "shap": "shop"}.get(line["kind"], line["kind"])
        if line["_code"] == "FIELD_COUNT":
            line.update(id="2", kind="web", buyer="bob")
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    result = run(app, ["quarantine", "replay", "--from", str(file), "--yes", "--reason", "typing mistakes"])
    assert result.exit_code == 0, result.output
    assert world.query("select id, kind, buyer from staging.shop__sales order by id") == [
        (1, "web", "ann-secret"),
        (2, "web", "bob"),
        (3, "shop", "eve-secret"),
    ]
    assert world.query(
        "select raw::jsonb ->> 'kind', corrected ->> 'kind' from ops.quarantine where code = 'ACCEPTED'"
    ) == [
        ("wob", "web"),
        ("shap", "shop"),
    ], "what came stays beside what a person made of it"


def test_no_command_shows_a_personal_value_unless_asked(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,wob,canary\n2,web,canary,x\n")
    world.load("sales")
    (first, *_) = world.query("select min(quarantine_id) from ops.quarantine")
    commands = [["list"], ["list", "--rows"], ["show", str(first[0])], ["show", str(first[0] + 1)], ["replay", "shop"]]
    for command in commands:
        result = run(app, ["quarantine", *command])
        assert result.exit_code == 0
        assert "canary" not in result.output, command
        assert command[0] == "replay" or "wob" in result.output or "FIELD_COUNT" in result.output
    assert "canary" in run(app, ["quarantine", "show", str(first[0]), "--personal"]).output


def test_set_corrects_one_row_and_refuses_to_correct_whatever_comes(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,wob,ann\n2,fux,bob\n")
    world.load("sales")
    (number,) = world.query("select min(quarantine_id) from ops.quarantine")[0]
    said = run(app, ["quarantine", "replay", "--row", str(number)]).output
    assert "no row would pass, so there is nothing to replay" in said
    assert "--yes" not in said
    chosen = ["quarantine", "replay", "--row", str(number), "--set", "kind=web"]
    assert "1 rows would be replayed" in run(app, chosen).output
    assert world.query("select count(*) from staging.shop__sales") == [(0,)]
    assert run(app, [*chosen, "--yes"]).exit_code == 2, "a reason is wanted"
    assert run(app, [*chosen, "--yes", "--reason", "typo"]).exit_code == 0
    assert world.query("select id, kind from staging.shop__sales") == [(1, "web")]
    assert run(app, ["quarantine", "replay", "shop", "--set", "kind=web"]).exit_code == 2
    wrong = run(app, ["quarantine", "replay", "--row", str(number + 1), "--set", "kynd=web"])
    assert "has no column or field kynd" in str(wrong.exception)


def test_discard_rehearses_and_then_keeps_who_and_why(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", BODY)
    world.load("sales")
    command = ["quarantine", "discard", "shop.sales", "--code", "accepted", "--reason", "test data"]
    assert "2 rows would be discarded" in run(app, command).output
    assert world.query("select distinct state from ops.quarantine") == [("open",)]
    assert run(app, [*command, "--yes"]).exit_code == 0
    assert world.query("select distinct state, state_reason, state_by is not null from ops.quarantine") == [
        ("discarded", "test data", True)
    ]
    with pytest.raises(SluiceError, match="2 rows that match are discarded"):
        again(Where(source="shop"))


def test_lists_are_narrowed_by_every_filter(world: World) -> None:
    world.declare(SALES)
    world.deliver("sales/2026-01-01.csv", "id,kind,buyer\n1,wob,ann\nx,web,bob\n3,web\n")
    world.load("sales")
    for where, rows in (
        (Where(code="type"), 1),
        (Where(column="kind"), 1),
        (Where(source="shop", table="sales"), 3),
        (Where(source="shop", table="other"), 0),
        (Where(batch_id=1, state="open"), 3),
        (Where(state="discarded"), 0),
        (Where(since=datetime(2999, 1, 1, tzinfo=UTC)), 0),
    ):
        assert sum(group.rows for group in quarantine.groups(where, limit=10)) == rows, where
    assert run(app, ["quarantine", "list", "--state", "opened"]).exit_code == 2
