"""Delimited text of any dialect, made into what the CSV path reads: a header or none, records, a known encoding.

Files that are so already, which is nearly all, are left as they are. Of the others a plain copy is made: without
leading lines, comments and trailer, in UTF-8, and with the members of an archive one after another.
"""

from __future__ import annotations

import codecs
import csv
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sluice.declarations.files import Csv
from sluice.errors import GateRefused
from sluice.readers.formats.blocks import MAX_RECORD, Shape

SERVER_ENCODINGS = {
    "utf-8": "UTF8",
    "iso8859-1": "LATIN1",
    "iso8859-2": "LATIN2",
    "iso8859-15": "LATIN9",
    "cp1250": "WIN1250",
    "cp1251": "WIN1251",
    "cp1252": "WIN1252",
}
"""Python's names of the encodings that the server reads by itself, and the server's."""

_LINE = 1 << 20  # bytes; longer lines are handled in pieces
_HEAD = 1 << 18  # bytes in which the first line ends, else it ends as most do
_END = re.compile(r"\r+\n|\r|\n")
_BOM = b"\xef\xbb\xbf"
_HALF = 0xDC00


def _damaged(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes that are no text become halves of surrogate pairs, which no encoding has, so that their record is rejected,
    and no other; and become bytes again when it is written as it came."""
    if isinstance(error, UnicodeDecodeError):
        return "".join(chr(_HALF + byte) for byte in error.object[error.start : error.end]), error.end
    assert isinstance(error, UnicodeEncodeError)
    halves = [ord(char) - _HALF for char in error.object[error.start : error.end]]
    if not all(0 <= half < 256 for half in halves):
        raise error
    return bytes(halves), error.end


codecs.register_error("sluice_damaged", _damaged)


@dataclass
class Plain:
    """A file that holds only what the CSV path reads, the dialect it is in, and what its trailers announce."""

    path: Path
    dialect: Csv
    control_total: int | None = None


@contextmanager
def plain(dialect: Csv, paths: list[Path], unit_name: str) -> Iterator[Plain]:
    """The file itself where it is plain already, else a temporary plain copy of all `paths`."""
    known = dialect.encoding in SERVER_ENCODINGS
    odd = dialect.skip_lines or dialect.comment or dialect.trailer or not known
    odd = odd or any(_ends_in_returns(path, dialect) for path in paths)
    if not odd and len(paths) == 1:
        yield Plain(paths[0], dialect)
        return
    changed = {"skip_lines": 0, "comment": None, "trailer": None, "encoding": dialect.encoding if known else "utf-8"}
    with tempfile.NamedTemporaryFile(prefix="sluice-") as spool:
        made = Plain(Path(spool.name), dialect.model_copy(update=changed))
        header: bytes | None = None
        for path in paths:
            line, awaited = b"\n", dialect.header
            end = b"\r" if _ends_in_returns(path, dialect) else b"\n"
            member = _Member(dialect, unit_name if len(paths) == 1 else f"{unit_name} (member {path.name})", end)
            lines = member.records(_lines(path, dialect.encoding, end))
            for line in lines if end == b"\n" else _with_line_feeds(lines, made.dialect):
                if awaited and not line.strip():
                    continue
                if awaited and header is not None and line.strip() != header:
                    raise GateRefused(
                        f"{member.name} has another header than the member before it; the unit was left unread"
                    )
                if not awaited or header is None:
                    spool.write(line)
                header, awaited = header if header is not None or not awaited else line.strip(), False
            if member.announced is not None:
                made.control_total = (made.control_total or 0) + member.announced
            if not line.endswith(b"\n"):
                spool.write(b"\n")
        spool.flush()
        yield made


@contextmanager
def joined(paths: list[Path]) -> Iterator[Path]:
    """The one file itself, or a copy of all, each begun on a line of its own."""
    if len(paths) == 1:
        yield paths[0]
        return
    with tempfile.NamedTemporaryFile(prefix="sluice-") as spool:
        for path in paths:
            with path.open("rb") as file:
                shutil.copyfileobj(file, spool)
            spool.write(b"\n")
        spool.flush()
        yield Path(spool.name)


def lines_of(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file as text; a byte that is no text in the encoding becomes half a surrogate pair."""
    with path.open(encoding=encoding, errors="sluice_damaged", newline="\n") as text:
        for number, line in enumerate(text):
            yield line.removeprefix("\ufeff") if number == 0 else line


def as_it_came(line: str, encoding: str) -> bytes:
    """A line that `lines_of` gave, in the bytes that it had."""
    return line.encode(encoding, "sluice_damaged")


def _ends_in_returns(path: Path, dialect: Csv) -> bool:
    """Whether the first line outside quotes ends with a carriage return alone, as on a Macintosh of old."""
    with path.open("rb") as file:
        text = file.read(_HEAD).decode(dialect.encoding, "replace")
    for found in _END.finditer(text):
        if not dialect.quote or text.count(dialect.quote, 0, found.start()) % 2 == 0:
            return found[0] == "\r" and found.end() < _HEAD
    return False


def _with_line_feeds(lines: Iterator[bytes], dialect: Csv) -> Iterator[bytes]:
    """Records whose lines end in carriage returns, each ended by a line feed instead; inside quotes they stay.

    Python's own parser says where a record ends, since one stray quote would turn the rest of the file inside out.
    """
    raw: list[bytes] = []

    def texts() -> Iterator[str]:
        for line in lines:
            raw.append(line)
            yield line.decode(dialect.encoding, "surrogateescape").replace("\0", "\x1a")

    csv.field_size_limit(MAX_RECORD)
    try:
        for _ in csv.reader(texts(), **Shape(dialect, 0).parser()):
            yield b"".join(raw).removesuffix(b"\r") + b"\n"
            raw.clear()
    except csv.Error:
        raise GateRefused(
            "the first line ends in a carriage return alone and others do not, or a quote is never closed, so that "
            "nobody can say where the records begin; the file was left unread. Ask for line feeds"
        ) from None


def _lines(path: Path, encoding: str, end: bytes) -> Iterator[bytes]:
    """The lines of a file, or pieces of overlong ones: as they are, or as UTF-8 if the server does not know the
    encoding."""
    if encoding in SERVER_ENCODINGS and end == b"\r":
        with path.open(encoding=encoding, errors="surrogateescape", newline="\r") as text:
            for number, line in enumerate(text):
                yield (line if number else line.removeprefix("\ufeff")).encode(encoding, "surrogateescape")
        return
    if encoding in SERVER_ENCODINGS:
        with path.open("rb") as file:
            if file.read(3) != _BOM:
                file.seek(0)
            while line := file.readline(_LINE):
                yield line
        return
    with path.open(encoding=encoding, errors="sluice_damaged", newline=end.decode()) as text:
        while piece := text.readline(_LINE):
            yield piece.encode("utf-8", "surrogatepass")


class _Member:
    """Takes from the lines of one file those that are no records, and remembers what the trailer says."""

    def __init__(self, dialect: Csv, name: str, end: bytes) -> None:
        self.name, self._dialect, self._end = name, dialect, end
        encoding = dialect.encoding if dialect.encoding in SERVER_ENCODINGS else "utf-8"
        self._encoding = encoding
        self._quote, self._escape, self._comment = (
            (text or "").encode(encoding) for text in (dialect.quote, dialect.escape, dialect.comment)
        )
        self.announced: int | None = None

    def records(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The header and the records. The trailer is known only when nothing follows it."""
        held: list[bytes] = []
        for line in self._without_comments(lines):
            if not self._dialect.trailer:
                yield line
            elif line.strip():
                yield from held
                held = [line]
            else:
                held.append(line)
        if self._dialect.trailer:
            self._read_trailer(held[0] if held else b"")

    def _without_comments(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        skip, quoted, begins = self._dialect.skip_lines, False, True
        for line in lines:
            ended = line.endswith(self._end)
            if skip:
                skip -= ended
                continue
            comment = begins and not quoted and bool(self._comment) and line.startswith(self._comment)
            if comment and not ended:
                raise GateRefused(f"{self.name}: a comment is longer than {_LINE} bytes; the unit was left unread")
            begins = ended
            if not comment:
                quoted ^= self._quotes(line) % 2 == 1
                yield line

    def _quotes(self, line: bytes) -> int:
        if not self._quote:
            return 0
        if self._escape and self._escape != self._quote:
            line = line.replace(self._escape * 2, b"").replace(self._escape + self._quote, b"")
        return line.count(self._quote)

    def _read_trailer(self, line: bytes) -> None:
        trailer = self._dialect.trailer
        assert trailer is not None
        text = line.decode(self._encoding, "replace").strip()
        if not text.startswith(trailer.begins):
            raise GateRefused(
                f"{self.name}: the last line does not begin with {trailer.begins}, so that the end of the file is "
                "missing; it was left unread"
            )
        if trailer.rows is None:
            return
        fields = next(csv.reader([text], delimiter=self._dialect.delimiter), [])
        count = fields[trailer.rows - 1].strip() if len(fields) >= trailer.rows else ""
        if not count.isdecimal():
            raise GateRefused(
                f"{self.name}: field {trailer.rows} of the trailer is no number of rows; the file was left unread"
            )
        self.announced = int(count)
