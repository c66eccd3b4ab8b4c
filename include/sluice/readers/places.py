"""Where files are: a local folder, HTTP(S), S3-compatible storage, SFTP, or any other place that fsspec reaches.

A place is made from a connection. Its files have locations (URLs without credentials), and an error names the
connection and the kind of failure, never a secret.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

import fsspec

from sluice import settings
from sluice.errors import SluiceError, SourceRefused, SourceUnavailable

BLOCK = 1 << 18
_REFUSALS = {"PermissionError", "PermissionDenied", "NoCredentialsError", "KeyImportError"}


@dataclass(frozen=True)
class Info:
    """What a place says of a file. `stamp` changes when the content may have; `version` must not while it is read."""

    size: int | None
    changed_at: datetime | None
    stamp: str
    version: str


class Place(Protocol):
    """What finding and fetching need."""

    base: str

    def glob(self, pattern: str) -> list[str]: ...
    def stat(self, location: str) -> Info | None: ...
    def open(self, location: str) -> Any: ...


def place_of(conn_id: str) -> Place:
    """The place that a connection means."""
    connection = settings.connection(conn_id)
    base = str(connection.extra.get("base_url") or "").rstrip("/")
    scheme = urlsplit(base).scheme if base else connection.scheme
    port = f":{connection.port}" if connection.port else ""
    if scheme in ("file", "fs", ""):
        return _Local(conn_id, base or "file://" + (connection.path or connection.extra.get("path", "")).rstrip("/"))
    if scheme in ("http", "https"):
        from sluice.readers.web import HttpPlace  # not for who reads local files

        return HttpPlace(
            conn_id, base or f"{scheme}://{connection.host}{port}{connection.path}".rstrip("/"), connection
        )
    if scheme in ("s3", "s3a", "aws"):
        bucket = connection.host or str(connection.extra.get("bucket") or "")
        # without a bucket, a declared path begins with one
        base = base or (f"s3://{bucket}{connection.path}".rstrip("/") if bucket else "s3:/")
        return _Remote(conn_id, base, "s3://", _s3(connection))
    if scheme in ("sftp", "ssh"):
        return _Remote(
            conn_id,
            base or f"sftp://{connection.host}{port}{connection.path}".rstrip("/"),
            f"sftp://{connection.host}{port}",
            _sftp(connection),
        )
    options = connection.extra.get("fsspec") or {}
    base = base or f"{scheme}://{connection.host}{port}{connection.path}".rstrip("/")
    return _Remote(conn_id, base, f"{scheme}://", lambda: fsspec.filesystem(scheme, **options))


# -- places -------------------------------------------------------------------------------------


class _Local:
    def __init__(self, conn_id: str, base: str) -> None:
        self._conn_id, self.base = conn_id, base

    def glob(self, pattern: str) -> list[str]:
        found = glob.iglob(pattern.removeprefix("file://"), recursive=True)
        return sorted(f"file://{path}" for path in found if Path(path).is_file())

    def stat(self, location: str) -> Info | None:
        with faults(self._conn_id):
            try:
                info = Path(location.removeprefix("file://")).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        stamp = f"{info.st_size}-{info.st_mtime_ns}"
        return Info(info.st_size, datetime.fromtimestamp(info.st_mtime, UTC), stamp, stamp)

    @contextmanager
    def open(self, location: str) -> Iterator[BinaryIO]:
        with faults(self._conn_id), Path(location.removeprefix("file://")).open("rb") as file:
            yield file


class _Remote:
    """A file system of fsspec's; `prefix` is what its own paths lack of a location."""

    def __init__(self, conn_id: str, base: str, prefix: str, make: Any) -> None:
        self._conn_id, self.base, self._prefix = conn_id, base, prefix
        with faults(conn_id):
            self._files: fsspec.AbstractFileSystem = make()

    def _path(self, location: str) -> str:
        return location.removeprefix(self._prefix)

    def glob(self, pattern: str) -> list[str]:
        with faults(self._conn_id):
            return sorted(f"{self._prefix}{path}" for path in self._files.glob(self._path(pattern)))

    def stat(self, location: str) -> Info | None:
        with faults(self._conn_id):
            try:
                info = self._files.info(self._path(location))
            except FileNotFoundError:
                return None
        if info.get("type") == "directory":
            return None
        changed = info.get("LastModified") or info.get("mtime") or info.get("modified") or info.get("created")
        changed = datetime.fromtimestamp(changed, UTC) if isinstance(changed, int | float) else changed
        stamp = f"{info.get('size')}-{info.get('ETag') or changed}"
        return Info(info.get("size"), changed, stamp, stamp)

    @contextmanager
    def open(self, location: str) -> Iterator[Any]:
        with faults(self._conn_id), self._files.open(self._path(location), "rb", block_size=1 << 22) as file:
            yield file


# -- file systems -------------------------------------------------------------------------------


def _s3(connection: settings.Connection) -> Any:
    extra = connection.extra

    def make() -> fsspec.AbstractFileSystem:
        import s3fs

        return s3fs.S3FileSystem(
            key=connection.login or None,
            secret=connection.password or None,
            token=extra.get("aws_session_token"),
            anon=str(extra.get("anon", "")).lower() == "true",
            endpoint_url=extra.get("endpoint_url"),
            client_kwargs={"region_name": extra["region_name"]} if extra.get("region_name") else {},
            config_kwargs={"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    return make


def _sftp(connection: settings.Connection) -> Any:
    """A server is trusted by the `host_key` of the connection's extra, else by ~/.ssh/known_hosts."""
    extra = connection.extra

    def make() -> fsspec.AbstractFileSystem:
        import asyncssh
        import sshfs

        options: dict[str, Any] = {"username": connection.login, "connect_timeout": 10, "login_timeout": 20}
        if connection.port:
            options["port"] = connection.port
        if connection.password:
            options |= {"password": connection.password, "client_keys": None, "agent_path": None}
        if extra.get("private_key"):
            key = asyncssh.import_private_key(extra["private_key"], extra.get("private_key_passphrase"))
            options["client_keys"] = [key]
        elif extra.get("key_file"):
            options["client_keys"] = [extra["key_file"]]
        if extra.get("host_key"):
            options["known_hosts"] = ([asyncssh.import_public_key(extra["host_key"])], [], [])
        elif str(extra.get("no_host_key_check", "")).lower() == "true":
            options["known_hosts"] = None
        return sshfs.SSHFileSystem(connection.host, skip_instance_cache=True, **options)

    return make


# -- faults -------------------------------------------------------------------------------------


@contextmanager
def faults(conn_id: str) -> Iterator[None]:
    """Every transport has errors of its own, whose texts may hold anything: only their kind is said."""
    try:
        yield
    except SluiceError:
        raise
    except Exception as error:
        kind = type(error).__name__
        if kind == "HostKeyNotVerifiable":
            raise SourceRefused(
                f"connection {conn_id}: the server's host key is not the known one; nothing was sent or read. Give the "
                "right one as host_key in the connection's extra"
            ) from None
        if kind in _REFUSALS or getattr(error, "status", None) in (401, 403):
            raise refused(conn_id, kind) from None
        raise SourceUnavailable(f"connection {conn_id} can't be read ({kind}); nothing was read") from None


def refused(conn_id: str, how: str) -> SourceRefused:
    """What to raise when a place knows us and says no."""
    return SourceRefused(
        f"connection {conn_id} refuses us ({how}): check its credentials and rights. Nothing was read, and it was not "
        "tried again"
    )
