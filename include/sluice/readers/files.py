"""Files: found by a pattern, read only when complete, identified by content."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sluice.declarations import Mode, Source, Table
from sluice.declarations.model import Files
from sluice.errors import GateRefused
from sluice.readers import formats
from sluice.readers.base import Interval, Read, Readiness, Sink, Unit, day_interval, overlaps
from sluice.readers.transport import Found, find_files, is_complete, local_copy, read_small, unit_name


class FileReader:
    """Files of a declared format, from any place that fsspec reaches."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether at least one file is there, and none of those there is still being written."""
        files = _origin(table)
        found = find_files(files)
        if not found:
            return Readiness(False, f"a file {files.path} at connection {files.connection}")
        # one that stopped growing long ago is a leftover, and must not hold up the others for ever
        since = datetime.now(UTC) - source.wait
        growing = [item for item in found if not is_complete(files, item)]
        recent = [item for item in growing if item.changed_at is None or item.changed_at > since]
        if recent or len(growing) == len(found):
            waiting = unit_name(files, (recent or growing)[0])
            return Readiness(False, f"{waiting} at connection {files.connection} to be complete")
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit per complete file, oldest first."""
        files = _origin(table)
        units = [_unit(source, table, item) for item in find_files(files) if is_complete(files, item)]
        return sorted((u for u in units if overlaps(interval, u.interval)), key=lambda u: (u.instant, u.name))

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Land the file's rows."""
        files = _origin(table)
        with local_copy(unit.location) as path:
            result = formats.read(table, files.format, [path], unit, sink)
        if files.done and files.done_holds_rows:
            text = read_small(files.marker_of(unit.location) or "").strip()
            if not text.isdigit():
                raise GateRefused(
                    f"{unit.name}: the marker should hold the number of rows but holds {text[:40]!r}; the file was "
                    f"left unread"
                )
            result.control_total = int(text)
        result.constants = {
            name: unit.values[column.from_path] for name, column in table.columns.items() if column.from_path
        }
        return result


def _origin(table: Table) -> Files:
    assert table.origin.files is not None
    return table.origin.files


def _unit(source: Source, table: Table, item: Found) -> Unit:
    """A dated file speaks for the end of its day or hour; an undated one for when it was last changed."""
    name, interval = unit_name(_origin(table), item), None
    if "date" in item.values:
        interval = day_interval(datetime.fromisoformat(item.values["date"]).date())
        if "hour" in item.values:
            start = interval[0] + timedelta(hours=int(item.values["hour"]))
            interval = (start, start + timedelta(hours=1))
        if item.values["date"] not in name:  # the date stands in the connection's part of the path
            name = f"{item.values['date']}/{name}"
        return Unit(name, interval[1], interval, item.stamp, item.values, item.location)
    instant = item.changed_at or datetime.now(UTC)
    if table.mode is Mode.FULL:  # each state of the same file is an observation of its own
        name = f"{name}@{instant.isoformat()}"
    return Unit(name, instant, None, item.stamp, item.values, item.location)
