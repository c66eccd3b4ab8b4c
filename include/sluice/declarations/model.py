"""What a declaration says, as typed, frozen values.

One YAML file under `include/sources/` describes one source completely. The field names here are the field names
there; each
`description` becomes the help that an editor shows (`docs/reference/source.schema.json`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import date, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal

from croniter import croniter
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import TypedDict

from sluice.declarations.base import Declared, Duration, Name
from sluice.declarations.files import Files
from sluice.declarations.patterns import must_be_readable
from sluice.declarations.readiness import Announced, Condition
from sluice.declarations.rest import Rest

_MOST_COLUMNS = 1580  # of the 1600 that a table of Postgres can have; the log has some of its own
_PRECISION = re.compile(r"\((\d+)")
_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
TYPE_PATTERN = (
    r"^((text|bigint|integer|smallint|boolean|date|timestamptz|timestamp|time|uuid|jsonb|real|double precision)"
    r"|numeric(\(\s*\d+\s*(,\s*\d+\s*)?\))?)$"
)
_TYPE = re.compile(TYPE_PATTERN)


def _type(value: Any) -> str:
    """Check a column type against those that the loader knows how to judge."""
    text = " ".join(str(value).lower().split())
    if not _TYPE.match(text):
        raise ValueError(
            "a type is one of text, bigint, integer, smallint, boolean, date, timestamptz, timestamp, time, uuid, "
            "jsonb, "
            "real, double precision, numeric, numeric(p,s)"
        )
    if (precision := _PRECISION.search(text)) and not 1 <= int(precision[1]) <= 1000:
        raise ValueError("numeric holds from 1 to 1000 digits")
    return text


def _schedule(value: Any) -> Any:
    """Check a cron expression before Airflow meets it, where it would be a DAG that does not load."""
    if isinstance(value, str) and not (value in _PRESETS or (len(value.split()) == 5 and croniter.is_valid(value))):
        raise ValueError(
            f"{value!r} is no cron expression; five fields say minute, hour, day of month, month and day of week, in "
            'UTC, such as "30 4 * * *"'
        )
    return value


ColumnType = Annotated[str, BeforeValidator(_type)]


def _field(value: str) -> str:
    """A name that the ledger can hold."""
    if not value or "\0" in value:
        raise ValueError("a name can't be empty, nor hold a NUL character")
    return value


class Mode(StrEnum):
    """What a unit of a table says: these rows happened; the table was exactly this; these versions exist."""

    APPEND = "append"
    FULL = "full"
    CURSOR = "cursor"


class Reference(Declared):
    """The key of another table that the column's values are. NULL refers to nothing."""

    table: str = Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$", description="<source>.<table>")
    column: Name = Field(description="Its key, a single column")
    severity: Literal["warn", "quarantine", "block"] = Field(
        default="warn",
        description="warn: rows without a parent are counted and published, since it may come later; quarantine: they "
        "wait (REFERENCE), to be replayed when it came; block: the batch is refused",
    )

    def problem(self, sources: Mapping[str, Source]) -> str | None:
        """Why it leads to no key of the declared `sources`, if it does not."""
        name, _, table_name = self.table.partition(".")
        if name not in sources:
            return _none_such("there is no source", name, sources)
        if table_name not in sources[name].tables:
            return _none_such(f"{name} has no table", table_name, sources[name].tables)
        table = sources[name].tables[table_name]
        if self.column not in table.columns:
            return _none_such(f"{self.table} has no column", self.column, table.columns)
        return None if table.key == (self.column,) else f"{self.column} is not the key of {self.table}"


def _none_such(what: str, name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{what} {name}" + (f"; did you mean {close[0]}?" if close else "")


Consequence = Literal["block", "warn", "none"]
RowConsequence = Literal["block", "quarantine", "warn"]


class Severity(TypedDict, total=False):
    """What follows, where nothing else is said, from a row that breaks a rule: it waits in quarantine; from a batch
    whose column is not as before: what the checks of its table say."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    accepted: Annotated[RowConsequence, Field(description="A value that is not one of those accepted")]
    range: Annotated[RowConsequence, Field(description="A value below minimum or above maximum")]
    pattern: Annotated[RowConsequence, Field(description="A text that does not match")]
    nulls: Annotated[Consequence, Field(description="Far more NULLs than before: of the batch as a whole")]
    distribution: Annotated[Consequence, Field(description="Other values than before: of the batch as a whole")]


class Column(Declared):
    """One business column and what must hold for its values. A row that breaks it goes to quarantine."""

    type: ColumnType = Field(description="Postgres type in staging")
    description: str = Field(default="", description="What it means, for the catalogue")
    required: bool = Field(default=False, description="NULL is not allowed")
    field: Annotated[str, AfterValidator(_field)] | None = Field(
        default=None, description="Name at the source, if it differs"
    )
    from_path: str | None = Field(default=None, description="Taken from this placeholder of the file's path")
    accepted: tuple[str, ...] | None = Field(default=None, description="The only values allowed")
    minimum: float | None = Field(default=None, description="Smallest value allowed")
    maximum: float | None = Field(default=None, description="Largest value allowed")
    pattern: str | None = Field(default=None, description="Regular expression (Postgres) that the text must match")
    severity: Severity = Field(
        default_factory=dict,  # type: ignore[arg-type]
        description="What a value that breaks a rule does, and what an odd share of NULLs or distribution does where "
        "the column differs from the checks of its table",
    )
    references: Reference | None = Field(default=None, description="The key of another table that the values are")
    personal: bool = Field(default=False, description="Speaks of a person: never in a log, a message or a sample")

    @model_validator(mode="after")
    def _checkable(self) -> Column:
        numeric = self.type.startswith("numeric") or self.type in (
            "bigint",
            "integer",
            "smallint",
            "real",
            "double precision",
        )
        if (self.minimum is not None or self.maximum is not None) and not numeric:
            raise ValueError(f"minimum and maximum are for numbers, and {self.type} is none")
        if self.pattern is not None:
            must_be_readable(self.pattern)
        return self


class Checks(Declared):
    """What is done when a batch is not like those before it. block: refused; warn: published, and said; none: not
    looked at."""

    volume: Consequence = Field(
        default="warn", description="Its rows are far more or fewer than this table's history lets expect"
    )
    level: Consequence = Field(
        default="warn", description="The level of the last batches has moved by a third within weeks: a slow drift"
    )
    empty: Consequence = Field(
        default="block", description="mode append: the unit has no row, and each of those before it had twenty or more"
    )
    nulls: Consequence = Field(default="warn", description="A column has far more NULLs than before")
    distribution: Consequence = Field(
        default="warn",
        description="The values of a column are distributed otherwise: another unit, time zone, mix of categories",
    )


class ControlTotal(Declared):
    """How many rows a reading must find, asked of the source in the same snapshot."""

    query: str = Field(
        description="Returns one whole number. {start} and {end} stand for the bounds of the reading: those of the "
        "unit, or the watermark and infinity of a cursor"
    )


class PostgresTable(Declared):
    """A table or a query of a Postgres database."""

    connection: Name = Field(description="Id of the connection to the database")
    table: str | None = Field(default=None, description="schema.table")
    query: str | None = Field(
        default=None,
        description="A select, instead of a table; with {start} and {end}, one unit per finished day, with its bounds",
    )
    control_total: ControlTotal | None = Field(
        default=None, description="The row count that the source announces; a batch that has another is refused"
    )

    @model_validator(mode="after")
    def _one_of(self) -> PostgresTable:
        if bool(self.table) == bool(self.query):
            raise ValueError("give exactly one of table and query")
        if ("{start}" in (self.query or "")) != ("{end}" in (self.query or "")):
            raise ValueError("query has one of {start} and {end}; an interval needs both")
        return self

    @property
    def by_day(self) -> bool:
        """Whether the query asks for an interval."""
        return "{start}" in (self.query or "")


class From(Declared):
    """Where a table comes from: exactly one kind."""

    files: Files | None = Field(default=None, description="Files: CSV or JSON Lines")
    postgres: PostgresTable | None = Field(default=None, description="A table or a query of a Postgres database")
    rest: Rest | None = Field(default=None, description="A JSON resource over HTTP")

    @model_validator(mode="after")
    def _one_of(self) -> From:
        if sum(x is not None for x in (self.files, self.postgres, self.rest)) != 1:
            raise ValueError("give exactly one of files, postgres and rest")
        return self

    @property
    def kind(self) -> Files | PostgresTable | Rest:
        """The one that is given."""
        return self.files or self.postgres or self.rest  # type: ignore[return-value]


class Cursor(Declared):
    """The column that grows when a row changes, and how far back a reading must overlap the last."""

    column: Name = Field(description="A timestamptz that is set at every change and never null")
    overlap: Duration = Field(
        default=timedelta(0),
        description="Extra margin below the loss-proof watermark, for stamps that the application's clock makes",
    )
    max_future: Duration | None = Field(
        default=None, description="A row that is stamped later than this after its reading waits in quarantine (FUTURE)"
    )


class Deletes(Declared):
    """How rows that were deleted at the source are noticed, and how many may vanish at once."""

    detect: Literal["none", "key_scan"] = Field(
        default="none",
        description="cursor tables: compare all keys of the source, and their stamps, with those known, in the same "
        "snapshot: finds deleted rows, and rows whose stamp went back",
    )
    max_share: float = Field(default=0.10, ge=0, le=1, description="A larger share of vanished keys is refused")


class DeletedBy(Declared):
    """A source field and the value in it that marks a row as deleted."""

    field: str = Field(description="Name of the field at the source")
    value: str = Field(description="Its text in a deleted row")


class Drift(Declared):
    """What happens when a source no longer brings what its contract says. Each time, a schema event is recorded."""

    new_column: Literal["rescue", "evolve", "block"] = Field(
        default="rescue",
        description="A field that the contract does not know: kept in _rescued (full, cursor: of rows that are new or "
        "changed otherwise); becomes a column of the change log, in a type that holds its values exactly, until the "
        "declaration adopts it; or the batch is refused",
    )
    missing_column: Literal["null", "block"] = Field(
        default="null",
        description="A column without a field: NULL is loaded, or the batch is refused; a required one always is",
    )
    wider_type: Literal["evolve", "block"] = Field(
        default="evolve",
        description="A type declared wider without changing a value (integer to bigint, more digits): the change log "
        "follows, or the batch is refused; any other change of a type is refused",
    )


class Late(Declared):
    """What becomes of rows that lie far behind what is published already. Those that a backfill asks for always go
    in."""

    horizon: Duration = Field(description="A row whose instant lies further behind the newest published one is late")
    beyond: Literal["restate", "hold", "count"] = Field(
        default="restate",
        description="restate: it goes in like any other, and models restate the past; hold: it waits in quarantine "
        "(LATE) for a person, and a unit that would replace one waits whole; count: it stays out, and is counted",
    )


class Clock(Declared):
    """The source's own time, where it is not the wall clock."""

    connection: Name = Field(description="Id of the connection to a Postgres database")
    query: str = Field(description="Returns one timestamptz")


class Table(Declared):
    """One table of a source."""

    description: str = Field(min_length=1, description="What one row is, for the catalogue")
    origin: From = Field(alias="from", description="Where it comes from: exactly one of files, postgres and rest")
    mode: Mode = Field(
        description="What a reading says. append: these rows happened; full: the table was exactly this; cursor: these "
        "versions exist"
    )
    key: tuple[Name, ...] = Field(min_length=1, description="The columns that name one row")
    columns: dict[Name, Column] = Field(min_length=1, description="The contract: each column by its name in staging")
    cursor: Cursor | None = Field(default=None, description="mode cursor: by which column changes are found")
    deletes: Deletes = Field(default=Deletes(), description="How deleted rows are noticed, and how many at once")
    deleted_by: DeletedBy | None = Field(
        default=None, description="The field that marks a row as deleted, where there is one"
    )
    drift: Drift = Field(default=Drift(), description="What happens when the source brings other columns or types")
    late: Late | None = Field(default=None, description="What becomes of rows that come late; without it they go in")
    effective_at: Name | None = Field(
        default=None, description="Column that says when a version became true; without one, the instant of the unit"
    )
    sequence: Name | None = Field(default=None, description="Column that orders versions of the same instant")
    max_reject_share: float = Field(
        default=0.01, ge=0, le=1, description="A batch with a larger share of rejects is refused"
    )
    checks: Checks = Field(default=Checks(), description="Comparing each batch with those before it")
    freshness: Duration | None = Field(
        default=None, description="How old the last reading may be that found staging to hold what the source holds"
    )
    max_quiet: Duration | None = Field(
        default=None, description="How long readings may find nothing new before the feed counts as stopped"
    )
    ready_when: tuple[Condition, ...] = Field(
        default=(), description="What else must be so before it is read; the task waits, at most for the source's wait"
    )
    start: date | None = Field(default=None, description="First day to read, for {date} units")

    _source: str = PrivateAttr(default="")
    _name: str = PrivateAttr(default="")
    _evolved: dict[str, Column] = PrivateAttr(default_factory=dict)

    def evolved(self, columns: dict[str, Column]) -> Table:
        """The same table, whose log has these columns besides."""
        copy = self.model_copy()
        copy._evolved = columns
        return copy

    @property
    def evolved_columns(self) -> dict[str, Column]:
        """Columns that only the log has, since the source brought them (drift.new_column: evolve)."""
        return self._evolved

    @property
    def log_columns(self) -> dict[str, Column]:
        """Every business column of the change log: those declared, and those evolved."""
        return self.columns | self._evolved

    @property
    def source(self) -> str:
        """Name of the source that this table belongs to."""
        return self._source

    @property
    def name(self) -> str:
        """Name of the table within its source."""
        return self._name

    @property
    def connections(self) -> frozenset[str]:
        """Ids of the connections that are asked before and while it is read."""
        asked = (condition.rows or condition.http for condition in self.ready_when)
        return frozenset({self.origin.kind.connection, *(each.connection for each in asked if each)})

    @property
    def log_name(self) -> str:
        """Name of its change log in the schema `staging`."""
        return f"{self._source}__{self._name}"

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        if faults := list(dict.fromkeys(self._faults())):
            raise ValueError("\n".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        """What can't be true together, all of it."""
        yield from undeclared(vars(self) | {"cursor": vars(self.cursor) if self.cursor else None}, self.columns)
        if len(self.columns) > _MOST_COLUMNS:
            yield (
                f"columns: {len(self.columns)} are declared, and a log has room for {_MOST_COLUMNS}; leave out what "
                "nobody asks for"
            )
        if len(set(self.key)) < len(self.key):
            yield f"key names a column twice: {', '.join(self.key)}"
        if (self.mode is Mode.CURSOR) != (self.cursor is not None):
            yield "mode cursor and the field cursor belong together"
        if self.mode is Mode.CURSOR and self.origin.postgres is None:
            yield "mode cursor reads from postgres"
        if self.mode is Mode.CURSOR and self.origin.postgres and self.origin.postgres.by_day:
            yield "mode cursor finds its own interval; leave {start} and {end} out of the query"
        if self.deletes.detect == "key_scan" and self.mode is not Mode.CURSOR:
            yield "deletes.detect: key_scan is for mode cursor; a full extract shows its deletes by itself"
        if self.mode is not Mode.CURSOR and self.effective_at and self.mode is Mode.FULL:
            yield "mode full speaks for the instant of its unit; leave effective_at out"
        kinds = {name: column.type for name, column in self.columns.items()}
        if self.cursor and kinds.get(self.cursor.column, "timestamptz") != "timestamptz":
            yield (f"cursor.column {self.cursor.column} must be a timestamptz: a time without a zone can't be compared")
        if self.effective_at and kinds.get(self.effective_at, "date") not in ("timestamptz", "timestamp", "date"):
            yield f"effective_at names {self.effective_at}, which is not a time"
        if self.sequence and kinds.get(self.sequence, "bigint") not in ("bigint", "integer", "smallint"):
            yield f"sequence names {self.sequence}, which is not a whole number"
        for name, column in self.columns.items():
            if column.from_path and (not self.origin.files or column.from_path not in self.origin.files.placeholders):
                yield f"columns.{name}.from_path: the path has no {{{column.from_path}}}"


def undeclared(table: Mapping[str, Any], columns: Container[str]) -> Iterator[str]:
    """Names of columns that `table`, as it is or as it stands in a file with other faults, has not declared."""
    cursor = table.get("cursor")
    for what, given in (
        ("key", table.get("key")),
        ("effective_at", table.get("effective_at")),
        ("sequence", table.get("sequence")),
        ("cursor.column", cursor.get("column") if isinstance(cursor, Mapping) else None),
    ):
        for name in given if isinstance(given, list | tuple) else [given]:
            if isinstance(name, str) and name not in columns:
                yield f"{what} names the column {name}, which is not declared under columns"


class Circuit(Declared):
    """When a connection that fails is left alone for a while."""

    failures: int = Field(default=5, ge=1, description="So many failures in a row open the circuit")
    wait: Duration = Field(
        default=timedelta(minutes=1),
        description="Until one request may try again; doubled by each that fails, to at most half an hour",
    )


class Source(Declared):
    """One source: who answers for it, when it is read, and its tables."""

    source: Name = Field(description="Its name: of the DAG ingest_<source>, of the logs <source>__<table>")
    description: str = Field(min_length=1, description="What it is, for the catalogue")
    owner: str = Field(min_length=1, description="The team or person who is asked")
    schedule: Annotated[str | None, BeforeValidator(_schedule)] = Field(
        default=None, description="Cron expression in UTC of the ingest DAG"
    )
    start: date = Field(default=date(2026, 1, 1), description="First day of the schedule and of {date} units")
    deadline: Duration | None = Field(default=None, description="How long after it is queued a run may take")
    announced_by: Announced | None = Field(
        default=None, description="How it says itself that there is something to read; its DAG then starts at once"
    )
    wait: Duration = Field(default=timedelta(hours=1), description="How long a sensor waits for a table to be ready")
    tags: tuple[str, ...] = Field(default=(), description="Tags of its DAG")
    at_once: dict[Name, int] = Field(
        default_factory=dict, description="How many tasks may read from a connection at once; 2 where nothing is said"
    )
    circuit: dict[Name, Circuit] = Field(
        default_factory=dict, description="When a connection is left alone, where it differs from the default"
    )
    clock: Clock | None = Field(default=None, description="The source's own time, where it is not the wall clock")
    tables: dict[Name, Table] = Field(min_length=1, description="Its tables, each by its name")

    @model_validator(mode="after")
    def _referred(self) -> Source:
        faults = [
            f"tables.{name}.columns.{column_name}.references: {problem}"
            for name, table in self.tables.items()
            for column_name, column in table.columns.items()
            if column.references
            and column.references.table.partition(".")[0] == self.source
            and (problem := column.references.problem({self.source: self}))
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Tell each table its name and its source."""
        for name, table in self.tables.items():
            table._name, table._source = name, self.source

    @property
    def connections(self) -> frozenset[str]:
        """Ids of every connection that the source needs."""
        used = {name for table in self.tables.values() for name in table.connections}
        if self.announced_by:
            used.add(self.announced_by.connection)
        return frozenset(used | ({self.clock.connection} if self.clock else set()))
