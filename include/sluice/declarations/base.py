"""What all parts of a declaration share: being frozen and strict, and the kinds of values that they are made of."""

from __future__ import annotations

import codecs
import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

DURATION_PATTERN = r"^\s*(\d+)\s*(s|m|h|d|w)\s*$"
_DURATION = re.compile(DURATION_PATTERN)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZE = re.compile(r"^\s*(\d+)\s*(kB|MB|GB|TB)\s*$", re.IGNORECASE)
NAME = r"^[a-z][a-z0-9_]{0,47}$"


def _duration(value: Any) -> timedelta:
    """Read '90m', '2h', '1d' as a length of time."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.match(str(value))
    if not found:
        raise ValueError("a length of time is a whole number and one of s, m, h, d, w, such as 90m or 2d")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise ValueError(f"{value} is longer than a length of time can be") from None


def _size(value: Any) -> int:
    """Read '500MB' as bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.match(str(value))
    if not found:
        raise ValueError("a size is a whole number and one of kB, MB, GB, TB, such as 500MB")
    return int(found[1]) * 1000 ** ("KMGT".index(found[2][0].upper()) + 1)


def _encoding(value: str) -> str:
    try:
        codec = codecs.lookup(value)
        "".encode(value)
    except (LookupError, ValueError):
        raise ValueError(
            f"{value} is not the name of a text encoding; such as utf-8, utf-16, latin-1, cp1252"
        ) from None
    return codec.name


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
Encoding = Annotated[str, AfterValidator(_encoding)]
Name = Annotated[str, Field(pattern=NAME)]


class Declared(BaseModel):
    """Base of all parts: frozen, and an unknown field is a fault, since it is most often a misspelt one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
