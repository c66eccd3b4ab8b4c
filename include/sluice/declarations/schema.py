"""The model of a declaration as editors and readers see it: a JSON Schema, and a page with every field.

Both are made from the pydantic model alone, so that a field that is added there is in them without a word here.
"""

from __future__ import annotations

import json
import textwrap
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from sluice.declarations.base import DURATION_PATTERN
from sluice.declarations.model import TYPE_PATTERN, Source

_ID = "https://json-schema.org/draft/2020-12/schema"
_DURATION = {"type": "string", "pattern": DURATION_PATTERN}
_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def schema() -> dict[str, Any]:
    """The JSON Schema of a declaration."""
    made = Source.model_json_schema(by_alias=True)
    return {"$schema": _ID, **_refined(made), "title": "A Sluice source"}


def schema_text() -> str:
    """The JSON Schema as it is published."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _refined(node: Any, name: str = "") -> Any:
    """What pydantic checks in functions of ours, said in the schema's own words."""
    if isinstance(node, list):
        return [_refined(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _refined(value, key) for key, value in node.items()}
    if made.get("format") == "duration":
        made = {key: value for key, value in made.items() if key != "format"} | _DURATION
        if isinstance(made.get("default"), str):
            made["default"] = _duration(TypeAdapter(timedelta).validate_python(made["default"]))
    if isinstance(made.get("default"), dict):  # a whole part: its own fields say their defaults
        del made["default"]
    if name == "type" and made.get("type") == "string" and "description" in made:
        made["pattern"] = TYPE_PATTERN
    if "patternProperties" in made:
        made["additionalProperties"] = False
    return made


def _duration(value: timedelta) -> str:
    """A length of time as a declaration writes it."""
    seconds = int(value.total_seconds())
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds and seconds % size == 0), ("s", 1))
    return f"{seconds // size}{unit}"


# -- the reference ------------------------------------------------------------------------------------------

_HEAD = """\
<!-- Generated from include/sluice/declarations/model.py by `sluice generate`; edit the descriptions there. -->
# Every field of a declaration

One file `include/sources/<source>.yml` describes one source. An editor that knows YAML and JSON Schema completes and
checks it while you type, by the first line that `sluice source add` writes:

```yaml
# yaml-language-server: $schema=../../docs/reference/source.schema.json
```

`sluice validate` checks all files and names file, line and field of every fault; it also checks what a schema can't,
such as a key that names no column. How to write one: [add a source](../how-to/add-a-source.md).

A length of time is a whole number and one of `s m h d w`, such as `90m`. A name is lower-case letters, figures and `_`,
and begins with a letter.
"""


def reference_text() -> str:
    """The page with every field, part by part, in the order in which a reader meets them."""
    whole = schema()
    parts = [_part("A source", whole)]
    seen: list[str] = []
    _collect(whole, whole["$defs"], seen)
    parts += [_part(_title(name), whole["$defs"][name], name) for name in seen]
    return "\n".join([_HEAD, *parts])


def _collect(node: Any, definitions: dict[str, Any], seen: list[str]) -> None:
    """The parts that are reached from `node`, each once; those that have fields."""
    if isinstance(node, list):
        for item in node:
            _collect(item, definitions, seen)
    elif isinstance(node, dict):
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if name and name not in seen and "properties" in definitions[name]:
            seen.append(name)
            _collect(definitions[name], definitions, seen)
        _collect([value for key, value in node.items() if key != "$defs"], definitions, seen)


def _title(name: str) -> str:
    return "".join(f" {char.lower()}" if char.isupper() else char for char in name).strip().capitalize()


def _part(title: str, part: dict[str, Any], name: str = "") -> str:
    rows = ["| field | holds | default | meaning |", "|---|---|---|---|"]
    required = part.get("required", [])
    for field, info in part["properties"].items():
        default = "**required**" if field in required else _default(info.get("default"))
        text = info.get("description", "").replace("|", "\\|").replace("<", "\\<")
        rows.append(f"| `{field}` | {_holds(info)} | {default} | {text} |")
    anchor = f'<a id="{name.lower()}"></a>\n' if name else ""
    prose = "\n".join(textwrap.wrap(" ".join(part.get("description", "").split()), 120))
    return f"{anchor}## {title}\n\n{prose}\n\n" + "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if value is None or value in ({}, []):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _holds(info: dict[str, Any]) -> str:
    """What a field holds, in a word or a link to its part."""
    for kind in ("anyOf", "allOf", "oneOf"):
        if kind in info:
            return " or ".join(_holds(item) for item in info[kind] if item.get("type") != "null")
    if name := str(info.get("$ref", "")).rpartition("/")[2]:
        whole = Source.model_json_schema()["$defs"][name]
        return _holds(whole) if "enum" in whole else f"[{_title(name).lower()}](#{name.lower()})"
    if "const" in info:
        return f"`{info['const']}`"
    if "enum" in info:
        return ", ".join(f"`{value}`" for value in info["enum"])
    if info.get("pattern") == DURATION_PATTERN:
        return "length of time"
    if info.get("type") == "array":
        return f"list of {_holds(info.get('items', {}))}"
    if info.get("type") == "object":
        values = next(iter(info.get("patternProperties", {}).values()), None) or info.get("additionalProperties") or {}
        return f"by name: {_holds(values) if isinstance(values, dict) else 'values'}"
    if info.get("format") == "date":
        return "date"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}.get(
        str(info.get("type")), "any value"
    )
