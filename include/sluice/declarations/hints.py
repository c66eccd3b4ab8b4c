"""What a misspelt field was probably meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from typing_extensions import is_typeddict


def did_you_mean(location: Sequence[Any], whole: type[BaseModel]) -> str:
    """The name of a field that is close to the last part of `location` in `whole`, else those that there are."""
    *path, name = location
    names = _names_at(path, whole)
    if not names:
        return ""
    close = get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"the fields here are {', '.join(names)}."


def _names_at(path: Sequence[Any], whole: type[BaseModel]) -> list[str]:
    """The fields of the part of the model that stands at `path`."""
    parts: list[Any] = [whole]  # several where it may be one of several kinds
    inside = False  # a mapping of names to parts: the next part of the path is a name
    for name in path:
        if inside or isinstance(name, int):  # a name in a mapping, a place in a list
            inside = False
        elif len(parts) > 1:  # pydantic's own word: which kind it is
            parts = [part for part in parts if getattr(part.model_fields.get("type"), "default", None) == name]
        else:
            fields = _fields(parts[0]) if parts else {}
            annotation = fields.get(name)
            parts, inside = _parts_in(annotation), _is_mapping(annotation)
    return list(_fields(parts[0])) if len(parts) == 1 else []


def _fields(part: Any) -> dict[str, Any]:
    """The type of each field, by the name that it has in a file."""
    if is_typeddict(part):
        return dict(part.__annotations__)
    return {info.alias or name: info.annotation for name, info in part.model_fields.items()}


def _parts_in(annotation: Any) -> list[Any]:
    if is_typeddict(annotation) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts_in(inner)]


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict
