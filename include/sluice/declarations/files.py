"""Files as an origin: where they are, when one is whole, how it is packed, and the format inside."""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sluice.declarations.base import Declared, Duration, Encoding, Name, Size
from sluice.declarations.paths import PathPattern

_MARKER = re.compile(r"\{([^{}]*)\}")
_MARKER_NAMES = {"path", "folder", "stem"}
_CLASS = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def _character(value: Any) -> Any:
    return "\t" if value in ("tab", "\\t") else value


Character = Annotated[str, Field(min_length=1, max_length=1), BeforeValidator(_character, json_schema_input_type=str)]


# -- formats ------------------------------------------------------------------------------------


class CsvTrailer(Declared):
    """The last line of a delimited file, which is no record. A file without it is refused: its end is missing."""

    begins: str = Field(min_length=1, description="How the line begins, such as TRAILER")
    rows: int | None = Field(default=None, ge=1, description="Which of its fields, from 1, is the number of records")


class Csv(Declared):
    """Delimited text."""

    type: Literal["csv"] = "csv"
    delimiter: Character = Field(default=",", description="One character; tab may be written as tab")
    quote: Character | None = Field(default='"', description="null: quotes are plain characters")
    escape: Character | None = Field(
        default=None, description="Stands before a quote inside quotes; without one, a quote is doubled"
    )
    header: bool = Field(
        default=True, description="false: no line of names; the fields are the declared columns in their order"
    )
    encoding: Encoding = Field(default="utf-8", description="Such as utf-8, utf-16, latin-1, cp1252")
    skip_lines: int = Field(default=0, ge=0, description="Lines before the header (or the first record) to leave out")
    comment: str | None = Field(default=None, min_length=1, description="Lines that begin so are left out")
    trailer: CsvTrailer | None = Field(default=None, description="What the last line is, where it is no record")

    @model_validator(mode="after")
    def _distinct(self) -> Csv:
        special = [char for char in (self.delimiter, self.quote) if char]
        if len(set(special)) < len(special) or self.escape == self.delimiter:
            raise ValueError("delimiter, quote and escape must be different characters")
        if {*special, self.escape} & {"\r", "\n"}:
            raise ValueError("delimiter, quote and escape can't be the end of a line")
        if self.escape and not self.quote:
            raise ValueError("escape stands before a quote, and there is no quote")
        return self


class JsonLines(Declared):
    """One JSON object a line, UTF-8."""

    type: Literal["jsonl"] = "jsonl"


class Json(Declared):
    """One JSON document that holds an array of objects. A column's `field` may be a path: customer.address.city."""

    type: Literal["json"] = "json"
    records: str = Field(
        default="", description="Dotted path of the array, such as data.items; empty: the document itself is the array"
    )


class Xml(Declared):
    """Repeated elements of an XML document.

    A column's `field` is a dotted path below the record's element: customer.name, @id (an attribute), price.@currency,
    price.#text (the text of an element that has attributes). Namespaces are left out of names.
    """

    type: Literal["xml"] = "xml"
    record: str = Field(
        pattern=r"^[^/\s@]+(/[^/\s@]+)*$",
        description="The element of one row: its name, or the end of its path, such as orders/order",
    )


class Excel(Declared):
    """A sheet of an .xlsx workbook. The first row of the range names the fields."""

    type: Literal["excel"] = "excel"
    sheet: str | None = Field(default=None, description="Its name; the first sheet if nothing is said")
    header_row: int = Field(default=1, ge=1, description="Row of the names, counted as Excel does")
    columns: str | None = Field(
        default=None, pattern=r"^[A-Z]{1,3}:[A-Z]{1,3}$", description="Only these columns, such as B:F"
    )
    last_row: int | None = Field(default=None, ge=1, description="Last row to read; else all")

    @model_validator(mode="after")
    def _rows(self) -> Excel:
        if self.last_row is not None and self.last_row < self.header_row:
            raise ValueError("last_row stands above header_row")
        return self


class Parquet(Declared):
    """Parquet, any compression and row group size."""

    type: Literal["parquet"] = "parquet"


class Span(Declared):
    """Where a value stands in a line."""

    start: int = Field(ge=1, description="Its first character, counted from 1")
    length: int = Field(ge=1, description="How many characters it has")


class FixedField(Span):
    """A field of a fixed-width record. Spaces around it are cut off; nothing but spaces is NULL."""

    decimals: int = Field(
        default=0, ge=0, le=30, description="Digits behind an implied decimal point: 000123 with 2 is 0001.23"
    )


class RecordType(Declared):
    """Which lines of the file are rows of this table, where a file holds several types of records."""

    start: int = Field(default=1, ge=1, description="Where the type stands in the line, counted from 1")
    value: str = Field(min_length=1, description="The type of this table's rows")
    others: tuple[str, ...] = Field(
        default=(), description="Types that are known and not for this table; any further type is rejected, not dropped"
    )


class FixedTrailer(Declared):
    """The last line, which is no row. A file without it is refused: its end is missing."""

    begins: str = Field(min_length=1, description="How the line begins")
    rows: Span | None = Field(default=None, description="Where the number of records stands")
    counts: tuple[str, ...] = Field(
        default=(), description="The record types it counts; only those of this table if nothing is said"
    )


class FixedWidth(Declared):
    """Lines whose fields stand at fixed places. Two tables may read different record types of the same file."""

    type: Literal["fixed"] = "fixed"
    fields: dict[str, FixedField] = Field(min_length=1, description="The fields by name, and where each stands")
    record: RecordType | None = Field(default=None, description="Which lines are rows; all, if nothing is said")
    trailer: FixedTrailer | None = Field(default=None, description="The last line, where it is no row")
    skip_lines: int = Field(default=0, ge=0, description="Lines at the beginning to leave out")
    encoding: Encoding = Field(default="utf-8", description="Such as utf-8, latin-1, cp1252")

    @model_validator(mode="after")
    def _counted(self) -> FixedWidth:
        if self.trailer and self.trailer.counts:
            known = {self.record.value, *self.record.others} if self.record else set()
            if unknown := sorted(set(self.trailer.counts) - known):
                raise ValueError(f"trailer.counts names {', '.join(unknown)}, which record does not know")
        return self


class Custom(Declared):
    """A format of your own: a class with one method. See docs/how-to/add-a-reader.md."""

    type: Literal["custom"] = "custom"
    reader: str = Field(pattern=_CLASS, description="package.module:Class")
    options: dict[str, Any] = Field(default_factory=dict, description="Given to the class by name")


Format = Annotated[
    Csv | JsonLines | Json | Xml | Excel | Parquet | FixedWidth | Custom,
    Field(discriminator="type"),
]
FormatName = Literal["csv", "jsonl", "json", "xml", "excel", "parquet", "fixed", "custom"]


def _format(value: Any) -> Any:
    """`format: jsonl` is short for `format: {type: jsonl}`."""
    given = {"type": value} if isinstance(value, str) else value
    if isinstance(given, dict) and given.get("type") not in get_args(FormatName):
        raise ValueError(f"a format's type is one of {', '.join(get_args(FormatName))}")
    return given


# -- files --------------------------------------------------------------------------------------


class Manifest(Declared):
    """A file that lists the files of a delivery, and how many rows each must have: the control totals.

    CSV with a header, or JSON (an array of objects, or an object that holds one). Only files that it lists are read,
    and only when it is there.
    """

    path: str = Field(min_length=1, description="Relative to the connection; the same placeholders as the files' path")
    name: str = Field(default="name", description="Its field with the name of a file")
    rows: str | None = Field(default="rows", description="Its field with the number of rows; null: it has none")


class Files(Declared):
    """Files below a connection: local, HTTP(S), S3-compatible, SFTP, or any other protocol that fsspec knows."""

    connection: Name = Field(description="Id of the connection that says where the files are")
    path: str = Field(
        min_length=1,
        description="Relative path; *, ** and ? as in a shell; placeholders {date} (YYYY-MM-DD), {month} (YYYY-MM), "
        "{hour} (HH), {date:%Y%m%d} (any form of strftime), {any_name}",
    )
    time_zone: str = Field(
        default="UTC",
        description="Where the dates in the path are days, such as Europe/Amsterdam: two of them have 23 and 25 hours",
    )
    format: Annotated[Format, BeforeValidator(_format, json_schema_input_type=FormatName | Format)] = Field(
        default=Csv(), description="Its name, or with options: {type: csv, delimiter: tab}"
    )
    compression: Literal["auto", "none", "gzip", "zstd", "zip"] = Field(
        default="auto", description="auto: told by the first bytes, and by the ending .gz, .zst or .zip"
    )
    members: str = Field(
        default="*", description="Which members of a zip archive, such as *.csv; read in order of name"
    )
    max_unpacked: Size = Field(
        default=20_000_000_000, description="A packed file that holds more is refused, such as 500MB"
    )
    done: str | None = Field(
        default=None,
        description="Marker that says a file is complete: {path} is the file's path, {stem} the same without its "
        "ending, {folder} its folder. Such as {path}.done or {folder}/_SUCCESS",
    )
    done_holds_rows: bool = Field(
        default=False, description="The marker's text is the number of rows: the control total"
    )
    stable_for: Duration = Field(
        default=timedelta(seconds=0), description="Without a marker: a file must be unchanged for so long"
    )
    manifest: Manifest | None = Field(default=None, description="The file that lists the files of a delivery")

    def pattern(self, base: str = "") -> PathPattern:
        """What a path below `base`, the connection's part, means."""
        zone = UTC if self.time_zone == "UTC" else ZoneInfo(self.time_zone)
        return PathPattern(base, self.path.lstrip("/"), zone)

    @property
    def placeholders(self) -> frozenset[str]:
        """What a column may be taken from."""
        return PathPattern("", self.path).names

    @field_validator("path")
    @classmethod
    def _readable(cls, value: str) -> str:
        PathPattern("", value).check()
        return value

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone; write it as in Europe/Amsterdam") from None
        return value

    @field_validator("done")
    @classmethod
    def _marker(cls, value: str | None) -> str | None:
        names = _MARKER.findall(value or "")
        if value is not None and (not names or set(names) - _MARKER_NAMES):
            raise ValueError("a marker is named after its file with {path}, {stem} or {folder}, such as {path}.done")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Files:
        if self.time_zone != "UTC" and "hour" in self.placeholders:
            raise ValueError("an hour of a time_zone may come twice: with {hour} the path is in UTC")
        if self.done_holds_rows and not self.done:
            raise ValueError("done_holds_rows needs a marker: give done")
        if self.manifest and self.done_holds_rows:
            raise ValueError("the control total comes from the marker or from the manifest, not from both")
        if self.manifest and (unknown := PathPattern("", self.manifest.path).names - self.placeholders):
            raise ValueError(f"manifest.path has {{{min(unknown)}}}, which the files' path does not give")
        if self.members != "*" and self.compression not in ("auto", "zip"):
            raise ValueError("members is for zip archives")
        return self

    def marker_of(self, location: str) -> str | None:
        """Where the marker of a file is."""
        if self.done is None:
            return None
        folder, _, name = location.rpartition("/")
        stem = f"{folder}/{PurePosixPath(name).stem}"
        return self.done.format(path=location, stem=stem, folder=folder)
