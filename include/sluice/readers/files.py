"""Files: found by a pattern, read only when complete, identified by content.

CSV goes to the server's own parser in one stream of bytes. Only when the server refuses the stream is the file read
again record by
record, so that one damaged line is one rejected row.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import httpx
import psycopg

from sluice import settings
from sluice.declarations import Mode, Source, Table
from sluice.declarations.model import Files
from sluice.errors import GateRefused, SourceUnavailable
from sluice.readers.base import Digest, Interval, Read, Readiness, Sink, Unit, day_interval, overlaps
from sluice.readers.jsonl import as_fields, loads
from sluice.readers.postgres import source_fields

_BLOCK = 1 << 18
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PATTERNS = {"date": r"\d{4}-\d{2}-\d{2}", "hour": r"\d{2}"}
_ENCODINGS = {
    "utf-8": "UTF8",
    "utf8": "UTF8",
    "latin-1": "LATIN1",
    "iso-8859-1": "LATIN1",
    "cp1252": "WIN1252",
    "windows-1252": "WIN1252",
}
_MAX_FIELD = 64 << 20  # bytes


@dataclass(frozen=True)
class Found:
    """A file that matches the declared pattern."""

    location: str
    values: dict[str, str]
    size: int | None
    changed_at: datetime | None
    stamp: str


class FileReader:
    """CSV and JSON Lines, from any place that fsspec reaches."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether at least one file is there, and none of those there is still being written."""
        files = _origin(table)
        try:
            found = _find(files)
        except SourceUnavailable as error:
            return Readiness(False, str(error))
        if not found:
            return Readiness(False, f"a file {files.path} at connection {files.connection}")
        # one that stopped growing long ago is a leftover, and must not hold up the others for ever
        since = datetime.now(UTC) - source.wait
        growing = [item for item in found if not _is_complete(files, item)]
        recent = [item for item in growing if item.changed_at is None or item.changed_at > since]
        if recent or len(growing) == len(found):
            waiting = _unit_name(files, (recent or growing)[0])
            return Readiness(False, f"{waiting} at connection {files.connection} to be complete")
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit per complete file, oldest first."""
        files = _origin(table)
        units = [_unit(source, table, item) for item in _find(files) if _is_complete(files, item)]
        return sorted((u for u in units if overlaps(interval, u.interval)), key=lambda u: (u.instant, u.name))

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Land the file's rows."""
        files = _origin(table)
        with _local_copy(unit.location) as path:
            result = (
                _read_jsonl(table, path, sink) if files.format == "jsonl" else _read_csv(table, files, path, sink, unit)
            )
        if files.done and files.done_holds_rows:
            text = _read_small(files.done.format(path=unit.location)).strip()
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


# -- finding ------------------------------------------------------------------------------------


def _origin(table: Table) -> Files:
    assert table.origin.files is not None
    return table.origin.files


def _base(conn_id: str) -> str:
    connection = settings.connection(conn_id)
    if base := connection.extra.get("base_url"):
        return str(base).rstrip("/")
    if connection.scheme in ("file", "fs", ""):
        return "file://" + (connection.path or connection.extra.get("path", "")).rstrip("/")
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.scheme}://{connection.host}{port}{connection.path}".rstrip("/")


def _find(files: Files) -> list[Found]:
    pattern = f"{_base(files.connection)}/{files.path.lstrip('/')}"
    names = _PLACEHOLDER.findall(pattern)
    if not names:
        info = _stat(pattern, files.connection)
        return [Found(pattern, {}, *info)] if info else []
    protocol = pattern.split("://", 1)[0]
    file_system = fsspec.filesystem(protocol, **({"use_listings_cache": False} if protocol.startswith("http") else {}))
    try:
        matches = file_system.glob(_PLACEHOLDER.sub("*", pattern))
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceUnavailable(
            f"connection {files.connection} can't be listed ({type(error).__name__}); nothing was read"
        ) from None
    matcher, found = _matcher(pattern.removeprefix("file://")), []
    for location in matches:
        if match := matcher.fullmatch(location):
            whole = location if "://" in location else f"{protocol}://{location}"
            if info := _stat(whole, files.connection):
                found.append(Found(whole, match.groupdict(), *info))
    return found


def _matcher(pattern: str) -> re.Pattern[str]:
    seen: set[str] = set()
    parts, end = [], 0
    for match in _PLACEHOLDER.finditer(pattern):
        name = match[1]
        parts.append(re.escape(pattern[end : match.start()]))
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{_PATTERNS.get(name, '[^/]+?')})")
        seen.add(name)
        end = match.end()
    return re.compile("".join(parts) + re.escape(pattern[end:]))


def _stat(location: str, conn_id: str) -> tuple[int | None, datetime | None, str] | None:
    """Size, time of the last change and a stamp of a file; None if there is none."""
    if location.startswith("file://"):
        try:
            info = Path(location.removeprefix("file://")).stat()
        except FileNotFoundError:
            return None
        return info.st_size, datetime.fromtimestamp(info.st_mtime, UTC), f"{info.st_size}-{info.st_mtime_ns}"
    if location.startswith(("http://", "https://")):
        return _stat_http(location, conn_id)
    file_system, path = fsspec.core.url_to_fs(location)
    try:
        info = file_system.info(path)
    except FileNotFoundError:
        return None
    changed = info.get("LastModified") or info.get("mtime")
    changed = datetime.fromtimestamp(changed, UTC) if isinstance(changed, int | float) else changed
    return info.get("size"), changed, f"{info.get('size')}-{info.get('ETag') or changed}"


def _stat_http(location: str, conn_id: str) -> tuple[int | None, datetime | None, str] | None:
    try:
        response = httpx.head(location, follow_redirects=True, timeout=20.0)
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"connection {conn_id} does not answer ({type(error).__name__}); nothing was read"
        ) from None
    if response.status_code == 404:
        return None
    if response.status_code >= 400:
        raise SourceUnavailable(f"connection {conn_id} answered {response.status_code}; nothing was read")
    size, modified = response.headers.get("content-length"), response.headers.get("last-modified")
    changed = parsedate_to_datetime(modified).astimezone(UTC) if modified else None
    return int(size) if size else None, changed, f"{size}-{response.headers.get('etag') or modified or ''}"


def _is_complete(files: Files, item: Found) -> bool:
    if files.done:
        return _stat(files.done.format(path=item.location), files.connection) is not None
    if files.stable_for and item.changed_at:
        return datetime.now(UTC) - item.changed_at >= files.stable_for
    return True


def _unit_name(files: Files, item: Found) -> str:
    return _PLACEHOLDER.sub(lambda match: item.values[match[1]], files.path) if item.values else files.path


def _unit(source: Source, table: Table, item: Found) -> Unit:
    """A dated file speaks for the end of its day or hour; an undated one for when it was last changed."""
    name, interval = _unit_name(_origin(table), item), None
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


# -- reading ------------------------------------------------------------------------------------


@contextmanager
def _local_copy(location: str) -> Iterator[Path]:
    """The file on a local disk: itself, or a temporary copy of a remote one. A shorter copy than announced is no
    copy."""
    if location.startswith("file://"):
        yield Path(location.removeprefix("file://"))
        return
    with tempfile.NamedTemporaryFile(prefix="sluice-") as spool:
        try:
            with fsspec.open(location, "rb") as remote:
                while block := remote.read(_BLOCK):
                    spool.write(block)
        except Exception as error:  # every transport of fsspec has errors of its own
            raise SourceUnavailable(f"reading broke off ({type(error).__name__}); the file was left unread") from None
        spool.flush()
        yield Path(spool.name)


def _read_small(location: str) -> str:
    with fsspec.open(location, "rt") as file:
        return str(file.read(1 << 16))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _read_csv(table: Table, files: Files, path: Path, sink: Sink, unit: Unit) -> Read:
    header = _header(files, path, unit)
    result, digest = Read(header, empty_is_null=True, header=header), Digest()
    sink.create(header)
    options = _copy_options(files)
    try:
        if options is None:
            raise psycopg.DataError
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            sink.copy(digest.over(_blocks(file)), options)
    except psycopg.DataError:
        sink.create(header)  # anew: the server refused the stream as a whole
        digest = Digest()
        with path.open("rb") as file:
            for _ in digest.over(_blocks(file)):
                pass
        with path.open("rb") as file:
            sink.rows(_records(files, file, len(header), sink, result))
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


def _copy_options(files: Files) -> str | None:
    encoding = _ENCODINGS.get(files.encoding.lower())
    if encoding is None or files.delimiter in "'\\":
        return None
    return f"format csv, header true, encoding '{encoding}', delimiter '{files.delimiter}'"


def _header(files: Files, path: Path, unit: Unit) -> list[str]:
    with path.open("rb") as file:
        first = file.readline(_MAX_FIELD).removeprefix(b"\xef\xbb\xbf").decode(files.encoding, errors="replace")
    header = [name.strip() for name in next(csv.reader([first], delimiter=files.delimiter), [])]
    if not header:
        raise GateRefused(f"{unit.name} is empty, it has not even a header; nothing was closed and nothing published")
    return header


class _Recorder:
    """Hands out the lines of a file as text and remembers the raw bytes of the record being read."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file, self._encoding, self.raw = file, encoding, b""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.raw += line
            yield line.replace(b"\0", b"\x1a").decode(self._encoding, errors="surrogateescape")


def _records(
    files: Files, file: BinaryIO, width: int, sink: Sink, result: Read
) -> Iterator[tuple[int, list[str | None]]]:
    """The well-formed records of a CSV file; the others go to quarantine, each with its own bytes."""
    csv.field_size_limit(_MAX_FIELD)
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    lines = _Recorder(file, files.encoding)
    reader, number = csv.reader(iter(lines), delimiter=files.delimiter, strict=True), -1
    while True:
        number += 1
        lines.raw = b""
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise GateRefused(
                    f"a quote that opens in record {number} is never closed, so that nobody can say where the records "
                    "after it begin; the whole file was left unread"
                ) from None
            record, problem = [], ("CSV", str(error))
        else:
            problem = _damage(record, width, lines.raw)
        if number == 0 or not lines.raw.strip():
            number -= number != 0
            continue
        if problem:
            sink.reject(number, *problem, lines.raw)
            result.rejects += 1
        else:
            yield number, list(record)


def _damage(record: list[str], width: int, raw: bytes) -> tuple[str, str] | None:
    if b"\0" in raw:
        return "NUL_BYTE", f"a NUL byte at offset {raw.index(0)} of the record"
    if any("\udc80" <= char <= "\udcff" for field in record for char in field):
        return "ENCODING", "bytes that are not text in the declared encoding"
    if record and len(record) != width:
        return "FIELD_COUNT", f"{len(record)} fields where the header has {width}"
    return None


def _read_jsonl(table: Table, path: Path, sink: Sink) -> Read:
    fields = [*source_fields(table), "_rescued"]
    result, digest = Read(fields), Digest()
    sink.create(fields)
    with path.open("rb") as file:
        sink.rows(_objects(digest.over(file), fields, sink, result))
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


def _objects(
    lines: Iterator[bytes], fields: list[str], sink: Sink, result: Read
) -> Iterator[tuple[int, list[str | None]]]:
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        item, problem = _object(line)
        if item is None:
            sink.reject(number, *problem, line.rstrip(b"\r\n"))
            result.rejects += 1
        else:
            yield number, as_fields(item, fields)


def _object(line: bytes) -> tuple[dict[str, Any] | None, tuple[str, str]]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, ("ENCODING", f"not UTF-8 at byte {error.start}")
    if "\\u0000" in text or "\0" in text:
        return None, ("NUL_BYTE", "a NUL character, which text in Postgres can't hold")
    try:
        item = loads(text)
        json.dumps(item, ensure_ascii=False).encode()  # a lone surrogate is a character that no encoding has
    except UnicodeEncodeError:
        return None, ("ENCODING", "half of a surrogate pair")
    except ValueError as error:
        return None, ("JSON", f"not JSON: {getattr(error, 'msg', 'unreadable')}")
    if not isinstance(item, dict):
        return None, ("JSON", "not a JSON object")
    return item, ("", "")
