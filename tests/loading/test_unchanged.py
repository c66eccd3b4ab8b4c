"""Full extracts whose lines are compared with those of the extract before: the same log and books as without."""

import contextlib
import itertools

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from sluice.declarations import load_file
from sluice.errors import GateRefused, LandingLost, SluiceError
from sluice.loading import RunContext, audit, land, publish, unchanged
from tests.loading.conftest import Killed

_TABLE = """
    items:
      description: items
      from: {files: {connection: drop, path: "%s/{date}.csv"}}
      mode: full
      key: [id, part]
      max_reject_share: 1
      deletes: {max_share: 1}
      columns:
        id: {type: bigint}
        part: {type: text}
        price: {type: "numeric(8,2)", minimum: 0}
        note: {type: text}
"""
_HEADER = "id,part,price,note\n"
_names = itertools.count(1)


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    monkeypatch.setattr(unchanged, "SMALLEST", 0)


def declare(world):
    name = f"s{next(_names)}"
    world.declare(_TABLE % name, name=name)
    return name


def deliver(world, name, day, *lines):
    world.deliver(f"{name}/2026-01-{day:02}.csv", _HEADER + "".join(f"{line}\n" for line in lines))


def compared(world, name):
    """For each batch in turn: how many lines were not sent, None if it was read in the ordinary way."""
    return [
        n
        for (n,) in world.query(
            "select details -> 'unchanged' from ops.batch where source = %s and part = 'unit' order by batch_id",
            name,
        )
    ]


def outcome(world, name):
    """All that a source's extracts left behind, without the numbers of batches and the name of the source."""
    log = []
    if world.query("select to_regclass(%s)", f"staging.{name}__items") != [(None,)]:
        log = world.query(
            f"""
            select id, log.part, price, note, _op, _effective_at, _sequence, _row_hash, _rescued,
                case when batch.part = 'unit' then _row_number end, unit, batch.part
            from staging.{name}__items as log inner join ops.batch as batch on batch.batch_id = log._batch_id
            where superseded_seq is null
            """
        )
    books = world.query(
        """
        select row_number() over (order by batch_id), unit, state, part, rows_read, rows_applied, rows_unchanged,
            rows_duplicate, rows_quarantined, rows_deleted, content_hash, deletes_withheld
        from ops.batch where source = %s
        """,
        name,
    )
    rejected = world.query(
        """
        select unit, row_number, key, code, raw, quarantine.state
        from ops.quarantine inner join ops.batch using (batch_id) where quarantine.source = %s
        """,
        name,
    )
    return [sorted(str(row).replace(f"{name}/", "") for row in rows) for rows in (log, books, rejected)]


def load_pending(world, name):
    with contextlib.suppress(SluiceError):
        world.load("items", name=name)


def test_only_lines_that_are_new_are_sent_and_the_books_count_all(world):
    name = declare(world)
    deliver(world, name, 1, "1,a,1.00,x", "2,a,2.00,y", "3,a,3.00,z")
    world.load("items", name=name)
    deliver(world, name, 2, "1,a,1.00,x", "2,a,2.50,y", "4,a,4.00,z")
    (done,) = world.load("items", name=name)
    assert compared(world, name) == [None, 1]
    assert (done.rows_read, done.rows_applied, done.rows_unchanged, done.rows_deleted) == (3, 2, 1, 1)
    assert world.history(f"{name}__items", "id", "price::text").keys() == {1, 2, 3, 4}
    assert world.books_balance()


def test_the_lines_that_are_kept_change_by_the_differences_only(world):
    name = declare(world)
    for day in range(1, 6):
        deliver(world, name, day, *(f"{n},a,1.00,day {day if n == 7 else 0}" for n in range(50)))
        world.load("items", name=name)
    assert compared(world, name) == [None, 49, 49, 49, 49]
    (number,) = world.query("select lines_id from ops.extract_lines where source = %s", name)[0]
    written = "select count(*), sum((xmin::text = (select max(xmin::text::bigint)::text from {0}))::int) from {0}"
    assert world.query(written.format(f"ops.lines_{number}")) == [(50, 1)]


_KEYS = [(number, part) for number in (1, 2, 3) for part in "ab"]
_values = st.tuples(
    st.sampled_from(["1.00", "1.0", "2", "-5", "x", "", "3.999"]),
    st.sampled_from(["", "n", '"q,q"', '"a""b"', "é"]),
)
_odd = [
    '8,a,1.00,5"" pipe',
    '8,a,1.00,"a"b',
    "1,a,1.00",
    ",a,1.00,x",
    "z,a,1.00,x",
    '5,a,1.00,"two\nlines"',
    "6,a,1.00,\0",
    "1,a,7.00,x",
]
_extract = st.tuples(
    st.sampled_from([2, 3, 4, 5, 6]),  # the day: late ones and corrected ones too
    st.sets(st.sampled_from(_KEYS)),  # those that are missing
    st.dictionaries(st.sampled_from(_KEYS), _values, max_size=2),  # those that have changed
    st.sampled_from([*[""] * 18, *_odd]),
    st.sampled_from([True, True, True, False]),  # load now, or leave it pending
)


@settings(
    max_examples=5,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example([(3, {(2, "a")}, {}, "", True), (2, {(1, "a")}, {}, "", True), (4, {(1, "a"), (3, "b")}, {}, "", True)])
@given(extracts=st.lists(_extract, min_size=3, max_size=5))
def test_any_sequence_of_extracts_leaves_the_same_log_books_and_quarantine_as_the_ordinary_way(world, extracts):
    fast, ordinary = declare(world), declare(world)
    for day, missing, changed, odd, now in [(1, set(), {}, "", True), *extracts]:
        rows = {key: ("1.00", "n") for key in _KEYS if key not in missing} | changed
        lines = [",".join(map(str, (*key, *values))) for key, values in rows.items()] + [odd] * bool(odd)
        for name, smallest in ((fast, 0), (ordinary, 1 << 60)):
            deliver(world, name, day, *lines)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(unchanged, "SMALLEST", smallest)
                if now:
                    load_pending(world, name)
    assert outcome(world, fast) == outcome(world, ordinary)
    assert world.books_balance()


@pytest.mark.parametrize(
    "damage",
    [
        "delete from {lines} where id = 1",
        "update {lines} set line_hash = line_hash + 1 where id = 1",
        "update {lines} set id = 5 - id where id in (2, 3)",
        "update {lines} as one set line_hash = two.line_hash from {lines} as two where two.id = 5 - one.id",
        "truncate {lines}",
    ],
)
def test_lines_that_are_lost_or_damaged_cost_time_and_no_rows(world, damage):
    damaged, ordinary = declare(world), declare(world)

    def load_day(day, gone):
        for source, smallest in ((damaged, 0), (ordinary, 1 << 60)):
            deliver(world, source, day, *(f"{n},a,1.00,x" for n in range(1, 9) if n != gone))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(unchanged, "SMALLEST", smallest)
                world.load("items", name=source)

    load_day(1, gone=None)
    (number,) = world.query("select lines_id from ops.extract_lines where source = %s", damaged)[0]
    world.warehouse.execute(damage.format(lines=f"ops.lines_{number}").encode())
    load_day(2, gone=2)
    load_day(3, gone=3)
    assert outcome(world, damaged) == outcome(world, ordinary)
    assert compared(world, damaged) == [None, None, 6]


def test_e9_e10_the_guards_see_the_whole_extract(world):
    name = f"s{next(_names)}"
    world.declare((_TABLE % name).replace("max_share: 1}", "max_share: 0.2}"), name=name)
    deliver(world, name, 1, *(f"{n},a,1.00,x" for n in range(10)))
    world.load("items", name=name)
    deliver(world, name, 2, *(f"{n},a,1.00,x" for n in range(8)))
    assert world.load("items", name=name)[0].rows_deleted == 2
    deliver(world, name, 3, *(f"{n},a,1.00,x" for n in range(5)))
    with pytest.raises(GateRefused, match="3 of 8 keys vanished"):
        world.load("items", name=name)
    deliver(world, name, 4)
    with pytest.raises(GateRefused, match="EMPTY_SOURCE"):
        world.load("items", name=name)
    assert compared(world, name)[:3] == [None, 8, 5]


def test_a_line_that_changed_beside_an_unchanged_one_of_the_same_key_is_a_conflict(world):
    name = declare(world)
    deliver(world, name, 1, "1,a,1.00,x", "2,a,2.00,y")
    world.load("items", name=name)
    deliver(world, name, 2, "1,a,1.00,x", "2,a,2.00,y", "1,a,9.00,x")
    (done,) = world.load("items", name=name)
    assert (done.rows_quarantined, done.rows_unchanged, done.rows_deleted) == (2, 1, 0)
    assert compared(world, name) == [None, None]


def test_an_extract_whose_past_changed_before_its_publication_is_given_up_and_read_anew(world):
    name = declare(world)
    deliver(world, name, 2, "1,a,1.00,x", "2,a,2.00,y")
    world.load("items", name=name)
    source = load_file(world.sources / f"{name}.yml")
    deliver(world, name, 3, "1,a,1.00,x")
    third = land(source, source.tables["items"], RunContext("one"))
    audit(third)
    assert compared(world, name) == [None, 1]
    deliver(world, name, 1, "1,a,5.00,x", "3,a,3.00,late")
    (world.files / name / "2026-01-03.csv").rename(world.files / "aside.csv")
    world.load("items", name=name, run="two")
    with pytest.raises(LandingLost, match="the log has changed since"):
        publish(third)
    (world.files / "aside.csv").rename(world.files / name / "2026-01-03.csv")
    world.load("items", name=name, run="three")
    assert world.history(f"{name}__items", "id", "price::text")[2][-1][1] is None
    assert world.books_balance()


def test_l1_a_crash_at_any_statement_leaves_the_same_log_and_the_same_lines_after_the_retry(world, kill_at):
    """At every fourth, to save time; that of test_crashes.py goes over all."""
    name = declare(world)
    deliver(world, name, 1, "1,a,1.00,x", "2,a,2.00,y", "3,a,3.00,z", "4,a,x,rejected", "5,a,5.00,x")
    world.load("items", name=name)
    (number,) = world.query("select lines_id from ops.extract_lines where source = %s", name)[0]
    lines = f"ops.lines_{number}"
    world.warehouse.execute(f"create table kept as select * from {lines}")
    world.warehouse.execute("create table remembered as select * from ops.extract_lines")
    deliver(world, name, 2, "1,a,1.00,x", "2,a,2.50,y", "4,a,x,rejected", "5,a,x,y", "6,a,6.00,new")
    wanted, done, k = None, False, 0
    while not done:
        k += 4
        statements = kill_at(k)
        try:
            world.load("items", name=name, run="the-same-run")
            done = k > statements()
        except Killed:
            pass
        kill_at(None)
        world.load("items", name=name, run="the-same-run")
        log = f"select id, part, price, _op, _effective_at, _row_number from staging.{name}__items"
        found = (
            sorted(map(str, world.query(log))),
            sorted(map(str, world.query(f"select * from {lines}"))),
            world.query(
                "select rows, checksum, seq >= (select max(published_seq) from ops.batch) from ops.extract_lines"
            ),
        )
        wanted = wanted or found
        assert found == wanted, f"killed at statement {k}"
        assert world.query("select count(*) from pg_tables where schemaname = 'landing'") == [(0,)]
        for statement in (
            "delete from ops.quarantine where batch_id > 1",
            "delete from ops.gate_result where batch_id > 1",
            "delete from ops.schema_event where batch_id > 1",
            f"delete from staging.{name}__items where _batch_id > 1",
            "delete from ops.batch where batch_id > 1",
            f"truncate {lines}",
            f"insert into {lines} select * from kept",
            "update ops.extract_lines set (seq, rows, checksum) = (select seq, rows, checksum from remembered)",
        ):
            world.warehouse.execute(statement)
    assert wanted[2][0][2], "the lines are those of the last publication"
    assert k > 30, "the sweep went over the whole load"


@pytest.mark.parametrize("at", ["landed", "audited"])
def test_l10_a_server_that_crashed_and_emptied_landing_closes_nothing(world, at):
    name = declare(world)
    deliver(world, name, 1, "1,a,1.00,x", "2,a,2.00,y")
    world.load("items", name=name)
    deliver(world, name, 2, "1,a,1.00,x")
    source = load_file(world.sources / f"{name}.yml")
    ids = land(source, source.tables["items"], RunContext("run"))
    if at == "audited":
        audit(ids)
    for (table,) in world.query("select tablename from pg_tables where schemaname = 'landing'"):
        world.warehouse.execute(f"truncate landing.{table}")
    with pytest.raises(LandingLost, match="nothing was published"):
        (publish if at == "audited" else audit)(ids)
    assert world.load("items", name=name)[0].rows_deleted == 1
