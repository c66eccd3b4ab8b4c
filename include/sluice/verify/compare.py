"""Two relations that should hold the same rows, in two sessions that may not see each other's.

A hash per bucket of keys is computed where the rows are; only buckets that differ are looked at again, by hash of key
and of row; only the few rows that are shown leave the database.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

_BUCKETS = 4096
_MOST_BUCKETS = 256  # looked at row by row; with more, the count of differing rows is a lower bound
_UNHASHABLE = (
    "json",
    "xml",
    "money",
    "bit",
    "varbit",
    "tsvector",
    "tsquery",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "bit varying",
)
MASKED = "***"


@dataclass(frozen=True)
class Fingerprint:
    """Order-independent: count and sum of row hashes, per bucket of keys."""

    buckets: dict[int, tuple[int, int]]

    @property
    def rows(self) -> int:
        """How many rows."""
        return sum(count for count, _ in self.buckets.values())

    def __str__(self) -> str:
        return f"{self.rows} rows, hash {sum(total for _, total in self.buckets.values()) % 2**64:016x}"


@dataclass(frozen=True)
class Difference:
    """One row that differs: `live` is None where the table lacks it, `rebuilt` where nothing accounts for it."""

    key: list[Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None
    personal: frozenset[str]

    def __str__(self) -> str:
        key = f"[{', '.join(map(_shown, self.key))}]"
        if self.live is None:
            return f"{key} is missing; rebuilt: {self._shown(self.rebuilt)}"
        if self.rebuilt is None:
            return f"{key} has no origin in the change logs; it holds: {self._shown(self.live)}"
        changed = [name for name in self.live if self.live[name] != self.rebuilt[name]]
        told = ", ".join(
            f"{name} is {self._value(name, self.live)}, rebuilt {self._value(name, self.rebuilt)}" for name in changed
        )
        return f"{key} differs: {told or 'in how a value is written'}; the row: {self._shown(self.live)}"

    def _value(self, name: str, row: dict[str, Any]) -> str:
        return MASKED if name in self.personal else _shown(row[name])

    def _shown(self, row: dict[str, Any] | None) -> str:
        return "{" + ", ".join(f"{name}: {self._value(name, row)}" for name in row or {}) + "}"


@dataclass(frozen=True)
class Differences:
    """How many rows differ (at least, if not `is_exact`), and the first of them."""

    count: int
    is_exact: bool
    shown: list[Difference]


@dataclass(frozen=True)
class Without:
    """Rows that are left out: those whose `columns`, as a JSON array of their texts, are among `values`."""

    columns: tuple[str, ...]
    values: list[str]

    def condition(self) -> sql.Composable:
        """True for the rows that are kept."""
        names = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.columns)
        return sql.SQL("jsonb_build_array({})::text <> all({}::text[])").format(names, sql.Literal(self.values))


class Side:
    """One relation as one session sees it. The columns and the key are those of the rebuild, on both sides."""

    def __init__(
        self,
        connection: psycopg.Connection,
        relation: str,
        columns: dict[str, str],
        key: Sequence[str],
        without: Sequence[Without] = (),
    ) -> None:
        self.connection = connection
        self.relation: sql.Composable = sql.Identifier(*relation.split("."))
        if without:
            kept = sql.SQL(" and ").join(each.condition() for each in without)
            self.relation = sql.SQL("(select * from {} where {}) as kept").format(self.relation, kept)
        self.names = list(columns)
        self.key_names = [name for name in key if name in columns] or self.names
        self._row = _hash(self.names, columns)
        self._key = _hash(self.key_names, columns)

    def fingerprint(self) -> Fingerprint:
        """One scan."""
        rows = self.connection.execute(
            sql.SQL(
                "select ({key} & {mask})::int, count(*), sum({row}::numeric)::text from {relation} group by 1"
            ).format(key=self._key, row=self._row, relation=self.relation, mask=sql.Literal(_BUCKETS - 1))
        )
        return Fingerprint({bucket: (count, int(total)) for bucket, count, total in rows})

    def hashes(self, buckets: list[int]) -> Counter[tuple[int, int]]:
        """(hash of key, hash of row) of every row of some buckets."""
        rows = self.connection.execute(
            sql.SQL("select {key}, {row} from {relation} where ({key} & {mask})::int = any(%s)").format(
                key=self._key, row=self._row, relation=self.relation, mask=sql.Literal(_BUCKETS - 1)
            ),
            [buckets],
        )
        return Counter((key, row) for key, row in rows)

    def rows(self, wanted: Iterable[tuple[int, int]]) -> dict[int, tuple[list[Any], dict[str, Any]]]:
        """Whole rows, by the hash of their key."""
        pairs = list(wanted)
        rows = self.connection.execute(
            sql.SQL(
                "select {key}, jsonb_build_array({names})::text, to_jsonb(found)::text"
                " from (select * from {relation}) as found where {key} = any(%s) and {row} = any(%s)"
            ).format(
                key=self._key,
                row=self._row,
                names=sql.SQL(", ").join(map(sql.Identifier, self.key_names)),
                relation=self.relation,
            ),
            [[key for key, _ in pairs], [row for _, row in pairs]],
        )
        whole = {key: (read_row(names), read_row(row)) for key, names, row in rows}
        return {key: (names, {name: row[name] for name in self.names}) for key, (names, row) in whole.items()}


def columns_of(connection: psycopg.Connection, relation: str) -> dict[str, str]:
    """{column: type} of a relation; empty when it does not exist."""
    return dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attname",
            [relation],
        ).fetchall()
    )


def differences(
    live: Side, rebuilt: Side, one: Fingerprint, two: Fingerprint, personal: frozenset[str], show: int
) -> Differences:
    """Find the rows that make two fingerprints differ."""
    differing = sorted(b for b in one.buckets.keys() | two.buckets.keys() if one.buckets.get(b) != two.buckets.get(b))
    looked_at = differing[:_MOST_BUCKETS]
    here, there = live.hashes(looked_at), rebuilt.hashes(looked_at)
    only_here, only_there = here - there, there - here
    keys = sorted({key for key, _ in only_here} | {key for key, _ in only_there})
    here_by_key, there_by_key = _by_key(only_here), _by_key(only_there)
    count = sum(max(here_by_key[key], there_by_key[key]) for key in keys)
    first = set(keys[:show])
    mine = live.rows(pair for pair in only_here if pair[0] in first)
    theirs = rebuilt.rows(pair for pair in only_there if pair[0] in first)
    shown = [
        Difference(
            [
                MASKED if n in personal else v
                for n, v in zip(live.key_names, (mine.get(k) or theirs[k])[0], strict=True)
            ],
            mine[k][1] if k in mine else None,
            theirs[k][1] if k in theirs else None,
            personal,
        )
        for k in keys[:show]
        if k in mine or k in theirs
    ]
    return Differences(count, len(looked_at) == len(differing), shown)


def read_row(text: str) -> Any:
    """JSON, with its numbers as they are written there."""
    return json.loads(text, parse_float=Decimal)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Decimal) else json.dumps(value, default=str)


def _by_key(hashes: Counter[tuple[int, int]]) -> Counter[int]:
    found: Counter[int] = Counter()
    for (key, _), count in hashes.items():
        found[key] += count
    return found


def _hash(names: Sequence[str], columns: dict[str, str]) -> sql.Composable:
    """Postgres' own hash of a row: equal values have equal hashes, however they are written (1.0 and 1.00)."""
    parts = (
        sql.SQL("{}::text" if columns[name].removesuffix("[]").split("(")[0] in _UNHASHABLE else "{}").format(
            sql.Identifier(name)
        )
        for name in names
    )
    return sql.SQL("hash_record_extended(row({}), 0)").format(sql.SQL(", ").join(parts))
