"""Read declarations from YAML. A broken file breaks only itself, and every fault names file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sluice.declarations.base import NAME
from sluice.declarations.hints import did_you_mean
from sluice.declarations.model import Source, undeclared

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a declaration."""

    file: str
    line: int
    field: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        warning = "warning: " if self.severity == "warning" else ""
        return f"{self.file}:{self.line}: {warning}{self.field}: {self.message}"


_MEANING = {
    "missing": "is required",
    "string_type": "must be text; put figures in quotes",
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must hold fields of its own, each on a line below it",
    "model_type": "must hold fields of its own, each on a line below it",
    "too_short": "must not be empty",
    "date_from_datetime_parsing": "must be a day that there is, such as 2026-01-31",
    "string_pattern_mismatch": "a name is lower-case letters, figures and _, begins with a letter and has at most 48 "
    "characters",
}
_LONGEST_LOG = 58  # characters; the longest name made from it is that of a snapshot, and Postgres cuts names at 63


class DeclarationError(Exception):
    """A declaration that can't be used. Its text lists every fault, one a line."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


@dataclass
class Declarations:
    """What a folder of declarations holds: the sources that can be used, and the faults of those that can't. A
    reference to what no file declares is a fault, too, and its source can be used: a load says that it can't check."""

    sources: dict[str, Source] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def left_out(self) -> list[Fault]:
        """The faults by which a file is left out."""
        used = set(map(str, self.paths.values()))
        return [fault for fault in self.faults if fault.file not in used]


def load_folder(folder: Path) -> Declarations:
    """Read every `*.yml` and `*.yaml` in `folder`, in the order of their names."""
    found = Declarations()
    broken = []
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")]):
        try:
            source = load_file(path)
        except DeclarationError as error:
            found.faults.extend(error.faults)
            broken.append(path)
            continue
        if faults := _beside(source, path, found):
            found.faults.extend(faults)
            broken.append(path)
            continue
        found.sources[source.source] = source
        found.paths[source.source] = path
    found.faults.extend(_lost_references(found, broken))
    return found


def _lost_references(found: Declarations, broken: list[Path]) -> Iterator[Fault]:
    """References between sources that lead nowhere; not those into a file that has faults of its own."""
    unknown = {name for path in broken for name in (path.stem, _source_of(path))}
    for source in found.sources.values():
        for table in source.tables.values():
            for name, column in table.columns.items():
                if column.references is None or column.references.table.partition(".")[0] in (source.source, *unknown):
                    continue  # those within a source were judged with it
                if problem := column.references.problem(found.sources):
                    where = ["tables", table.name, "columns", name, "references"]
                    path = found.paths[source.source]
                    yield Fault(str(path), line_of(path, where), ".".join(where), problem)


def _source_of(path: Path) -> str:
    """Of which source a file with faults is, where that can be seen."""
    try:
        said = re.search(rb"^source: *['\"]?(\w+)", path.read_bytes(), re.MULTILINE)
    except OSError:
        return path.stem
    return said[1].decode() if said else path.stem


def _beside(source: Source, path: Path, found: Declarations) -> list[Fault]:
    """What is wrong with a source only because of those that are there already."""
    if source.source in found.sources:
        first = found.paths[source.source].name
        message = f"{source.source} is already declared in {first}; this file is left out"
        return [Fault(str(path), line_of(path, ["source"]), "source", message)]
    logs = {table.log_name: other for other in found.sources.values() for table in other.tables.values()}
    return [
        Fault(
            str(path),
            line_of(path, ["tables", table.name]),
            f"tables.{table.name}",
            f"its change log {table.log_name} is also that of a table of {logs[table.log_name].source} in "
            f"{found.paths[logs[table.log_name].source].name}; this file is left out",
        )
        for table in source.tables.values()
        if table.log_name in logs
    ]


def line_of(path: Path, names: Sequence[str]) -> int:
    """The line of a field in a file that can be read; 1 where there is none."""
    line = 1
    try:
        tree = tree_with_lines(path.read_text(encoding="utf-8"))
    except Exception:  # it says where a fault is, and must be none itself
        return line
    for name in names:
        if not isinstance(tree, dict) or name not in tree:
            break
        line, tree = tree.lc.key(name)[0] + 1, tree[name]
    return line


def load_file(path: Path) -> Source:
    """Read one declaration, or raise `DeclarationError` with every fault in it, and nothing else: whatever a file holds
    must not keep the others from being read."""
    try:
        source = _load_unchanged(path, path.stat().st_mtime_ns)
    except Exception:  # a constructor of YAML raises whatever Python raises: KeyError, OverflowError, binascii.Error
        try:
            source = read_as(path, Source, "source", "one source")
        except DeclarationError:
            raise
        except Exception as error:
            message = f"can't be used ({type(error).__name__}: {str(error)[:200]}); the file is left out"
            raise DeclarationError([Fault(str(path), 1, "file", message)]) from None
    if long := [table for table in source.tables.values() if len(table.log_name) > _LONGEST_LOG]:
        message = (
            f"the change log's name {{}} is longer than {_LONGEST_LOG} characters; shorten the source or the table"
        )
        raise DeclarationError(
            [
                Fault(str(path), line_of(path, ["tables", t.name]), f"tables.{t.name}", message.format(t.log_name))
                for t in long
            ]
        )
    return source


@lru_cache(maxsize=1024)
def _load_unchanged(path: Path, changed: int) -> Source:
    """The quick way, for a file without faults; every step of every batch asks for its declaration."""
    return Source.model_validate(tree_of(path.read_text(encoding="utf-8")))


def tree_of(text: str) -> Any:
    """YAML as plain values, as a declaration is read: dates stay text."""
    return yaml.load(text, Loader=_Loader)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML without its reading of yes, no, on and off as booleans: YAML 1.2, as ruamel reads it.

    A key that stands twice is a fault; PyYAML itself would silently take the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len({str(key) for key in keys}) < len(keys):
            raise yaml.constructor.ConstructorError("a key stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _NoValue(ConstructorError):
    """A value that is none of the type that its tag asks for."""


class _Constructor(RoundTripConstructor):
    """ruamel's, with dates left as text, as above, and with a place for whatever can't be made a value."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (YAMLError, RecursionError):
            raise
        except Exception:
            kind = str(node.tag).rpartition(":")[2].lstrip("!")
            shown = repr(node.value) if isinstance(node.value, str) else "what stands here"
            message = f"{shown[:80]} is no {kind}, as which it is tagged or written; correct it or take the tag out"
            raise _NoValue(None, None, message, node.start_mark) from None


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_yaml_str)


def _yaml() -> YAML:
    found = YAML(typ="rt")
    found.Constructor = _Constructor
    return found


def tree_with_lines(text: str) -> Any:
    """YAML that knows the line of each field; dates stay text. What it raises for a value that is none of its type is
    a `MarkedYAMLError` too, whose place says the line."""
    return _yaml().load(text)


def _field_at(text: str, mark: Any) -> str:
    """The dotted name of the field whose value begins at a mark; yaml where there is none."""

    def names(node: Any) -> list[str] | None:
        if (node.start_mark.line, node.start_mark.column) == (mark.line, mark.column):
            return []
        parts = node.value if isinstance(node.value, list) else []
        for number, part in enumerate(parts):
            key, value = part if isinstance(part, tuple) else (None, part)
            if (found := names(value)) is not None:
                return [str(number) if key is None else str(key.value), *found]
        return None

    return ".".join(names(_yaml().compose(text)) or []) or "yaml"


def read_as(path: Path, model: type[M], name: str, what: str) -> M:
    """Read a file as `model`, the slow way, which knows the line of every field. `name` stands for the file as a whole,
    `what` says what it must hold. Raises `DeclarationError` with every fault."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = tree_with_lines(text)
    except _NoValue as error:
        field_name = _field_at(text, error.problem_mark)
        told = Fault(str(path), error.problem_mark.line + 1, field_name, str(error.problem))
        raise DeclarationError([told]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DeclarationError([Fault(str(path), mark.line + 1 if mark else 1, "yaml", _yaml_problem(error))]) from None
    except YAMLError as error:
        raise DeclarationError([Fault(str(path), 1, "yaml", str(error).splitlines()[0])]) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        message = f"is not UTF-8 (byte {error.object[error.start]:#04x}); save it as UTF-8"
        raise DeclarationError([Fault(str(path), line, "file", message)]) from None
    except OSError as error:
        raise DeclarationError([Fault(str(path), 1, "file", f"can't be read: {error.strerror}")]) from None
    except RecursionError:
        raise DeclarationError([Fault(str(path), 1, "yaml", "is nested too deeply, or contains itself")]) from None
    if tree is None:
        raise DeclarationError([Fault(str(path), 1, "file", f"is empty; it must hold the fields of {what}")])
    if not isinstance(tree, dict):
        raise DeclarationError([Fault(str(path), 1, name, f"the file must hold the fields of {what}")])
    try:
        return model.model_validate(plain(tree))
    except ValidationError as error:
        # a rule over several fields may say several faults, a line each
        said = [item | {"msg": message} for item in error.errors() for message in item["msg"].splitlines()]
        said += _names_of_no_column(tree) if model is Source else []
        raise DeclarationError(list(dict.fromkeys(fault(path, tree, item, model) for item in said))) from None
    except RecursionError:
        raise DeclarationError([Fault(str(path), 1, "yaml", "contains itself")]) from None


def _names_of_no_column(tree: Any) -> list[dict[str, Any]]:
    """What can be said at once of a table that has other faults: pydantic asks the rules over several fields only where
    each field by itself is in order."""
    tables = tree.get("tables")
    return [
        {"loc": ("tables", name), "msg": message, "type": "value_error"}
        for name, table in (tables.items() if isinstance(tables, dict) else ())
        if isinstance(table, dict) and isinstance(table.get("columns"), dict)
        for message in undeclared(table, {name for c in map(str, table["columns"]) for name in (c, c.lower())})
    ]


def _yaml_problem(error: MarkedYAMLError) -> str:
    """ruamel's problem in one line, and what people mean when they meet it."""
    problem = str(error.problem).splitlines()[0]
    if "'\\t'" in problem:
        return "a tab where YAML wants spaces"
    if problem.startswith("found duplicate key"):
        return problem.split(" with value")[0].replace("found duplicate key", "this key stands twice:")
    if "another document" in problem:
        return "a second document begins here (---); a file holds one source"
    if "mapping values are not allowed" in problem:
        return f"{problem}: a colon followed by a space belongs in quotes, and fields of one level below each other"
    return problem


def plain(node: Any) -> Any:
    """The same tree without ruamel's own classes, which pydantic need not know."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node


def fault(path: Path, tree: Any, error: Any, model: type[BaseModel]) -> Fault:
    """Where in the file a validation error is, and what it says in words. `model` is what the file was read as."""
    line, node, names = tree.lc.line + 1, tree, []
    for part in error["loc"]:
        if part == "[key]" or part == (node.get("type") if isinstance(node, dict) else node):
            continue  # pydantic's own word: a key, or which of several kinds a part is
        names.append(str(part))
        try:
            if isinstance(node, dict) and part in node:
                line, node = node.lc.key(part)[0] + 1, node[part]
            elif isinstance(node, list):
                line, node = node.lc.item(part)[0] + 1, node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            pass
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(error["loc"], model)
        left_out = " The file is left out until it is corrected" if model is Source else ""
        message = f"is not a field here; {hint or 'remove it.'}{left_out}"
    elif error["type"] in _MEANING and error.get("ctx", {}).get("pattern", NAME) == NAME:
        message = _MEANING[error["type"]]
    named = message.split(maxsplit=1)[0].rstrip(":").split(".")
    if error["type"] == "value_error" and isinstance(node, dict) and named[0] in node:  # a rule over several fields
        for part in named:
            if isinstance(node, dict) and part in node:
                line, node = node.lc.key(part)[0] + 1, node[part]
                names.append(part)
        message = message.removeprefix(f"{'.'.join(named)}: ")
    return Fault(str(path), line, ".".join(names) or "source", message)
