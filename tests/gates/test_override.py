"""A person lets one run go on: named, with a reason, for that run only, and for ever visible."""

from __future__ import annotations

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.cli import app
from sluice.errors import SluiceError
from sluice.gates import Check, Model, Verdict, judge_layer, override
from sluice.gates.results import record

run = CliRunner().invoke
WIDE = {"COLUMNS": "250"}
DIM = Model("dim_customer", "marts.dim_customer", "marts")


def _blocked(warehouse: psycopg.Connection, run_id: str) -> None:
    record(warehouse, run_id, "marts", [Check("is_whole", "marts.fct_order", "fail", failing_rows=3)])


def test_an_override_lets_its_own_run_go_on_and_no_other(warehouse):
    _blocked(warehouse, "r1")
    given = run(app, ["gate", "override", "is_whole", "--run", "r1", "--by", "ann", "--reason", "known, TICKET-7"])
    assert given.exit_code == 0, given.output
    failing = Check("is_whole", "marts.fct_order", "fail", message="3 orders without lines")

    for run_id, passes in (("r2", False), ("r1", True), ("r1", True)):
        checks = override.applied(warehouse, run_id, "marts", [failing])
        assert Verdict("marts", checks).passed is passes, run_id
    assert "overridden by ann: known, TICKET-7; was: fail, 3 orders without lines" in str(checks[0])

    shown = run(app, ["gate", "show", "--run", "r1"], env=WIDE).output
    assert "overridden: is_whole on marts.fct_order by ann" in shown
    assert "(used): known, TICKET-7" in shown


def test_another_object_and_another_check_still_block(warehouse):
    _blocked(warehouse, "r1")
    override.give(warehouse, "is_whole", by="ann", reason="known", run="r1")
    others = [Check("is_whole", "marts.fct_payment", "fail"), Check("is_new", "marts.fct_order", "fail")]
    assert override.applied(warehouse, "r1", "marts", others) == others


@pytest.mark.parametrize(
    ("check", "options", "said"),
    [
        ("is_whole", {"run": "r2"}, "no check is_whole stopped run r2"),
        ("is_old", {"run": "r1"}, "no check is_old stopped run r1"),
        ("is_whole", {"run": "r1", "reason": " "}, "has a person and a reason"),
        ("is_whole", {}, "name either the run or the batch"),
        ("header", {"run": "r1"}, "header can't be overridden"),
        ("pattern", {"run": "r1"}, "pattern can't be overridden"),
        ("deletes", {"run": "r1"}, "approved for the count that was shown.*sluice batch approve"),
    ],
)
def test_an_override_of_nothing_or_by_nobody_is_refused(warehouse, check, options, said):
    _blocked(warehouse, "r1")
    record(warehouse, "r1", "batch", [Check(name, "shop.orders", "fail") for name in ("header", "pattern", "deletes")])
    with pytest.raises(SluiceError, match=said):
        override.give(warehouse, check, **{"by": "ann", "reason": "known", **options})
    assert warehouse.execute("select count(*) from ops.gate_override").fetchone() == (0,)


def test_a_layer_goes_on_over_an_overridden_check_and_says_so(warehouse, tmp_path):
    warehouse.execute("create table marts.dim_customer (customer_key bigint)")
    judge = lambda: judge_layer("marts", "r1", [DIM], expectations=tmp_path / "none.yml")  # noqa: E731
    assert not judge().passed
    override.give(warehouse, "model_has_a_result", by="ann", reason="built by hand", run="r1")
    assert judge().passed
    assert warehouse.execute(
        "select verdict, severity, message from ops.gate_result where check_name = 'model_has_a_result'"
        " order by gate_result_id desc limit 1"
    ).fetchone() == (
        "warn",
        "warn",
        "overridden by ann: built by hand; was: missing, this run wrote no result for it: its task was skipped, or it"
        " failed",
    )


def test_what_was_judged_again_counts_as_it_was_judged_last_and_an_earlier_run_not_at_all(warehouse):
    _blocked(warehouse, "r1")
    assert run(app, ["gate", "show", "--failed"]).exit_code == 1
    record(warehouse, "r1", "marts", [Check("is_whole", "marts.fct_order", "pass")])
    assert run(app, ["gate", "show", "--run", "r1"]).exit_code == 0
    _blocked(warehouse, "r2")
    record(warehouse, "r3", "marts", [Check("is_whole", "marts.fct_order", "pass")])
    shown = run(app, ["gate", "show", "--failed"])
    assert shown.exit_code == 0
    assert "No check of run r3 matches" in shown.output


def test_what_failed_and_has_not_passed_since_is_shown_though_others_passed_later(warehouse):
    _blocked(warehouse, "r1")
    record(warehouse, "r2", "batch", [Check("contract", "shop.payments", "pass")])
    shown = run(app, ["gate", "show", "--failed"])
    assert shown.exit_code == 1
    assert "Gates of run r1" in shown.output


def test_show_finds_results_by_source_table_model_and_batch(warehouse):
    for thing in ("shop.orders", "marts.fct_order", "staging.shop__orders"):
        record(warehouse, "r1", "some", [Check("c", thing, "fail", "warn", "3", "0", 3, [[7]])])
    for on, found in {
        "shop": {"shop.orders", "staging.shop__orders"},
        "shop.orders": {"shop.orders"},
        "fct_order": {"marts.fct_order"},
        "nothing": set(),
    }.items():
        shown = run(app, ["gate", "show", "--run", "r1", "--on", on], env=WIDE).output
        assert {t for t in ("shop.orders", "marts.fct_order", "staging.shop__orders") if t in shown} == found, on
    line = run(app, ["gate", "show", "--on", "fct_order"], env=WIDE).output
    assert all(word in line for word in ("warn", "[[7]]", "only warns"))


def test_the_checks_of_a_batch_are_shown_with_overrides_of_its_content_and_of_no_other(warehouse):
    for number, content in enumerate("ab", start=1):
        warehouse.execute(
            "insert into ops.batch (source, table_name, unit, state, mode, run_id, content_hash)"
            " values ('shop', 'orders', 'u', 'refused', 'full', %s, %s)",
            [f"r{number}", content],
        )
        who = {"by": f"ann{number}", "reason": "known"}
        override.keep(warehouse, f"r{number}", "batch", "volume", "shop.orders", unit="u", content=content, **who)
    shown = run(app, ["gate", "show", "--batch", "1"], env=WIDE).output
    assert "volume on shop.orders by ann1" in shown
    assert "ann2" not in shown


@pytest.mark.parametrize("run", ["[/red]", "[bold]x"])
def test_a_name_that_looks_like_markup_is_shown_as_it_is(warehouse, run):
    none = CliRunner().invoke(app, ["gate", "show", "--run", run])
    assert (none.exit_code, none.output.strip()) == (0, f"No check of run {run} matches.")
    record(warehouse, run, "marts", [Check(f"[/]{run}", "marts.x", "pass")])
    shown = CliRunner().invoke(app, ["gate", "show", "--run", run])
    assert shown.exit_code == 0
    assert f"[/]{run}" in shown.output
