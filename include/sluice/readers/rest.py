"""JSON over HTTP, page by page. Each page that has landed is kept, so that a retry goes on after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from sluice.declarations import Source, Table
from sluice.declarations.pools import slots
from sluice.declarations.rest import Rest
from sluice.errors import BadResponse, SourceChanged
from sluice.readers import paging
from sluice.readers.base import (
    Interval,
    Names,
    Read,
    Readiness,
    Sink,
    Unit,
    day_interval,
    days,
    is_of,
    now,
    source_fields,
)
from sluice.readers.formats.columns import unstorable
from sluice.readers.http import Answer, PageGone, Session, base_url
from sluice.readers.jsonl import TOO_DEEP, loads, with_rest


@dataclass
class Progress:
    """How far a unit has been read. It is committed with the pages that have landed."""

    position: paging.Position  # of the next page
    pages: int = 0  # that have landed
    rows: int = 0
    bytes: int = 0
    first_count: int = 0  # rows of the first page
    total: int | None = None
    page_count: int | None = None  # as the server announces it
    digest: str = ""  # of all pages
    last: paging.Position = None  # where the page that landed last was
    last_digest: str = ""
    mark: paging.Position = None  # a page that was passed, to notice pages that lead in a circle
    done: bool = False
    absent: list[str] | None = None  # declared fields that no row had so far
    unknown: list[str] = field(default_factory=list)  # fields that the contract does not know


@dataclass(frozen=True)
class Asked:
    """One page as it was answered."""

    content: paging.Content
    digest: str
    size: int
    body: Any
    answer: Answer


class _ReadAnew(Exception):
    """What has landed can't be gone on from; nothing of it may stay."""


class RestReader:
    """A resource that is read whole, or day by day."""

    def ready(self, source: Source, table: Table) -> Readiness:
        """Whether the server answers at all."""
        with Session(_origin(table)) as session:
            session.answers()
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: Interval | None, watermark: str | None) -> list[Unit]:
        """One unit per finished day when a parameter has {date}; else the resource as it is now."""
        origin, instant = _origin(table), now(source)
        resumable = _identity(origin) if origin.page and origin.resume_within else ""
        if not _by_day(origin):
            return [Unit(instant.isoformat(), instant, resumable=resumable)]
        first = table.start or source.start
        every = (
            Unit(
                day.isoformat(),
                day_interval(day)[1],
                day_interval(day),
                values={"date": day.isoformat()},
                resumable=resumable,
            )
            for day in days(first, instant.date())
        )
        return [unit for unit in every if is_of(unit.interval, interval)]

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        """Land every page of the unit, after those that an earlier attempt landed. One that can't be had fails it."""
        origin = _origin(table)
        fields = source_fields(table)
        result = Read([*fields, "_rescued"], rest=True)
        with Session(origin, at_once=slots(source, origin.connection)) as session:
            reading = _Reading(origin, unit, sink, session, fields)
            try:
                progress = reading.resume()
                began = None
            except _ReadAnew:
                progress, began = reading.begin(), now(source)
            try:
                reading.go_on(progress)
            except PageGone:
                # E12: the cursor expired; the pages so far are of a window that can't be finished
                progress, began = reading.begin(), now(source)
                reading.go_on(progress)
        if began and sink.resumed and not unit.interval:
            result.instant = began  # the unit was named by an attempt of which nothing is left
        result.names = reading.names
        result.control_total, result.content_hash, result.bytes_read = progress.total, progress.digest, progress.bytes
        return result


class _Reading:
    """One attempt at a unit."""

    def __init__(self, origin: Rest, unit: Unit, sink: Sink, session: Session, fields: list[str]) -> None:
        self._origin, self._unit, self._sink, self._session, self._fields = origin, unit, sink, session, fields
        self.names = Names(fields)
        self._where = f"{origin.path} at connection {origin.connection}"
        self._left = f"nothing of {unit.name} was published"

    def begin(self) -> Progress:
        """An empty landing table, and the first page."""
        self._create()
        self.names = Names(self._fields)
        return Progress(position=paging.first(self._origin.page))

    def resume(self) -> Progress:
        """What an earlier attempt landed, if its last page is still what it was. Raises `_ReadAnew` else."""
        if not self._sink.resumed:
            raise _ReadAnew
        progress = Progress(**self._sink.resumed)
        if progress.absent is None:  # of a release that did not note which fields came
            raise _ReadAnew
        try:
            last = self._ask(progress.last, progress.pages)
        except BadResponse:
            raise _ReadAnew from None
        same = (last.digest, last.content.total, last.content.pages) == (
            progress.last_digest,
            progress.total,
            progress.page_count,
        )
        if not same:
            raise _ReadAnew
        self._create(keep=True)
        self.names.missing, self.names.any = set(progress.absent), progress.rows > 0
        self.names.unknown = dict.fromkeys(progress.unknown)
        return progress

    def _create(self, *, keep: bool = False) -> None:
        self._sink.create([*self._fields, "_rescued"], keep=keep, rest=True)

    def go_on(self, progress: Progress) -> None:
        """Land page after page, and commit each with how far we are."""
        while not progress.done:
            asked = self._ask(progress.position, progress.pages + 1, by_server=progress.pages > 0)
            self._compare(progress, asked)
            self._sink.rows(self._numbered(asked, progress.rows))
            self._advance(progress, asked)
            if self._unit.resumable and not (progress.done and progress.pages == 1):
                self._sink.checkpoint(asdict(progress))

    def _ask(self, position: paging.Position, number: int, *, by_server: bool = False) -> Asked:
        path, params = paging.request(self._origin, position, self._unit.values)
        named_by_server = (
            by_server and self._origin.page is not None and self._origin.page.by not in ("number", "offset")
        )
        answer = self._session.get(path, params, page=number, named_by_server=named_by_server)
        try:
            body = loads(answer.body)
            content = paging.content(self._origin, body, answer.headers)
            text = json.dumps(content.items, sort_keys=True).encode()
        except paging.Malformed as problem:
            raise self._no_data(f"page {number} {problem}", answer.body, number) from None
        except (ValueError, RecursionError):
            kind = answer.headers.get("content-type", "no content type")
            raise self._no_data(f"page {number} is {kind} that is not JSON", answer.body, number) from None
        return Asked(content, hashlib.blake2b(text, digest_size=16).hexdigest(), len(text), body, answer)

    def _no_data(self, what: str, body: bytes, number: int) -> BadResponse:
        return BadResponse(
            f"{self._where}: {what}, though the status was 200; {self._left}. The body is kept in quarantine",
            body=self._session.dead_letter(body),
            page=number,
        )

    def _compare(self, progress: Progress, asked: Asked) -> None:
        """Notice rows that move while we read, and a server that answers every page with the same one."""
        if not progress.pages:
            return
        if (progress.total, progress.page_count) != (asked.content.total, asked.content.pages):
            # rows came or went between two pages, so that others moved across the edge of a page, unseen
            raise SourceChanged(
                f"{self._where} changed while it was read: page {progress.pages + 1} announces other totals than the "
                f"pages before; {self._left}"
            )
        if asked.content.items and asked.digest == progress.last_digest:
            raise BadResponse(
                f"{self._where}: page {progress.pages + 1} holds the same rows as the page before; {self._left}. "
                "Look at page in the declaration: the server seems not to know its parameter",
                page=progress.pages + 1,
            )

    def _advance(self, progress: Progress, asked: Asked) -> None:
        count = len(asked.content.items)
        progress.last, progress.last_digest = progress.position, asked.digest
        progress.total, progress.page_count = asked.content.total, asked.content.pages
        progress.pages, progress.rows, progress.bytes = (
            progress.pages + 1,
            progress.rows + count,
            progress.bytes + asked.size,
        )
        progress.first_count = progress.first_count if progress.pages > 1 else count
        progress.absent, progress.unknown = sorted(self.names.missing), list(self.names.unknown)
        progress.digest = hashlib.blake2b((progress.digest + asked.digest).encode(), digest_size=16).hexdigest()
        try:
            following = paging.following(
                self._origin,
                progress.position,
                asked.content,
                progress.rows,
                progress.first_count,
                asked.body,
                asked.answer.headers,
            )
        except paging.Malformed as problem:
            raise self._no_data(f"page {progress.pages} {problem}", asked.answer.body, progress.pages) from None
        if following is not None and self._origin.page and self._origin.page.by in ("link", "next_url"):
            following = self._session.bare(asked.answer.url.join(str(following)))
        if following is not None and following in (progress.last, progress.mark):
            raise BadResponse(
                f"{self._where}: page {progress.pages} leads back to a page that was read; {self._left}",
                page=progress.pages,
            )
        if progress.pages & (progress.pages - 1) == 0:  # at 1, 2, 4, 8, …: a circle of any length is noticed in time
            progress.mark = following
        progress.position, progress.done = following, following is None

    def _numbered(self, asked: Asked, before: int) -> Iterator[tuple[int, list[str | None]]]:
        """The rows of a page; one that Postgres can't hold goes to quarantine, and the others go on."""
        for number, item in enumerate(asked.content.items, start=before + 1):
            try:
                json.dumps(item, ensure_ascii=False).encode()  # a field's name may hold what can't be stored, too
                values = with_rest(item, self._fields)
                problem = unstorable(values)
            except UnicodeEncodeError:
                problem = "ENCODING", "half of a surrogate pair"
            except RecursionError:
                problem = TOO_DEEP
            if problem:
                self._sink.reject(number, *problem, json.dumps(item).encode())
            else:
                self.names.add(item)
                yield number, values


def _origin(table: Table) -> Rest:
    assert table.origin.rest is not None
    return table.origin.rest


def _by_day(origin: Rest) -> bool:
    return any("{date}" in value for value in origin.params.values()) or "{date}" in origin.path


def _identity(origin: Rest) -> str:
    """Changes when the same unit would be asked for in another way."""
    asks = origin.model_dump_json(exclude={"retries", "give_up_after", "resume_within", "rate"})
    text = f"{base_url(origin.connection)} {asks}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
