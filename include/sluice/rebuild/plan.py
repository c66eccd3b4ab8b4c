"""What a rehearsal found: per model the rows that go and those that come, and how they are told apart."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from sluice.errors import SluiceError

NULL = "NULL"


@dataclass(frozen=True)
class Rows:
    """Which rows of the models are meant; all of them if nothing is given. `values`: single ones, or first and last;
    `NULL` among single ones means the rows that have none."""

    column: str | None = None
    values: tuple[str, ...] = ()
    is_range: bool = False
    first: date | None = None
    last: date | None = None  # included

    @classmethod
    def of(cls, keys: str = "", first: date | None = None, last: date | None = None) -> Rows:
        """Read `--keys`: `order_id=17,18`, `order_id=100..200` or `order_id=17,NULL`."""
        column, _, given = keys.partition("=")
        if keys and not (re.fullmatch(r"[a-z_][a-z0-9_]*", column.strip()) and given.strip()):
            raise SluiceError(f"{keys!r}: say <column>=<a>,<b> or <column>=<a>..<b>; nothing was built")
        if first and last and first > last:
            raise SluiceError(f"{last} is before {first}; nothing was built")
        is_range = ".." in given
        values = tuple(value.strip() for value in given.split(".." if is_range else ",")) if keys else ()
        if not all(values) or (is_range and len(values) != 2):
            raise SluiceError(f"{keys!r}: say <column>=<a>,<b> or <column>=<a>..<b>; nothing was built")
        if is_range and NULL in values:
            raise SluiceError(f"{keys!r}: no range begins or ends at NULL; nothing was built")
        return cls(column.strip() or None, values, is_range, first, last)

    @property
    def given(self) -> tuple[str, ...]:
        """The values but for NULL, which is none."""
        return tuple(value for value in self.values if value != NULL)

    def __bool__(self) -> bool:
        return bool(self.column or self.first or self.last)

    def __str__(self) -> str:
        keys = f"{self.column}={('..' if self.is_range else ',').join(self.values)}" if self.column else ""
        return " ".join(filter(None, [keys, self.first and f"from {self.first}", self.last and f"to {self.last}"]))

    def without_values(self) -> Rows:
        """For records that outlive what they speak of: a person's e-mail address is no key to keep."""
        return replace(self, values=("***",), is_range=False) if self.column else self

    def condition(self, dated: str | None) -> sql.Composable:
        """True for the rows that are meant, of a model whose rows belong to the day in `dated`."""
        parts = [sql.SQL("true")]
        if self.column:
            column = sql.Identifier(self.column)
            if self.is_range:  # the server reads the values as the column's type
                parts.append(sql.SQL("{} between {} and {}").format(column, *map(sql.Literal, self.values)))
            else:
                given = sql.SQL(", ").join(map(sql.Literal, self.given))
                listed = sql.SQL("{} in ({})").format(column, given) if self.given else sql.SQL("false")
                none = sql.SQL(" or {} is null").format(column) if NULL in self.values else sql.SQL("")
                parts.append(sql.SQL("({}{})").format(listed, none))
        if self.first and dated:
            parts.append(sql.SQL("{} >= {}").format(sql.Identifier(dated), sql.Literal(str(self.first))))
        if self.last and dated:
            after = sql.Literal(str(self.last + timedelta(days=1)))
            parts.append(sql.SQL("{} < {}").format(sql.Identifier(dated), after))
        return sql.SQL(" and ").join(parts)


@dataclass(frozen=True)
class Pointer:
    """A column of a model whose values are keys of another, as a blocking `relationships` test says."""

    child: str
    column: str
    parent: str
    field: str


@dataclass
class Change:
    """The difference of one model. `months`: (month, rows added, changed, removed), the earliest first."""

    relation: str
    table: str  # that holds the difference
    columns: list[str]
    grain: list[str]
    slice: list[str]
    partition: str | None
    dated: str | None
    personal: list[str]
    months: list[tuple[str, int, int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else a person should know
    closed: str | None = None  # the column of its closed periods, unless the model restates them
    other_columns: str = ""  # those that the code has otherwise than the table: it can't be applied

    @property
    def rows(self) -> tuple[int, int, int]:
        """Rows added, changed, removed."""
        return tuple(sum(month[place] for month in self.months) for place in (1, 2, 3))  # type: ignore[return-value]

    @property
    def live(self) -> sql.Identifier:
        """The table that readers have."""
        return sql.Identifier(*self.relation.split("."))

    @property
    def stored(self) -> sql.Identifier:
        """The table that holds the difference."""
        return sql.Identifier("rebuild", self.table)

    def names(self, alias: str | None = None) -> sql.Composable:
        """The columns."""
        return names(self.columns, alias)

    def key(self, alias: str) -> sql.Composable:
        """A slice as one text, as ops.changed_key has it."""
        if len(self.slice) == 1:
            return sql.SQL("{}::text").format(sql.Identifier(alias, self.slice[0]))
        return sql.SQL("jsonb_build_array({})::text").format(names(self.slice, alias))

    def same(self, left: str, right: str) -> sql.Composable:
        """Whether two rows have the same grain."""
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier(left, name), sql.Identifier(right, name)) for name in self.grain
        )

    def in_closed_periods(self) -> sql.Composable:
        """The keys of the slices that have a row in a locked period."""
        return sql.SQL(
            "select {key} from {stored} as held where exists ("
            " select from ops.period_lock as lock where relation = {relation} and unlocked_at is null"
            " and held.{column} >= period_from and held.{column} < period_to)"
        ).format(
            key=self.key("held"), stored=self.stored, relation=self.relation, column=sql.Identifier(self.closed or "")
        )

    def count_months(self, connection: psycopg.Connection) -> None:
        """Count what the stored difference holds."""
        when = (
            sql.SQL("coalesce(come.{0}, gone.{0})::timestamp").format(sql.Identifier(self.dated))
            if self.dated
            else sql.SQL("null::timestamp")
        )
        self.months = connection.execute(
            sql.SQL(
                """
                select
                    case
                        when at is null then '' when at = '-infinity' then 'always'
                        else to_char(at, 'YYYY-MM')
                    end as month,
                    count(*) filter (where not was), count(*) filter (where was and is_now),
                    count(*) filter (where not is_now)
                from (
                    select {when} as at, gone._is_new is not null as was, come._is_new is not null as is_now
                    from (select * from {stored} where _is_new) as come
                    full join (select * from {stored} where not _is_new) as gone on {same}
                ) as rows
                group by 1 order by min(at)
                """
            ).format(when=when, stored=self.stored, same=self.same("come", "gone"))
        ).fetchall()


@dataclass
class Plan:
    """One row of `ops.rebuild`."""

    rebuild_id: int
    selection: str
    state: str
    as_of_seq: int
    changes: list[Change]
    pointers: list[Pointer]

    @property
    def is_empty(self) -> bool:
        """Whether every model is what a rebuild would make it."""
        return not any(change.months for change in self.changes)


def names(columns: list[str], alias: str | None = None) -> sql.Composable:
    """A list of columns."""
    prefix = (alias,) if alias else ()
    return sql.SQL(", ").join(sql.Identifier(*prefix, name) for name in columns)


def enter(connection: psycopg.Connection, selection: str, as_of_seq: int, asked_by: str) -> int:
    """A new rebuild, yet without what it found. Earlier rehearsals that nobody applied are dropped."""
    left = "select rebuild_id from ops.rebuild where state = 'rehearsed' for update skip locked"  # one is being applied
    for (rebuild_id,) in connection.execute(left).fetchall():
        drop(connection, rebuild_id)
        connection.execute("update ops.rebuild set state = 'dropped' where rebuild_id = %s", [rebuild_id])
    row = connection.execute(
        "insert into ops.rebuild (selection, state, as_of_seq, plan, asked_by) values (%s, 'rehearsed', %s, '{}', %s)"
        " returning rebuild_id",
        [selection, as_of_seq, asked_by],
    ).fetchone()
    assert row is not None
    return int(row[0])


def keep(connection: psycopg.Connection, plan: Plan) -> None:
    """Write down what it found."""
    connection.execute(
        "update ops.rebuild set plan = %s where rebuild_id = %s",
        [
            Jsonb({"changes": [asdict(c) for c in plan.changes], "pointers": [asdict(p) for p in plan.pointers]}),
            plan.rebuild_id,
        ],
    )


def get(connection: psycopg.Connection, rebuild_id: int, *states: str) -> Plan:
    """Read it, locked; raises `SluiceError` if it is not in one of the states."""
    row = connection.execute(
        "select rebuild_id, selection, state, as_of_seq, plan from ops.rebuild where rebuild_id = %s for update",
        [rebuild_id],
    ).fetchone()
    if row is None or row[2] not in states:
        found = f"is {row[2]}, not {' or '.join(states)}" if row else "does not exist"
        raise SluiceError(f"rebuild {rebuild_id} {found}; nothing was changed. See: sluice rebuild list")
    *rest, plan = row
    changes = [Change(**{**c, "months": [tuple(m) for m in c["months"]]}) for c in plan["changes"]]
    return Plan(*rest, changes, [Pointer(**pointer) for pointer in plan["pointers"]])


def drop(connection: psycopg.Connection, rebuild_id: int) -> None:
    """Drop the tables that hold a difference."""
    tables = connection.execute(
        "select relname from pg_class"
        " where relnamespace = 'rebuild'::regnamespace and relkind = 'r' and starts_with(relname, %s)",
        [f"r{rebuild_id}__"],
    ).fetchall()
    for (table,) in tables:
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier("rebuild", table)))


def records(connection: psycopg.Connection, limit: int = 30) -> list[tuple[Any, ...]]:
    """The latest rebuilds: number, what, state, rows added, changed, removed, who, when, why."""
    return connection.execute(
        """
        select rebuild_id, selection, state,
            (
                select string_agg(each.change ->> 'relation', ', ' order by each.change ->> 'relation')
                from jsonb_array_elements(plan -> 'changes') as each (change)
                where jsonb_array_length(each.change -> 'months') > 0
            ),
            coalesce(sum((month.counts ->> 1)::bigint), 0), coalesce(sum((month.counts ->> 2)::bigint), 0),
            coalesce(sum((month.counts ->> 3)::bigint), 0),
            asked_by, asked_at, applied_by, applied_at, reason, ended_by, ended_at, ended_reason
        from ops.rebuild
        left join lateral (
            select counts
            from jsonb_array_elements(plan -> 'changes') as each (change)
            cross join jsonb_array_elements(each.change -> 'months') as months (counts)
        ) as month on true
        group by rebuild_id order by rebuild_id desc limit %s
        """,
        [limit],
    ).fetchall()
