"""The formats that a file may have, by the name that a declaration gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sluice.declarations import Table
from sluice.declarations.model import Files
from sluice.readers.base import Read, Sink, Unit
from sluice.readers.formats import csv, jsonl

ReadFile = Callable[[Table, Files, Path, Unit, Sink], Read]
"""Lands the rows of a whole, local, plain file."""

FORMATS: dict[str, ReadFile] = {"csv": csv.read, "jsonl": jsonl.read}
