"""CSV goes to the server's own parser, in blocks of whole records (`blocks.py`), straight into values.

Dialects that the server's parser does not know are read record by record, as text.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

from sluice.declarations import Table
from sluice.declarations.files import Csv
from sluice.errors import GateRefused
from sluice.readers.base import Digest, Read, Sink, Unit, source_fields
from sluice.readers.formats.blocks import MAX_RECORD, NO_QUOTE, STRAY_QUOTE, Problem, Shape, split
from sluice.readers.formats.dialect import SERVER_ENCODINGS
from sluice.readers.formats.header import must_be_header
from sluice.readers.lines import Comparison, NotPlain, plain_lines

BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 18


def read(table: Table, dialect: Csv, path: Path, unit: Unit, sink: Sink) -> Read:
    """Land the rows of a plain file (`dialect.plain`): at most a header before them, and nothing after."""
    with path.open("rb") as file:
        header = _known_header(table, dialect, file, unit) if dialect.header else source_fields(table)
    result, digest = Read(header, empty_is_null=True, header=header), Digest()
    sink.create(header)
    options = _copy_options(dialect)
    with path.open("rb") as file:
        hashed = digest.reading(file)
        if hashed.peek(3)[:3] == BOM:
            hashed.read(3)
        if options is None or not sink.takes_blocks:
            sink.rows(_records(dialect, hashed, len(header), sink))
        else:
            if dialect.header:
                _header(dialect, hashed, unit)
            sink.blocks(split(Shape(dialect, len(header)), hashed), options)
    result.content_hash, result.bytes_read = digest.hex(), digest.size
    return result


# -- full extracts: only the lines that the extract before this one did not have -------------------------------


def read_differences(table: Table, dialect: Csv, path: Path, unit: Unit, sink: Sink) -> Read:
    """Like `read`; but of a full extract that can be compared with the one before, only its new lines are landed."""
    lines = sink.lines
    if lines is None or path.stat().st_size < lines.smallest:
        return read(table, dialect, path, unit, sink)
    with path.open("rb") as file:
        header = _known_header(table, dialect, file, unit) if dialect.header else source_fields(table)
    shape = _shape(table, dialect, header)
    if lines.known is not None and lines.known_shape == shape:
        lines.begin(shape, compare=True)
        result, digest = Read(header, empty_is_null=True, header=header), Digest()
        sink.create(header)
        try:
            sink.rows(_new_records(dialect, path, len(header), lines, digest))
        except NotPlain:
            lines.known = None
        else:
            result.content_hash, result.bytes_read = digest.hex(), digest.size
            return result
    result = read(table, dialect, path, unit, sink)
    lines.begin(shape, compare=False)
    try:
        for _ in _scan(dialect, path, lines, Digest()):
            pass
    except NotPlain:
        lines.give_up()
    return result


def _shape(table: Table, dialect: Csv, header: list[str]) -> str:
    """Changes when the same line may mean another row."""
    text = json.dumps([table.model_dump(mode="json"), dialect.model_dump(mode="json"), header], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _scan(dialect: Csv, path: Path, lines: Comparison, digest: Digest) -> Iterator[tuple[int, list[bytes], list[int]]]:
    """Blocks of records: how many came earlier, their lines, and which of them are new, by index."""
    before, header = 0, dialect.header
    with path.open("rb") as file:
        hashed = digest.reading(file)
        if hashed.peek(3)[:3] == BOM:
            hashed.read(3)
        for block in plain_lines(iter(lambda: hashed.read(_BLOCK), b""), dialect):
            records = block[1:] if header else block
            header = False
            yield before, records, lines.take(records, before)
            before += len(records)


def _new_records(
    dialect: Csv, path: Path, width: int, lines: Comparison, digest: Digest
) -> Iterator[tuple[int, list[str | None]]]:
    """The new lines as rows. One that is damaged needs the care of the whole reader."""
    shape = Shape(dialect, width)
    parser = shape.parser()
    for before, records, new in _scan(dialect, path, lines, digest):
        for index in new:
            try:
                record = next(csv.reader([records[index].decode(dialect.encoding)], strict=True, **parser))
            except (csv.Error, UnicodeDecodeError):
                raise NotPlain from None
            if len(record) != width or _stray_quote(shape, records[index]):
                raise NotPlain
            yield before + index + 1, list(record)


def _copy_options(dialect: Csv) -> str | None:
    """The server's words for the dialect; None if it has none, or means something else by it."""
    characters = (dialect.delimiter, dialect.quote or NO_QUOTE)
    escapes = dialect.escape is not None and dialect.escape != dialect.quote
    if dialect.encoding not in SERVER_ENCODINGS or escapes or not all(map(str.isascii, characters)):
        return None
    delimiter, quote = (char.replace("'", "''") for char in characters)
    return (
        f"format csv, encoding '{SERVER_ENCODINGS[dialect.encoding]}', delimiter '{delimiter}', quote '{quote}', "
        "force_null *, on_error ignore, log_verbosity verbose"
    )


def _known_header(table: Table, dialect: Csv, file: io.BufferedReader, unit: Unit) -> list[str]:
    """The header, if any field of the contract is in it. If none is, it may well be a record: it is not named then, and
    nothing of it reaches the ledger."""
    header = _header(dialect, file, unit)
    must_be_header(header, table, unit)
    return header


def _header(dialect: Csv, file: io.BufferedReader, unit: Unit) -> list[str]:
    """The names in the first record that is not blank, which may go over several lines; the file stands behind it."""
    shape, raw = Shape(dialect, 0), file.readline(MAX_RECORD).removeprefix(BOM)
    while raw and not raw.strip():
        raw = file.readline(MAX_RECORD)
    while dialect.quote and raw.count(shape.quote) % 2 and len(raw) < MAX_RECORD and (more := file.readline()):
        raw += more
    header = [(name or "").strip() for name in shape.fields(raw)]
    if not header:
        raise GateRefused(f"{unit.name} is empty, it has not even a header; nothing was closed and nothing published")
    return header


class _Recorder:
    """Hands out the lines of a file as text and remembers the raw bytes of the record being read."""

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        self._file, self._encoding, self.raw = file, encoding, b""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.raw += line
            yield line.replace(b"\0", b"\x1a").decode(self._encoding, errors="surrogateescape")


def _records(dialect: Csv, file: io.BufferedReader, width: int, sink: Sink) -> Iterator[tuple[int, list[str | None]]]:
    """The well-formed records of a CSV file; the others go to quarantine, each with its own bytes."""
    csv.field_size_limit(MAX_RECORD)
    lines = _Recorder(file, dialect.encoding)
    first = 0 if dialect.header else 1
    shape = Shape(dialect, width)
    reader, number = csv.reader(iter(lines), strict=True, **shape.parser()), first - 1
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
            problem = _damage(shape, record, lines.raw)
        if not lines.raw.strip():
            number -= 1
            continue
        if number == 0:
            continue
        if problem:
            sink.reject(number, *problem, lines.raw)
        else:
            yield number, list(record)


def _first_bad(raw: bytes, encoding: str) -> int:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _damage(shape: Shape, record: list[str], raw: bytes) -> Problem | None:
    if b"\0" in raw:
        return "NUL_BYTE", f"a NUL byte at offset {raw.index(0)} of the record"
    if any("\udc80" <= char <= "\udcff" for field in record for char in field):
        encoding = shape.dialect.encoding
        return "ENCODING", f"bytes that are not {encoding} at offset {_first_bad(raw, encoding)} of the record"
    if _stray_quote(shape, raw):
        return STRAY_QUOTE
    if record and len(record) != shape.width:
        return "FIELD_COUNT", f"{len(record)} fields where the header has {shape.width}"
    return None


def _stray_quote(shape: Shape, raw: bytes) -> bool:
    """Whether COPY would take a quote for another than Python does. What escapes mean, only Python knows."""
    dialect = shape.dialect
    if dialect.escape or not dialect.quote or not (dialect.quote + dialect.delimiter).isascii():
        return False
    return shape.quote in raw and not shape.is_well_formed(raw.rstrip(b"\r\n"))
