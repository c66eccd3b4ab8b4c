"""CSV goes to the server's own parser in one stream of bytes.

Only when the server refuses the stream is the file read again record by record, so that one damaged line is one
rejected row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psycopg

from sluice.declarations import Table
from sluice.declarations.files import Csv
from sluice.errors import GateRefused
from sluice.readers.base import Digest, Read, Sink, Unit
from sluice.readers.formats.dialect import SERVER_ENCODINGS
from sluice.readers.postgres import source_fields

_BLOCK = 1 << 18
_MAX_FIELD = 64 << 20  # bytes
_NO_QUOTE = "\x01"


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def read(table: Table, dialect: Csv, path: Path, unit: Unit, sink: Sink) -> Read:
    """Land the rows of a plain file (`dialect.plain`): at most a header before them, and nothing after."""
    header = _header(dialect, path, unit) if dialect.header else source_fields(table)
    result, digest = Read(header, empty_is_null=True, header=header), Digest()
    sink.create(header)
    options = _copy_options(dialect)
    try:
        if options is None:
            raise psycopg.DataError
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            sink.copy(digest.over(_quotable(dialect, _blocks(file))), options)
    except psycopg.DataError:
        sink.create(header)  # anew: the server refused the stream as a whole
        digest = Digest()
        with path.open("rb") as file:
            for _ in digest.over(_blocks(file)):
                pass
        with path.open("rb") as file:
            sink.rows(_records(dialect, file, len(header), sink, result))
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


def _copy_options(dialect: Csv) -> str | None:
    """The server's words for the dialect; None if it has none."""
    characters = (dialect.delimiter, dialect.quote or _NO_QUOTE, dialect.escape or dialect.quote or _NO_QUOTE)
    if dialect.encoding not in SERVER_ENCODINGS or not all(map(str.isascii, characters)):
        return None
    header, (delimiter, quote, escape) = dialect.header, (char.replace("'", "''") for char in characters)
    return (
        f"format csv, header {str(header).lower()}, encoding '{SERVER_ENCODINGS[dialect.encoding]}', "
        f"delimiter '{delimiter}', quote '{quote}', escape '{escape}'"
    )


def _quotable(dialect: Csv, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The server has no word for "no quotes", so a character stands for it that must not occur."""
    for block in blocks:
        if dialect.quote is None and _NO_QUOTE.encode() in block:
            raise psycopg.DataError
        yield block


def _parser(dialect: Csv) -> dict[str, Any]:
    """Python's words for the dialect."""
    return {
        "delimiter": dialect.delimiter,
        "quotechar": dialect.quote,
        "quoting": csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        "escapechar": dialect.escape,
        "doublequote": dialect.escape is None,
    }


def _header(dialect: Csv, path: Path, unit: Unit) -> list[str]:
    with path.open("rb") as file:
        first = file.readline(_MAX_FIELD).removeprefix(b"\xef\xbb\xbf").decode(dialect.encoding, errors="replace")
    header = [name.strip() for name in next(csv.reader([first], **_parser(dialect)), [])]
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
    dialect: Csv, file: BinaryIO, width: int, sink: Sink, result: Read
) -> Iterator[tuple[int, list[str | None]]]:
    """The well-formed records of a CSV file; the others go to quarantine, each with its own bytes."""
    csv.field_size_limit(_MAX_FIELD)
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    lines = _Recorder(file, dialect.encoding)
    first = 0 if dialect.header else 1
    reader, number = csv.reader(iter(lines), strict=True, **_parser(dialect)), first - 1
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
