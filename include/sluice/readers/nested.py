"""Values at dotted paths of nested objects: what a contract names, and the rest of what came."""

from __future__ import annotations

from typing import Any


def flat(item: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """The item with each dotted field at its top level; what is taken from inside an object is taken out of it.

    A field that the item itself has under its whole name, dots and all, stays as it is.
    """
    result = item
    for field in fields:
        if "." in field and field not in item:
            *folders, name = field.split(".")
            result, value = _take(result, folders, name)
            result[field] = value
    return result


def _take(item: dict[str, Any], folders: list[str], name: str) -> tuple[dict[str, Any], Any]:
    """A copy of the item without the value, and the value; None if there is none."""
    copy = dict(item)
    if not folders:
        value = copy.pop(name, None)
        return copy, value
    inner = copy.get(folders[0])
    if inner is None:  # nothing is in it, and nothing of it is left over
        copy.pop(folders[0], None)
    if not isinstance(inner, dict):
        return copy, None
    rest, value = _take(inner, folders[1:], name)
    if rest:
        copy[folders[0]] = rest
    else:
        del copy[folders[0]]
    return copy, value
