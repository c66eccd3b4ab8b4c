"""A source changes its shape: what is taken, what is refused, and what is said. Codes are those of faults.md."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.cli import app
from sluice.declarations import load_file
from sluice.errors import GateRefused, LandingLost, LedgerError
from sluice.loading import RunContext, audit, drift, land, publish, replay, shape
from sluice.loading.quarantine import Where
from sluice.verify.logs import verify_logs
from tests.loading.conftest import World

SALES = """
sales:
  description: events
  from: {files: {connection: drop, path: "sales/{date}.csv"}}
  mode: append
  key: [id]
  max_reject_share: 1
  %s
  columns:
    id: {type: integer, required: true}
    pieces: {type: integer, required: true}
    note: {type: text, description: What was said}
"""
BIG = "9000000000"


def declare(world: World, policy: str = "", **types: str) -> None:
    text = SALES % policy
    for column, kind in types.items():
        text = text.replace(f"{column}: {{type: integer", f"{column}: {{type: {kind}")
    world.declare(text)


def load(world: World, day: int, body: str) -> None:
    world.deliver(f"sales/2026-01-0{day}.csv", body)
    world.load("sales", run="the-same-run")


def events(world: World) -> list[tuple]:
    return world.query("select kind, column_name from ops.schema_event order by schema_event_id")


# -- columns ------------------------------------------------------------------------------------


def test_D1_a_new_column_is_refused_where_the_policy_is_block(world: World) -> None:
    declare(world, "drift: {new_column: block}")
    with pytest.raises(GateRefused, match="has the fields colour, unknown to the contract; nothing was published"):
        load(world, 1, "id,pieces,note,colour\n1,1,x,red\n")
    assert events(world) == [("new_column", "colour")]
    assert world.query("select state from ops.batch") == [("refused",)]


def test_D1_of_a_full_extract_the_event_says_of_which_rows_a_new_field_is_kept_and_declaring_it_brings_all(
    world: World,
) -> None:
    """Case 19: a source that gets a column opens no version of each of its rows."""
    world.declare(FULL)
    rows = [(i, "x") for i in range(50)]
    world.deliver("things/2026-01-01.csv", "id,name\n" + "".join(f"{i},{v}\n" for i, v in rows))
    world.load("things")
    rows[7] = (7, "y")
    new = "id,name,neu\n" + "".join(f"{i},{v},n{i}\n" for i, v in [*rows, (50, "x")])
    world.deliver("things/2026-01-02.csv", new)
    (published,) = world.load("things")
    assert (published.rows_applied, published.rows_unchanged) == (2, 49)
    rescued = "select id, _rescued from staging.shop__things where _rescued is not null order by 1"
    assert world.query(rescued) == [(7, {"neu": "n7"}), (50, {"neu": "n50"})]
    ((said,),) = world.query("select message from ops.schema_event where kind = 'new_column'")
    assert said.endswith("unknown to the contract; kept in _rescued of the rows that are new or changed otherwise")
    world.declare(FULL + "    neu: {type: text}\n")
    world.deliver("things/2026-01-03.csv", new)
    assert world.load("things")[0].rows_applied == 51


def test_D2_an_optional_column_that_is_missing_is_null_and_said_or_refused(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces\n1,1\n")
    assert world.query("select note from staging.shop__sales") == [(None,)]
    assert events(world) == [("missing_column", "note")]
    declare(world, "drift: {missing_column: block}")
    with pytest.raises(GateRefused, match=r"no field for note; nothing was published: drift\.missing_column"):
        load(world, 2, "id,pieces\n2,1\n")


def test_D2_a_header_without_the_mark_of_deleted_rows_is_refused_and_revives_none(world: World) -> None:
    declare(world, "deleted_by: {field: op, value: gone}")
    load(world, 1, "id,pieces,note,op\n1,1,x,\n2,2,y,gone\n")
    with pytest.raises(GateRefused, match="has no field op, by which deleted rows are marked"):
        load(world, 2, "id,pieces,note\n1,1,x\n2,2,y\n")
    assert world.query("select id, _op from staging.shop__sales order by id") == [(1, "upsert"), (2, "delete")]


def test_D2_a_renamed_column_is_recognised_by_the_values_it_shares(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note\n" + "".join(f"{i},{i + 100},n{i}\n" for i in range(50)))
    renamed = "id,quantity,colour,note\n" + "".join(f"{i},{i + 101},red,n{i}\n" for i in range(50))
    with pytest.raises(GateRefused, match=r"98% of the values of the field quantity .* columns.pieces.field: quantity"):
        load(world, 2, renamed)


def test_D5_a_duplicate_name_is_said_and_kept_where_the_contract_does_not_know_it(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note,Tag,tag\n1,1,x,a,b\n")
    assert world.query("select _rescued from staging.shop__sales") == [({"Tag": "a", "tag": "b"},)]
    assert ("duplicate_name", "tag") in events(world)


def test_D5_a_name_that_comes_twice_keeps_both_values_apart_and_is_said(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note,tag,tag,tag#2,tag\n1,1,x,a,b,c,d\n2,many,x,e,f,,\n")
    assert world.query("select _rescued from staging.shop__sales") == [
        ({"tag": "a", "tag#3": "b", "tag#2": "c", "tag#4": "d"},)
    ]
    assert ("duplicate_name", "tag") in events(world)
    (raw,) = world.query("select raw::jsonb from ops.quarantine")[0]
    assert raw == {"id": "2", "pieces": "many", "note": "x", "tag": "e", "tag#2": None, "tag#3": "f", "tag#4": None}
    declare(world, pieces="text")
    world.warehouse.execute("alter table staging.shop__sales alter pieces type text")
    (done,) = replay.replay(Where(source="shop", table="sales"), by="t", reason="r", rehearse=False)
    assert done.applied == 1
    kept = world.query("select _rescued from staging.shop__sales where id = 2")
    assert kept == [({"tag": "e", "tag#3": "f"},)]


def test_D1_a_field_with_the_name_of_the_logs_own_column_is_a_field_like_any_other(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note,_rescued\n1,1,x,hello\n2,many,x,there\n")
    assert world.query("select _rescued from staging.shop__sales") == [({"_rescued": "hello"},)]
    assert ("new_column", "_rescued") in events(world)
    (done,) = replay.replay(
        Where(source="shop", table="sales"),
        by="t",
        reason="r",
        corrections=replay.Corrections({"pieces": "2"}, {}),
        rehearse=False,
    )
    assert done.applied == 1
    assert world.query("select _rescued from staging.shop__sales where id = 2") == [({"_rescued": "there"},)]


def test_D2_a_column_that_vanishes_again_after_it_had_come_back_is_said_again(world: World) -> None:
    declare(world)
    for day, head in enumerate(["id,pieces", "id,pieces", "id,pieces,note", "id,pieces", "id,pieces"], start=1):
        load(world, day, f"{head}\n{day},1{',x' if 'note' in head else ''}\n")
    said = world.query("select kind, column_name, unit from ops.schema_event order by 1, 3")
    assert said == [
        ("missing_column", "note", "sales/2026-01-01.csv"),
        ("missing_column", "note", "sales/2026-01-04.csv"),
    ]


# -- types --------------------------------------------------------------------------------------


@pytest.fixture
def dependents(world: World, postgres: object) -> psycopg.Connection:
    """A log that people read: two views, one above the other, with rights, comments and an index of a model."""
    declare(world)
    load(world, 1, "id,pieces,note\n1,1,x\n2,2,y\n")
    superuser = psycopg.connect(postgres.superuser_url(os.environ["SLUICE_WAREHOUSE_URL"]), autocommit=True)  # type: ignore[attr-defined]
    superuser.execute("do $$ begin create role reader; exception when duplicate_object then null; end $$")
    world.warehouse.execute("create view staging.stg_sales as select id, pieces, _op from staging.shop__sales")
    world.warehouse.execute("create view marts.totals as select sum(pieces) as pieces from staging.stg_sales")
    world.warehouse.execute("comment on view marts.totals is 'All of them'")
    world.warehouse.execute("grant usage on schema marts, staging to reader")
    world.warehouse.execute("grant select on marts.totals, staging.shop__sales to reader")
    world.warehouse.execute("grant select (id) on staging.stg_sales to reader")
    world.warehouse.execute("create index of_a_model on staging.shop__sales (pieces)")
    return superuser


def test_D3_a_type_that_is_declared_wider_widens_the_log_under_the_views_that_read_it(
    world: World, dependents: psycopg.Connection
) -> None:
    before = world.query("select id, pieces, note, _batch_id, _row_hash from staging.shop__sales order by id")
    load(world, 2, f"id,pieces,note\n3,{BIG},z\n")
    assert ("wider_type", "pieces") in events(world)
    said = world.query("select message from ops.schema_event where kind = 'wider_type'")[0][0]
    assert "all of them are bigint" in said
    assert BIG not in said
    declare(world, pieces="bigint")
    where = Where(source="shop", table="sales")
    (said,) = replay.replay(where, by="t", reason="r")
    assert "is brought to the shape of the contract first" in said.note
    assert world.query("select pg_typeof(pieces)::text from staging.shop__sales limit 1") == [("integer",)]
    (done,) = replay.replay(where, by="t", reason="r", rehearse=False)
    assert (said.applied, done.applied) == (1, 1)
    assert world.query("select pieces from staging.shop__sales where id = 3") == [(int(BIG),)]
    after = "select id, pieces, note, _batch_id, _row_hash from staging.shop__sales where id < 3 order by id"
    assert world.query(after) == before
    assert world.query("select pieces from marts.totals") == [(int(BIG) + 3,)]
    dependents.execute("set role reader")
    assert dependents.execute("select pieces from marts.totals").fetchone() == (int(BIG) + 3,)
    assert dependents.execute("select max(id) from staging.stg_sales").fetchone() == (3,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        dependents.execute("select pieces from staging.stg_sales")
    assert world.query("select obj_description('marts.totals'::regclass)") == [("All of them",)]
    comment = "select col_description('staging.shop__sales'::regclass, 3)"
    assert world.query(comment) == [("What was said",)]
    assert ("of_a_model",) in world.query("select indexname from pg_indexes where tablename = 'shop__sales'")
    again = world.query("select count(*) from ops.schema_event where message like '%%as declared%%'")
    assert again == [(1,)]


def test_D3_readers_never_wait_for_the_copy_and_a_long_one_is_not_overtaken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L12: while an analyst's transaction holds the log, others still read it, and the widening gives up in the end."""
    declare(world)
    load(world, 1, "id,pieces,note\n1,1,x\n")
    declare(world, pieces="bigint")
    monkeypatch.setattr(shape, "_PATIENCE", "300ms")
    monkeypatch.setattr(shape, "_TRIES", 2)
    slowest = 0.0
    with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"]) as analyst:
        analyst.execute("select * from staging.shop__sales").fetchall()  # its transaction stays open
        failed: list[Exception] = []

        def widen() -> None:
            try:
                load(world, 2, "id,pieces,note\n2,2,y\n")
            except Exception as error:
                failed.append(error)

        worker = threading.Thread(target=widen)
        worker.start()
        while worker.is_alive():
            started = time.monotonic()
            with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"]) as reader:
                reader.execute("select count(*) from staging.shop__sales").fetchone()
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.05)
        worker.join()
    assert isinstance(failed[0], LedgerError)
    assert "a transaction that reads it did not end; nothing was changed" in str(failed[0])
    assert slowest < 8, "the patience of one try, and the machine's own slowness"
    world.load("sales", run="the-same-run")
    assert world.query("select pg_typeof(pieces)::text from staging.shop__sales limit 1") == [("bigint",)]


def test_D3_a_reader_in_a_loop_meets_no_error_and_misses_no_row_while_the_log_is_replaced(
    world: World, dependents: psycopg.Connection
) -> None:
    """INV-4."""
    load(world, 2, "id,pieces,note\n" + "".join(f"{i},1,x\n" for i in range(3, 30_000)))
    looks: list[tuple] = []
    widened = threading.Event()

    def look() -> None:
        with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"], autocommit=True) as reader:
            reader.prepare_threshold = None  # the server refuses a prepared plan whose result got another type
            while not widened.is_set():
                for relation in ("staging.shop__sales", "staging.stg_sales", "marts.totals"):
                    looks.append(reader.execute(f"select sum(pieces), count(*) from {relation}").fetchone())

    def look_meanwhile() -> None:
        until = len(looks) + 6
        while len(looks) < until and not any(reader.done() for reader in readers):
            time.sleep(0.02)

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(look) for _ in range(2)]
        declare(world, pieces="bigint", id="bigint")
        look_meanwhile()
        load(world, 3, f"id,pieces,note\n40000,{BIG},z\n")
        look_meanwhile()
        widened.set()
        for reader in readers:
            reader.result()  # raises what the reader met
    assert world.query("select pg_typeof(id)::text, pg_typeof(pieces)::text from staging.shop__sales limit 1") == [
        ("bigint", "bigint")
    ]
    whole = {(30_000, 29_999), (30_000, 1), (30_000 + int(BIG), 30_000), (30_000 + int(BIG), 1)}
    assert set(looks) <= whole
    assert len(set(looks)) >= 3, "it looked before and after"


@pytest.mark.parametrize(
    ("present", "declared", "wider"),
    [
        ("smallint", "bigint", True),
        ("numeric(8,2)", "numeric(10,2)", True),
        ("numeric(8,2)", "numeric(10,4)", True),
        ("numeric(8,2)", "numeric", True),
        ("numeric(8,2)", "numeric(8,4)", False),
        ("numeric", "numeric(8,2)", False),
        ("bigint", "integer", False),
        ("integer", "text", False),
        ("real", "double precision", False),
        ("date", "timestamp with time zone", False),
    ],
)
def test_D3_only_what_changes_no_value_is_wider(present: str, declared: str, wider: bool) -> None:
    assert shape.is_wider(declared, present) is wider


def test_D3_a_wider_type_is_refused_where_the_policy_is_block_and_a_narrower_one_always(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note\n1,1,x\n")
    declare(world, "drift: {wider_type: block}", pieces="bigint")
    with pytest.raises(GateRefused, match=r"drift\.wider_type is block"):
        load(world, 2, "id,pieces,note\n2,2,y\n")
    declare(world, pieces="smallint")
    with pytest.raises(GateRefused, match="is integer, and the declaration now says smallint"):
        load(world, 3, "id,pieces,note\n3,3,z\n")
    assert events(world) == [("wider_type", "pieces"), ("changed_type", "pieces")]


def test_D3_a_batch_refused_for_a_type_has_its_verdict_lets_its_unit_go_and_is_read_again_once_it_may(
    world: World,
) -> None:
    declare(world, EVOLVE)
    load(world, 1, "id,pieces,note\n1,1,x\n")
    declare(world, EVOLVE, pieces="smallint")
    for _ in range(2):
        with pytest.raises(
            GateRefused, match=r"batch \d \(shop.sales, sales/2026-01-02.csv\): staging.shop__sales.pieces"
        ):
            load(world, 2, "id,pieces,note,colour\n2,2,y,red\n")
    said = "staging.shop__sales.pieces is integer, and the declaration now says smallint; nothing was published"
    batches = world.query("select state, starts_with(verdict, %s) from ops.batch order by batch_id offset 1", said)
    assert batches == [("refused", True)] * 2
    failed = world.query("select batch_id, check_name, severity from ops.gate_result where verdict = 'fail' order by 1")
    assert failed == [(2, "shape", "block"), (3, "shape", "block")]
    assert events(world) == [("changed_type", "pieces"), ("new_column", "colour")]
    assert world.query("select to_regclass('landing.b2'), count(*) from ops.lease where expires_at > now()") == [
        (None, 0)
    ]
    assert world.query("select count(*) from ops.evolved_column") == [(0,)], "the log could not get it"
    declare(world, EVOLVE)
    load(world, 2, "id,pieces,note,colour\n2,2,y,red\n")
    assert world.query("select id, colour from staging.shop__sales order by id") == [(1, None), (2, "red")]


def test_D4_a_type_that_changed_to_words_puts_its_rows_in_quarantine_and_is_said(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note\n1,many,x\n2,2,y\n")
    assert events(world) == [("changed_type", "pieces")]
    assert world.query("select id from staging.shop__sales") == [(2,)]


def test_D8_each_batch_keeps_the_shape_and_the_contract_it_was_read_with(world: World) -> None:
    declare(world)
    load(world, 1, "id,pieces,note\n1,1,x\n")
    load(world, 2, "note,pieces,id,colour\ny,2,2,red\n")
    declare(world, pieces="bigint")
    load(world, 3, f"id,pieces,note\n3,{BIG},z\n")
    shapes = [shape for (shape,) in world.query("select schema_hash from ops.batch order by batch_id")]
    assert shapes[0] == shapes[2] != shapes[1]
    kinds = [drift.contract_of(world.warehouse, number).columns["pieces"].type for number in (1, 2, 3)]
    assert kinds == ["integer", "integer", "bigint"]
    assert world.query("select id, note from staging.shop__sales order by id") == [(1, "x"), (2, "y"), (3, "z")]


# -- evolving -----------------------------------------------------------------------------------

EVOLVE = "drift: {new_column: evolve}"


def columns(world: World, log: str = "shop__sales") -> dict[str, str]:
    return dict(
        world.query(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            f" where attrelid = 'staging.{log}'::regclass and attnum > 0 and attname !~ '^_'"
        )
    )


def test_D1_a_new_column_evolves_into_the_log_with_a_type_that_holds_its_values(world: World) -> None:
    """INV-1: no value is lost, none changes, and no row is put aside for a field that nobody declared."""
    declare(world, EVOLVE)
    load(world, 1, "id,pieces,note\n1,1,x\n")
    (before,) = world.query("select id, pieces, note, _row_hash from staging.shop__sales")
    head = "id,pieces,note,Colour,qty,price,zip,day,at,ok,empty,_batch_id\n"
    load(world, 2, head + "2,2,y,red,7,1.50,00712,2026-01-02,2026-01-02T03:04:05Z,true,,9\n3,3,z,,8,2,1,,,,,\n")
    got = columns(world)
    assert {name: got[name] for name in got if name not in ("id", "pieces", "note")} == {
        "colour": "text",
        "qty": "bigint",
        "price": "numeric",
        "zip": "text",
        "day": "date",
        "at": "timestamp with time zone",
        "ok": "boolean",
        "batch_id": "bigint",
    }
    assert world.query(
        "select colour, qty, price::text, zip, day::text, ok, _rescued from staging.shop__sales where id = 2"
    )[0] == ("red", 7, "1.50", "00712", "2026-01-02", True, None)
    assert world.query("select id, pieces, note, _row_hash from staging.shop__sales where id = 1") == [before]
    said = dict(world.query("select column_name, message from ops.schema_event where kind = 'evolved_column'"))
    assert "sales/2026-01-02.csv has the field Colour" in said["Colour"]
    assert "declare: colour: {type: text, field: 'Colour'}" in said["Colour"]
    assert ("new_column", "empty") in events(world), "what holds nothing has no type yet"
    load(world, 3, "id,pieces,note,qty\n4,4,w,many\n5,5,v,9\n")
    assert world.query("select id, qty, _rescued from staging.shop__sales where id > 3 order by id") == [
        (4, None, {"qty": "many"}),
        (5, 9, None),
    ]
    assert ("changed_type", "qty") in events(world)
    assert world.books_balance()
    assert world.query("select count(*) from ops.quarantine") == [(0,)]
    assert verify_logs("a-run").passed


def test_D1_adopting_an_evolved_column_changes_no_row(world: World) -> None:
    things = FULL.replace("max_reject_share: 1", f"max_reject_share: 1\n  {EVOLVE}")
    world.declare(things)
    world.deliver("things/2026-01-01.csv", "id,name\n1,a\n2,b\n")
    world.load("things")
    world.deliver("things/2026-01-02.csv", "id,name,size\n1,a,\n2,b,5\n")
    (second,) = world.load("things")
    assert second.rows_applied == 1, "a row without a value of the new column is as it was"
    shown = CliRunner().invoke(app, ["source", "show", "shop.things"])
    assert "size: {type: bigint}" in shown.output
    world.declare(things + "    size: {type: bigint}\n")
    world.deliver("things/2026-01-03.csv", "id,name,size\n1,a,\n2,b,5\n")
    (third,) = world.load("things")
    assert (third.rows_applied, third.rows_unchanged) == (0, 2)
    assert list(columns(world, "shop__things")) == ["id", "name", "size"]
    shown = CliRunner().invoke(app, ["source", "show", "shop.things"]).output
    assert "declare under columns" not in shown
    assert "\tevolved_column\tsize\t\t" in shown, "it is so no more"


def test_D1_rejected_rows_are_replayed_with_their_evolved_columns(world: World) -> None:
    declare(world, EVOLVE)
    load(world, 1, "id,pieces,note,qty\n1,many,x,7\n2,2,y,8\n")
    (done,) = replay.replay(
        Where(source="shop", table="sales"),
        by="t",
        reason="r",
        corrections=replay.Corrections({"pieces": "1"}, {}),
        rehearse=False,
    )
    assert done.applied == 1
    assert world.query("select id, qty from staging.shop__sales order by id") == [(1, 7), (2, 8)]


def test_D1_keys_of_json_objects_evolve_too_and_a_null_is_no_value(world: World) -> None:
    world.declare(
        FULL.replace("mode: full", "mode: append\n  drift: {new_column: evolve}").replace(
            '.csv"', '.jsonl", format: jsonl'
        )
    )
    first = '{"id": 1, "size": null, "tags": ["a"]}\n{"id": 2, "size": 5, "tags": {"b": 1}}\n'
    world.deliver("things/2026-01-01.jsonl", first)
    world.load("things")
    assert world.query("select id, size, tags, _rescued from staging.shop__things order by id") == [
        (1, None, ["a"], None),
        (2, 5, {"b": 1}, None),
    ]


EVO = """
%s:
  description: a field comes with a later day
  from: {files: {connection: drop, path: "%s/{date}.jsonl", format: jsonl}}
  mode: %s
  key: [id]
  drift: {new_column: evolve}
  columns: {id: {type: bigint, required: true}, v: {type: text}}
"""


@pytest.mark.parametrize("mode", ["full", "append"])
@pytest.mark.parametrize("others", ["none", "an earlier one", "a later one, published first"])
def test_D1_a_unit_that_was_audited_before_a_column_evolved_is_published_without_a_value_of_it(
    world: World, mode: str, others: str
) -> None:
    """As a run does it: all pending units are audited, then all are published. INV: NULL adds nothing to a hash."""
    world.declare(EVO % ("evo", "evo", mode) + EVO % ("alone", "alone", mode))
    days = {day: [{"id": i, "v": "x"} for i in range(30)] for day in (1, 2)}
    days[2] = [row | {"neu": row["id"] * 2} for row in days[2]]
    for day, rows in days.items():
        world.deliver(f"evo/2026-11-0{day}.jsonl", "\n".join(map(json.dumps, rows)))
    world.deliver("alone/2026-11-01.jsonl", "\n".join(map(json.dumps, days[1])))
    world.load("alone")
    if others == "an earlier one":
        world.deliver("evo/2026-10-31.jsonl", '{"id": 0, "v": "w"}\n')
        world.load("evo", interval=(datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)))
    source = load_file(world.sources / "shop.yml")
    first, second = audit(land(source, source.tables["evo"], RunContext("the-same-run")))
    if others == "a later one, published first":
        publish([second.batch_id])
        publish([first.batch_id])
    else:
        publish([first.batch_id, second.batch_id])
    came = f"select id, v, neu, _rescued, _row_hash from staging.shop__evo where _batch_id = {first.batch_id}"
    alone = world.query("select id, v, null::bigint, _rescued, _row_hash from staging.shop__alone")
    assert len(alone) == 30
    assert set(world.query(came)) <= set(alone)
    assert world.query(f"select id from ({came}) as came order by 1") == [(id,) for id in range(30)]
    later = f"select bool_and(neu = id * 2), count(*) from staging.shop__evo where _batch_id = {second.batch_id}"
    assert world.query(later) == [(True, 30)]
    assert world.books_balance()
    if mode == "full":
        chain = world.history("shop__evo", "id", "to_jsonb(neu)")[7]
        assert chain == [(datetime(2026, 11, 3, tzinfo=UTC), 14)], "NULL until the day that brought it"
    assert verify_logs("a-run").passed


def test_D1_a_column_that_evolved_since_is_restated_with_the_keys_of_a_later_extract(world: World) -> None:
    """A supplement says again what the log knew, also in a column that the late extract never had."""
    world.declare(EVO % ("evo", "evo", "full"))
    world.deliver("evo/2026-11-02.jsonl", '{"id": 1, "v": "x"}\n')
    source = load_file(world.sources / "shop.yml")
    (late,) = audit(land(source, source.tables["evo"], RunContext("late")))
    midnight = [datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 6)]
    for day in (1, 3):  # the third says nothing that the first did not
        world.deliver(f"evo/2026-11-0{day}.jsonl", '{"id": 1, "v": "y", "neu": 5}\n')
        world.load("evo", interval=(midnight[day - 1], midnight[day]))
    publish([late.batch_id])
    assert world.history("shop__evo", "id", "jsonb_build_array(v, neu)")[1] == [
        (midnight[1], ["y", 5]),
        (midnight[2], ["x", None]),
        (midnight[3], ["y", 5]),
    ]


def _audited(world: World) -> tuple[str, int]:
    """A declaration of events, and a batch under it that waits to be published."""
    things = FULL.replace("mode: full", "mode: append")
    world.declare(things)
    world.deliver("things/2026-01-01.csv", "id,name,size\n1,a,5\n")
    source = load_file(world.sources / "shop.yml")
    (waiting,) = audit(land(source, source.tables["things"], RunContext("a-run")))
    return things, waiting.batch_id


def test_D1_a_batch_that_waits_while_its_declaration_gets_a_column_is_published_as_it_was_judged(world: World) -> None:
    things, waiting = _audited(world)
    world.declare(things + "    size: {type: bigint}\n")
    publish([waiting])
    world.deliver("things/2026-01-02.csv", "id,name,size\n2,b,6\n")
    world.load("things")
    assert world.query("select id, size, _rescued from staging.shop__things order by id") == [
        (1, None, {"size": "5"}),
        (2, 6, None),
    ]


def test_D1_a_batch_that_waits_while_its_declaration_gets_another_key_is_read_anew(world: World) -> None:
    things, waiting = _audited(world)
    world.declare(things.replace("key: [id]", "key: [id, size]") + "    size: {type: bigint, required: true}\n")
    with pytest.raises(LandingLost, match="key or order of its table have size since it was audited"):
        publish([waiting])
    assert world.load("things")[0].rows_applied == 1
    assert world.query("select id, size from staging.shop__things") == [(1, 5)]


FULL = """
things:
  description: full extracts
  from: {files: {connection: drop, path: "things/{date}.csv"}}
  mode: full
  key: [id]
  max_reject_share: 1
  columns:
    id: {type: bigint, required: true}
    name: {type: text}
"""
