"""Which columns name a row: candidates are tried on the rows that were seen, the likely names first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from sluice.profiling.names import MONEY, singular

_NAMES_A_ROW = re.compile(r"(^|_)(id|key|code|uuid|guid|number|no|nr|ref|ident|sku|slug|email|iso|symbol)$")
_PART = re.compile(
    r"(^|_)(date|day|month|year|week|hour|currency|line|position|sequence|type|kind|language|locale|at)$"
)
_MOST_COLUMNS = 14  # of combinations
_NEVER = ("boolean", "jsonb", "double precision", "real", "numeric", "timestamptz", "timestamp", "time")


def find_key(table: str, columns: dict[str, str], rows: Sequence[Sequence[str | None]]) -> tuple[str, ...] | None:
    """The columns that name a row of these, or None. `columns` are names and types, in the order of the rows' values.

    A column that is unique by chance is no key: a measure, a time or a free text is never taken alone, nor is a name
    among a handful of rows.
    """
    distinct = list(dict.fromkeys(map(tuple, rows)))
    names = list(columns)
    ranked = sorted(
        (name for name in names if _may(columns[name]) and _is_whole(distinct, names.index(name))),
        key=lambda name: (-_score(table, name), names.index(name)),
    )
    alone = [name for name in ranked if _score(table, name) >= 2 or (len(distinct) >= 100 and columns[name] == "uuid")]
    for name in alone:
        if is_unique(distinct, [names.index(name)]):
            return (name,)
    parts = [name for name in ranked if _score(table, name) >= 1][:_MOST_COLUMNS]
    for size in (2, 3):
        for some in combinations(parts, size):
            if is_unique(distinct, [names.index(name) for name in some]):
                return tuple(sorted(some, key=names.index))
    return None


def unique_anyhow(table: str, columns: dict[str, str], rows: Sequence[Sequence[str | None]]) -> tuple[str, ...]:
    """A few columns that are unique in these rows, whatever their names and types say; none of them can be left out.
    Empty where even all that always have a value repeat."""
    distinct = list(dict.fromkeys(map(tuple, rows)))
    names = list(columns)
    whole = [name for name in names if columns[name] != "jsonb" and _is_whole(distinct, names.index(name))]
    values = {name: len({row[names.index(name)] for row in distinct}) for name in whole}
    some: list[str] = []
    for name in sorted(whole, key=lambda name: (-_score(table, name), -values[name], names.index(name))):
        some.append(name)
        if is_unique(distinct, [names.index(each) for each in some]):
            break
    else:
        return ()
    for name in reversed(some[:-1]):
        fewer = [each for each in some if each != name]
        if is_unique(distinct, [names.index(each) for each in fewer]):
            some = fewer
    return tuple(sorted(some, key=names.index))


def is_unique(rows: Sequence[Sequence[str | None]], positions: Sequence[int]) -> bool:
    """Whether no two rows share the values at these positions."""
    seen = set()
    for row in rows:
        key = tuple(row[position] for position in positions)
        if key in seen:
            return False
        seen.add(key)
    return True


def duplicates(rows: Sequence[Sequence[str | None]], positions: Sequence[int]) -> int:
    """How many rows share their values at these positions with an earlier one."""
    return len(rows) - len({tuple(row[position] for position in positions) for row in rows})


def _may(kind: str) -> bool:
    return not kind.startswith(_NEVER)


def _is_whole(rows: Sequence[Sequence[str | None]], position: int) -> bool:
    return all(row[position] is not None for row in rows)


def _score(table: str, name: str) -> int:
    entity = singular(table)
    if name in ("id", f"{entity}_id", f"{table}_id", f"{entity}_key", f"{entity}_code", f"{entity}_no"):
        return 5
    if name in ("uuid", "guid", "key") or name.endswith(("_uuid", "_guid")):
        return 4
    if name == "code" or name.endswith(("_id", "_key")):
        return 3
    if _NAMES_A_ROW.search(name):
        return 2
    return 1 if _PART.search(name) and not MONEY.search(name) else 0
