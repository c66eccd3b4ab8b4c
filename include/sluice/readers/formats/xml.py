"""Repeated elements of an XML document, parsed as a stream: memory holds one record at a time.

Entities are refused, so that no document can blow itself up or ask for other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from sluice.declarations.files import Xml
from sluice.errors import GateRefused
from sluice.readers.formats.records import RecordFormat


class XmlReader(RecordFormat):
    """The elements whose path ends as declared."""

    def __init__(self, options: Xml) -> None:
        self._wanted = options.record.split("/")

    def records(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each element as an object: @attributes, child elements, and #text."""
        try:
            yield from self._elements(path)
        except DefusedXmlException as error:
            raise GateRefused(
                f"the document declares an entity ({type(error).__name__}), which is refused; the unit was left unread"
            ) from None
        except ParseError as error:
            line, column = error.position
            raise GateRefused(
                f"the document is not well formed, or cut off, at line {line}, column {column + 1}; the unit was left "
                "unread"
            ) from None

    def _elements(self, path: Path) -> Iterator[dict[str, Any]]:
        open_elements: list[Element] = []
        names: list[str] = []
        record: Element | None = None
        for event, element in iterparse(str(path), events=("start", "end")):
            if event == "start":
                open_elements.append(element)
                names.append(local_name(element.tag))
                if record is None and names[-len(self._wanted) :] == self._wanted:
                    record = element
                continue
            open_elements.pop()
            names.pop()
            if element is record:
                value = _value(element)
                yield value if isinstance(value, dict) else {"#text": value}
                record = None
            if record is None and open_elements:
                del open_elements[-1][-1]  # what was read, or is not wanted, need not stay in memory


def local_name(name: str) -> str:
    """The name of an element or attribute without its namespace."""
    return name.rpartition("}")[2]


def _value(element: Element) -> Any:
    """An element as text, or as an object where it has attributes or children. `xsi:nil` is NULL."""
    if any(name.endswith("}nil") and value in ("true", "1") for name, value in element.attrib.items()):
        return None
    result: dict[str, Any] = {}
    names = [local_name(name) for name in element.attrib]
    for (name, value), local in zip(element.attrib.items(), names, strict=True):
        result[f"@{local if names.count(local) == 1 else name}"] = value  # of several, those with a namespace keep it
    several: set[str] = set()
    for child in element:
        name, value = local_name(child.tag), _value(child)
        if name in several:
            result[name].append(value)
        elif name in result:
            several.add(name)
            result[name] = [result[name], value]
        else:
            result[name] = value
    text = element.text or ""
    if not result:
        return text
    if not len(element) or text.strip():
        result["#text"] = text
    return result
