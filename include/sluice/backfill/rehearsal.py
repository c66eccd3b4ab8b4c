"""What running a plan would do, in so few characters that a reviewed plan can say it: so that what is run is what was
rehearsed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sluice import settings
from sluice.declarations import Source, load_folder
from sluice.declarations.load import tree_of
from sluice.errors import SluiceError
from sluice.readers import reader_of
from sluice.readers.base import Interval, is_of

PRINTED = r"^[0-9a-f]{8}(-[0-9a-f]{8}){3}$"
_PARTS = ("what the plan says", "the set of its intervals", "the declaration of the source", "the set of its files")


@dataclass(frozen=True)
class Rehearsal:
    """A fingerprint of each of `_PARTS`, and how many files would be read."""

    parts: tuple[str, ...]
    files: int

    def __str__(self) -> str:
        return "-".join(self.parts)

    def must_be(self, printed: str, again: str) -> None:
        """Raise `SluiceError` that names what changed since `printed`; `again` is the command that rehearses."""
        then = printed.split("-")
        changed = [name for name, was, now in zip(_PARTS, then, self.parts, strict=True) if was != now]
        if changed:
            raise SluiceError(
                f"since the plan was rehearsed, {' and '.join(changed)} changed; nothing was run. Look at what it "
                f"would do now, and put the line that it prints into the plan: {again}"
            )


def rehearse(said: dict[str, Any], intervals: Sequence[Interval]) -> Rehearsal:
    """`said`: what decides which runs are made, `dag_id` among it. The files of a source are asked for by name, as its
    runs would: `SluiceError` if it doesn't answer. What a database or an API holds can't be known before it is read."""
    found = load_folder(settings.sources_dir())
    name = said["dag_id"].removeprefix("ingest_")
    declared = tree_of(found.paths[name].read_text()) if name in found.paths else None
    files = _files(found.sources[name], intervals) if name in found.sources and intervals else []
    return Rehearsal(tuple(map(_fingerprint, (said, intervals, declared, files))), len(files))


def _files(source: Source, intervals: Sequence[Interval]) -> list[tuple[str, str]]:
    """(table, unit) of every file that one of the intervals reads."""
    whole = min(start for start, _ in intervals), max(end for _, end in intervals)
    return [
        (table.name, unit.name)
        for table in source.tables.values()
        if table.origin.files is not None
        for unit in reader_of(table).units(source, table, whole, None)
        if any(is_of(unit.interval, interval) for interval in intervals)
    ]


def _fingerprint(thing: Any) -> str:
    text = json.dumps(thing, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
