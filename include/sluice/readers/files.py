"""Files: found by a path, read only when complete, identified by content."""

from __future__ import annotations

from datetime import UTC, datetime

from sluice.declarations import Mode, Source, Table
from sluice.declarations.model import Files
from sluice.errors import GateRefused
from sluice.readers import formats
from sluice.readers.base import Interval, Read, Readiness, Sink, Unit, is_of
from sluice.readers.transport import Completeness, Found, find_files, local_files, read_marker


class FileReader:
    """Files of a declared format, from any place that fsspec reaches."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether at least one file is there, and none of those there is still being written."""
        files = _origin(table)
        found = find_files(files)
        complete = Completeness(files)
        growing = [item for item in found if not complete.of(item)]
        missing = complete.missing(found) if files.manifest else None
        if not found:
            return Readiness(False, f"a file {files.path} at connection {files.connection}")
        # one that stopped growing long ago is a leftover, and must not hold up the others for ever
        since = datetime.now(UTC) - source.wait
        recent = [item for item in growing if item.changed_at is None or item.changed_at > since]
        if recent or len(growing) == len(found):
            waiting = (recent or growing)[0].name
            return Readiness(False, f"{waiting} at connection {files.connection} to be complete")
        if missing:
            return Readiness(False, f"{missing}, which its manifest lists, at connection {files.connection}")
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit per complete file, oldest first."""
        files = _origin(table)
        complete = Completeness(files)
        units = [_unit(table, item) for item in find_files(files) if complete.of(item)]
        return sorted((u for u in units if is_of(u.interval, interval)), key=lambda u: (u.instant, u.name))

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Land the file's rows."""
        files = _origin(table)
        with local_files(files, unit.location, unit.name, unit.stamp) as paths:
            result = formats.read(table, files.format, paths, unit, sink)
        result.control_total = _announced(files, unit, result.control_total)
        result.constants = {
            name: unit.values[column.from_path] for name, column in table.columns.items() if column.from_path
        }
        return result


def _origin(table: Table) -> Files:
    assert table.origin.files is not None
    return table.origin.files


def _announced(files: Files, unit: Unit, by_itself: int | None) -> int | None:
    """The control total: of the marker, the manifest, or the file itself."""
    if files.done_holds_rows:
        text = read_marker(files, unit.location)
        if not text.isdecimal():
            raise GateRefused(
                f"{unit.name}: the marker should hold the number of rows but holds {text[:40]!r}; the file was left "
                f"unread"
            )
        return int(text)
    if files.manifest and files.manifest.rows:
        return Completeness(files).rows(unit.name, unit.location, unit.values, unit.interval)
    return by_itself


def _unit(table: Table, item: Found) -> Unit:
    """A dated file speaks for the end of its interval; an undated one for when it was last changed."""
    if item.interval:
        return Unit(item.name, item.interval[1], item.interval, item.stamp, item.values, item.location)
    name, instant = item.name, item.changed_at or datetime.now(UTC)
    if table.mode is Mode.FULL:  # each state of the same file is an observation of its own
        name = f"{name}@{instant.isoformat()}"
    return Unit(name, instant, None, item.stamp, item.values, item.location)
