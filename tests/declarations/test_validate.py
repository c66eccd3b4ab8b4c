"""`sluice validate` against every way in which a declaration goes wrong: all faults at once, each at its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice.cli import app
from sluice.declarations import load_folder

GOOD = """\
source: {name}
description: d
owner: o
tables:
  t:
    description: d
    from: {{files: {{connection: drop, path: a.csv}}}}
    mode: full
    key: [id]
    columns:
      id: {{type: bigint}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Declarations, of which one is good."""
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_DROP", "file:///tmp")
    _write(tmp_path, "a_good", GOOD.format(name="a_good"))
    return tmp_path


def _write(folder: Path, name: str, text: str | bytes) -> None:
    (folder / f"{name}.yml").write_bytes(text.encode() if isinstance(text, str) else text)


def _validate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["validate", *arguments])


BROKEN = [
    ("a list that never ends", lambda t: t + "x: [1\n", 13, "yaml"),
    ("a column twice", lambda t: t + "      id: {type: text}\n", 12, "yaml: this key stands twice"),
    ("a field twice", lambda t: t + "owner: x\n", 12, "yaml: this key stands twice"),
    ("a tab", lambda t: t + "\tx: 1\n", 12, "yaml: a tab"),
    ("a second document", lambda t: t + "---\nsource: z\n", 12, "yaml: a second document"),
    ("a NUL byte", lambda t: t + "\0", 1, "yaml: unacceptable character"),
    ("itself inside itself", lambda t: t + "tags: &a [*a]\n", 12, "tags.0"),
    ("an object of Python's", lambda t: t.replace("owner: o", "owner: !!python/object:os.system x"), 3, "owner"),
    ("nothing", lambda t: "", 1, "file: is empty"),
    ("a list", lambda t: "- a\n", 1, "source: the file must hold"),
    ("latin-1", lambda t: t.replace("owner: o", "owner: é").encode("latin-1"), 3, "file: is not UTF-8"),
    ("a number for a list", lambda t: t.replace("[id]", "5"), 9, "tables.t.key: must be a list"),
    ("a list for a text", lambda t: t.replace("owner: o", "owner: [o]"), 3, "owner: must be text"),
    ("no value", lambda t: t.replace("mode: full", "mode:"), 8, "tables.t.mode"),
    (
        "a misspelt field",
        lambda t: t + "    frehsness: 2d\n",
        12,
        "tables.t.frehsness: is not a field here; did you mean freshness?",
    ),
    (
        "a misspelt option of a format",
        lambda t: t.replace("path: a.csv", "path: a.csv, format: {type: csv, delimeter: ;}"),
        7,
        "tables.t.from.files.format.delimeter: is not a field here; did you mean delimiter? The file is left out until",
    ),
    ("a misspelt severity", lambda t: t.replace("bigint}", "bigint, severity: {acepted: warn}}"), 11, "mean accepted?"),
    (
        "a reference to a column that its source has not",
        lambda t: t.replace("bigint}", "bigint, references: {table: bad.t, column: idd}}"),
        11,
        "tables.t.columns.id.references: bad.t has no column idd; did you mean id?",
    ),
    ("a misspelt field of a column", lambda t: t.replace("type", "tpye"), 11, "did you mean type?"),
    ("a key that is no column", lambda t: t.replace("[id]", "[no]"), 9, "tables.t.key: key names the column no"),
    ("a key twice", lambda t: t.replace("[id]", "[id, id]"), 9, "tables.t.key: key names a column twice"),
    ("cron", lambda t: t + 'schedule: "61 * * * *"\n', 12, "schedule: '61 * * * *' is no cron expression"),
    ("cron with seconds", lambda t: t + 'schedule: "1 1 * * * *"\n', 12, "schedule"),
    ("digits without end", lambda t: t.replace("bigint", '"numeric(2000,1)"'), 11, "tables.t.columns.id.type"),
    ("a day that is not there", lambda t: t + "start: 2026-02-30\n", 12, "start: must be a day that there is"),
    (
        "an hour that is not there",
        lambda t: t + "start: 2026-01-01T25:61:00\n",
        12,
        "start: must be a day that there is",
    ),
    ("a whole number that is none", lambda t: t + "start: !!int abc\n", 12, "start: 'abc' is no int"),
    ("a truth that is none", lambda t: t.replace("owner: o", "owner: !!bool maybe"), 3, "owner: 'maybe' is no bool"),
    (
        "a number that is none, deep inside",
        lambda t: t.replace("bigint}", "bigint, minimum: !!float xx}"),
        11,
        "tables.t.columns.id.minimum: 'xx' is no float",
    ),
    ("a time without end", lambda t: t + "deadline: 9999999999999w\n", 12, "deadline: 9999999999999w is longer"),
    (
        "a pattern that only Python reads",
        lambda t: t.replace("bigint}", 'text, pattern: "(?P<x>a+)"}'),
        11,
        "tables.t.columns.id.pattern: pattern can't be used: a group with a name",
    ),
    ("no key", lambda t: t.replace("[id]", "[]"), 9, "tables.t.key: must not be empty"),
    ("a name that is none", lambda t: t.replace("  t:", "  T-1:"), 5, "tables.T-1: a name is lower-case letters"),
    (
        "a name with NUL",
        lambda t: t.replace("bigint}", 'text, field: "a\\0"}'),
        11,
        "field: a name can't be empty, nor hold a NUL",
    ),
    (
        "more columns than a log can have",
        lambda t: t + "".join(f"      c{n}: {{type: text}}\n" for n in range(1580)),
        10,
        "columns: 1581 are declared, and a log has room for 1580",
    ),
    ("a name too long", lambda t: t.replace("  t:", f"  {'t' * 40}:").replace("bad", "b" * 40), 5, "is longer than 58"),
]


@pytest.mark.parametrize(("what", "spoil", "line", "said"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_fault_is_named_with_file_and_line_and_leaves_the_other_files_alive(
    what, spoil, line, said, folder: Path
) -> None:
    _write(folder, "bad", spoil(GOOD.format(name="bad")))
    done = _validate()
    assert done.exit_code == 1
    assert any(text.startswith(f"{folder}/bad.yml:{line}: ") and said in text for text in done.output.splitlines()), (
        done.output
    )
    assert "1 sources with 1 tables can be used" in done.output


def test_all_faults_of_a_table_are_said_at_once(folder: Path) -> None:
    _write(
        folder,
        "bad",
        GOOD.format(name="bad").replace("[id]", "[no, no]") + "    sequence: nowhere\n    cursor: {column: gone}\n",
    )
    said = _validate().output
    for fault in (
        "key: key names the column no",
        "key: key names a column twice",
        "sequence: sequence names the column nowhere",
        "cursor.column: cursor.column names the column gone",
        "cursor belong together",
    ):
        assert fault in said, said


def test_a_name_that_is_no_column_is_said_together_with_faults_of_fields(folder: Path) -> None:
    text = GOOD.format(name="bad").replace("[id]", "[nope]").replace("bigint}", "bigintt}") + "    sequence: id\n"
    _write(folder, "bad", text)
    said = [line for line in _validate().output.splitlines() if "/bad.yml:" in line]
    assert [line.split(": ")[0:2] for line in said] == [
        [f"{folder}/bad.yml:11", "tables.t.columns.id.type"],
        [f"{folder}/bad.yml:9", "tables.t.key"],
    ]
    assert "names the column nope, which is not declared" in said[1]


def test_a_reference_that_leads_nowhere_is_a_fault_at_its_place_and_takes_no_source_away(folder: Path) -> None:
    def refers(name: str, table: str, column: str) -> None:
        reference = f"      r:\n        type: bigint\n        references: {{table: {table}, column: {column}}}\n"
        _write(folder, name, GOOD.format(name=name) + reference)

    refers("b", "nowhere.t", "id")
    refers("c", "a_good.tt", "id")
    refers("d", "a_good.t", "idd")
    refers("e", "b.t", "r")
    refers("f", "a_good.t", "id")
    refers("g", "broken.t", "id")
    refers("h", "also_broken.t", "id")
    _write(folder, "broken", GOOD.format(name="broken").replace("bigint", "bigintt"))
    _write(folder, "x", GOOD.format(name="also_broken").replace("mode: full", "mode: [full"))
    done = _validate()
    faults = [line for line in done.output.splitlines() if "references: " in line]
    assert faults == [
        f"{folder}/b.yml:14: tables.t.columns.r.references: there is no source nowhere",
        f"{folder}/c.yml:14: tables.t.columns.r.references: a_good has no table tt; did you mean t?",
        f"{folder}/d.yml:14: tables.t.columns.r.references: a_good.t has no column idd; did you mean id?",
        f"{folder}/e.yml:14: tables.t.columns.r.references: r is not the key of b.t",
    ]
    assert done.exit_code == 1
    assert "8 sources with 8 tables can be used; 6 faults" in done.output


TAGS = ["int", "float", "bool", "null", "timestamp", "binary", "str", "seq", "map", "set", "omap", "pairs", "nonsense"]
ODD = ["abc", "''", "[1]", "{[a]: 1}", "0o9", "1:2:x", "2026-02-30", "9" * 5000, "'@@@'"]


@pytest.mark.parametrize("tag", TAGS)
def test_no_value_under_any_tag_keeps_the_other_files_from_being_read(tag: str, folder: Path) -> None:
    for number, value in enumerate(ODD):
        _write(folder, f"b{number}", GOOD.format(name=f"b{number}").replace("owner: o", f"owner: !!{tag} {value}"))
        text = GOOD.format(name=f"c{number}").replace("owner: o", f"owner: o\n? !!{tag} {value}\n: x")  # as a name
        _write(folder, f"c{number}", text)
    found = load_folder(folder)
    assert "a_good" in found.sources
    assert all(fault.line and fault.field and fault.message for fault in found.faults)
    every = {"a_good", *(f"{letter}{number}" for letter in "bc" for number in range(len(ODD)))}
    assert {Path(fault.file).stem for fault in found.faults} | set(found.sources) == every


def test_a_text_that_looks_like_a_day_stays_a_text_where_lines_are_asked_for_too(folder: Path) -> None:
    for name in ("b", "c"):
        _write(folder, name, GOOD.format(name="b").replace("description: d", "description: 2026-02-30", 1))
    found = load_folder(folder)
    assert found.sources["b"].description == "2026-02-30"
    assert [fault.line for fault in found.faults] == [1]


def test_several_broken_files_are_said_at_once(folder: Path) -> None:
    for name, (_, spoil, _, _) in zip("bcdef", BROKEN, strict=False):
        _write(folder, name, spoil(GOOD.format(name=name)))
    os.symlink("/nonexistent", folder / "y.yml")
    (folder / "z.yml").mkdir()
    output = _validate().output
    assert [name for name in "bcdefyz" if f"{folder}/{name}.yml:" in output] == list("bcdefyz")


def test_two_files_of_one_source_and_two_tables_of_one_log_are_faults_of_the_later(folder: Path) -> None:
    _write(folder, "b", GOOD.format(name="a_good"))
    _write(folder, "c", GOOD.format(name="h").replace("  t:", "  x__y:"))
    _write(folder, "d", GOOD.format(name="h__x").replace("  t:", "  y:"))
    output = _validate().output
    assert f"{folder}/b.yml:1: source: a_good is already declared in a_good.yml" in output
    assert f"{folder}/d.yml:5: tables.y: its change log h__x__y is also that of a table of h in c.yml" in output


def test_an_unknown_connection_is_a_warning_and_no_fault(folder: Path) -> None:
    _write(folder, "b", GOOD.format(name="b").replace("connection: drop", "connection: nowhere"))
    done = _validate()
    assert done.exit_code == 0
    assert f"{folder}/b.yml:7: warning: connection: the connection nowhere is not set here" in done.output


def test_editors_get_json_and_a_workflow_gets_annotations(folder: Path) -> None:
    _write(folder, "bad", GOOD.format(name="bad").replace("full", "fulll"))
    (fault,) = json.loads(_validate("--format", "json").output)["faults"]
    assert (fault["file"], fault["line"], fault["field"], fault["severity"]) == (
        f"{folder}/bad.yml",
        8,
        "tables.t.mode",
        "error",
    )
    assert f"::error file={folder}/bad.yml,line=8,title=tables.t.mode::" in _validate("--format", "github").output


def test_no_declaration_at_all_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path))
    assert _validate().exit_code == 1
