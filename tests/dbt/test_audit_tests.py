"""Each audit test finds the fault it is for, planted by hand, and nothing in what the real macros built."""

from __future__ import annotations

import pytest
from dbt.cli.main import dbtRunner

from sluice.gates import pending
from tests.dbt.conftest import ROOT, Small
from tests.dbt.test_scd2_cases import RUN, gone, order, version

SNAPSHOT = "snapshots.snap_shop__customers"
DECLARED = """
  - name: dim_customer
    columns:
      - name: is_current
        data_tests:
          - is_current_is_the_last: {arguments: {entity: customer_id}}
      - name: customer_id
        data_tests:
          - versions_lie_within:
              arguments:
                {to: ref('snap_shop__customers'), field: customer_id, valid_from: valid_from, valid_to: valid_to}
              config: {where: not is_inferred}
    data_tests:
      - versions_cover_all_time: {arguments: {entity: customer_id}}
  - name: fct_order
    columns:
      - name: customer_key
        data_tests:
          - key_is_valid_at: {arguments: {to: ref('dim_customer'), field: customer_key, instant: ordered_at}}
      - name: order_id
        data_tests:
          - keeps_every_live_key: {arguments: {to: ref('stg_shop__orders'), field: order_id}}
  - name: stg_shop__customers
    data_tests:
      - rows_match_the_ledger: {arguments: {source: shop, table: customers}}
      - effective_within_the_batch: {arguments: {margin: 1 hour, earliest: '2020-01-01 00:00:00+00'}}
"""
HISTORY = """
    data_tests:
      - versions_do_not_overlap: {arguments: {entity: customer_id}}
      - versions_end_properly
      - versions_are_consolidated: {arguments: {entity: [customer_id], columns: [name, dbt_is_deleted]}}
      # type 1: what no history with two versions can satisfy
      - versions_are_consolidated:
          arguments: {entity: customer_id, columns: [phone]}
          config: {where: customer_id = 99}
"""


@pytest.fixture(scope="module")
def _declared(_shared: tuple[Small, str]) -> Small:
    """The shared project, with every audit test declared, and parsed anew."""
    project, _ = _shared
    marts = project.folder / "models" / "marts"
    (marts / "m.yml").write_text("models:" + DECLARED)
    path = marts / "dim_customer.sql"
    flag = "false as is_inferred, dbt_valid_to = 'infinity' as is_current"
    text = path.read_text().replace("false as is_inferred", flag)
    path.write_text(text.replace("'infinity', true from", "'infinity', true, true from"))
    path = project.folder / "snapshots" / "snap.yml"
    path.write_text(path.read_text().rstrip() + HISTORY)
    options = ["--project-dir", str(project.folder), "--profiles-dir", str(ROOT / "dbt_project"), "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_SCHEMA_PREFIX", "")
        project.manifests[""] = dbtRunner().invoke(["parse", *options]).result
    return project


@pytest.fixture
def audited(_declared: Small, shared: Small) -> Small:
    shared.publish("customers", [version(1, "a"), version(5, "b"), version(2, "x", customer=2), gone(9, customer=2)])
    shared.publish("orders", [order(2, 1), order(6, 2), order(7, 3, 7)])
    shared.warehouse.execute("update ops.batch set effective_at = '2026-02-01'")
    done = shared.dbt(*RUN)
    assert done.success, done.text
    return shared


PLANTED = {
    "versions_do_not_overlap": f"update {SNAPSHOT} set dbt_valid_to = '2026-01-07' where name = 'a'",
    "versions_end_properly": f"update {SNAPSHOT} set dbt_valid_to = '9999-12-31' where name = 'b'",
    "versions_are_consolidated": f"update {SNAPSHOT} set name = 'a' where name = 'b'",
    "is_current_is_the_last": "update marts.dim_customer set is_current = true where name = 'a'",
    "versions_cover_all_time": "delete from marts.dim_customer where name = 'b'",
    "key_is_valid_at": "update marts.fct_order set customer_key = (select customer_key from marts.dim_customer"
    " where name = 'b') where order_id = 1",
    "keeps_every_live_key": "delete from marts.fct_order where order_id = 3",
    "rows_match_the_ledger": "delete from staging.shop__customers where name = 'a'",
    "effective_within_the_batch": "update ops.batch set effective_at = '2026-01-03' where table_name = 'customers'",
}


def failing(project: Small) -> set[str]:
    options = ["--project-dir", str(project.folder), "--profiles-dir", str(ROOT / "dbt_project"), "--quiet"]
    options += ["--no-write-json", "--log-level-file=none", "--log-level=none"]
    done = dbtRunner(manifest=project.manifests[""]).invoke(["test", *options])
    found = {(result.node.test_metadata.name, str(result.status)) for result in done.result.results}
    assert {name for name, _ in found} >= set(PLANTED), "every audit test ran"
    assert "error" not in {status for _, status in found}, [r.message for r in done.result.results]
    return {name for name, status in found if status == "fail"}


def test_audit_tests_pass_on_what_the_macros_built(audited: Small) -> None:
    assert failing(audited) == set()


def test_tests_of_a_run_judge_what_its_models_have_read_and_not_what_came_meanwhile(
    audited: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending("a run", (), "")
    audited.publish("orders", [order(8, 4)])
    monkeypatch.setenv("SLUICE_RUN_ID", "a run")
    assert failing(audited) == set()
    monkeypatch.setenv("SLUICE_RUN_ID", "tests by themselves")
    assert "keeps_every_live_key" in failing(audited)


@pytest.mark.parametrize("name", PLANTED)
def test_each_audit_test_finds_the_fault_it_is_for(audited: Small, name: str) -> None:
    audited.warehouse.execute(PLANTED[name])
    assert name in failing(audited)


def test_an_audit_test_on_a_model_stops_the_transaction_that_builds_it(audited: Small) -> None:
    audited.publish("customers", [version(20, "one", customer=99), version(21, "two", customer=99)])
    done = audited.dbt("snapshot")
    assert not done.success
    assert "versions_are_consolidated" in done.text
    assert "Nothing was written" in done.text
    assert audited.query(f"select count(*) from {SNAPSHOT} where customer_id = 99") == [(0,)]


def test_case_34_a_child_version_outside_the_validity_of_its_parent_is_found(audited: Small) -> None:
    """Here the dimension is the child and the snapshot its parent; a hierarchy is declared in the same way."""
    audited.warehouse.execute(f"update {SNAPSHOT} set dbt_valid_from = '2026-01-02' where name = 'a'")
    assert failing(audited) == {"versions_lie_within"}
