"""Rejected rows: which there are, what came, and a person's word that one will never be loaded.

Nothing here shows a personal value unless it is asked to. `sluice.loading.replay` brings rows back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from sluice import settings, warehouse
from sluice.declarations import Table, load_folder
from sluice.errors import SluiceError

STATES = ("open", "replayed", "discarded", "superseded")
MASK = "***"
_PAGE = 2000  # rows in memory at once

Fields = dict[str, str | None]


@dataclass(frozen=True)
class Where:
    """Which rows. Each field that is given narrows; an empty one says nothing."""

    source: str = ""
    table: str = ""
    code: str = ""
    column: str = ""
    state: str = ""
    batch_id: int | None = None
    since: datetime | None = None
    ids: tuple[int, ...] | None = None
    sources: tuple[str, ...] | None = None  # only these, for someone who may not see all

    def __post_init__(self) -> None:
        if self.state and self.state not in STATES:
            raise SluiceError(f"{self.state} is not a state of a rejected row; those are {', '.join(STATES)}")

    @property
    def narrows(self) -> bool:
        """Whether it says anything but a state."""
        return any((self.source, self.code, self.column, self.batch_id, self.since, self.ids is not None))


@dataclass(frozen=True)
class Group:
    """Rejected rows of one table for one reason."""

    source: str
    table_name: str
    code: str
    column_name: str | None
    reason: str
    state: str
    rows: int
    first_id: int
    latest: datetime


@dataclass(frozen=True)
class Rejected:
    """One row of `ops.quarantine` with its place. `raw` is what came; `fields` is the same by name, where it was a
    row."""

    quarantine_id: int
    source: str
    table_name: str
    batch_id: int
    unit: str
    row_number: int
    key: str | None
    column_name: str | None
    code: str
    reason: str
    state: str
    state_reason: str | None
    state_by: str | None
    state_at: datetime | None
    replayed_by: int | None
    created_at: datetime
    raw: str | None

    @property
    def fields(self) -> Fields | None:
        """The values by the names under which they came. None for what never became a row: there is only `raw`."""
        if self.column_name is None or self.raw is None:  # a rule of a column was broken, so there were columns
            return None
        try:
            found = json.loads(self.raw)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class Shown(Rejected):
    """A rejected row as it may be shown: personal values are masked. `values` is what came, by field."""

    values: Fields | None


@dataclass(frozen=True)
class Discarded:
    """How many rows were, or in a rehearsal would be, given up."""

    rows: int
    rehearsed: bool


def condition(where: Where) -> tuple[sql.Composable, dict[str, object]]:
    """The rows of `ops.quarantine as q` that `where` means, as a SQL condition and its parameters."""
    given: dict[str, tuple[str, object]] = {
        "source": ("q.source = %(source)s", where.source),
        "table": ("q.table_name = %(table)s", where.table),
        "code": ("q.code = %(code)s", where.code.upper()),
        "column": ("q.column_name = %(column)s", where.column),
        "state": ("q.state = %(state)s", where.state),
        "batch": ("q.batch_id = %(batch)s", where.batch_id),
        "since": ("q.created_at >= %(since)s", where.since),
    }
    used = {name: pair for name, pair in given.items() if pair[1] not in ("", None)}
    if where.ids is not None:
        used["ids"] = ("q.quarantine_id = any(%(ids)s)", list(where.ids))
    if where.sources is not None:
        used["sources"] = ("q.source = any(%(sources)s)", list(where.sources))
    text = " and ".join(text for text, _ in used.values()) or "true"  # texts of our own; the values are parameters
    return sql.SQL(text), {name: value for name, (_, value) in used.items()}


def groups(where: Where, *, limit: int) -> list[Group]:
    """Rows counted by table, code, column, reason and state; the largest groups first."""
    matching, parameters = condition(where)
    with warehouse.reading() as connection, connection.cursor(row_factory=class_row(Group)) as cursor:
        return cursor.execute(
            sql.SQL(
                """
                select source, table_name, code, column_name, reason, state, count(*) as rows,
                    min(quarantine_id) as first_id, max(created_at) as latest
                from ops.quarantine as q where {} group by 1, 2, 3, 4, 5, 6 order by rows desc, first_id limit %(limit)s
                """
            ).format(matching),
            parameters | {"limit": limit},
        ).fetchall()


def rows(where: Where, *, limit: int | None = None) -> Iterator[Rejected]:
    """The rows one by one, in the order in which they were rejected. They hold what came: see `masked`."""
    matching, parameters = condition(where)
    with warehouse.reading() as connection:
        yield from read(connection, matching, parameters, limit=limit)


def read(
    connection: psycopg.Connection,
    matching: sql.Composable,
    parameters: Mapping[str, object],
    *,
    limit: int | None = None,
    lock: bool = False,
) -> Iterator[Rejected]:
    """Rows that match, a bounded number in memory at once; with `lock`, nobody else may change them meanwhile."""
    query = sql.SQL(
        """
        select q.quarantine_id, q.source, q.table_name, q.batch_id, b.unit, q.row_number, q.key, q.column_name, q.code,
            q.reason, q.state, q.state_reason, q.state_by, q.state_at, q.replayed_by, q.created_at,
            coalesce(q.raw, encode(q.raw_bytes, 'base64')) as raw
        from ops.quarantine as q inner join ops.batch as b using (batch_id)
        where ({}) and q.quarantine_id > %(after)s
        order by q.quarantine_id limit %(page)s {}
        """
    ).format(matching, sql.SQL("for update of q" if lock else ""))
    after, left = 0, limit
    while left is None or left > 0:
        with connection.cursor(row_factory=class_row(Rejected)) as cursor:
            page = cursor.execute(
                query, dict(parameters) | {"after": after, "page": min(_PAGE, left or _PAGE)}
            ).fetchall()
        yield from page
        if len(page) < _PAGE:
            return
        after, left = page[-1].quarantine_id, None if left is None else left - len(page)


def row(quarantine_id: int) -> Rejected:
    """One row as it came."""
    found = next(rows(Where(ids=(quarantine_id,))), None)
    if found is None:
        raise SluiceError(f"there is no row {quarantine_id} in quarantine")
    return found


class Masker:
    """Hides what may speak of a person. Of a table with personal columns only fields that are declared not to be
    personal are shown: one that the contract does not know may be a renamed one."""

    def __init__(self) -> None:
        self._tables = {
            (source.source, name): table
            for source in load_folder(settings.sources_dir()).sources.values()
            for name, table in source.tables.items()
        }

    def fields(self, row: Rejected) -> Fields | None:
        """The row's fields with personal ones masked; an absent value is shown as absent."""
        found, shown = row.fields, self._shown(row)
        if found is None or shown is None:
            return found
        return {n: v if v is None or n.lower() in shown else MASK for n, v in found.items()}

    def raw(self, row: Rejected) -> str | None:
        """What came, for a record that never became a row; masked as a whole if the table holds anything personal."""
        if row.fields is not None:
            return None
        return row.raw if self._shown(row) is None or row.raw is None else MASK

    def key(self, row: Rejected) -> str | None:
        """The business key, unless a column of it is personal."""
        table = self._tables.get((row.source, row.table_name))
        safe = table is not None and not any(table.columns[name].personal for name in table.key)
        return row.key if safe or row.key is None else MASK

    def row(self, row: Rejected) -> Shown:
        """All of it."""
        given = {name: getattr(row, name) for name in Rejected.__dataclass_fields__}
        return Shown(**given | {"raw": self.raw(row), "key": self.key(row)}, values=self.fields(row))

    def _shown(self, row: Rejected) -> set[str] | None:
        """Lower-case names of the fields that may be shown; None for all."""
        table: Table | None = self._tables.get((row.source, row.table_name))
        if table is None:
            return set()  # nobody says what is personal here
        if not any(column.personal for column in table.columns.values()):
            return None
        return {(c.field or name).lower() for name, c in table.columns.items() if not c.personal}


def discard(where: Where, *, by: str, reason: str, rehearse: bool = True) -> Discarded:
    """Give open rows up: they stay readable, and nobody is asked about them again.

    What the log means does not change: of the key of a discarded row in a full extract it is known only that it was
    there. Raises `SluiceError` if no open row matches.
    """
    if not reason.strip():
        raise SluiceError("say why these rows may be given up; nothing was discarded")
    matching, parameters = condition(where)
    with warehouse.connect() as connection:
        done = connection.execute(
            sql.SQL(
                """
                update ops.quarantine as q set state = 'discarded', state_by = %(by)s, state_reason = %(reason)s,
                    state_at = clock_timestamp()
                where {} and q.state = 'open'
                """
            ).format(matching),
            parameters | {"by": by, "reason": reason},
        ).rowcount
        if done == 0:
            raise SluiceError(f"{nothing_open(connection, where)}; nothing was discarded")
        if rehearse:
            connection.rollback()
    return Discarded(done, rehearse)


def nothing_open(connection: psycopg.Connection, where: Where) -> str:
    """Why there is no open row: none matches, or those that do are settled."""
    matching, parameters = condition(where)
    settled = connection.execute(
        sql.SQL(
            """
            select q.state, count(*), min(q.batch_id), min(b.superseded_by)
            from ops.quarantine as q inner join ops.batch as b using (batch_id) where {} group by 1 order by 1
            """
        ).format(matching),
        parameters,
    ).fetchall()
    if not settled:
        return "no row in quarantine matches"
    words = []
    for state, count, batch_id, superseded_by in settled:
        text = f"{count} rows that match are {state}"
        if state == "superseded":
            later = f"batch {superseded_by}" if superseded_by else "a later batch"
            text += f" (of batch {batch_id}, for one: {later} judged its unit anew)"
        words.append(text)
    return "; ".join(words) + "; none is open"
