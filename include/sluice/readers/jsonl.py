"""JSON objects as the text fields of a landing row."""

from __future__ import annotations

import json
from typing import Any


def as_fields(item: dict[str, Any], fields: list[str]) -> list[str | None]:
    """The item's values in the order of `fields`; what the contract does not know goes into `_rescued` as JSON."""
    known = set(fields)
    rest = {name: value for name, value in item.items() if name not in known}
    return [(_text(rest) if rest else None) if name == "_rescued" else _text(item.get(name)) for name in fields]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
