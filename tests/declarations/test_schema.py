"""The published JSON Schema, applied as an editor does, agrees with the model; the reference names every field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from sluice.declarations import Source, load_folder
from sluice.declarations.load import tree_of
from sluice.declarations.schema import reference_text, schema, schema_text

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "include/sources").glob("*.yml"))
VALIDATOR = Draft202012Validator(schema())


def _agrees(tree: object) -> bool:
    """Whether the model and the schema are of one mind; returns what it is."""
    try:
        Source.model_validate(tree)
        model = True
    except ValidationError:
        model = False
    assert VALIDATOR.is_valid(tree) is model, "the schema and the model do not agree"
    return model


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_declaration_is_valid_by_the_schema_and_names_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _agrees(tree_of(text))
    named = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / "docs/reference/source.schema.json"


def test_there_are_declarations() -> None:
    assert len(SOURCES) >= 2
    assert not load_folder(ROOT / "include/sources").faults


FAULTS = {
    "an unknown field": ("owner: o", "owner: o\nownr: o"),
    "an unknown field of a column": ("{type: bigint}", "{type: bigint, requird: true}"),
    "a field is missing": ("owner: o\n", ""),
    "a wrong type": ("key: [id]", "key: 5"),
    "a text where figures belong": ("mode: full", "mode: full\n    max_reject_share: high"),
    "a share above one": ("mode: full", "mode: full\n    max_reject_share: 1.5"),
    "an unknown mode": ("mode: full", "mode: fulll"),
    "an unknown format": ("path: a.csv", "path: a.csv, format: xls"),
    "an option that is too small": ("path: a.csv", "path: a.csv, format: {type: csv, skip_lines: -1}"),
    "a source's name": ("source: x", "source: X-y"),
    "a table's name": ("  t:", "  T:"),
    "a column's name": ("      id:", "      9id:"),
    "an unknown type": ("bigint", "bignt"),
    "a type with digits where none go": ("bigint", '"bigint(3)"'),
    "a length of time": ("owner: o", "owner: o\nwait: 5 minutes"),
    "no column": ("      id: {type: bigint}", "      {}"),
    "no key": ("key: [id]", "key: []"),
    "a day that is none": ("owner: o", "owner: o\nstart: soon"),
}
GOOD = """\
source: x
description: d
owner: o
tables:
  t:
    description: d
    from: {files: {connection: drop, path: a.csv}}
    mode: full
    key: [id]
    columns:
      id: {type: bigint}
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_model_refuses_by_structure_the_schema_refuses_too(fault: str) -> None:
    assert _agrees(tree_of(GOOD))
    before, after = FAULTS[fault]
    assert before in GOOD
    if fault == "a day that is none":  # jsonschema checks formats only when asked to, as editors do
        assert not Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER).is_valid(
            tree_of(GOOD.replace(before, after))
        )
        return
    assert not _agrees(tree_of(GOOD.replace(before, after)))


def test_every_field_has_a_description() -> None:
    parts = {"Source": schema(), **schema()["$defs"]}
    missing = [
        f"{name}.{field}"
        for name, part in parts.items()
        for field, info in part.get("properties", {}).items()
        if not info.get("description") and "const" not in info
    ]
    assert not missing


def test_the_published_schema_and_reference_are_those_of_the_model() -> None:
    assert (ROOT / "docs/reference/source.schema.json").read_text(encoding="utf-8") == schema_text()
    assert (ROOT / "docs/reference/declarations.md").read_text(encoding="utf-8") == reference_text()


def test_the_reference_names_every_field_and_leads_nowhere_else() -> None:
    text = reference_text()
    for part in [schema(), *schema()["$defs"].values()]:
        for field in part.get("properties", {}):
            assert f"| `{field}` |" in text
    for link in {piece.split(")")[0] for piece in text.split("](#")[1:]}:
        assert f'<a id="{link}"></a>' in text
    assert json.loads(schema_text())["$schema"]
