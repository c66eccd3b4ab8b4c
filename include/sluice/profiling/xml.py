"""Profile XML: nothing says which elements are rows, so that is found out by how often they stand side by side."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from sluice.declarations.files import Xml
from sluice.errors import GateRefused, SluiceError
from sluice.readers.formats.xml import XmlReader, local_name

_DEEPEST = 4  # levels of elements whose values become columns


def record_of(path: Path) -> tuple[str, int] | None:
    """The element that most often stands beside its like, as `record` takes it, and how often; None if none does.

    Of a document that is cut off, what is whole of it counts. Raises `SluiceError` if it is no XML or has entities.
    """
    most: Counter[tuple[str, ...]] = Counter()
    names: list[str] = []
    beside: list[Counter[str]] = [Counter()]
    try:
        for event, element in iterparse(str(path), events=("start", "end")):
            if event == "start":
                name = local_name(element.tag)
                names.append(name)
                beside[-1][name] += 1
                beside.append(Counter())
                where = tuple(names)
                most[where] = max(most[where], beside[-2][name])
            else:
                names.pop()
                beside.pop()
                element.clear()
    except DefusedXmlException:
        raise SluiceError("the document declares an entity, which is refused; nothing was written") from None
    except ParseError as error:
        if len(most) < 2:
            raise SluiceError(f"the file is not XML ({error}); nothing was written") from None
    several = [where for where in most if most[where] > 1]
    if not several:
        return None
    record = max(several, key=lambda where: (most[where], -len(where)))
    return "/".join(_told_apart(record, most)), most[record]


def _told_apart(record: tuple[str, ...], paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The shortest end of a path that no other path has."""
    ends = (record[-length:] for length in range(1, len(record)))
    return next((end for end in ends if sum(where[-len(end) :] == end for where in paths) == 1), record)


def records(path: Path, record: str, most: int, *, whole: bool) -> list[dict[str, Any]]:
    """The first records by their fields, which are paths where an element has attributes or elements of its own."""
    found = []
    try:
        for item in itertools.islice(XmlReader(Xml(record=record)).records(path), most):
            found.append(item)
    except GateRefused as error:
        if whole:
            raise SluiceError(f"{error}; nothing was written") from None
    for _ in range(_DEEPEST):
        nested = {name for item in found for name, value in item.items() if isinstance(value, dict)}
        nested -= {name for item in found for name, value in item.items() if value and not isinstance(value, dict)}
        if not nested:
            break
        found = [_opened(item, nested) for item in found]
    return found


def _opened(item: dict[str, Any], nested: set[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in item.items():
        if name in nested:
            result |= {f"{name}.{inner}": below for inner, below in (value or {}).items()}
        else:
            result[name] = value
    return result
