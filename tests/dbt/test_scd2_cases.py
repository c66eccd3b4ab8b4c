"""The cases of docs/reference/scd2-cases.md that models and snapshots decide, each under its number.

Those that the loader decides are in tests/loading/test_scd2_cases.py.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg
import pytest

from tests.dbt.conftest import ROOT, Small, anew

RUN = ["build", "--exclude-resource-type", "test", "--exclude-resource-type", "unit_test"]
EVERYTHING = (
    "select customer_id, name, phone, dbt_scd_id, dbt_valid_from::text, dbt_valid_to::text, dbt_is_deleted"
    " from snapshots.snap_shop__customers order by 1, 5"
)


def version(day: int, name: str | None, phone: str = "1", customer: int = 1) -> tuple:
    return ("upsert", f"2026-01-{day:02}", customer, name, phone)


def gone(day: int, customer: int = 1) -> tuple:
    return ("delete", f"2026-01-{day:02}", customer, None, None)


def order(day: int, key: int, customer_id: int = 1, amount: float = 5, *, ordered: str | int | None = None) -> tuple:
    at = ordered if isinstance(ordered, str) else f"2026-01-{ordered or day:02}"
    return ("upsert", f"2026-01-{day:02}", key, customer_id, amount, at)


def run(project: Small, prefix: str = "") -> None:
    done = project.dbt(*RUN, prefix=prefix)
    assert done.success, done.text


def facts(project: Small) -> list[tuple]:
    return project.query(
        "select order_id, name, is_inferred from marts.fct_order inner join marts.dim_customer using (customer_key)"
        " order by 1"
    )


def last_run(project: Small, model: str) -> tuple:
    """State, rows inserted, rows deleted."""
    return project.query(
        f"select state, rows_inserted, rows_deleted from ops.model_run where model = '{model}'"
        " order by model_run_id desc limit 1"
    )[0]


class Story:
    """The project as one case sees it: its customers and orders have numbers of their own."""

    def __init__(self, project: Small, number: int) -> None:
        self.project, self.number, self.warehouse = project, number, project.warehouse
        self.query = project.query

    def own(self, key: int) -> int:
        return self.number * 1000 + key

    def mine(self, column: str) -> str:
        """A condition: rows of this case."""
        return f"{column} / 1000 = {self.number}"

    def publish(self, table: str, rows: list[tuple], **options: Any) -> int:
        keys = 1 if table == "customers" else 2
        shifted = [(*row[:2], *(key and self.own(key) for key in row[2 : 2 + keys]), *row[2 + keys :]) for row in rows]
        return self.project.publish(table, shifted, **options)

    def chain(self, customer: int) -> list[tuple]:
        return self.project.chain(self.own(customer))

    def facts(self) -> list[tuple]:
        return [(row[0] % 1000, *row[1:]) for row in facts(self.project) if row[0] // 1000 == self.number]

    def everything(self, prefix: str = "") -> list[tuple]:
        return [
            row
            for row in self.query(EVERYTHING.replace("snapshots.", f"{prefix}snapshots."))
            if row[0] // 1000 == self.number
        ]


Told = Generator[None, None, None]
_stories: dict[str, Callable[[Story], Told]] = {}


def together(case: Callable[[Story], Told]) -> Callable[[dict[str, Exception | None]], None]:
    """A case about keys of its own. All of them share one warehouse and its runs: one for each `yield`, and the third
    is a clean rebuild under the prefix `clean` as well."""
    _stories[case.__name__] = case

    def test(told: dict[str, Exception | None]) -> None:
        if failure := told[case.__name__]:
            raise failure

    test.__name__, test.__doc__ = case.__name__, case.__doc__
    return test


@pytest.fixture(scope="module")
def told(_shared: tuple[Small, str]) -> dict[str, Exception | None]:
    """What became of each case that shares the runs."""
    with pytest.MonkeyPatch.context() as patch:
        project = anew(*_shared, patch)
        told: dict[str, Exception | None] = dict.fromkeys(_stories)
        tellers = {name: case(Story(project, n)) for n, (name, case) in enumerate(_stories.items(), start=1)}
        for wave in range(1, 5):
            for name, teller in list(tellers.items()):
                try:
                    next(teller)
                except StopIteration:
                    del tellers[name]
                except Exception as failure:
                    told[name] = failure
                    del tellers[name]
            if wave < 4:
                run(project)
            if wave == 3:
                run(project, prefix="clean")
        assert not tellers, f"more than three runs: {list(tellers)}"
        return told


@together
def test_case_01_S3_a_late_version_splits_the_interval_and_moves_the_facts_in_it(story: Story) -> Told:
    story.publish("customers", [version(1, "ann"), version(20, "anna")])
    story.publish("orders", [order(5, 1), order(15, 2), order(25, 3)])
    yield
    story.publish("customers", [version(10, "anne")])
    yield
    assert story.chain(1) == [("ann", "1", 0, 10), ("anne", "1", 10, 20), ("anna", "1", 20, 99)]
    assert story.facts() == [(1, "ann", False), (2, "anne", False), (3, "anna", False)]


def test_case_02_a_late_fact_costs_its_own_row_and_no_more(shared: Small) -> None:
    shared.publish("orders", [order(day, day) for day in range(1, 28)])
    run(shared)
    shared.publish("orders", [order(28, 500, amount=7, ordered="2025-12-01")])
    run(shared)
    assert last_run(shared, "fct_order") == ("success", 1, 0)
    assert shared.query("select count(*), sum(amount) from marts.fct_order") == [(28, 27 * 5 + 7)]


@together
def test_case_03_S3_any_order_of_arrival_gives_the_same_chain(story: Story) -> Told:
    versions = [version(1, "a"), version(3, "b"), version(6, "c")]
    for customer, arrival in enumerate(itertools.permutations(versions), start=1):
        for row in arrival:
            story.publish("customers", [(*row[:2], customer, *row[3:])])
    yield
    chains = {tuple(story.chain(customer)) for customer in range(1, 7)}
    assert chains == {(("a", "1", 0, 3), ("b", "1", 3, 6), ("c", "1", 6, 99))}


@together
def test_case_04_several_changes_between_two_runs_are_all_kept(story: Story) -> Told:
    story.publish("customers", [version(1, "a")])
    yield
    story.publish("customers", [version(2, "b"), version(3, "c"), version(4, "d")])
    yield
    assert [row[0] for row in story.chain(1)] == ["a", "b", "c", "d"]


def test_case_05_S3_of_one_instant_one_version_remains_and_arrival_does_not_choose_it(shared: Small) -> None:
    one, two = version(4, "x"), version(4, "y")
    shared.publish("customers", [one])
    shared.publish("customers", [two])
    run(shared)
    before = shared.chain(1)
    assert len(before) == 1
    for row in (one, two, one):
        shared.publish("customers", [row])
        run(shared)
        assert shared.chain(1) == before
    assert last_run(shared, "snap_shop__customers")[0] == "unchanged"


@together
def test_case_05_presence_counts_more_than_absence_at_the_same_instant(story: Story) -> Told:
    """Also where both have the same content, and so the same hash: the later to arrive would have won."""
    for customer, ops in ((1, ("upsert", "delete")), (2, ("delete", "upsert"))):
        for op in ops:
            seq = story.publish("customers", [(op, "2026-01-04", customer, "x", "1")])
            story.warehouse.execute(f"update staging.shop__customers set _row_hash = 1 where {story.mine('id')}")
            assert seq
    for key, ops in ((1, ("upsert", "delete")), (2, ("delete", "upsert"))):
        for op in ops:
            story.publish("orders", [(op, "2026-01-04", key, 1, 5, "2026-01-04")])
            story.warehouse.execute(f"update staging.shop__orders set _row_hash = 1 where {story.mine('order_id')}")
    yield
    assert [story.chain(customer) for customer in (1, 2)] == [[("x", "1", 0, 99)]] * 2
    assert [row[0] for row in story.facts()] == [1, 2]


@together
def test_case_07_S3_a_backdated_correction_is_true_for_the_past_and_what_was_known_before_it_can_still_be_asked(
    story: Story,
) -> Told:
    wrong = story.publish("customers", [version(1, "ann"), version(9, "wrong")], unit="day")
    yield
    (known,) = story.query("select seq from ops.clock")[0]
    story.publish("customers", [version(1, "ann"), version(5, "right")], unit="day", supersedes=wrong)
    yield
    assert story.chain(1) == [("ann", "1", 0, 5), ("right", "1", 5, 99)]
    names = f"select name from staging.stg_shop__customers where {story.mine('customer_id')} order by _effective_at"
    assert story.query(names) == [("ann",), ("right",)]
    with story.warehouse.transaction():
        story.warehouse.execute(f"set local sluice.as_of_seq = '{known}'")
        assert story.query(names) == [("ann",), ("wrong",)]
    assert story.query(names) == [("ann",), ("right",)]


@together
def test_case_08_a_hard_delete_closes_at_the_instant_of_its_tombstone(story: Story) -> Told:
    story.publish("customers", [version(1, "a"), gone(3)])
    story.publish("orders", [order(2, 1), order(4, 2)])
    yield
    assert story.chain(1) == [("a", "1", 0, 3)]
    assert story.query(
        "select name, dbt_valid_from::date::text from snapshots.snap_shop__customers"
        f" where dbt_is_deleted = 'true' and {story.mine('customer_id')}"
    ) == [("a", "2026-01-03")]
    story.publish("orders", [("delete", "2026-01-05", 1, None, None, None)])
    yield
    assert [row[0] for row in story.facts()] == [2]


@together
def test_case_09_delete_and_return_any_number_of_times(story: Story) -> Told:
    rows = [version(day, "a") if day % 2 else gone(day) for day in range(1, 9)]
    for row in rows:
        story.publish("customers", [row])
    yield
    assert story.chain(1) == [("a", "1", 0 if day == 1 else day, day + 1) for day in (1, 3, 5, 7)]
    overlaps = "select count(*) from (select dbt_valid_to > lead(dbt_valid_from) over (order by dbt_valid_from) as bad"
    own = f"from snapshots.snap_shop__customers where {story.mine('customer_id')}"
    assert story.query(f"{overlaps} {own}) as chained where bad") == [(0,)]


@together
def test_case_09_deletes_repeated_or_of_what_was_never_there_make_no_version(story: Story) -> Told:
    story.publish("customers", [("delete", "2026-01-01", 1, "x", "1"), ("delete", "2026-01-02", 1, "y", "1")])
    story.publish("customers", [version(3, "a"), ("delete", "2026-01-04", 1, "x", "1")])
    story.publish("customers", [("delete", "2026-01-05", 1, "y", "1")])
    yield
    assert story.query(
        "select name, dbt_is_deleted, dbt_valid_from::text from snapshots.snap_shop__customers"
        f" where {story.mine('customer_id')} order by dbt_valid_from"
    ) == [("a", "false", "-infinity"), ("a", "true", "2026-01-04 00:00:00+00")]


@together
def test_case_13_null_and_a_value_in_a_tracked_column_are_different_and_null_is_equal_to_null(story: Story) -> Told:
    story.publish("customers", [version(1, None), version(2, None), version(3, "a"), version(4, None)])
    yield
    chain = [(None, "1", 0, 3), ("a", "1", 3, 4), (None, "1", 4, 99)]
    assert story.chain(1) == chain
    story.publish("customers", [version(6, None)])
    yield
    assert story.chain(1) == chain


@together
def test_case_14_a_type_1_column_changes_in_every_version_and_opens_none(story: Story) -> Told:
    story.publish("customers", [version(1, "a", "1"), version(3, "b", "1")])
    yield
    story.publish("customers", [version(5, "b", "2")])
    yield
    assert story.chain(1) == [("a", "2", 0, 3), ("b", "2", 3, 99)]


@together
def test_case_15_S9_an_early_fact_gets_an_inferred_member_that_keeps_its_key(story: Story) -> Told:
    story.publish("orders", [order(2, 1, 7)])
    yield
    assert story.facts() == [(1, None, True)]
    key = f"select customer_key from marts.fct_order where {story.mine('order_id')}"
    before = story.query(key)
    story.publish("customers", [version(4, "late", customer=7)])
    yield
    assert story.facts() == [(1, "late", False)]
    assert story.query(key) == before


@together
def test_case_16_a_fact_older_than_the_first_version_finds_it(story: Story) -> Told:
    story.publish("customers", [version(20, "a")])
    story.publish("orders", [order(21, 1, ordered="1999-12-31")])
    yield
    assert story.facts() == [(1, "a", False)]


@together
def test_case_17_an_event_at_the_boundary_belongs_to_the_later_version(story: Story) -> Told:
    story.publish("customers", [version(1, "a"), version(5, "b")])
    story.publish("orders", [order(5, 1, ordered="2026-01-04 23:59:59.999999+00"), order(5, 2)])
    yield
    assert story.facts() == [(1, "a", False), (2, "b", False)]


def test_case_18_a_session_in_another_time_zone_changes_nothing(shared: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across the hour that Berlin skips: 02:00 to 03:00 on 29 March 2026."""
    shared.publish(
        "customers",
        [("upsert", f"2026-03-29 {clock}+00", 1, name, "1") for clock, name in (("00:59:59", "a"), ("01:00:00", "b"))],
    )
    shared.publish("orders", [order(1, key, ordered=f"2026-03-29 0{key}:00:00+00") for key in range(3)])
    run(shared)
    before, points = shared.query(EVERYTHING), facts(shared)
    assert [row[1] for row in points] == ["a", "b", "b"]
    monkeypatch.setenv("PGTZ", "Europe/Berlin")
    shared.publish("orders", [order(2, 9, ordered="2026-03-29 00:30:00+00")])
    run(shared)
    done = shared.dbt(*RUN, "--full-refresh")
    assert done.success, done.text
    run(shared, prefix="clean")
    assert shared.query(EVERYTHING) == before
    assert facts(shared) == [*points, (9, "a", False)]
    assert shared.query("table marts.fct_order except table clean_marts.fct_order") == []


def test_case_19_a_new_column_opens_no_version_until_it_says_something(small: Small) -> None:
    small.publish("customers", [version(1, "a"), version(1, "b", customer=2)])
    small.build()
    small.warehouse.execute("alter table staging.shop__customers add column tier text")
    staging = small.folder / "models" / "staging" / "stg_shop__customers.sql"
    staging.write_text(staging.read_text().replace("name, phone,", "name, phone, tier,"))
    snapshot = small.folder / "snapshots" / "snap.yml"
    snapshot.write_text(snapshot.read_text().replace("[name]", "[name, tier]"))
    small.build()
    assert (len(small.chain(1)), len(small.chain(2))) == (1, 1)
    batch = small.publish("customers", [])
    small.warehouse.execute(
        "insert into staging.shop__customers values (1, 'a', '1', %s, 1, 'upsert', '2026-01-05', 0, 1, null, 'gold')",
        [batch],
    )
    small.warehouse.execute("update ops.batch set rows_applied = 1, rows_read = 1 where batch_id = %s", [batch])
    small.build()
    assert small.query(
        "select tier, dbt_valid_to = 'infinity' from snapshots.snap_shop__customers where customer_id = 1"
        " order by dbt_valid_from"
    ) == [(None, False), ("gold", True)]
    assert len(small.chain(2)) == 1


def test_case_20_a_column_that_left_the_model_opens_no_version(small: Small) -> None:
    small.publish("customers", [version(1, "a", "1"), version(5, "b", "2")])
    small.build()
    keys = small.query("select dbt_scd_id, dbt_valid_from::text from snapshots.snap_shop__customers order by 2")
    staging = small.folder / "models" / "staging" / "stg_shop__customers.sql"
    staging.write_text(staging.read_text().replace("name, phone,", "name,"))
    small.build()
    assert small.query("select dbt_scd_id, dbt_valid_from::text from snapshots.snap_shop__customers order by 2") == keys
    assert small.query(
        "select count(*) from pg_attribute where attrelid = 'snapshots.snap_shop__customers'::regclass"
        " and attname = 'phone' and not attisdropped"
    ) == [(0,)]


@together
def test_case_21_history_loaded_after_the_fact_equals_history_loaded_in_order(story: Story) -> Told:
    old = [("upsert", f"2023-{month:02}-01", 1, name, "1") for month, name in ((1, "x"), (6, "y"), (9, "x"))]
    new = [version(1, "y"), version(9, "z")]
    story.publish("customers", new)
    story.publish("orders", [order(2, 1, ordered="2023-07-01"), order(2, 2, ordered="2023-10-01"), order(10, 3)])
    yield
    story.publish("customers", old)
    yield
    late, points = story.everything(), story.facts()
    assert [row[1] for row in points] == ["y", "x", "z"]
    yield
    assert story.everything("clean_") == late


def test_case_22_a_second_run_writes_nothing(shared: Small) -> None:
    shared.publish("customers", [version(1, "a")])
    shared.publish("orders", [order(2, 1)])
    run(shared)
    run(shared)
    for model in ("snap_shop__customers", "dim_customer", "fct_order"):
        assert last_run(shared, model) == ("unchanged", 0, 0)


def test_case_23_a_run_killed_at_any_statement_leaves_each_table_old_or_new_and_the_next_finishes(
    shared: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is terminated under dbt, before a statement out of each stretch of the run."""
    from dbt.adapters.postgres.connections import PostgresConnectionManager

    real = PostgresConnectionManager.add_query
    statement = 0

    def kill_before(k: int | None) -> None:
        nonlocal statement
        statement = 0

        def add_query(manager: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal statement
            statement += 1
            if statement == k:
                handle = manager.get_thread_connection().handle
                shared.warehouse.execute("select pg_terminate_backend(%s, 5000)", [handle.info.backend_pid])
            return real(manager, *args, **kwargs)

        monkeypatch.setattr(PostgresConnectionManager, "add_query", add_query)

    shared.publish("customers", [version(1, "v0")])
    shared.publish("orders", [order(2, 1, amount=0)])
    kill_before(None)
    run(shared)
    length, k, round_ = statement, 3, 0
    assert length > 50
    while k < length:
        round_ += 1
        shared.publish("customers", [version(1 + round_, f"v{round_}")])
        shared.publish("orders", [order(2 + round_, 1, amount=round_, ordered=28)])
        kill_before(k)
        done = shared.dbt(*RUN)
        assert not done.success, f"statement {k}"
        ends = "select count(*) filter (where dbt_valid_to = 'infinity') from snapshots.snap_shop__customers"
        assert shared.query(ends) == [(1,)]
        assert shared.query("select count(*), max(amount) >= %s from marts.fct_order" % (round_ - 1)) == [(1, True)]
        kill_before(None)
        run(shared)
        assert facts(shared) == [(1, f"v{round_}", False)]
        assert shared.query("select amount from marts.fct_order") == [(round_,)]
        k += length // 5
    run(shared, prefix="clean")
    assert shared.query(EVERYTHING.replace("snapshots.", "clean_snapshots.")) == shared.query(EVERYTHING)


def start_dbt(project: Small) -> subprocess.Popen[bytes]:
    """A dbt of its own, as a task or a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-c", "from dbt.cli.main import cli; cli()", *RUN, "--quiet", "--threads", "1"],
        cwd=project.folder,
        env={**os.environ, "DBT_PROFILES_DIR": str(ROOT / "dbt_project"), "SLUICE_SCHEMA_PREFIX": ""},
        start_new_session=True,
    )


def wait_for_lock(project: Small, process: subprocess.Popen[bytes], waiting: int = 1) -> None:
    deadline = time.monotonic() + 60
    # the second waits for the lock, or behind the first for a view that it would replace
    while project.query("select count(distinct pid) from pg_locks where not granted") != [(waiting,)]:
        assert process.poll() is None, "it ended before it came to the lock"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("node", ["snapshots.snap_shop__customers", "marts.dim_customer", "marts.fct_order"])
def test_case_23_S4_dbt_killed_with_sigkill_at_a_node_and_the_next_run_resumes(shared: Small, node: str) -> None:
    nodes = ["snapshots.snap_shop__customers", "marts.dim_customer", "marts.fct_order"]
    shared.publish("customers", [version(1, "a")])
    shared.publish("orders", [order(2, 1), order(8, 2)])
    run(shared)
    shared.publish("customers", [version(5, "b")])
    with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"]) as holder:
        holder.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sluice:{node}"])
        process = start_dbt(shared)
        wait_for_lock(shared, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    changed = dict(shared.query("select relation, count(*) from ops.model_run where rows_inserted > 0 group by 1"))
    assert [changed[name] for name in nodes] == [1 + (name in nodes[: nodes.index(node)]) for name in nodes]
    assert len(facts(shared)) == 2, "every fact still finds its dimension"
    run(shared)
    assert facts(shared) == [(1, "a", False), (2, "b", False)]


def test_case_24_two_runs_at_once_take_turns_and_neither_doubles_a_row(shared: Small) -> None:
    shared.publish("customers", [version(1, "a"), version(5, "b")])
    shared.publish("orders", [order(day, day) for day in range(1, 20)])
    with psycopg.connect(os.environ["SLUICE_WAREHOUSE_URL"]) as holder:
        holder.execute("select pg_advisory_xact_lock(hashtextextended('sluice:snapshots.snap_shop__customers', 0))")
        process = start_dbt(shared)
        wait_for_lock(shared, process)
        outcome: list[Any] = []
        thread = threading.Thread(target=lambda: outcome.append(shared.dbt(*RUN)))
        thread.start()
        wait_for_lock(shared, process, waiting=2)
    thread.join()
    assert (process.wait(), outcome[0].success) == (0, True), outcome[0].text
    assert len(shared.chain(1)) == 2
    assert shared.query("select count(*), count(distinct order_id) from marts.fct_order") == [(19, 19)]
    assert shared.query("select relation, sum(rows_inserted)::int from ops.model_run group by 1 order by 1") == [
        ("marts.dim_customer", 2),
        ("marts.fct_order", 19),
        ("snapshots.snap_shop__customers", 2),
    ]


@together
def test_case_25_keys_are_the_same_in_every_rebuild_and_a_split_keeps_those_there_are(story: Story) -> Told:
    story.publish("customers", [version(1, "a"), version(9, "c")])
    yield
    keys = {name: key for _, name, _, key, *_ in story.everything()}
    story.publish("customers", [version(5, "b")])
    yield
    yield
    after = {name: key for _, name, _, key, *_ in story.everything()}
    assert len(after) == 3
    assert after.items() > keys.items()
    assert {name: key for _, name, _, key, *_ in story.everything("clean_")} == after


@together
def test_case_26_a_volatile_column_that_no_version_is_about_opens_none(story: Story) -> Told:
    for day in range(1, 15):
        story.publish("customers", [version(day, "a", phone=str(day))])
    yield
    assert story.chain(1) == [("a", "14", 0, 99)]


@together
def test_case_28_a_row_that_vanished_at_the_source_vanishes_from_the_fact(story: Story) -> Told:
    first = story.publish("orders", [order(2, 1), order(2, 2)])
    yield
    story.publish("orders", [order(2, 1)], supersedes=first)
    yield
    assert [row[0] for row in story.facts()] == [1]
    assert story.query(f"select count(*) from marts.fct_order where {story.mine('order_id')}") == [(1,)]


def test_case_29_a_fact_twice_in_its_query_is_refused_and_the_table_itself_admits_no_second(small: Small) -> None:
    small.publish("orders", [order(2, 1)])
    small.build()
    path = small.folder / "models" / "marts" / "fct_order.sql"
    path.write_text(path.read_text().replace("from orders left", "from orders cross join (values (1), (2)) as t left"))
    done = small.dbt("run", "--select", "fct_order")
    assert not done.success
    assert "more than one row per (order_id)" in done.text
    with pytest.raises(psycopg.errors.UniqueViolation):
        small.warehouse.execute("insert into marts.fct_order select * from marts.fct_order")
    assert small.query("select count(*) from marts.fct_order") == [(1,)]


@together
def test_case_31_no_lookback_is_too_small_since_none_is_used(story: Story) -> Told:
    """What is new is decided by sequence number: a fact is found however long ago it happened."""
    story.publish("orders", [order(1, 1)])
    yield
    story.publish("orders", [order(2, 2, ordered="1970-01-01"), order(2, 3, ordered="2026-01-02")])
    yield
    assert [row[0] for row in story.facts()] == [1, 2, 3]


def test_case_33_a_fact_follows_when_its_version_is_split_or_vanishes(shared: Small) -> None:
    shared.publish("customers", [version(1, "a")])
    shared.publish("orders", [order(15, 1), order(3, 2)])
    run(shared)
    split = shared.publish("customers", [version(10, "b")])
    run(shared)
    assert facts(shared) == [(1, "b", False), (2, "a", False)]
    assert last_run(shared, "fct_order") == ("success", 1, 1)
    shared.publish("customers", [], supersedes=split)
    shared.warehouse.execute("update ops.batch set rows_applied = 1, rows_read = 1 where rows_applied = 0")
    run(shared)
    assert facts(shared) == [(1, "a", False), (2, "a", False)]
