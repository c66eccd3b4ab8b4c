"""Faults in the declaration of files, each named where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sluice.declarations import DeclarationError, load_file
from sluice.declarations.files import Files

HEAD = "source: x\ndescription: d\nowner: o\ntables:\n  t:\n    description: d\n    from:\n      files:\n"
TAIL = "    mode: append\n    key: [id]\n    columns: {id: {type: text}}\n"
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/read-files.md"


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ('format: {type: csv, delimiter: ";;"}', "format.delimiter", "at most 1 character"),
        ("format: {type: csv, delimter: tab}", "format.delimter", "is not a field here"),
        ("format: {type: csv, quote: null, escape: x}", "format.escape", "there is no quote"),
        ("format: {type: csv, encoding: utf-9}", "format.encoding", "utf-9 is not the name of a text encoding"),
        ("format: cvs", "format", "a format's type is one of csv, jsonl"),
        ('format: {delimiter: ";"}', "format", "a format's type is one of csv, jsonl"),
        ("format: fixed", "format.fields", "is required"),
        ('path: "{hour}.csv"', "path", "an hour needs a date"),
        ('path: "{date:%Q}.csv"', "path", "%Q in {date:%Q}"),
        ("done: x.done", "done", "a marker is named after its file with {path}, {stem} or {folder}"),
        ("compression: rar", "compression", "'zip'"),
        ("max_unpacked: 5 apples", "max_unpacked", "such as 500MB"),
        ('manifest: {path: "{z}.json"}', "manifest.path", "manifest.path has {z}"),
    ],
)
def test_a_fault_is_named_by_file_line_and_field(tmp_path: Path, given: str, field: str, said: str) -> None:
    parts = {"connection": "connection: c", "path": "path: a.csv"}
    parts[given.split(":")[0]] = given
    (tmp_path / "x.yml").write_text(HEAD + "".join(f"        {part}\n" for part in parts.values()) + TAIL)
    with pytest.raises(DeclarationError) as error:
        load_file(tmp_path / "x.yml")
    (fault,) = error.value.faults
    assert fault.field == f"tables.t.from.files.{field}"
    assert fault.line == HEAD.count("\n") + list(parts.values()).index(given) + 1
    assert said in fault.message


def test_every_format_on_the_page_can_be_declared() -> None:
    shown = re.findall(r"`(\{type: [^`]*\})`", PAGE.read_text())
    assert len(shown) >= 6
    for text in shown:
        Files.model_validate({"connection": "c", "path": "x", "format": YAML(typ="safe").load(text)})
