"""What must hold of a layer as a whole: `include/expectations/<layer>.yml`. How to write one stands at the top of those
files.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sluice import settings
from sluice.declarations.base import Declared, Name
from sluice.declarations.layers import LAYERS
from sluice.declarations.load import DeclarationError, Fault, line_of, load_folder, read_as, tree_of

Severity = Literal["block", "warn"]


def _relation(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", value):
        raise ValueError(f"{value} does not name a table with its schema, such as marts.fct_order")
    return value


Relation = Annotated[str, AfterValidator(_relation)]


class Expect(BaseModel):
    """One sentence about a table: an expectation of Great Expectations, with its own arguments."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    severity: Severity

    @model_validator(mode="after")
    def _is_one(self) -> Expect:
        """Its name and its arguments are those that the installed Great Expectations knows."""
        known = _known()
        if self.type not in known:
            raise ValueError(f"type {self.type} is no expectation of Great Expectations{_meant(self.type, known)}")
        arguments = known[self.type]
        if arguments is not None:
            for name in self.model_extra or {}:
                if name not in arguments["properties"]:
                    raise ValueError(f"{name} is no argument of {self.type}{_meant(name, arguments['properties'])}")
            if missing := [name for name in arguments.get("required", ()) if name not in (self.model_extra or {})]:
                raise ValueError(f"type {self.type} needs {' and '.join(missing)}")
        return self


class TableExpectations(Declared):
    """What is expected of one table, and the columns that a sample of failing rows may show."""

    key: tuple[str, ...] = ()
    expect: tuple[Expect, ...]

    @model_validator(mode="after")
    def _is_a_gate(self) -> TableExpectations:
        if not self.expect:
            raise ValueError("expect is empty; a table without a check is no gate")
        return self


class Side(Declared):
    """One of the two numbers, or rows of numbers."""

    query: str = Field(min_length=1)
    connection: Name | None = None


class Reconciliation(Declared):
    """Two places, and how far apart they may be."""

    name: Name
    left: Side
    right: Side
    tolerance: float = Field(default=0.0, ge=0, lt=1, description="As a share of the larger side")
    severity: Severity
    on: Relation = Field(description="The table or model that is in doubt when they differ")
    when_changed: bool = Field(default=False, description="Only in runs that changed it")


class LayerExpectations(Declared):
    """All that is expected of a layer beside the tests of its models."""

    tables: dict[Relation, TableExpectations] = Field(default_factory=dict)
    reconcile: tuple[Reconciliation, ...] = ()


def expectations_dir() -> Path:
    """Where the files are: `SLUICE_EXPECTATIONS_DIR`, or `include/expectations`."""
    return Path(settings.variable("SLUICE_EXPECTATIONS_DIR") or settings.home() / "include" / "expectations").absolute()


def load_expectations(path: Path) -> LayerExpectations:
    """Read the file of one layer; a layer without one expects nothing more. Raises `DeclarationError` with every
    fault."""
    if not path.is_file():
        return LayerExpectations()
    said = read_as(path, LayerExpectations, "expectations", "a layer's expectations: tables, reconcile")
    if faults := _personal_keys(path, said):
        raise DeclarationError(faults)
    return said


def _personal_keys(path: Path, said: LayerExpectations) -> list[Fault]:
    """Keys that speak of a person: samples of failing rows are kept, with the values of the key."""
    return [
        Fault(
            str(path),
            line_of(path, ["tables", relation, "key"]),
            f"tables.{relation}.key",
            f"{column} is marked personal, and the keys of failing rows are kept in the ledger; name columns that "
            "speak of nobody, or leave key out",
        )
        for relation, table in said.tables.items()
        for column in table.key
        if _is_personal(relation.partition(".")[2], column)
    ]


def _is_personal(table: str, column: str) -> bool:
    """Whether a column of a change log or a model holds what a declaration or the model's YAML marks as personal. A
    model that forgot to mark its copy has it by its name, unless that name is also one of something else."""
    sources = load_folder(settings.sources_dir()).sources.values()
    declared = [each for source in sources for each in source.tables.values() if column in each.columns]
    if logs := [each for each in declared if each.log_name == table]:
        return logs[0].columns[column].personal
    marked = bool(declared) and all(each.columns[column].personal for each in declared)
    return marked or column in _marked_by_dbt(table)


def _marked_by_dbt(model: str) -> set[str]:
    """The columns of a model that its YAML marks. Read from the files: `sluice validate` needs no manifest."""
    found: set[str] = set()
    for path in (settings.home() / "dbt_project").glob("[ms]*/**/*.yml"):  # models, snapshots, seeds
        text = path.read_text(encoding="utf-8")
        if "personal" not in text or model not in text:
            continue
        with suppress(Exception):  # a broken one is dbt's to tell
            tree = tree_of(text)
            for node in [*tree.get("models", ()), *tree.get("snapshots", ()), *tree.get("seeds", ())]:
                if node["name"] == model:
                    found |= {each["name"] for each in node.get("columns", ()) if _meta(each).get("personal")}
    return found


def _meta(column: dict[str, Any]) -> dict[str, Any]:
    return {**(column.get("meta") or {}), **((column.get("config") or {}).get("meta") or {})}


def connections_of_the_gates() -> frozenset[str]:
    """Ids of the connections that reconciliations ask, of every file that can be read."""
    found: set[str] = set()
    for layer in LAYERS:
        with suppress(DeclarationError):  # its gate says so
            for each in load_expectations(expectations_dir() / f"{layer}.yml").reconcile:
                found |= {side.connection for side in (each.left, each.right) if side.connection}
    return frozenset(found)


def faults_of_expectations() -> list[Fault]:
    """Every fault of every file, and files that no layer reads."""
    found: list[Fault] = []
    for path in sorted([*expectations_dir().glob("*.yml"), *expectations_dir().glob("*.yaml")]):
        if path.suffix != ".yml" or path.stem not in LAYERS:
            names = ", ".join(f"{layer}.yml" for layer in LAYERS)
            found.append(Fault(str(path), 1, "file", f"is read by no gate; those read {names}"))
        try:
            load_expectations(path)
        except DeclarationError as error:
            found += error.faults
    return found


@cache
def _known() -> dict[str, dict | None]:
    """The expectations by name, with the schema of their arguments where there is one. Read from the package's own
    files, because importing it takes 5 to 9 s."""
    spec = find_spec("great_expectations")
    assert spec is not None
    assert spec.origin is not None
    core = Path(spec.origin).parent / "expectations" / "core"
    schemas = {path.stem.lower(): path for path in (core / "schemas").glob("*.json")}
    names = [path.stem for path in [*core.glob("expect_*.py"), core / "unexpected_rows_expectation.py"]]
    return {
        name: json.loads(schemas[plain].read_text()) if (plain := name.replace("_", "")) in schemas else None
        for name in names
    }


def _meant(name: str, known: object) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)  # type: ignore[call-overload]
    return f"; did you mean {close[0]}?" if close else ""
