"""Profile files: CSV with its encoding and delimiter found out, JSON, XML, workbooks and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import lzma
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from backports import zstd

from sluice.declarations.files import Excel, Parquet
from sluice.declarations.model import Files
from sluice.errors import SluiceError
from sluice.profiling import xml
from sluice.profiling.names import sanitise, singular, spelt_out
from sluice.profiling.places import Place, with_placeholders
from sluice.profiling.profile import (
    Bounds,
    ColumnProfile,
    TableProfile,
    Wishes,
    columns_of,
    key_of,
    require_key,
)
from sluice.profiling.values import type_of
from sluice.readers.formats.blocks import MAX_RECORD
from sluice.readers.formats.excel import ExcelReader
from sluice.readers.formats.parquet import ParquetReader
from sluice.readers.jsonl import as_fields, loads
from sluice.readers.transport import Found, find_files, open_file

Rows = list[list[str | None]]
_DELIMITERS = ",;\t|"
_TOO_DEEP = "is nested too deeply to be rows; nothing was written"
_RESCUED = "the field _rescued: left out, since the log has a column of that name; its values go there"
_PARTS = 24  # of the newest files, where each is only a part
_ENDINGS = {"csv": "csv", "tsv": "csv", "txt": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "json"}
_ENDINGS |= {"xlsx": "excel", "xlsm": "excel", "parquet": "parquet", "xml": "xml"}
_PACKED = {".gz": gzip.open, ".zst": zstd.ZstdFile, ".zstd": zstd.ZstdFile}


def is_file(what: str) -> bool:
    """Whether an address is that of a file, by its ending, and not of a service."""
    return _ending(what.partition("?")[0]) in _ENDINGS


def profile_file(place: Place, name: str, wishes: Wishes, bounds: Bounds) -> TableProfile:
    """Profile the newest file that the place's path means."""
    path = with_placeholders(place.path)
    ending = _ending(path)
    if ending not in _ENDINGS:
        raise SluiceError(
            f"{place.path} ends in .{ending}, which source add can't look into; it knows "
            f"{', '.join(sorted(_ENDINGS))}. Nothing was written. Formats to be declared: docs/how-to/read-files.md"
        )
    found = _matches(place, path)
    table = name or _table_name(path)
    placed = _placed(path, table)
    parts = bool(placed) or "{hour}" in path  # small files that together are one table
    sample = _Sample(place.connection, found[-_PARTS:] if parts else found[-1:], _ENDINGS[ending], bounds)
    assumed = [*sample.assumed]
    columns = columns_of(sample.fields, sample.rows, wishes, quoted=sample.quoted)
    seen = f"{'all' if sample.whole else 'the first'} {len(sample.rows):,} rows"
    mode = wishes.mode or _mode(path, found, columns, sample, bounds, assumed, parts, table, wishes, seen)
    if wishes.mode:
        assumed.append(f"mode {mode}: as asked")
    rows = sample.rows[: sample.of_newest] if placed else sample.rows
    key = key_of(table, columns, rows, wishes, assumed, "each file" if placed else seen)
    if placed and mode == "append":  # the same key comes again in the next file
        columns = [*placed, *columns]
        key = (*(column.name for column in placed), *key)
    require_key(columns, key)
    origin: dict[str, Any] = {"connection": place.connection, "path": path} | sample.format_options()
    Files.model_validate(origin)
    return TableProfile(
        table,
        {"files": origin},
        columns,
        key,
        mode,
        len(sample.rows),
        sample.whole,
        f"{spelt_out(table)}, from the file{'s' if '{' in path else ''} {path} at {place.connection}.",
        sample.where,
        assumed=assumed,
        start=min((item.values["date"] for item in found if "date" in item.values), default=""),
    )


def _ending(path: str) -> str:
    """What the file is, by its ending, below the ending that says how it is packed."""
    plain = PurePosixPath(path.lower())
    if plain.suffix in (*_PACKED, ".zip"):
        plain = plain.with_suffix("")
    return plain.suffix.lstrip(".")


def _table_name(path: str) -> str:
    """The file's own name, or where that is a placeholder the folder that is none."""
    for part in reversed(PurePosixPath(path).parts):
        if plain := sanitise(_without_placeholders(part.split(".")[0])).strip("_").replace("unnamed", ""):
            return plain
    return "rows"


def _without_placeholders(text: str) -> str:
    while "{" in text and "}" in text:
        text = text[: text.index("{")] + "_" + text[text.index("}") + 1 :]
    return text


def _matches(place: Place, path: str) -> list[Found]:
    """The files that are there, oldest first."""
    files = Files(connection=place.connection, path=path)
    found = [item for item in find_files(files) if item.size != 0]
    if not found:
        raise SluiceError(
            f"there is no file {path} with something in it at connection {place.connection}. Nothing was written"
        )
    return sorted(found, key=lambda item: (sorted(item.values.items()), str(item.changed_at)))


class _Sample:
    """The rows of some files as text, the newest file first, and how they had to be read."""

    def __init__(self, conn_id: str, items: list[Found], format: str, bounds: Bounds) -> None:
        self.conn_id = conn_id
        self.fields: list[str] = []
        self.rows: Rows = []
        self.of_newest = 0
        self.whole = True
        self.format = format
        self.options: dict[str, Any] = {}
        self.assumed: list[str] = []
        self.quoted: frozenset[str] = frozenset()
        self.where = PurePosixPath(items[-1].location).name
        self._texts: set[str] = set()  # fields that the format says to be texts
        self._bounds, self._until = bounds, time.monotonic() + bounds.seconds
        objects: list[dict[str, Any]] = []
        for count, item in enumerate(reversed(items), start=1):
            if count > 1:
                self.where = f"the newest {count} files"
            head, whole = _head(conn_id, item, bounds.size)
            self.whole = self.whole and whole
            if not whole and format != "parquet":
                head = head[: head.rfind(b"\n" if b"\n" in head else b"\r") + 1]
            if format == "csv":
                self._csv(head)
            elif format == "json":
                objects += self._document(head, whole)
            elif format == "xml":
                objects += self._elements(head, whole)
            elif format in ("excel", "parquet"):
                objects += self._records(head, whole)
            else:
                objects += self._objects(head, len(objects))
            self.of_newest = self.of_newest or len(self.rows) or len(objects)
        if format != "csv":
            self.fields, self.rows, self.quoted = rows_of_objects(objects)
            if any("_rescued" in item for item in objects):
                self._assume(_RESCUED)
        if format in ("excel", "parquet", "xml"):
            self.quoted = frozenset(self._texts)  # all values come as text, whatever they are
        if not self.rows:
            raise SluiceError(f"{self.where} holds no rows, so nothing can be said of its columns; nothing was written")

    def format_options(self) -> dict[str, Any]:
        """The field `format` of a declaration, where it must be said."""
        if self.options:
            return {"format": {"type": self.format} | self.options}
        return {} if self.format == "csv" else {"format": self.format}

    def _take(self, rows: Iterator[list[str | None]]) -> None:
        for row in rows:
            if len(self.rows) >= self._bounds.rows or time.monotonic() > self._until:
                self.whole = False
                break
            self.rows.append(row)

    def _csv(self, head: bytes) -> None:
        csv.field_size_limit(MAX_RECORD)  # as the loader's; a sample is no longer than that
        text = self._decode(head)
        delimiter = _delimiter(text)
        if delimiter != ",":
            self.options["delimiter"] = delimiter
            self._assume(f"delimiter {'tab' if delimiter == chr(9) else delimiter}: the rows fall apart evenly by it")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header = [name.strip() for name in next(filter(any, reader), [])]  # blank lines before it are none
        self._must_be_header(header)
        named = [position for position, name in enumerate(header) if _can_be_declared(name)]
        if not all(header):
            self._assume("a column without a name in the header: left out, its values go to _rescued")
        if "_rescued" in header:
            self._assume(_RESCUED)
        fields = [header[position] for position in named]
        if self.fields and fields != self.fields:
            self._assume("an older file has other columns, and was not looked at: check what became of them")
            return
        self.fields = fields
        self._take([row[position] or None for position in named] for row in self._as_wide(reader, len(header)))

    def _assume(self, text: str) -> None:
        if text not in self.assumed:
            self.assumed.append(text)

    def _as_wide(self, reader: Iterator[list[str]], width: int) -> Iterator[list[str]]:
        """Rows of the header's width; the others would be rejected, and say nothing about a column."""
        odd = 0
        for row in reader:
            if len(row) == width:
                yield row
            elif row:
                odd += 1
        if odd:
            self._assume(f"{odd:,} rows have another number of fields than the header: they will be rejected")

    def _decode(self, head: bytes) -> str:
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            self.options["encoding"] = "utf-16"
            self._assume("encoding utf-16: the file begins with its mark")
            return head.decode("utf-16", "ignore")  # a character may be cut in two where the sample ends
        try:
            return head.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if not self.whole and error.start > len(head) - 4:  # a character cut in two where the sample ends
                return head[: error.start].decode("utf-8-sig")
        encoding = (
            "latin-1" if any(byte in head for byte in (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d")) else "cp1252"
        )
        self.options["encoding"] = encoding
        self._assume(f"encoding {encoding}: the file is not UTF-8; look at a name with an accent")
        return head.decode(encoding)

    def _must_be_header(self, header: list[str]) -> None:
        values = [name for name in header if name and type_of("", [name])[0] != "text"]
        if len(values) * 2 > len(header) or not any(header):
            raise SluiceError(
                "the first line holds values and no names, and a loader that knows columns only by their place can't "
                "notice when one is added. Put a header line into the file. Nothing was written"
            )
        folded = [name.lower() for name in header if name]
        if twice := sorted({name for name in folded if folded.count(name) > 1}):
            raise SluiceError(
                f"the header names {', '.join(twice)} twice, so that nobody can say which is meant. Nothing was written"
            )

    def _objects(self, head: bytes, before: int) -> list[dict[str, Any]]:
        items = []
        for number, line in enumerate(head.splitlines(), start=1):
            if before + len(items) >= self._bounds.rows or time.monotonic() > self._until:
                self.whole = False
                break
            if line.strip():
                items.append(_object(line, number))
        return items

    def _document(self, head: bytes, whole: bool) -> list[dict[str, Any]]:
        """The array of a JSON document: the document itself, or the longest list of objects in it."""
        try:
            body = loads(head) if whole else None
        except RecursionError:
            raise SluiceError(f"{self.where} {_TOO_DEEP}") from None
        except ValueError:
            lines = head.splitlines()
            if len(lines) > 1 and _is_object(lines[0]):  # one object a line, under the name of a document
                self.format = "jsonl"
                return self._objects(head, 0)
            raise SluiceError("the file is not JSON; nothing was written") from None
        if body is None:
            raise SluiceError(
                f"the document is larger than {len(head):,} bytes, too large to profile; nothing was written"
            )
        found = dict(lists_of_objects(body))
        if not found:
            raise SluiceError("the document holds no list of objects; nothing was written")
        where = max(found, key=lambda name: len(found[name]))
        if where:
            self.options["records"] = where
            self._assume(f"records {where}: the longest list of objects in the document")
        return found[where]

    def _records(self, head: bytes, whole: bool) -> list[dict[str, Any]]:
        """The rows of a workbook's first sheet, or of a Parquet file."""
        if not whole:
            raise SluiceError(f"the file is larger than {len(head):,} bytes, too large to profile; nothing was written")
        with tempfile.NamedTemporaryFile(suffix=".xlsx" if self.format == "excel" else None) as file:
            file.write(head)
            file.flush()
            path = Path(file.name)
            if self.format == "excel":
                self._assume("excel: the first sheet, with the names in its first row")
                records = ExcelReader(Excel()).records(path)
            else:
                reader = ParquetReader(Parquet())
                self._texts |= set(reader.texts(path))
                records = reader.records(path)
            return [item for item in itertools.islice(records, self._bounds.rows) if isinstance(item, dict)]

    def _elements(self, head: bytes, whole: bool) -> list[dict[str, Any]]:
        """The elements of an XML document that most often stand side by side."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(head)
            file.flush()
            path = Path(file.name)
            if "record" not in self.options:
                found = xml.record_of(path)
                if found is None:
                    raise SluiceError(
                        f"{self.where} is XML in which no element stands beside its like, so that nothing says what a "
                        "record is: declare it by hand with format: {type: xml, record: …}, as "
                        "docs/how-to/read-files.md shows. Nothing was written"
                    )
                self.options["record"], count = found
                self._assume(f"record {found[0]}: of all elements it stands most often side by side, {count:,} times")
            return xml.records(path, self.options["record"], self._bounds.rows, whole=whole)


def _can_be_declared(name: str) -> bool:
    """Whether a column may be read from this field: any but those whose values are only ever found in _rescued."""
    return bool(name) and "\0" not in name and name != "_rescued"


def lists_of_objects(node: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The lists of objects in a document, by their dotted paths."""
    if isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        yield where, node
    elif isinstance(node, dict) and depth < 4:
        for name, value in node.items():
            yield from lists_of_objects(value, f"{where}.{name}".lstrip("."), depth + 1)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _plain(file: Any, name: str) -> Any:
    """The file as it is without its packing: of an archive, the first member by name."""
    suffix = PurePosixPath(name.lower()).suffix
    if suffix == ".zip":
        archive = zipfile.ZipFile(io.BytesIO(file.read()))
        return archive.open(sorted(name for name in archive.namelist() if not name.endswith("/"))[0])
    return _PACKED[suffix](file) if suffix in _PACKED else file


def _head(conn_id: str, item: Found, size: int) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether they are all; no more of it is fetched."""
    try:
        head = b""
        with open_file(conn_id, item.location) as packed:
            file = _plain(packed, item.location)
            while len(head) <= size and (block := file.read(size + 1 - len(head))):
                head += block
        return head[:size], len(head) <= size
    except SluiceError as error:
        raise SluiceError(f"{item.name}: {error}") from None
    except (
        EOFError,
        OSError,
        IndexError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zstd.ZstdError,
    ):
        raise SluiceError(f"{item.name} can't be unpacked; nothing was written") from None


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        item = loads(line)
    except RecursionError:
        raise SluiceError(f"line {number} {_TOO_DEEP}") from None
    except ValueError:
        item = None
    if not isinstance(item, dict):
        raise SluiceError(
            f"line {number} is no JSON object: is this JSON Lines, one object on each line? Nothing was written"
        )
    return item


def rows_of_objects(items: list[dict[str, Any]]) -> tuple[list[str], Rows, frozenset[str]]:
    """Objects as rows of text, their fields in order of appearance, and the fields whose values are JSON strings."""
    fields = [name for name in dict.fromkeys(itertools.chain.from_iterable(items)) if _can_be_declared(name)]
    plain = {name for name in fields if any(_is_plain(item.get(name)) for item in items)}
    try:
        return fields, [as_fields(item, fields) for item in items], frozenset(set(fields) - plain)
    except RecursionError:
        raise SluiceError(f"an object {_TOO_DEEP}") from None


def _is_plain(value: Any) -> bool:
    """A JSON value that is no string (numbers come as strings of a class of their own)."""
    return value is not None and type(value) is not str


def _delimiter(text: str) -> str:
    """The delimiter by which the first records have the same number of fields, and the most."""

    def evenness(delimiter: str) -> tuple[float, int]:
        some = [
            len(row)
            for row in itertools.islice(csv.reader(io.StringIO(text[: 1 << 18], newline=""), delimiter=delimiter), 50)
            if row
        ]
        width = some[0] if some else 1
        return (sum(count == width for count in some) / max(len(some), 1) if width > 1 else 0.0, width)

    best = max(_DELIMITERS, key=evenness)
    return best if evenness(best)[0] > 0.8 else ","


def _placed(path: str, table: str) -> list[ColumnProfile]:
    """Columns that only the path holds: its own placeholders, and the date with them."""
    names = [part.split("}")[0] for part in path.split("{")[1:]]
    own = [name for name in dict.fromkeys(names) if name not in ("date", "hour")]
    if not own:
        return []
    columns = []
    if "date" in names:
        declared = {"type": "date", "required": True, "from_path": "date", "description": "The day in the file's path"}
        columns.append(ColumnProfile(f"{singular(table)}_date", "", declared))
    for name in own:
        declared = {
            "type": "text",
            "required": True,
            "from_path": name,
            "description": f"{spelt_out(name)}, from the file's path",
        }
        columns.append(ColumnProfile(sanitise(name), "", declared))
    return columns


def _mode(
    path: str,
    found: list[Found],
    columns: list[ColumnProfile],
    newest: _Sample,
    bounds: Bounds,
    assumed: list[str],
    parts: bool,
    table: str,
    wishes: Wishes,
    seen: str,
) -> str:
    """What a file says: the whole table as of then, or what has happened since the last one."""
    if "{" not in path:
        assumed.append("mode full: one file that is written anew, so that it is the whole table each time")
        return "full"
    if parts:
        assumed.append("mode append: each file is a part, told apart by its path; a corrected file replaces its rows")
        return "append"
    if len(found) == 1:
        assumed.append(
            "mode full: only one file is there, and it might as well be an addition; say --mode append if so"
        )
        return "full"
    key = key_of(table, columns, newest.rows, wishes, [], seen)
    return _compare(found[-2], key, columns, newest, bounds, assumed)


def _compare(
    earlier: Found,
    key: tuple[str, ...],
    columns: list[ColumnProfile],
    newest: _Sample,
    bounds: Bounds,
    assumed: list[str],
) -> str:
    """Full if most keys of the earlier file are there again, append if hardly any is."""
    before = _Sample(newest.conn_id, [earlier], newest.format, bounds)
    fields = [column.field for column in columns if column.name in key]
    if not set(fields) <= set(before.fields):
        assumed.append("mode full: the file before has other columns, so that the two can't be compared; check it")
        return "full"

    def keys(sample: _Sample) -> set[tuple[str | None, ...]]:
        at = [sample.fields.index(name) for name in fields]
        return {tuple(row[position] for position in at) for row in sample.rows}

    old = keys(before)
    share = len(old & keys(newest)) / max(len(old), 1)
    mode = "full" if share >= 0.5 else "append"
    meaning = "the whole table" if mode == "full" else "new rows only"
    assumed.append(
        f"mode {mode}: {share:.0%} of the keys of the file before are in the newest again, so each is {meaning}"
    )
    return mode
