"""Files as an origin: where they are, when one is whole, how it is packed, and the format inside."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sluice.declarations.base import Declared, Duration, Encoding, Name

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


Format = Annotated[
    Csv | JsonLines,
    Field(discriminator="type"),
]
FormatName = Literal["csv", "jsonl"]


def _format(value: Any) -> Any:
    """`format: jsonl` is short for `format: {type: jsonl}`."""
    given = {"type": value} if isinstance(value, str) else value
    if isinstance(given, dict) and given.get("type") not in get_args(FormatName):
        raise ValueError(f"a format's type is one of {', '.join(get_args(FormatName))}")
    return given


# -- files --------------------------------------------------------------------------------------


class Files(Declared):
    """Files below a connection: local, HTTP(S), S3-compatible, SFTP, or any other protocol that fsspec knows."""

    connection: Name = Field(description="Id of the connection that says where the files are")
    path: str = Field(
        min_length=1,
        description="Relative path; placeholders {date} (YYYY-MM-DD), {hour} (HH), {any_name}",
    )
    format: Annotated[Format, BeforeValidator(_format, json_schema_input_type=FormatName | Format)] = Field(
        default=Csv(), description="Its name, or with options: {type: csv, delimiter: tab}"
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

    @field_validator("done")
    @classmethod
    def _marker(cls, value: str | None) -> str | None:
        names = _MARKER.findall(value or "")
        if value is not None and (not names or set(names) - _MARKER_NAMES):
            raise ValueError("a marker is named after its file with {path}, {stem} or {folder}, such as {path}.done")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Files:
        if self.done_holds_rows and not self.done:
            raise ValueError("done_holds_rows needs a marker: give done")
        return self

    def marker_of(self, location: str) -> str | None:
        """Where the marker of a file is."""
        if self.done is None:
            return None
        folder, _, name = location.rpartition("/")
        stem = f"{folder}/{PurePosixPath(name).stem}"
        return self.done.format(path=location, stem=stem, folder=folder)
