"""Dated deliveries of ourairports from an archive, served on this machine as their publisher would.

`python -m sluice.runtime.deliveries <directory> <port>` serves until it is stopped.
"""

import shutil
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sluice.runtime.faults import RuntimeFault
from sluice.runtime.ports import LOCAL


def unpack(archive: Path, state_dir: Path) -> Path:
    """Unpack `archive` once below `state_dir`; returns the directory to serve."""
    if not archive.is_file():
        raise RuntimeFault(
            f"SLUICE_OURAIRPORTS_ARCHIVE names {archive}, which is no file. Correct it, or set it to "
            "nothing to read "
            "the public address."
        )
    found = archive.stat()
    target = state_dir / "deliveries" / f"{archive.name.split('.')[0]}-{found.st_size}-{int(found.st_mtime)}"
    if target.exists():
        return target
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with tarfile.open(archive) as packed:
            _extract(packed, part)
    except (tarfile.TarError, EOFError) as error:
        raise RuntimeFault(f"{archive} cannot be unpacked ({error}); nothing was kept of it.") from None
    part.rename(target)
    return target


def _extract(packed: tarfile.TarFile, part: Path) -> None:
    """Plain files only, below `part`. Python before 3.11.4, which Debian 12 has, knows no filter for that."""
    if hasattr(tarfile, "data_filter"):
        packed.extractall(part, filter="data")
        return
    for member in packed:
        if not (member.isfile() or member.isdir()) or not (part / member.name).resolve().is_relative_to(part.resolve()):
            raise tarfile.TarError(f"{member.name} is not a plain file in it")
        packed.extract(member, part)


class _Handler(SimpleHTTPRequestHandler):
    """Files with their Last-Modified, and listings of directories; connections stay open between requests."""

    protocol_version = "HTTP/1.1"


def serve(directory: Path, port: int) -> None:
    """Serve `directory` on this machine's own address for ever."""
    with ThreadingHTTPServer((LOCAL, port), partial(_Handler, directory=str(directory))) as server:
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
