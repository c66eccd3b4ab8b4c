"""Packed files: gzip, zstd and zip. All of an archive is unpacked and checked before a row of it is read."""

from __future__ import annotations

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from backports import zstd

from sluice.declarations.files import Excel, Files
from sluice.errors import GateRefused

_BLOCK = 1 << 18
_MAX_MEMBERS = 10_000
_ENDINGS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".zip": "zip"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
_DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
)


def unpacked(files: Files, path: Path, location: str, name: str, folder: Path) -> list[Path]:
    """The plain files in `path`: itself, or what was unpacked below `folder`. `name` is for messages."""
    kind = _kind(files, path, location, name)
    if kind == "none":
        return [path]
    try:
        if kind == "zip":
            return _unzip(files, path, name, folder)
        opener: Callable[..., Any] = gzip.open if kind == "gzip" else zstd.open
        target = folder / "unpacked"
        with opener(path, "rb") as packed:
            _copy(packed, target, files.max_unpacked, files.max_unpacked, name)
        return [target]
    except _DAMAGE as error:
        raise GateRefused(
            f"{name} is damaged or cut off: its {kind} data can't be unpacked ({type(error).__name__}). None of it was "
            "read; ask for the file again"
        ) from None


def _kind(files: Files, path: Path, location: str, name: str) -> str:
    if files.compression != "auto":
        return files.compression
    with path.open("rb") as file:
        head = file.read(4)
    said = _ENDINGS.get(PurePosixPath(location).suffix.lower())
    seen = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if said and seen != said:
        raise GateRefused(
            f"{name} is no {said} data although its name ends so"
            f"{', it is empty' if not head else ''}; it was left unread. Declare its compression if the name is wrong"
        )
    if seen == "zip" and not said and isinstance(files.format, Excel):  # a workbook is a zip archive itself
        return "none"
    return seen or "none"


def _unzip(files: Files, path: Path, name: str, folder: Path) -> list[Path]:
    targets, left = [], files.max_unpacked
    with zipfile.ZipFile(path) as archive:
        wanted = sorted(
            (info for info in archive.infolist() if _is_wanted(info, files.members)), key=lambda info: info.filename
        )
        if not wanted or len(wanted) > _MAX_MEMBERS:
            held = f"{len(wanted)} members" if wanted else "no member"
            raise GateRefused(f"{name} has {held} that match {files.members}; it was left unread")
        if any(info.flag_bits & 1 for info in wanted):
            raise GateRefused(f"{name} is encrypted, which is not supported; it was left unread")
        for number, info in enumerate(wanted):
            target = folder / str(number) / PurePosixPath(info.filename).name[-100:]
            target.parent.mkdir()
            with archive.open(info) as member:
                left -= _copy(member, target, left, files.max_unpacked, name)
            targets.append(target)
    return targets


def _is_wanted(info: zipfile.ZipInfo, members: str) -> bool:
    member = PurePosixPath(info.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in member.parts)
    matches = fnmatchcase(info.filename, members) or fnmatchcase(member.name, members)
    return matches and not hidden and not info.is_dir()


def _copy(packed: Any, target: Path, left: int, limit: int, name: str) -> int:
    """Unpack one stream, but no more than `left` bytes. Returns how many they were."""
    size = 0
    with target.open("wb") as plain:
        while block := _block(packed):
            size += len(block)
            if size > left:
                raise GateRefused(
                    f"{name} unpacks to more than {limit:,} bytes; it was left unread. Raise max_unpacked if it is "
                    "meant to be so large"
                )
            plain.write(block)
    return size


def _block(packed: Any) -> bytes:
    try:
        return bytes(packed.read(_BLOCK))
    except OSError as error:
        if error.errno is not None:  # the disk's; bz2 says so of damaged data, without a number
            raise
        raise zipfile.BadZipFile from None
