"""Faults of `include/expectations` and `include/layers.yml`: each said by `sluice validate` with file, line and field,
and at the gate itself an error, which blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice import settings
from sluice.cli import app
from sluice.gates import judge_layer

GOOD = """\
tables:
  marts.dim_date:
    key: [date_key]
    expect:
      - {type: expect_column_values_to_be_unique, column: date_key, severity: block}
reconcile:
  - name: orders_agree
    on: marts.fct_order
    severity: block
    left: {query: select 1}
    right: {query: select 1}
"""
FIRST = "tables.marts.dim_date.expect.0"
UNIQUE = "expect_column_values_to_be_unique"
FAULTS = [
    ("be_unique", "be_uniqe", 5, f"{FIRST}.type: type expect_column_values_to_be_uniqe is no expectation of Great"
     f" Expectations; did you mean {UNIQUE}?"),
    ("column:", "colum:", 5, f"{FIRST}.colum: colum is no argument of {UNIQUE}; did you mean column?"),
    (", column: date_key", "", 5, f"{FIRST}.type: type {UNIQUE} needs column"),
    (f"type: {UNIQUE}, ", "", 5, f"{FIRST}.type: is required"),
    ("severity: block}", "severity: blok}", 5, f"{FIRST}.severity: Input should be"),
    ("\n      - {type: expect_column_values_to_be_unique, column: date_key, severity: block}", " []", 4,
     "tables.marts.dim_date.expect: expect is empty"),
    ("key: [", "keys: [", 3, "tables.marts.dim_date.keys: is not a field here; did you mean key?"),
    ("key: [date_key]", "key: [date_key, email]", 3, "tables.marts.dim_date.key: email is marked personal"),
    ("marts.dim_date", "dim_date", 2, "tables.dim_date: dim_date does not name a table with its schema"),
    ("reconcile:", "reconcil:", 6, "reconcil: is not a field here; did you mean reconcile?"),
    ("right:", "rigth:", 11, "reconcile.0.rigth: is not a field here; did you mean right?"),
    ("left: {query: select 1}", "left: {}", 10, "reconcile.0.left.query: is required"),
    ("left: {query: select 1}", "left: select 1", 10, "reconcile.0.left: must hold fields of its own"),
    ("left: {query: select 1}", "left: {query: [1]}", 10, "reconcile.0.left.query: must be text"),
    ("    severity: block\n", "    severity: block\n    tolerance: 2\n", 10, "reconcile.0.tolerance: Input"),
    ("  - name: orders_agree", "  - name: [", 9, "yaml: "),
    ("reconcile:\n", "reconcile:\n\tx: 1\n", 7, "yaml: a tab where YAML wants spaces"),
    ("reconcile:\n  - name", "reconcile:\n    name", 6, "reconcile: must be a list"),
    (GOOD, "", 1, "file: is empty; it must hold the fields of a layer's expectations"),
    (GOOD, "- x\n", 1, "expectations: the file must hold the fields of a layer's expectations"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_EXPECTATIONS_DIR", str(tmp_path))
    return tmp_path


def validate(code: int) -> str:
    done = CliRunner().invoke(app, ["validate"])
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


@pytest.mark.parametrize(("old", "new", "line", "said"), FAULTS, ids=lambda value: str(value)[:30].strip())
def test_a_fault_of_a_layers_expectations_is_said_with_file_line_and_field(folder, old, new, line, said):
    assert old in GOOD
    path = folder / "marts.yml"
    path.write_text(GOOD.replace(old, new, 1))
    assert f"{path}:{line}: {said}" in validate(1)


def test_a_fault_of_one_layers_file_is_an_error_at_its_gate_which_blocks(folder, warehouse):
    path = folder / "marts.yml"
    path.write_text(GOOD.replace("right:", "rigth:"))
    found = [check for check in judge_layer("marts", "r1", []).blocking if check.name == "expectations_are_readable"]
    assert [check.outcome for check in found] == ["error"]
    assert f"{path}:11: reconcile.0.rigth: is not a field here" in str(found[0].message)
    assert warehouse.execute(
        "select verdict, severity from ops.gate_result where check_name = 'expectations_are_readable'"
    ).fetchall() == [("error", "block")]


def test_a_key_may_not_be_a_column_that_its_models_yaml_marks_as_personal_nor_one_of_its_log(folder, monkeypatch):
    models = folder / "home/dbt_project/models/marts"
    models.mkdir(parents=True)
    (models / "dim_date.yml").write_text(
        "models:\n  - name: dim_date\n    columns:\n      - name: date_key\n        config: {meta: {personal: true}}\n"
    )
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(settings.sources_dir()))
    monkeypatch.setenv("SLUICE_HOME", str(folder / "home"))
    path = folder / "marts.yml"
    path.write_text(GOOD)
    assert f"{path}:3: tables.marts.dim_date.key: date_key is marked personal" in validate(1)
    path.write_text(GOOD.replace("dim_date", "dim_customer"))
    validate(0)
    path.unlink()
    # the events' log marks customer_id, that of the orders does not
    path = folder / "staging.yml"
    path.write_text(GOOD.replace("marts.dim_date", "staging.shop__clickstream").replace("date_key", "customer_id"))
    assert f"{path}:3: tables.staging.shop__clickstream.key: customer_id is marked personal" in validate(1)
    path.write_text(GOOD.replace("marts.dim_date", "staging.shop__orders").replace("date_key", "customer_id"))
    validate(0)


def test_good_files_have_no_fault_and_one_that_no_gate_reads_is_one(folder, monkeypatch):
    (folder / "marts.yml").write_text(GOOD)
    validate(0)
    (folder / "mart.yml").write_text(GOOD)
    assert f"{folder / 'mart.yml'}:1: file: is read by no gate; those read staging.yml" in validate(1)


def test_a_fault_of_the_layers_promises_is_said_too(folder, monkeypatch):
    path = folder / "layers.yaml.txt"
    path.write_text("owner: warehouse\nmarts:\n  deadlin: 2h\n")
    monkeypatch.setenv("SLUICE_LAYERS", str(path))
    assert f"{path}:3: marts.deadlin: is not a field here; did you mean deadline?" in validate(1)
