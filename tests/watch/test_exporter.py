"""The exporter over a real ledger: what it says, what it may read, and what it does when Postgres is gone."""

import json
import time
from datetime import UTC, datetime

import psycopg
import pytest

from sluice.declarations import load_folder
from sluice.runtime.ports import free_port
from sluice.watch import access, exporter, metrics, record_lineage, record_objectives
from tests.watch.conftest import SECRET, scrape

ORDERS, NEVER = {"source": "shop", "table": "orders"}, {"source": "shop", "table": "never"}


def test_freshness_is_told_with_its_objective_from_the_ledger(world, exporting):
    found = scrape(exporting)
    current = found.of("sluice_table_known_current_timestamp_seconds", **ORDERS)
    assert 0 <= time.time() - current < 60
    assert found.of("sluice_table_freshness_objective_seconds", **ORDERS) == 3600
    assert found.of("sluice_table_rows_total", **ORDERS, kind="applied") == 3
    assert found.of("sluice_table_batches", **ORDERS, state="published") == 1
    assert found.of("sluice_table_quarantine_rows", **ORDERS) == 1
    assert time.time() - found.of("sluice_table_quarantine_oldest_timestamp_seconds", **ORDERS) < 60
    assert found.of("sluice_table_conservation_imbalance_rows", **ORDERS) == 0
    assert found.of("sluice_exporter_up") == 1
    assert found.of("sluice_source_info", source="shop", owner="tests") == 1


def test_a_table_that_was_never_read_is_as_old_as_its_declaration(world, warehouse, exporting):
    warehouse.execute("update ops.objective set declared_at = clock_timestamp() - interval '2 hours'")
    record_objectives(warehouse)
    found = scrape(exporting)
    assert found.of("sluice_table_was_read", **NEVER) == 0
    assert 7100 < time.time() - found.of("sluice_table_known_current_timestamp_seconds", **NEVER) < 7300
    assert found.of("sluice_table_was_read", **ORDERS) == 1


def test_e9_a_source_that_yields_nothing_for_too_long_is_a_stopped_feed_although_it_is_read(
    world, warehouse, exporting
):
    warehouse.execute("update ops.batch set published_at = published_at - interval '2 days'")
    world.load("orders")  # the same content: the reading counts, the feed brought nothing
    found = scrape(exporting)
    assert time.time() - found.of("sluice_table_known_current_timestamp_seconds", **ORDERS) < 60
    last = found.of("sluice_table_last_rows_timestamp_seconds", **ORDERS)
    assert time.time() - last > found.of("sluice_table_quiet_objective_seconds", **ORDERS)


def test_a_broken_declaration_keeps_its_promise_and_a_withdrawn_table_loses_it(world, warehouse):
    before = warehouse.execute("select subject from ops.objective where kind = 'table' order by 1").fetchall()
    path = world.sources / "shop.yml"
    whole = path.read_text()
    path.write_text(whole.replace("mode: full", "mode: fool", 1))
    record_objectives(warehouse)
    assert warehouse.execute("select subject from ops.objective where kind = 'table' order by 1").fetchall() == before
    left = whole[: whole.index("  never:")]
    path.write_text(left)
    # a reference that leads nowhere is a fault too, but of a file that is used: it keeps nobody's promise
    lost = left.replace("source: shop", "source: other", 1).replace(
        "id: {", "id: {references: {table: shop.never, column: id}, ", 1
    )
    path.with_name("other.yml").write_text(lost)
    assert "shop has no table never" in str(load_folder(world.sources).faults[0])
    record_objectives(warehouse)
    assert warehouse.execute("select subject from ops.objective where kind = 'table' order by 1").fetchall() == [
        ("other.orders",),
        ("shop.orders",),
    ]


def test_it_keeps_serving_with_a_stale_marker_when_the_ledger_is_gone(
    world, exporting, warehouse_url, postgres, monkeypatch
):
    before = scrape(exporting)
    name = warehouse_url.rsplit("/", 1)[1]
    with psycopg.connect(postgres.server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"alter database {name} allow_connections false")
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        gone = scrape(exporting)
        gone = scrape(exporting)
        admin.execute(f"alter database {name} allow_connections true")
    assert gone.of("sluice_exporter_up") == 0
    assert gone.of("sluice_exporter_read_failures_total") == 2
    same = "sluice_table_known_current_timestamp_seconds"
    assert gone.of(same, **ORDERS) == before.of(same, **ORDERS), "the instant stays, so the age grows"
    assert gone.of("sluice_exporter_last_read_timestamp_seconds") >= before.of(same, **ORDERS)
    assert scrape(exporting).of("sluice_exporter_up") == 1


def test_it_starts_although_the_ledger_was_never_there():
    port = free_port()
    server, _ = exporter.start("127.0.0.1", port, metrics.Ledger("postgresql://nobody@127.0.0.1:1/nothing").read)
    try:
        found = scrape(port)
    finally:
        server.shutdown()
        server.server_close()
    assert found.of("sluice_exporter_up") == 0
    assert found.of("sluice_exporter_last_read_timestamp_seconds") == 0


def test_its_own_role_may_read_the_metrics_and_no_rows_values(world, postgres, warehouse_url):
    role = f"{access.ROLE}_test"
    postgres.server.create_role(role)
    assert access.grant(warehouse_url, role)
    url = postgres.server.url(warehouse_url.rsplit("/", 1)[1], role)
    ledger = metrics.Ledger(url)
    assert {metric.name for metric in ledger.read()} >= {"sluice_table_was_read", "sluice_circuit_open"}
    ledger.close()
    with psycopg.connect(url) as connection:
        for statement in (
            "select raw from ops.quarantine",
            "select * from staging.shop__orders",
            "delete from ops.table_read",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
            connection.rollback()


def test_it_cannot_write_even_as_the_owner(world):
    ledger = metrics.Ledger()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        ledger._connected().execute("delete from ops.table_read")
    ledger.close()


def test_labels_are_names_that_were_declared_and_hold_no_value_of_a_row(world, warehouse, exporting):
    """A table that no declaration names any more, and a flood of steps, make no endless series."""
    warehouse.execute(
        "insert into ops.batch (source, table_name, unit, state, mode, run_id)"
        " select 'gone', 't' || n, 'u', 'refused', 'full', 'r' from generate_series(1, 100) as n"
    )
    warehouse.execute(
        "insert into ops.step (job, step, run_id, host, pid)"
        " select 'job', 'step' || n, 'r', 'h', 1 from generate_series(1, %s) as n",
        [metrics.MOST_SERIES + 7],
    )
    found = scrape(exporting)
    assert not any(("source", "gone") in labels for _, labels in found)
    assert found.of("sluice_exporter_series_left_out") == 7
    assert SECRET not in str(found)
    known = {"source", "table", "kind", "state", "owner", "connection", "job", "step", "gate", "layer", "relation"}
    known |= {"subject", "dag", "channel", "severity"}
    assert {name for _, labels in found for name, _ in labels} <= known


def test_a_mart_is_as_old_as_the_oldest_source_that_it_is_made_from(world, warehouse, exporting, tmp_path):
    def node(kind: str, name: str, *needs: str) -> dict:
        return {
            "resource_type": kind, "schema": "marts", "alias": name, "original_file_path": f"models/marts/{name}.sql",
            "depends_on": {"nodes": list(needs)},
        }  # fmt: skip

    tree = {
        "sources": {f"source.{t}": {"source_name": "shop", "name": t} for t in ("orders", "never")},
        "nodes": {
            "model.a": node("model", "stg", "source.orders", "source.never"),
            "model.b": node("model", "fct", "model.a"),
        },
    }
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(tree))
    record_lineage(warehouse, path)
    warehouse.execute("update ops.objective set declared_at = now() - interval '3 hours' where subject = 'shop.never'")
    age = time.time() - scrape(exporting).of(
        "sluice_mart_current_timestamp_seconds", relation="marts.fct", source="shop"
    )
    assert 10700 < age < 10900
    warehouse.execute("update ops.batch set published_at = published_at - interval '5 hours'")
    warehouse.execute("insert into ops.model_watermark (relation, input, seq) values ('marts.fct', 'stg', 0)")
    age = time.time() - scrape(exporting).of(
        "sluice_mart_current_timestamp_seconds", relation="marts.fct", source="shop"
    )
    assert 17900 < age < 18100, "what it has not read yet counts too"


def test_every_declared_layer_and_gate_state_is_told(world, warehouse, exporting):
    warehouse.execute(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict) values"
        " ('r1', 'marts', 'layer_is_complete', 'marts', 'block', 'fail'),"
        " ('r1', 'marts', 'x', 'marts.a', 'block', 'missing'), ('r1', 'marts', 'y', 'marts.b', 'warn', 'warn'),"
        " ('r0', 'staging', 'layer_is_complete', 'staging', 'block', 'pass')"
    )
    found = scrape(exporting)
    assert found.of("sluice_gate_passed", gate="marts") == 0
    assert found.of("sluice_gate_passed", gate="staging") == 1
    assert found.of("sluice_gate_checks_without_result", gate="marts") == 1
    assert found.of("sluice_gate_checks_warned", gate="marts") == 1
    assert found.of("sluice_layer_complete_timestamp_seconds", layer="marts") < found.of(
        "sluice_layer_complete_timestamp_seconds", layer="staging"
    ) <= datetime.now(UTC).timestamp()  # fmt: skip
