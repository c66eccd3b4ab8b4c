"""A layer's gate: what is absent, broken or in error is a failure, and every check leaves a row."""

from pathlib import Path

import psycopg
import pytest

from sluice.gates import GateFailed, Model, judge_layer, pending
from sluice.gates.results import Check, record, without_values

DIM = Model("dim_customer", "marts.dim_customer", "marts")
VIEW = Model("stg_shop__orders", "staging.stg_shop__orders", "staging", is_view=True, log=("shop", "orders"))


@pytest.fixture
def built(warehouse: psycopg.Connection) -> psycopg.Connection:
    """A mart with three rows, built by the run `r1`."""
    warehouse.execute("create table marts.dim_customer (customer_key bigint, email text)")
    warehouse.execute("insert into marts.dim_customer values (1, 'ann@x'), (2, 'bob@x'), (2, 'eve@x')")
    _has_run(warehouse, "r1", "success")
    return warehouse


def _has_run(warehouse: psycopg.Connection, run_id: str, state: str) -> None:
    warehouse.execute(
        "insert into ops.model_run (run_id, model, relation, state, started_at)"
        " values (%s, 'dim_customer', 'marts.dim_customer', %s, clock_timestamp())",
        (run_id, state),
    )


def _suite(folder: Path, *lines: str) -> Path:
    path = folder / "marts.yml"
    path.write_text("tables:\n  marts.dim_customer:\n    key: [customer_key]\n    expect:\n" + "\n".join(lines))
    return path


def _results(warehouse: psycopg.Connection, check: str) -> list[tuple]:
    return warehouse.execute(
        "select verdict, severity, failing_rows, sample_keys, message from ops.gate_result"
        " where check_name = %s order by gate_result_id",
        (check,),
    ).fetchall()


def test_a_model_with_a_result_of_this_run_passes(built, tmp_path):
    verdict = judge_layer("marts", "r1", [DIM], expectations=tmp_path / "none.yml")

    verdict.require()
    assert [row[0] for row in _results(built, "model_has_a_result")] == ["pass"]
    assert [row[0] for row in _results(built, "layer_is_complete")] == ["pass"]


def test_a_result_of_another_run_is_no_result_of_this_one(built, tmp_path):
    verdict = judge_layer("marts", "r2", [DIM], expectations=tmp_path / "none.yml")

    with pytest.raises(GateFailed, match=r"model_has_a_result on marts\.dim_customer: missing"):
        verdict.require()
    assert [row[0] for row in _results(built, "model_has_a_result")] == ["missing"]
    assert [row[0] for row in _results(built, "layer_is_complete")] == ["fail"]


def test_a_view_that_does_not_exist_is_missing(warehouse, tmp_path):
    with pytest.raises(GateFailed, match="the relation does not exist"):
        judge_layer("staging", "r1", [VIEW], expectations=tmp_path / "none.yml").require()


def test_a_test_whose_task_was_marked_by_hand_counts_as_it_was_judged_last_in_this_run(built, tmp_path):
    def judge():
        return judge_layer(
            "marts", "r1", [DIM], tests=[("t", "marts"), ("w", "marts")], expectations=tmp_path / "none.yml"
        )

    record(built, "r1", "tests", [Check("t", "marts", "fail"), Check("w", "marts", "fail", severity="warn")])
    with pytest.raises(GateFailed, match="test_has_a_result on marts: missing; observed fail; t: its result in this"):
        judge().require()
    record(built, "r1", "tests", [Check("t", "marts", "pass")])
    judge().require()


def test_a_layer_without_models_has_not_passed(warehouse, tmp_path):
    with pytest.raises(GateFailed, match="no model was selected"):
        judge_layer("marts", "r1", [], expectations=tmp_path / "none.yml").require()


def test_a_failing_expectation_blocks_and_shows_keys_but_no_values(built, tmp_path):
    path = _suite(
        tmp_path,
        "      - {type: expect_column_values_to_be_unique, column: customer_key, severity: block}",
        "      - {type: expect_column_values_to_not_match_regex, column: email, regex: eve, severity: block}",
    )

    verdict = judge_layer("marts", "r1", [DIM], expectations=path)

    with pytest.raises(
        GateFailed, match=r"expect_column_values_to_be_unique\(customer_key\) on marts\.dim_customer: fail"
    ):
        verdict.require()
    outcome, severity, failing, keys, _ = _results(built, "expect_column_values_to_be_unique(customer_key)")[0]
    assert (outcome, severity, failing, keys) == ("fail", "block", 2, [[2], [2]])
    everything = built.execute("select string_agg(gate_result::text, ' ') from ops.gate_result").fetchone()[0]
    assert "eve@x" not in everything
    assert _results(built, "expect_column_values_to_not_match_regex(email)")[0][3] == [[2]]


def test_no_value_of_a_row_is_in_a_result_or_a_page_unless_it_is_a_number(built, tmp_path):
    path = _suite(
        tmp_path,
        "      - {type: expect_column_most_common_value_to_be_in_set, column: email, value_set: [z], severity: block}",
        "      - {type: expect_column_mean_to_be_between, column: customer_key, max_value: 1, severity: block}",
        "      - {type: expect_table_columns_to_match_set, column_set: [a], severity: block}",
        "      - {type: unexpected_rows_expectation, severity: block,"
        " unexpected_rows_query: 'select * from {batch} where email::int > 3'}",
    )
    told = [str(check) for check in judge_layer("marts", "r1", [DIM], expectations=path).checks]
    told += [html for (html,) in built.execute("select html from ops.data_doc")]
    for value in ("ann@x", "bob@x", "eve@x"):
        assert not [text for text in told if value in text]
    observed = dict(built.execute("select split_part(check_name, '(', 1), observed from ops.gate_result").fetchall())
    assert observed["expect_column_most_common_value_to_be_in_set"] == "…"
    assert observed["expect_column_mean_to_be_between"].startswith("1.66")
    assert observed["expect_table_columns_to_match_set"] == "['customer_key', 'email']"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('null value in column "email"\nDETAIL:  Failing row contains (1, ann@x).', 'null value in column "email"'),
        ('invalid input syntax for type integer: "ann@x "quoted""', 'invalid input syntax for type integer: "…"'),
        ('value "99999999999" is out of range for type integer', 'value "…" is out of range for type integer'),
        ('relation "marts.x" does not exist\nLINE 1: select', 'relation "marts.x" does not exist'),
        ('gate: t found 2 failing rows in x, for example (id) = ["a"]', 'gate: t found 2 failing rows in x, for example'
         ' (id) = ["a"]'),
    ],
)  # fmt: skip
def test_what_a_database_quotes_of_a_row_is_left_out(said, kept):
    assert without_values(said) == kept


def test_an_expectation_that_only_warns_is_recorded_and_stops_nothing(built, tmp_path):
    path = _suite(tmp_path, "      - {type: expect_column_values_to_be_unique, column: customer_key, severity: warn}")

    judge_layer("marts", "r1", [DIM], expectations=path).require()

    assert _results(built, "expect_column_values_to_be_unique(customer_key)")[0][:2] == ("warn", "warn")


@pytest.mark.parametrize(
    "expectation",
    [
        "{type: expect_column_values_to_be_unique, column: no_such_column, severity: block}",
        "{type: expect_column_values_to_be_between, column: email, min_value: 1, severity: block}",
    ],
)
def test_an_expectation_that_cannot_be_checked_is_an_error_and_blocks(built, tmp_path, expectation):
    verdict = judge_layer("marts", "r1", [DIM], expectations=_suite(tmp_path, f"      - {expectation}"))

    assert [check.outcome for check in verdict.blocking] == ["error"]
    assert not verdict.passed


def test_a_table_that_is_gone_is_missing(warehouse, tmp_path):
    path = _suite(tmp_path, "      - {type: expect_table_row_count_to_be_between, min_value: 1, severity: block}")

    verdict = judge_layer("marts", "r1", [VIEW], expectations=path)

    assert "missing" in [check.outcome for check in verdict.blocking if check.name.startswith("expect_table")]


def test_a_file_of_expectations_with_a_fault_blocks_and_says_where(built, tmp_path):
    path = _suite(tmp_path, "      - {type: expect_table_row_count_to_be_between, min_value: 1}")

    with pytest.raises(
        GateFailed, match=r"marts\.yml:5: tables\.marts\.dim_customer\.expect\.0\.severity: is required"
    ):
        judge_layer("marts", "r1", [DIM], expectations=path).require()
    assert _results(built, "expectations_are_readable")[0][:2] == ("error", "block")


def test_an_unchanged_table_is_not_scanned_again_unless_it_failed(built, tmp_path):
    path = _suite(
        tmp_path, "      - {type: expect_column_values_to_not_be_null, column: customer_key, severity: block}"
    )
    check = "expect_column_values_to_not_be_null(customer_key)"
    judge_layer("marts", "r1", [DIM], expectations=path).require()
    _has_run(built, "r2", "unchanged")
    judge_layer("marts", "r2", [DIM], expectations=path).require()

    built.execute("insert into marts.dim_customer values (null, null)")
    _has_run(built, "r3", "success")
    assert not judge_layer("marts", "r3", [DIM], expectations=path).passed
    _has_run(built, "r4", "unchanged")
    assert not judge_layer("marts", "r4", [DIM], expectations=path).passed

    kept = "the table is unchanged since this passed"
    assert [row[4] for row in _results(built, check)] == [None, kept, None, None]


def test_a_published_batch_that_did_not_pass_its_audit_blocks(built, tmp_path):
    built.execute(
        "insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq)"
        " values ('shop', 'orders', 'u', 'published', 'append', 'i1', ops.next_seq())"
    )
    built.execute(
        "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, batch_id)"
        " select 'i1', 'audit', 'rejects', 'shop.orders', 'block', 'fail', batch_id from ops.batch"
    )

    verdict = judge_layer("marts", "r1", [DIM], tables=[("shop", "orders")], expectations=tmp_path / "none.yml")

    assert [check.name for check in verdict.blocking] == ["published_batches_passed"]


def test_pending_sees_new_batches_new_code_and_gates_that_did_not_pass(built, tmp_path):
    none = tmp_path / "none.yml"
    built.execute("create view staging.stg_shop__orders as select 1 as order_id")
    built.execute(
        "insert into ops.model_watermark (relation, input, seq) values"
        " ('marts.dim_customer', 'stg_shop__orders', 1), ('marts.dim_customer', 'code:abc', 1)"
    )
    models = [VIEW, DIM]
    assert "the gate of marts never ran" in pending("p1", models, "v1").reasons
    judge_layer("staging", "r1", [VIEW], fingerprint="v1", expectations=none).require()
    judge_layer("marts", "r1", [DIM], fingerprint="v1", expectations=none).require()
    assert not pending("p2", models, "v1")

    assert pending("p3", models, "v2").reasons == (
        "the models changed since the gate of marts passed",
        "the models changed since the gate of staging passed",
    )
    built.execute(
        "insert into ops.batch (source, table_name, unit, state, mode, run_id, published_seq, rows_read,"
        " rows_applied)"
        " values ('shop', 'orders', 'u', 'published', 'append', 'i', 7, 1, 1)"
    )
    assert pending("p4", models, "v1").reasons == ("dim_customer has not read the latest of stg_shop__orders",)
    built.execute("update ops.model_watermark set seq = 7")
    judge_layer("marts", "r9", [DIM], fingerprint="v1", expectations=none)
    assert pending("p5", models, "v1").reasons == ("the gate of marts did not pass last time",)
    assert built.execute(
        "select run_id, observed from ops.gate_result where gate = 'pending' and run_id in ('p2', 'p5') order by 1"
    ).fetchall() == [("p2", "0"), ("p5", "1")]


def test_S7_a_model_that_lost_all_its_rows_blocks_and_one_that_never_had_any_warns(warehouse, tmp_path):
    warehouse.execute("create table marts.dim_customer (customer_key bigint)")
    warehouse.execute("create view staging.stg_shop__orders as select 1 as order_id")
    warehouse.execute(
        "insert into ops.model_watermark (relation, input, seq) values ('marts.dim_customer', 'stg_shop__orders', 1)"
    )
    _has_run(warehouse, "r1", "success")
    judge_layer("marts", "r1", [DIM], expectations=tmp_path / "none.yml").require()
    assert _results(warehouse, "model_is_not_empty")[0][:2] == ("warn", "warn")

    warehouse.execute("update ops.model_run set rows_inserted = 5")
    with pytest.raises(
        GateFailed, match=r"model_is_not_empty on marts\.dim_customer: fail; .*stg_shop__orders has rows"
    ):
        judge_layer("marts", "r1", [DIM], expectations=tmp_path / "none.yml").require()

    warehouse.execute("create or replace view staging.stg_shop__orders as select 1 as order_id where false")
    judge_layer("marts", "r1", [DIM], expectations=tmp_path / "none.yml").require()
