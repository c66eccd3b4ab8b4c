"""What every kind of source answers: which units there are, and the rows of one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import psycopg
import xxhash

from sluice import settings
from sluice.declarations import Source, Table
from sluice.errors import SourceUnavailable, unreachable

if TYPE_CHECKING:
    from sluice.readers.lines import Comparison

UTC = UTC
# of a session at a Postgres source: that values are written in one way only
SESSION = {
    "timezone": "UTC",
    "datestyle": "ISO,YMD",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "application_name": "sluice extract",
}
Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class Unit:
    """One thing to read: a file, a day of a resource, a range of a cursor.

    `name` is its identity in the ledger. `instant` is the moment for which a full extract speaks. `stamp` changes
    when the
    content may have changed, and costs nothing to ask for; empty when the source offers none. `values` are the
    placeholders of its path. `resumable` says how the unit is asked for, where its reader can go on after what an
    attempt that failed has landed; empty where it can't. `clock_ahead` is by how many seconds the source's clock was
    before ours when the watermark was taken. `known` are the columns that a database had when it was read before,
    without those that were news then; None where it never was.
    """

    name: str
    instant: datetime
    interval: Interval | None = None
    stamp: str = ""
    values: dict[str, str] = field(default_factory=dict)
    location: str = ""
    resumable: str = ""
    clock_ahead: float | None = None
    known: frozenset[str] | None = None


class Names:
    """Which fields the records of a unit have, where no header says it."""

    _MANY = 100  # unknown names; whoever has more has data for names

    def __init__(self, fields: list[str]) -> None:
        self._known = set(fields)
        self.missing = set(self._known)  # declared, and in no record so far
        self.unknown: dict[str, None] = {}  # in their order
        self.any = False  # whether any record could be read

    def add(self, item: dict[str, Any]) -> None:
        """One more record. A dotted field is there only with a value."""
        self.any = True
        if self.missing:
            self.missing -= {name for name in self.missing & item.keys() if "." not in name or item[name] is not None}
        if len(self.unknown) < self._MANY:
            self.unknown |= dict.fromkeys(name for name in item if name not in self._known)

    @property
    def details(self) -> dict[str, list[str]]:
        """For the ledger: fields that the contract does not know, and declared ones without a value anywhere."""
        return {"unknown": list(self.unknown), "absent": sorted(self.missing) if self.any else []}


@dataclass
class Read:
    """What reading a unit found out: the books' first column, and how the landing table maps to the contract."""

    fields: list[str]  # with `rest`, the last is none of the source's
    content_hash: str = ""
    bytes_read: int = 0
    control_total: int | None = None
    watermark_from: str | None = None
    watermark_to: str | None = None
    constants: dict[str, str] = field(default_factory=dict)
    empty_is_null: bool = False
    header: list[str] | None = None
    rest: bool = False  # as it was said to `Sink.create`
    keys: int | None = None  # how many keys a scan found
    keys_once: bool = False  # the source vouches that no key is there twice
    clock_ahead: float | None = None  # seconds, of the source's clock before ours
    clock_back: float = 0.0  # seconds by which it went back since the watermark was taken
    instant: datetime | None = None  # for which the rows speak, where it is not that of the unit
    names: Names | None = None  # of a format without a header
    left_out: list[str] | None = None  # columns of a database that are not asked for
    new: list[str] = field(default_factory=list)  # those that came since, which the contract does not know


@dataclass(frozen=True)
class Readiness:
    """Whether a table can be read now, and what is waited for if not."""

    ready: bool
    waiting_for: str


class Block(Protocol):
    """Some whole records of a text, ready for a COPY, and what is needed where the server does not take one."""

    first: int  # the position of its first record
    count: int  # how many records it has
    suspect: bool  # COPY might take it for other records than these

    @property
    def data(self) -> bytes: ...
    @property
    def binary(self) -> bytes | None: ...  # the same for a binary COPY, which takes all or nothing, where there is that
    @property
    def damaged(self) -> dict[int, tuple[str, str]]: ...  # records known to be no rows: code and reason

    @property
    def unsayable(self) -> bytes | None: ...  # what COPY would take for something else
    @property
    def records(self) -> Sequence[bytes]: ...
    def ended(self, lines: list[int], kept: list[int] | None) -> list[int]: ...  # records, by COPY's count of lines
    def keep(self, indexes: list[int]) -> bytes: ...
    def fields(self, index: int) -> list[str | None]: ...
    def raw(self, index: int) -> bytes: ...  # what of a record that is no row goes to quarantine
    def problem(self, index: int) -> tuple[str, str] | None: ...


def by_line(lines: list[int], count: int, kept: list[int] | None) -> list[int]:
    """Which of `count` records, or of those kept, are these lines, where each is one. Lines count from 1."""
    if kept is None:
        return [line - 1 for line in lines if line <= count]
    return [kept[line - 1] for line in lines if line <= len(kept)]


class Sink(Protocol):
    """Where a reader puts the rows of one unit. Call `create` first; again to begin anew. With `rest` the last field is
    a JSON object of what the contract does not know, and none of the source's.

    Three ways in, which may be mixed; all take rows at the positions that they have in the unit, from 1:

    * **text** (`rows`, `copy`): every field as text, judged by the contract afterwards: for any format, and the slower
      way. `rows` takes numbered rows; numbers may have holes, where `reject` was called instead.
    * **values** (`binary`): chunks of PostgreSQL's binary COPY format, from its signature to its trailer, for the
      columns in `types`, each in exactly that type (a `numeric(p,s)` lands as `numeric`, and keeps its digits to be
      judged). Binary COPY can't skip a row: one malformed value fails the unit. Contract rules are checked afterwards
      in the server. Each call is a session of its own and may run in a thread of its own, so that several go at once:

          with sink.binary(columns) as write:
              for chunk in chunks:
                  write(chunk)

      `start` is the position of the stream's first row; without one, streams follow each other in the order in which
      they were opened.

    * **blocks** (`blocks`): text in COPY's own formats straight into values, a block of whole records at a time. What
      the server refuses goes on as text by itself. Only if `takes_blocks`. `kinds` are the types, field by field, into
      which they go.

    A record that can't even become text goes to `reject`, with its bytes. `keys` takes all keys of the source, for a
    key scan, each with its stamp, in PostgreSQL's text format; `missed` then says which of them a reading that begins
    at an instant must not leave out, as texts, or None: all.

    `resumed` is what an attempt that failed last gave to `checkpoint`; the rows that it had landed as text by then are
    here, and `create` with `keep` leaves them.
    """

    resumed: dict[str, Any] | None
    lines: Comparison | None  # for full extracts whose lines can be compared with those of the extract before

    @property
    def types(self) -> dict[str, str]: ...
    def create(self, fields: list[str], *, keep: bool = False, rest: bool = False) -> None: ...
    def rows(self, rows: Iterable[tuple[int, Sequence[str | None]]]) -> int: ...
    def copy(self, blocks: Iterable[bytes], options: str) -> int: ...
    def binary(
        self, columns: Sequence[str], *, start: int | None = None
    ) -> AbstractContextManager[Callable[[bytes], None]]: ...
    @property
    def takes_blocks(self) -> bool: ...
    @property
    def kinds(self) -> list[str]: ...
    def blocks(self, blocks: Iterable[Block], options: str) -> None: ...
    def reject(self, row_number: int, code: str, reason: str, raw: bytes) -> None: ...
    def keys(self, blocks: Iterable[bytes]) -> int: ...
    def missed(self, since: datetime) -> list[tuple[str, ...]] | None: ...
    def checkpoint(self, progress: dict[str, Any]) -> None: ...


class Reader(Protocol):
    """One kind of source."""

    def ready(self, source: Source, table: Table) -> Readiness: ...
    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]: ...
    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read: ...


class Digest:
    """A running hash of everything that passes, and how much it was."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self.size = 0

    @staticmethod
    def of(parts: Sequence[Digest]) -> str:
        """One hash for all parts, in their order."""
        if len(parts) == 1:
            return parts[0].hex()
        return xxhash.xxh3_128_hexdigest("".join(part.hex() for part in parts).encode())

    def add(self, block: bytes) -> None:
        """One more block has passed."""
        self._hash.update(block)
        self.size += len(block)

    def over(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the blocks on unchanged."""
        for block in blocks:
            self.add(block)
            yield block

    def reading(self, file: BinaryIO) -> io.BufferedReader:
        """The file, read once from its beginning."""
        return io.BufferedReader(_Hashed(self, file), 1 << 18)

    def hex(self) -> str:
        """The hash of all that has passed so far."""
        return self._hash.hexdigest()


class _Hashed(io.RawIOBase):
    def __init__(self, digest: Digest, file: BinaryIO) -> None:
        self._digest, self._file = digest, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._digest._hash.update(memoryview(buffer)[:count])
        self._digest.size += count
        return count


def now(source: Source) -> datetime:
    """The source's own time: its declared clock, else the wall clock."""
    if source.clock is None:
        return datetime.now(UTC)
    with connect(source.clock.connection) as connection:
        row = connection.execute(source.clock.query.encode()).fetchone()
    if row is None or row[0] is None:
        raise SourceUnavailable(f"the clock of {source.source} returned nothing; nothing was read")
    return row[0].astimezone(UTC)


def connect(conn_id: str, *, autocommit: bool = False) -> psycopg.Connection:
    """Open a session at a Postgres source. Errors name the connection, never its secret."""
    try:
        return psycopg.connect(
            settings.connection(conn_id).postgres_url(),
            autocommit=autocommit,
            options=" ".join(f"-c {name}={value}" for name, value in SESSION.items() if name != "application_name"),
            application_name=SESSION["application_name"],
            connect_timeout=10,
        )
    except psycopg.OperationalError as error:
        raise SourceUnavailable(
            f"connection {conn_id} can't be opened: {unreachable(error)}; nothing was read"
        ) from None


def days(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to the day before `last`."""
    while first < last:
        yield first
        first += timedelta(days=1)


def day_interval(day: date) -> Interval:
    """The day as a half-open interval in UTC."""
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def is_of(unit: Interval | None, asked: Interval | None) -> bool:
    """Whether a backfill of the interval `asked` reads the unit; both half-open, an absent one is everything.

    The one in which a unit ends reads it, as the schedule's run of that interval did: neighbours that run at once never
    meet at a unit. A unit that is longer than the interval, such as a month, is read by each that it shares time with.
    """
    if unit is None or asked is None:
        return True
    if unit[1] - unit[0] > asked[1] - asked[0]:
        return unit[0] < asked[1] and asked[0] < unit[1]
    return asked[0] < unit[1] <= asked[1]


def source_fields(table: Table) -> list[str]:
    """The fields to ask the source for: those of the contract, and the one that marks deletes."""
    fields = [column.field or name for name, column in table.columns.items() if not column.from_path]
    if table.deleted_by and table.deleted_by.field not in fields:
        fields.append(table.deleted_by.field)
    return fields
