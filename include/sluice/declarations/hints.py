"""What a misspelt field was probably meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel


def did_you_mean(location: Sequence[Any], whole: type[BaseModel]) -> str:
    """The name of a field that is close to the last part of `location` in `whole`, else those that there are."""
    *path, name = location
    model = _model_at(path, whole)
    if model is None:
        return ""
    names = [info.alias or field for field, info in model.model_fields.items()]
    close = get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"the fields here are {', '.join(names)}."


def _model_at(path: Sequence[Any], whole: type[BaseModel]) -> type[BaseModel] | None:
    """The part of the model that stands at `path`."""
    model: type[BaseModel] | None = whole
    inside = False  # a mapping of names to parts: the next part of the path is a name
    for part in path:
        if model is None:
            return None
        if inside or isinstance(part, int):  # a name in a mapping, a place in a list
            inside = False
            continue
        info = next((info for field, info in model.model_fields.items() if part in (field, info.alias)), None)
        if info is None:
            return None
        model, inside = _model_in(info.annotation), _is_mapping(info.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict
