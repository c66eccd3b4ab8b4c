"""Read declarations from YAML. A broken file breaks only itself, and every fault names file, line and field."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from sluice.declarations.model import Source


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a declaration."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.message}"


class DeclarationError(Exception):
    """A declaration that can't be used. Its text lists every fault, one a line."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


@dataclass
class Declarations:
    """What a folder of declarations holds: the sources that can be used, and the faults of those that can't."""

    sources: dict[str, Source] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)


def load_folder(folder: Path) -> Declarations:
    """Read every `*.yml` and `*.yaml` in `folder`, in the order of their names."""
    found = Declarations()
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")]):
        try:
            source = load_file(path)
        except DeclarationError as error:
            found.faults.extend(error.faults)
            continue
        if source.source in found.sources:
            first = found.paths[source.source].name
            found.faults.append(
                Fault(str(path), 1, "source", f"{source.source} is already declared in {first}; this file is left out")
            )
            continue
        found.sources[source.source] = source
        found.paths[source.source] = path
    return found


def load_file(path: Path) -> Source:
    """Read one declaration, or raise `DeclarationError` with every fault in it."""
    try:
        return _load_unchanged(path, path.stat().st_mtime_ns)
    except (OSError, yaml.YAMLError, ValidationError):
        return _load_with_lines(path)


@lru_cache(maxsize=1024)
def _load_unchanged(path: Path, changed: int) -> Source:
    """The quick way, for a file without faults; every step of every batch asks for its declaration."""
    return Source.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML without its reading of yes, no, on and off as booleans: YAML 1.2, as ruamel reads it."""


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


def _load_with_lines(path: Path) -> Source:
    """The slow way, which knows the line of every field."""
    try:
        tree = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DeclarationError([Fault(str(path), line, "yaml", str(error.problem))]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError([Fault(str(path), 1, "file", f"can't be read: {error}")]) from None
    if not isinstance(tree, dict):
        raise DeclarationError([Fault(str(path), 1, "source", "the file must hold the fields of one source")])
    try:
        return Source.model_validate(plain(tree))
    except ValidationError as error:
        raise DeclarationError([fault(path, tree, item) for item in error.errors()]) from None


def plain(node: Any) -> Any:
    """The same tree without ruamel's own classes, which pydantic need not know."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node


def fault(path: Path, tree: Any, error: Any) -> Fault:
    """Where in the file a validation error is, and what it says in words."""
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
        message = "is not a field here; the file is left out until it is removed or corrected"
    elif error["type"] == "missing":
        message = "is required"
    return Fault(str(path), line, ".".join(names) or "source", message)
