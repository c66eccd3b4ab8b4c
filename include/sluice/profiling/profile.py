"""What was found out about a table: as plain values, from which the declaration is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sluice.errors import SluiceError
from sluice.profiling.keys import duplicates, find_key, unique_anyhow
from sluice.profiling.names import sanitise_all, says_person, spelt_out
from sluice.profiling.values import type_of

_ENOUGH = 30  # rows, before "never null" is taken for a rule
_ENOUGH_TO_LIST = 200  # rows, before a few values are taken for all
_FEW = 12  # values


@dataclass(frozen=True)
class Bounds:
    """How much may be looked at: rows, bytes, seconds."""

    rows: int = 50_000
    size: int = 64 << 20
    seconds: float = 30.0


@dataclass(frozen=True)
class Wishes:
    """What the person said, which no evidence overrules."""

    key: tuple[str, ...] = ()
    mode: str = ""
    strict: bool = False


@dataclass
class ColumnProfile:
    """One column: what the declaration will say of it (`declared`), and the notes that go above it as comments."""

    name: str
    field: str
    declared: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def type(self) -> str:
        return str(self.declared["type"])


@dataclass
class TableProfile:
    """One table: what the declaration will say, and what was assumed."""

    name: str
    origin: dict[str, Any]
    columns: list[ColumnProfile]
    key: tuple[str, ...]
    mode: str
    rows: int
    whole: bool
    description: str
    where: str
    more: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    start: str = ""

    @property
    def seen(self) -> str:
        """How much was looked at, in words."""
        return f"all {self.rows:,} rows" if self.whole else f"the first {self.rows:,} rows"


class NoKey(SluiceError):
    """No columns were found that name a row."""


def columns_of(
    fields: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    wishes: Wishes,
    *,
    quoted: frozenset[str] = frozenset(),
) -> list[ColumnProfile]:
    """Profile each column of rows of text."""
    return [
        _column(name, source, Counter(row[index] for row in rows), len(rows), wishes, source in quoted)
        for index, (name, source) in enumerate(zip(sanitise_all(fields), fields, strict=True))
    ]


def _column(
    name: str, source: str, counts: Counter[str | None], rows: int, wishes: Wishes, quoted: bool
) -> ColumnProfile:
    nulls = counts.pop(None, 0)
    values = [value for value in counts if value is not None]
    kind, notes = type_of(name, values, quoted=quoted)
    declared: dict[str, Any] = {"type": kind}
    if source != name:
        declared["field"] = source
    if not nulls and rows >= _ENOUGH:
        declared["required"] = True
    elif nulls == rows:
        notes = ["no value was seen; text holds any"]
    elif nulls and nulls * 50 < rows:
        notes.append(f"{nulls:,} of {rows:,} rows have no value")
    if person := says_person(name, values):
        declared["personal"] = True
        notes.append(f"taken for personal {person}")
    elif _is_list(kind, counts, rows):
        if wishes.strict:
            declared["accepted"] = sorted(values)
        else:
            listed = ", ".join(sorted(values))
            notes.append(f"accepted: [{listed}] would be a rule; these were all the values in {rows:,} rows")
    declared["description"] = spelt_out(name)
    return ColumnProfile(name, source, declared, notes)


def _is_list(kind: str, counts: Counter[str | None], rows: int) -> bool:
    """Whether a column seems to have a closed list of values: few, short, and each seen more than once."""
    return (
        kind == "text"
        and rows >= _ENOUGH_TO_LIST
        and 1 < len(counts) <= _FEW
        and min(counts.values()) >= 5
        and all(value is not None and len(value) <= 30 and value.isprintable() for value in counts)
    )


def key_of(
    table: str,
    columns: Sequence[ColumnProfile],
    rows: Sequence[Sequence[str | None]],
    wishes: Wishes,
    assumed: list[str],
    seen: str,
) -> tuple[str, ...]:
    """The key that was asked for, or one that the rows bear out; raises `NoKey` with what to do."""
    names = [column.name for column in columns]
    if wishes.key:
        by_field = {column.field: column.name for column in columns}
        key = tuple(by_field.get(part, part) for part in wishes.key)
        if unknown := [part for part in key if part not in names]:
            raise SluiceError(
                f"--key names {', '.join(unknown)}, which is no column of {table}; it has {', '.join(names)}. "
                "Nothing was written"
            )
        again = duplicates(list(dict.fromkeys(map(tuple, rows))), [names.index(part) for part in key])
        assumed.append(
            f"key {', '.join(key)}: as asked; {again:,} rows repeat the key of another"
            if again
            else f"key {', '.join(key)}: as asked, and unique in {seen}"
        )
        return key
    if key := find_key(table, {column.name: column.type for column in columns}, rows):
        assumed.append(f"key {', '.join(key)}: unique and never empty in {seen}")
        return key
    chance = unique_anyhow(table, {column.name: column.type for column in columns}, rows)
    same = len(rows) - len(set(map(tuple, rows)))
    twice = f" (and {same:,} rows are equal to another in every column, which then count once)" if same else ""
    advice = (
        f"{' and '.join(chance)}{' together are' if len(chance) > 1 else ' is'} unique, perhaps by chance{twice}: if "
        f"that names a row, say --key {','.join(chance)}"
        if chance
        else "All columns that always have a value repeat even together, so no --key would be unique: ask the owner "
        "what names a row"
    )
    raise NoKey(
        f"no key was found for {table}: neither one column nor two or three together that could name a row are unique "
        f"and never empty in {seen}. Nothing was written. {advice}"
    )


def require_key(columns: Sequence[ColumnProfile], key: Sequence[str]) -> None:
    """A column of the key always has a value; say so where it is declared."""
    for column in columns:
        if column.name in key:
            column.declared = {"type": column.declared["type"], "required": True} | column.declared | {"required": True}
