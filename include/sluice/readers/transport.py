"""Files by their declared path: finding them, telling whole ones from growing ones, a local plain copy of each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from sluice.declarations.files import Files
from sluice.declarations.paths import PathPattern, fill
from sluice.errors import SluiceError, SourceChanged, SourceUnavailable
from sluice.readers import manifest
from sluice.readers.base import Interval
from sluice.readers.places import BLOCK, Info, Place, place_of
from sluice.readers.unpack import unpacked

_TRIES = 4
_SMALL = 64 << 20  # bytes; markers and manifests


@dataclass(frozen=True)
class Found:
    """A file that the declared path means. `name` is its path below the connection."""

    location: str
    values: dict[str, str]
    size: int | None
    changed_at: datetime | None
    stamp: str
    name: str
    interval: Interval | None


def find_files(files: Files) -> list[Found]:
    """Every file that the declared path means, complete or not."""
    place = place_of(files.connection)
    pattern = _pattern(place, files)
    whole = f"{pattern.base}/{pattern.path}"
    found = []
    for location in [whole] if pattern.is_plain else place.glob(pattern.glob()):
        if (matched := pattern.match(location)) and (info := place.stat(location)):
            found.append(
                Found(location, matched.values, info.size, info.changed_at, info.stamp, matched.name, matched.interval)
            )
    return found


def open_file(conn_id: str, location: str) -> AbstractContextManager[Any]:
    """A file as bytes from its beginning, without fetching more of it than is read."""
    return place_of(conn_id).open(location)


# -- complete or not ----------------------------------------------------------------------------


class Completeness:
    """Whether the files of one listing are complete. Markers and manifests are looked at once."""

    def __init__(self, files: Files) -> None:
        self._files, self._place = files, place_of(files.connection)
        self._manifests: dict[str, dict[str, int | None] | None] = {}
        self._markers: dict[str, bool] = {}

    def of(self, item: Found) -> bool:
        """Whether this one may be read."""
        if marker := self._files.marker_of(item.location):
            if marker not in self._markers:
                self._markers[marker] = self._place.stat(marker) is not None
            if not self._markers[marker]:
                return False
        if self._files.manifest:
            listed = self._manifest(item.values, item.interval)
            return listed is not None and _listed_as(item.location, listed) is not None
        return bool(self._files.done) or self._is_stable(item)

    def missing(self, found: list[Found]) -> str | None:
        """A file that a manifest lists and the path means, but that is not there."""
        there, pattern = {item.location for item in found}, _pattern(self._place, self._files)
        for item in found:
            folder = _manifest_location(self._place, self._files, item.values, item.interval).rpartition("/")[0]
            for name in self._manifest(item.values, item.interval) or {}:
                if pattern.match(f"{folder}/{name}") and f"{folder}/{name}" not in there:
                    return name
        return None

    def rows(self, name: str, location: str, values: dict[str, str], interval: Interval | None) -> int | None:
        """The number of rows that the manifest announces for a file; None if it does not say."""
        listed = self._manifest(values, interval)
        entry = _listed_as(location, listed) if listed is not None else None
        if listed is None or entry is None:
            raise SourceChanged(f"{name} is no longer listed in its manifest; it was left unread")
        return listed[entry]

    def _manifest(self, values: dict[str, str], interval: Interval | None) -> dict[str, int | None] | None:
        assert self._files.manifest is not None
        location = _manifest_location(self._place, self._files, values, interval)
        if location not in self._manifests:
            there = self._place.stat(location) is not None
            self._manifests[location] = (
                manifest.parse(self._files.manifest, location.rpartition("/")[2], _read_small(self._place, location))
                if there
                else None
            )
        return self._manifests[location]

    def _is_stable(self, item: Found) -> bool:
        if not self._files.stable_for:
            return True
        if item.changed_at is None:
            raise SluiceError(
                f"connection {self._files.connection} does not tell when {item.name} was changed, so that stable_for "
                "can't be judged; it was left unread. Declare a marker (done) instead"
            )
        return datetime.now(UTC) - item.changed_at >= self._files.stable_for


def _manifest_location(place: Place, files: Files, values: dict[str, str], interval: Interval | None) -> str:
    assert files.manifest is not None
    start = interval[0].astimezone(files.pattern().zone) if interval else None
    return f"{place.base}/{fill(files.manifest.path.lstrip('/'), values, start)}"


def _listed_as(location: str, listed: dict[str, int | None]) -> str | None:
    return next((name for name in listed if location == name or location.endswith("/" + name.lstrip("./"))), None)


# -- fetching -----------------------------------------------------------------------------------


@contextmanager
def local_files(files: Files, location: str, name: str, stamp: str) -> Iterator[list[Path]]:
    """A whole, local, plain file, or the members of an archive. One that changes while it is read is left unread."""
    place = place_of(files.connection)
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        if not location.startswith("file://"):
            path = Path(folder) / "fetched"
            _fetch(files.connection, location, name, stamp, path)
            yield unpacked(files, path, location, name, Path(folder))
            return
        _must_be(stamp, place.stat(location), name)
        yield unpacked(files, Path(location.removeprefix("file://")), location, name, Path(folder))
        _must_be(stamp, place.stat(location), name)


def read_marker(files: Files, location: str) -> str:
    """The text of a file's marker."""
    marker = files.marker_of(location)
    assert marker is not None
    return _read_small(place_of(files.connection), marker).decode("utf-8-sig", "replace").strip()


def _read_small(place: Place, location: str) -> bytes:
    blocks, size = [], 0
    with place.open(location) as file:
        while size <= _SMALL and (block := file.read(BLOCK)):
            blocks.append(block)
            size += len(block)
    return b"".join(blocks)


def _fetch(conn_id: str, location: str, name: str, stamp: str, target: Path) -> None:
    """Copy a remote file. A broken transfer is tried again from the beginning, a few times."""
    for attempt in Retrying(
        stop=stop_after_attempt(_TRIES),
        wait=wait_exponential_jitter(multiplier=0.25, max=10, jitter=0.25),
        retry=retry_if_exception_type(SourceUnavailable) & retry_if_not_exception_type(SourceChanged),
        reraise=True,
    ):
        with attempt:
            _fetch_once(place_of(conn_id), location, name, stamp, target)


def _fetch_once(place: Place, location: str, name: str, stamp: str, target: Path) -> None:
    before = place.stat(location)
    _must_be(stamp, before, name)
    assert before is not None
    size = 0
    with target.open("wb") as copy, place.open(location) as file:
        while block := file.read(BLOCK):
            copy.write(block)
            size += len(block)
    if before.size is not None and size != before.size:
        raise SourceUnavailable(
            f"{name}: {size:,} of {before.size:,} bytes came, then the transfer broke off; the file was left unread"
        )
    after = place.stat(location)
    if after is None or after.version != before.version:
        raise SourceChanged(_CHANGED.format(name=name))


_CHANGED = "{name} changed while it was read: somebody is still writing it; it was left unread, and will be read anew"


def _must_be(stamp: str, info: Info | None, name: str) -> None:
    """The file that was found, and no later state of it, which might be half of something."""
    if info is None:
        raise SourceChanged(f"{name} is no longer there; nothing of it was read")
    if not stamp.startswith(info.version):
        raise SourceChanged(_CHANGED.format(name=name))


def _pattern(place: Place, files: Files) -> PathPattern:
    return files.pattern(place.base)
