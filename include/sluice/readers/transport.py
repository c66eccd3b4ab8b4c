"""Where files are and how they get here: finding them, telling whole ones from growing ones, a local copy of each."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import fsspec
import httpx

from sluice import settings
from sluice.declarations.model import Files
from sluice.errors import SourceUnavailable

_BLOCK = 1 << 18
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PATTERNS = {"date": r"\d{4}-\d{2}-\d{2}", "hour": r"\d{2}"}


@dataclass(frozen=True)
class Found:
    """A file that matches the declared pattern."""

    location: str
    values: dict[str, str]
    size: int | None
    changed_at: datetime | None
    stamp: str


def _base(conn_id: str) -> str:
    connection = settings.connection(conn_id)
    if base := connection.extra.get("base_url"):
        return str(base).rstrip("/")
    if connection.scheme in ("file", "fs", ""):
        return "file://" + (connection.path or connection.extra.get("path", "")).rstrip("/")
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.scheme}://{connection.host}{port}{connection.path}".rstrip("/")


def find_files(files: Files) -> list[Found]:
    """Every file that the declared path means, complete or not."""
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


def is_complete(files: Files, item: Found) -> bool:
    if marker := files.marker_of(item.location):
        return _stat(marker, files.connection) is not None
    if files.stable_for and item.changed_at:
        return datetime.now(UTC) - item.changed_at >= files.stable_for
    return True


def unit_name(files: Files, item: Found) -> str:
    return _PLACEHOLDER.sub(lambda match: item.values[match[1]], files.path) if item.values else files.path


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
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


def read_small(location: str) -> str:
    with fsspec.open(location, "rt") as file:
        return str(file.read(1 << 16))
