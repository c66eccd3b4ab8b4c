"""The main job through the real scheduler: marts equal what plain Python computes from the sources themselves."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sluice.runtime.airflow_api import AirflowApi
from tests.end_to_end.conftest import ARCHIVE, ROOT, Running

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

needs_deliveries = pytest.mark.skipif(
    not ARCHIVE.exists(),
    reason=f"{ARCHIVE} is not here: the real deliveries of ourairports are not part of this repository",
)


def api(running: Running) -> AirflowApi:
    return AirflowApi(running.web_url, "admin", running.password)


def test_the_first_pass_succeeded_and_said_what_it_did(running: Running) -> None:
    assert "stage" in running.output.lower()
    for table in ("shop.orders", "shop.clickstream", "fct_order_line", "dim_customer"):
        assert table in running.output, running.output[-4000:]
    with api(running) as client:
        runs = client.runs(since=(since := datetime(2000, 1, 1, tzinfo=UTC)))
    earliest = {run.dag_id: run for run in sorted(runs, key=lambda run: run.start or since, reverse=True)}
    first = {dag_id: run.state for dag_id, run in earliest.items()}
    blocked = (
        "select run_id, check_name from ops.gate_result where severity = 'block' and verdict not in ('pass', 'warn')"
    )
    of_the_first = {run.run_id for run in earliest.values()}  # others break things on purpose
    assert [found for found in running.query(blocked) if found[0] in of_the_first] == []
    passed = ("ingest_ourairports", "ingest_shop", "warehouse", "operations", "canary")
    assert {dag_id: first.get(dag_id) for dag_id in passed} == dict.fromkeys(passed, "success")


def test_the_books_of_every_batch_balance(running: Running) -> None:
    """Not by the ledger's own sums, which a constraint holds, but by the rows that each batch has in its log."""
    logs = running.query("select distinct source, table_name from ops.batch where state in ('published', 'superseded')")
    assert len(logs) >= 11
    for source, table in logs:
        wrong = running.query(
            "select batch_id, rows_applied, rows_deleted from ops.batch where source = %s and table_name = %s"
            " and state in ('published', 'superseded') and rows_applied + rows_deleted <>"
            f" (select count(*) from staging.{source}__{table} as log where log._batch_id = batch.batch_id)",
            source,
            table,
        )
        assert wrong == [], f"{source}.{table}"


def test_order_lines_equal_the_shops_own(running: Running) -> None:
    """Every line, amount by amount, read from the operational database."""
    own = running.query(
        "select order_line_id, quantity, quantity * unit_price, discount_amount from order_lines order by 1",
        database="SLUICE_SHOP_DATABASE_URL",
    )
    mart = running.query(
        "select order_line_id, quantity, gross_amount, discount_amount from marts.fct_order_line order by 1"
    )
    assert mart == own


def test_orders_and_payments_equal_the_shops_own(running: Running) -> None:
    statement = "select order_id, {status}, placed_at, delivered_at from {table} order by 1"
    own = running.query(statement.format(table="orders", status="status"), database="SLUICE_SHOP_DATABASE_URL")
    assert running.query(statement.format(table="marts.fct_order", status="order_status")) == own
    captured = "select sum({amount}) from {table} where {status} = 'captured'"
    own = running.query(
        captured.format(table="payments", amount="amount", status="status"), database="SLUICE_SHOP_DATABASE_URL"
    )
    assert (
        running.query(captured.format(table="marts.fct_payment", amount="payment_amount", status="payment_status"))
        == own
    )


def test_customer_history_equals_the_auditors_trail(running: Running) -> None:
    """Every version of every customer, from the trail: one for each change of a type 2 column, and one for the time
    after a delete."""
    trail = running.query(
        "select customer_id, op, changed_at, full_name, segment, marketing_consent from customers_history order by "
        "changed_at, history_id",
        database="SLUICE_SHOP_DATABASE_URL",
    )
    last: dict[int, dict[datetime, tuple]] = defaultdict(dict)
    for customer, op, at, *attributes in trail:
        last[customer][at] = (op == "delete", *attributes)  # of several at one instant the last counts
    own = []
    for customer, instants in last.items():
        chain: list[list] = []
        for at, (deleted, *attributes) in sorted(instants.items()):
            version = [deleted, *(chain[-1][3:] if deleted and chain else attributes)]
            if chain and chain[-1][2:] == version:
                continue
            if chain:
                chain[-1][1] = at
            chain.append([at if chain else None, None, *version])
        own += [(customer, *version) for version in chain]
    mart = running.query(
        "select customer_id, nullif(dbt_valid_from, '-infinity'), nullif(dbt_valid_to, 'infinity'), "
        "dbt_is_deleted::boolean,"
        " full_name, segment, has_marketing_consent from snapshots.snap_shop__customers"
    )
    assert sum(version[3] for version in own) > 0, "customers were deleted"
    assert len(own) > len(last), "customers changed"
    assert sorted(mart, key=repr) == sorted(own, key=repr)


def test_every_fact_resolves_to_exactly_one_dimension_row(running: Running) -> None:
    for fact, key, dimension in (
        ("fct_order_line", "customer_key", "dim_customer"),
        ("fct_order_line", "product_key", "dim_product"),
        ("fct_order", "customer_key", "dim_customer"),
        ("fct_session", "customer_key", "dim_customer"),
    ):
        assert running.query(
            f"select count(*) from marts.{fact} as fact where (select count(*) from marts.{dimension} as dimension"
            f" where dimension.{key} = fact.{key}) <> 1"
        ) == [(0,)], fact


def test_inventory_equals_the_files_and_what_is_missing_is_in_quarantine(running: Running) -> None:
    good: dict[tuple[str, str, str], int] = {}
    bad = 0
    for path in sorted(Path(running.written["SLUICE_SHOP_FILES"]).glob("inventory/*/*.csv")):
        for row in csv.DictReader(path.open()):
            if row["on_hand"].isdigit() and row["reserved"].isdigit():
                good[path.parent.name, path.stem, row["sku"]] = int(row["on_hand"])
            else:
                bad += 1
    assert bad > 0, "the shop delivers damage on purpose"
    mart = running.query(
        "select inventory_date::text, warehouse_code, sku, on_hand_count from marts.fct_inventory_daily"
    )
    assert {(day, warehouse, sku): count for day, warehouse, sku, count in mart} == good
    assert running.query("select count(*) from ops.quarantine where table_name = 'inventory' and state = 'open'") == [
        (bad,)
    ]


def test_sessions_equal_those_counted_from_the_files(running: Running) -> None:
    """30 minutes without an event end a session; events come late, twice and torn."""
    events: dict[str, tuple[str, datetime]] = {}
    for path in Path(running.written["SLUICE_SHOP_FILES"]).glob("clickstream/*/*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            events[event["event_id"]] = (event["visitor_id"], datetime.fromisoformat(event["occurred_at"]))
    by_visitor = defaultdict(list)
    for visitor, at in events.values():
        by_visitor[visitor].append(at)
    sessions = 0
    for times in by_visitor.values():
        times.sort()
        sessions += 1 + sum(later - earlier > timedelta(minutes=30) for earlier, later in itertools.pairwise(times))
    assert running.query("select count(*), sum(event_count) from marts.fct_session") == [(sessions, len(events))]


# -- ourairports: 37 real deliveries ---------------------------------------------------------------


TYPE_2 = (
    "airport_ref",
    "length_ft",
    "width_ft",
    "surface",
    "lighted",
    "closed",
    "le_ident",
    "he_ident",
    "le_displaced_threshold_ft",
    "he_displaced_threshold_ft",
)
NUMBERS = {"airport_ref", "length_ft", "width_ft", "le_displaced_threshold_ft", "he_displaced_threshold_ft"}


def keeps_the_contract(row: dict[str, str]) -> bool:
    """The ranges of include/sources/ourairports.yml, said again in Python."""

    def within(name: str, low: float, high: float) -> bool:
        return row[name] == "" or low <= float(row[name]) <= high

    ends = (
        within(f"{end}_latitude_deg", -90, 90)
        and within(f"{end}_longitude_deg", -180, 180)
        and within(f"{end}_heading_degT", 0, 360)
        and within(f"{end}_displaced_threshold_ft", 0, 1e9)
        for end in ("le", "he")
    )
    return within("length_ft", 0, 1e9) and within("width_ft", 0, 1e9) and all(ends)


def attributes_of(row: dict[str, str]) -> tuple:
    return tuple(
        None
        if row[name] == ""
        else int(row[name])
        if name in NUMBERS
        else row[name] == "1"
        if name in ("lighted", "closed")
        else row[name]
        for name in TYPE_2
    )


def runway_histories(folder: Path) -> tuple[dict[int, list[tuple]], int]:
    """Versions of every runway from 37 files, in plain Python: (from, to, is_deleted, attributes); and how many rows
    are rejected."""
    state: dict[int, tuple | None] = {}
    chains: dict[int, list[list]] = defaultdict(list)
    rejected = 0
    for delivery in sorted(folder.iterdir()):
        instant = datetime.fromisoformat(delivery.name).replace(tzinfo=UTC) + timedelta(days=1)
        seen = {}
        for row in csv.DictReader((delivery / "runways.csv").open(encoding="utf-8", newline="")):
            key = int(row["id"])
            if keeps_the_contract(row):
                seen[key] = attributes_of(row)
            else:
                rejected += 1
                seen[key] = state.get(key)  # it is there, and says nothing that can be believed
        for key in seen.keys() | {key for key, value in state.items() if value is not None}:
            now = seen.get(key)
            if now == state.get(key):
                continue
            if chains[key]:
                chains[key][-1][1] = instant
            deleted = now is None
            chains[key].append(
                [instant if chains[key] else None, None, deleted, *(now if now is not None else state[key])]
            )
            state[key] = now
    return {key: [tuple(version) for version in chain] for key, chain in chains.items() if chain}, rejected


@needs_deliveries
def test_runway_histories_equal_those_computed_from_the_deliveries(running: Running) -> None:
    expected, rejected = runway_histories(next((running.state / "deliveries").glob("*/ourairports")))
    rows = running.query(
        "select runway_id, nullif(valid_from, '-infinity'), nullif(valid_to, 'infinity'), is_deleted, airport_id, "
        "length_ft, width_ft, surface,"
        " is_lighted, is_closed, le_ident, he_ident, le_displaced_threshold_ft, he_displaced_threshold_ft"
        " from marts.dim_runway order by runway_id, dim_runway.valid_from"
    )
    found: dict[int, list[tuple]] = defaultdict(list)
    for key, *version in rows:
        found[key].append(tuple(version))
    assert len(found) > 48_000
    assert sum(len(chain) > 1 for chain in expected.values()) > 1_000, "there is history to get right"
    differing = {key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)}
    assert not differing, [(key, found.get(key), expected.get(key)) for key in sorted(differing)[:3]]
    assert running.query("select count(*) from ops.quarantine where table_name = 'runways'") == [(rejected,)]
    changes = sum(len(chain) for chain in expected.values())
    assert running.query("select count(*) from marts.fct_runway_change") == [(changes,)]


# -- later passes ----------------------------------------------------------------------------------


def warehouse_run(running: Running) -> str:
    """Start the warehouse DAG by hand, as its periodic run would, and return how it ended."""
    with api(running) as client:
        run_id = client.trigger("warehouse")
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            states = {
                run.run_id: run.state
                for run in client.runs(since=datetime(2000, 1, 1, tzinfo=UTC))
                if run.dag_id == "warehouse"
            }
            if states.get(run_id) in ("success", "failed"):
                return str(states[run_id])
            time.sleep(1)
    pytest.fail("the warehouse DAG did not end within 5 minutes")


def test_a_run_that_missed_its_asset_events_drains_everything(running: Running) -> None:
    """Two days pass at the shop and are loaded without Airflow, so that no event tells the warehouse DAG of them."""
    shop = running.sluice("shop", "advance", "--days", "2")
    assert shop.returncode == 0, shop.stderr
    for _ in range(2):
        loaded = running.sluice("load", "shop")
        assert loaded.returncode == 0, loaded.stderr
    before = running.query("select count(*) from marts.fct_order_line")
    assert warehouse_run(running) == "success"
    assert running.query("select count(*) from marts.fct_order_line") > before
    test_order_lines_equal_the_shops_own(running)
    test_orders_and_payments_equal_the_shops_own(running)
    test_customer_history_equals_the_auditors_trail(running)
    test_sessions_equal_those_counted_from_the_files(running)
    test_inventory_equals_the_files_and_what_is_missing_is_in_quarantine(running)


def test_an_incremental_warehouse_equals_one_built_from_nothing(running: Running) -> None:
    """`dbt build` alone, in schemas of its own, gives the same rows as all the runs before."""
    environment = {
        **running.environment,
        **running.written,
        "SLUICE_SCHEMA_PREFIX": "rebuilt",
        "DBT_TARGET_PATH": str(running.state / "target"),
    }
    built = subprocess.run(
        [str(Path(sys.executable).with_name("dbt")), "build", "--profiles-dir", "."],
        cwd=ROOT / "dbt_project",
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-4000:]
    tables = running.query(
        "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
        " and table_schema in ('snapshots', 'intermediate', 'marts')"
    )
    assert len(tables) > 15
    for schema, table in tables:
        one, two = f"{schema}.{table}", f"rebuilt_{schema}.{table}"
        differing = running.query(
            f"select count(*) from ((select * from {one} except all select * from {two})"
            f" union all (select * from {two} except all select * from {one})) as differing"
        )
        assert differing == [(0,)], f"{one} differs from a clean rebuild"


def test_the_last_a_second_make_run_on_top_changes_nothing_and_says_so(running: Running) -> None:
    """Ctrl-C stops everything; `make run ONCE=1` on the same data applies no row, exits with 0 and leaves nothing
    behind."""
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(120) is not None
    assert not processes_of(running), "Ctrl-C left processes behind"
    again = subprocess.run(
        [sys.executable, "-m", "sluice.runtime.run", "--once"],
        cwd=ROOT,
        env={**running.environment, "SLUICE_SHOP_DAYS": "16"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-2000:]
    assert "0 changed rows" in again.stdout
    assert not processes_of(running)


def processes_of(running: Running) -> list[str]:
    """Commands that still run with this run's state directory in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(running.state).encode() in environment and int(process.name) != os.getpid():
            found.append(command)
    return found
