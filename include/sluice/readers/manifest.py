"""A manifest: the file that lists the files of a delivery and how many rows each must have."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from sluice.declarations.files import Manifest
from sluice.errors import GateRefused

_LARGEST = 64 << 20  # bytes


def parse(declared: Manifest, name: str, content: bytes) -> dict[str, int | None]:
    """Each listed name with its number of rows. Raises `GateRefused` if the file can't be understood."""
    try:
        if len(content) > _LARGEST:
            raise ValueError("it is larger than a list can be")
        entries = _entries(content.decode("utf-8-sig"))
        return {str(entry[declared.name]): _rows(declared, entry) for entry in entries}
    except KeyError as error:
        raise GateRefused(
            f"manifest {name}: an entry has no field {error.args[0]}; nothing that it lists was read. Name its fields "
            "in the declaration (manifest.name, manifest.rows)"
        ) from None
    except ValueError as error:
        reason = "it is no text" if isinstance(error, UnicodeError) else error
        raise GateRefused(f"manifest {name} can't be understood: {reason}; nothing that it lists was read") from None


def _entries(text: str) -> list[dict[str, Any]]:
    if not text.lstrip().startswith(("{", "[")):
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    try:
        tree = json.loads(text)
    except ValueError:
        raise ValueError("it is no whole JSON document") from None
    if isinstance(tree, dict):
        tree = next((value for value in tree.values() if isinstance(value, list)), None)
    if not isinstance(tree, list) or not all(isinstance(entry, dict) for entry in tree):
        raise ValueError("it holds no list of objects")
    return tree


def _rows(declared: Manifest, entry: dict[str, Any]) -> int | None:
    if declared.rows is None:
        return None
    text = str(entry[declared.rows]).strip()
    if not text.isdecimal():
        raise ValueError(f"{declared.rows} of {entry[declared.name]} is no number of rows")
    return int(text)
