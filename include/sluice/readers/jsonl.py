"""JSON objects as the text fields of a landing row. Numbers keep their digits: 0.10 stays 0.10."""

from __future__ import annotations

import json
from typing import Any

TOO_DEEP = ("JSON", "objects inside objects, too deep to be read")


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def loads(text: str | bytes) -> Any:
    """Parse JSON; numbers with a fraction or an exponent stay as they were written. Raises `ValueError`."""
    return json.loads(text, parse_float=Number, parse_constant=Number)


def as_fields(item: dict[str, Any], fields: list[str]) -> list[str | None]:
    """The item's values in the order of `fields`."""
    return [as_text(item.get(name)) for name in fields]


def with_rest(item: dict[str, Any], fields: list[str]) -> list[str | None]:
    """The item's values in the order of `fields`, and last, as JSON, all that is not among them."""
    known = set(fields)
    rest = {name: value for name, value in item.items() if name not in known}
    return [*as_fields(item, fields), _dump(rest) if rest else None]


def as_text(value: Any) -> str | None:
    """A value as Postgres reads it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return _dump(value)
    return str(value)


def _dump(value: Any) -> str:
    """Back to JSON, with the numbers as they were written. Raises `RecursionError` where it is too deep."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))}: {_dump(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
