"""A table's contract, compiled to SQL: which rows may not become rows of the log, and why.

Rules are checked in the order in which they are listed; a row is rejected for the first it breaks, so that each
rejected row has one reason and the books add up. The same rules judge text and values; a text must first be a value.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from math import ceil, floor
from typing import Any

from psycopg import sql

from sluice.declarations import Column, Mode, Table
from sluice.declarations.files import Csv
from sluice.loading.mapping import Mapping, Values, landing_type
from sluice.readers.oddities import WORDS

TEMPORAL = ("date", "timestamptz", "timestamp", "time")
_FLOAT = ("real", "double precision")
_INTEGER = ("smallint", "integer", "bigint")
_MAX_KEY = 800  # bytes
_FORM = re.compile(r"\{\w+:[^{}]*\}")  # {date:%Y%m%d}


@dataclass(frozen=True)
class Rule:
    """One thing that must hold. `broken` is a SQL condition over a landing table, true for a row that breaks it.

    A row that breaks an `implied` rule breaks one of the others too: to find it, those are enough. `value` is what a
    rule looks at that is dear to check: what is known to keep it need not be checked again.
    """

    code: str
    column: str
    reason: str
    broken: sql.Composable
    implied: bool = False
    value: sql.Composable | None = None

    def knowing(self, kept: list[str]) -> Rule:
        """The same rule, where these values are known to keep it."""
        assert self.value is not None
        broken = sql.SQL("({} <> all({}::text[]) and {})").format(self.value, kept, self.broken)
        return replace(self, broken=broken)


def rules_of(table: Table, mapping: Mapping, instant: datetime, *, typed: bool) -> list[Rule]:
    """Every rule of the contract, types first, over the text or the typed landing table. A deleted row needs only its
    key. `instant` is when the unit was read."""
    values = mapping.typed if typed else mapping.text
    rules: list[Rule] = []
    for name, column in table.columns.items():
        if not typed:
            rules += _readable(name, column.type, values.columns[name])
        rules += _in_bounds(name, column, value_of(table, values, name))
        rules += _present(table, name, values)
    for name, column in table.columns.items():
        rules += [r for r in _value_rules(name, column, value_of(table, values, name)) if severity(column, r) != "warn"]
    if table.cursor and table.cursor.max_future is not None:
        name, ahead = table.cursor.column, table.cursor.max_future
        # a row that is judged again later may have come of age
        broken = sql.SQL("{} > greatest({}::timestamptz, clock_timestamp()) + {}").format(
            value_of(table, values, name), instant, ahead
        )
        rules.append(Rule("FUTURE", name, f"is stamped more than {ahead} after it was read", broken))
    return rules


def severity(column: Column, rule: Rule) -> str:
    """What breaking a rule does: `block`, `quarantine` or `warn`."""
    return dict(column.severity).get(rule.code.lower(), "quarantine")  # type: ignore[call-overload]


def soft_rules_of(table: Table) -> list[Rule]:
    """The rules that only warn, over typed rows."""
    found = [(column, rule) for name, column in table.columns.items()
             for rule in _value_rules(name, column, sql.Identifier(name))]  # fmt: skip
    return [rule for column, rule in found if severity(column, rule) == "warn"]


def value_of(table: Table, values: Values, name: str) -> sql.Composable:
    """A column's value in its landing type: digits that the declared type would round are still there."""
    return sql.SQL("({})::{}").format(values.columns[name], sql.SQL(landing_type(table.columns[name].type)))


def typed(table: Table, values: Values, name: str) -> sql.Composable:
    """A column's value in its declared type, which is from a closed list."""
    return sql.SQL("({})::{}").format(values.columns[name], sql.SQL(table.columns[name].type))


def _readable(name: str, kind: str, text: sql.Composable) -> list[Rule]:
    """The text must be a value of the type, and the same value whenever it is read."""
    if kind == "text":
        return []
    valid = sql.SQL("not pg_input_is_valid({}, {})").format(text, landing_type(kind))
    rules = [Rule("TYPE", name, f"is not of type {kind}", valid)]
    if kind in TEMPORAL:
        word = sql.SQL("{} ~* {}").format(text, "|".join(WORDS))
        rules.append(Rule("TYPE", name, f"is not a {kind} in figures", word))
    if is_number(kind):
        other = sql.SQL("{} ~* {}").format(text, "[_xob]")
        rules.append(Rule("TYPE", name, f"is not a {kind} in decimal figures", other))
    return rules


def is_number(kind: str) -> bool:
    """Whether a type, declared or of the landing table, is one of numbers."""
    return kind in (*_INTEGER, *_FLOAT) or kind.startswith("numeric")


def _in_bounds(name: str, column: Column, value: sql.Composable) -> list[Rule]:
    """What the type's input accepts and its column does not hold, or the log does not want."""
    kind, rules = column.type, []
    if kind.startswith("numeric") or kind in _FLOAT:
        finite = sql.SQL("not ({0} > '-Infinity' and {0} < 'Infinity')").format(value)  # NaN is above all numbers
        rules.append(Rule("NOT_FINITE", name, "is not a finite number", finite, implied="(" in kind))
    if "(" in kind:
        precision, _, scale = kind[kind.index("(") + 1 : -1].partition(",")
        digits = int(scale or 0)
        limit = Decimal(10) ** (int(precision) - digits) - Decimal(5).scaleb(-digits - 1)  # from here it rounds up
        rules += [
            Rule(
                "TYPE",
                name,
                f"is not of type {kind}",
                sql.SQL("abs({}) >= {}").format(value, limit),
                implied=_is_within(column, limit),
            ),
            Rule(
                "PRECISION",
                name,
                f"has more digits than {kind} holds",
                sql.SQL("scale({0}) > {1} and min_scale({0}) > {1}").format(value, digits),  # the first is cheaper
            ),
        ]
    if kind in TEMPORAL and kind != "time":
        rules.append(Rule("TYPE", name, f"is not a {kind} in figures", sql.SQL("not isfinite({})").format(value)))
    return rules


def _is_within(column: Column, limit: Decimal) -> bool:
    """Whether the declared range puts aside whatever is this large."""
    low, high = column.minimum, column.maximum
    if low is None or high is None or dict(column.severity).get("range") == "warn":
        return False
    return -limit < Decimal(low) and Decimal(high) < limit


def _present(table: Table, name: str, values: Values) -> list[Rule]:
    """The key, and what orders versions, must be there; other required columns unless the row is a delete."""
    column, value = table.columns[name], values.columns[name]
    missing = sql.SQL("{} is null").format(value)
    rules = []
    if table.cursor and name == table.cursor.column:
        rules.append(Rule("NULL_CURSOR", name, "has no value", missing))
    elif name in table.key:
        rules.append(Rule("NULL_KEY", name, "has no value", missing))
    elif name in (table.effective_at, table.sequence):
        rules.append(Rule("REQUIRED", name, "has no value", missing))
    elif column.required:
        broken = sql.SQL("({} and not {})").format(missing, values.deleted)
        rules.append(Rule("REQUIRED", name, "has no value", broken))
    if name in table.key and column.type == "text":
        # an index entry holds a third of a page; a longer key would fail the whole batch at publish
        long = sql.SQL("octet_length({}) > {}").format(value, sql.Literal(_MAX_KEY))
        rules.append(Rule("TOO_LONG", name, f"is longer than {_MAX_KEY} bytes, too long for a key", long))
    return rules


def _value_rules(name: str, column: Column, value: sql.Composable) -> list[Rule]:
    """Accepted values and patterns speak of the value as Postgres writes it, so that they mean the same in each
    format."""
    rules = []
    text = value if column.type == "text" else sql.SQL("({})::text").format(value)
    if column.accepted is not None:
        broken = sql.SQL("{} <> all({}::text[])").format(text, list(column.accepted))
        rules.append(Rule("ACCEPTED", name, "is not one of the accepted values", broken))
    if column.minimum is not None:
        broken = sql.SQL("{} < {}").format(value, _bound(column, ceil, column.minimum))
        rules.append(Rule("RANGE", name, f"is below {column.minimum:g}", broken))
    if column.maximum is not None:
        broken = sql.SQL("{} > {}").format(value, _bound(column, floor, column.maximum))
        rules.append(Rule("RANGE", name, f"is above {column.maximum:g}", broken))
    if column.pattern is not None:
        broken = sql.SQL("{} !~ {}").format(text, column.pattern)
        rules.append(Rule("PATTERN", name, f"does not match {column.pattern}", broken, value=text))
    return rules


def _bound(column: Column, whole: Any, bound: float) -> sql.Composable:
    """The bound in the column's own kind of number, so that no value is converted for it."""
    if column.type in _INTEGER:
        if abs(bound) < 2**62:
            return sql.SQL("{}::bigint").format(sql.Literal(whole(bound)))
        return sql.SQL("{}::numeric").format(str(bound))
    return sql.SQL("{}::{}").format(str(bound), sql.SQL("double precision" if column.type in _FLOAT else "numeric"))


def first_broken(rules: list[Rule]) -> sql.Composable:
    """The number of the first rule that a row breaks, from 1, or null. CASE keeps a cast from running before its type
    was checked."""
    if not rules:
        return sql.SQL("null::int")
    whens = (sql.SQL("when {} then {}").format(rule.broken, sql.Literal(index)) for index, rule in enumerate(rules, 1))
    return sql.SQL("case {} end").format(sql.SQL(" ").join(whens))


def any_broken(rules: list[Rule]) -> sql.Composable:
    """Whether a row of values breaks a rule. (A text must be known to be a value first: see `first_broken`.)"""
    return sql.SQL(" or ").join(rule.broken for rule in rules if not rule.implied)


def effective_at(table: Table, instant: Any) -> sql.Composable:
    """When a row's version became true: its declared column, the cursor, or the instant of the unit."""
    name = table.effective_at or (table.cursor.column if table.mode is Mode.CURSOR and table.cursor else None)
    if name:
        return sql.SQL("{}::timestamptz").format(sql.Identifier(name))
    return sql.SQL("{}::timestamptz").format(instant)


# -- the hash of a row ----------------------------------------------------------------------------

# One family per set of types whose equal values hash alike, so that a widened column changes no row. Each function is
# there in PostgreSQL 17, and takes a seed.
_FAMILIES = {
    "smallint": ("integer", "hashint8extended({}, {})"),
    "integer": ("integer", "hashint8extended({}, {})"),
    "bigint": ("integer", "hashint8extended({}, {})"),
    "numeric": ("numeric", "hash_numeric_extended({}, {})"),
    "real": ("float", "hashfloat8extended({}, {})"),
    "double precision": ("float", "hashfloat8extended({}, {})"),
    "text": ("text", "hashtextextended({}, {})"),
    "boolean": ("boolean", "hashint4extended({}::int, {})"),
    "date": ("date", "hashint4extended({} - '2000-01-01'::date, {})"),
    "timestamp": ("timestamp", "timestamp_hash_extended({}, {})"),
    "timestamptz": ("timestamptz", "timestamp_hash_extended({} at time zone interval '0', {})"),
    "time": ("time", "time_hash_extended({}, {})"),
    "uuid": ("uuid", "uuid_hash_extended({}, {})"),
    "jsonb": ("jsonb", "jsonb_hash_extended({}, {})"),
}
_FAMILIES |= {  # as the catalogue spells them
    "timestamp without time zone": _FAMILIES["timestamp"],
    "timestamp with time zone": _FAMILIES["timestamptz"],
    "time without time zone": _FAMILIES["time"],
}
DELETED_HASH = sql.SQL("0::bigint")  # of a tombstone, which has no values


def row_hash(table: Table) -> sql.Composable:
    """A hash over the typed columns of a row, in any order: each value under a seed of its column's name and type.

    NULL adds nothing, so that an added column that is NULL in old rows opens no new version (case 19). Equal values
    are equal here as they are to Postgres: 1.0 and 1.00, 0.0 and -0.0, a JSON object in another order.
    """
    return row_hash_of({name: column.type for name, column in table.log_columns.items()})


def row_hash_of(types: dict[str, str]) -> sql.Composable:
    """The same, for columns of these types, as declared or as the catalogue spells them."""
    parts = [_value_hash(name, landing_type(kind)) for name, kind in sorted(types.items())]
    return sql.SQL("({})").format(sql.SQL(" # ").join(parts))


def _value_hash(name: str, kind: str) -> sql.Composable:
    family, function = _FAMILIES[kind]
    digest = hashlib.blake2b(f"{name}\0{family}".encode(), digest_size=8).digest()
    seed = sql.SQL("{}::bigint").format(str(int.from_bytes(digest, signed=True)))
    return sql.SQL("coalesce({}, 0)").format(sql.SQL(function).format(sql.Identifier(name), seed))


def contract_hash(table: Table) -> str:
    """Changes when what the contract demands changes, or what the same bytes mean under it; not with a description,
    nor with where they are."""
    columns = {n: c.model_dump(mode="json", exclude={"description"}) for n, c in table.columns.items()}
    parts: list[Any] = [columns, list(table.key), table.mode, table.effective_at, table.sequence]
    if meaning := read_as(table):  # what says nothing keeps the hash that it had before this was part of it
        parts.append(meaning)
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_as(table: Table) -> dict[str, Any]:
    """What decides which rows the same bytes are, where it is not the default: format and packing, the form of the
    dates in a path, where the rows of a body are, the mark of a deleted row."""
    files, rest, meaning = table.origin.files, table.origin.rest, {}
    if files:
        meaning = files.model_dump(mode="json", include={"compression", "members"}, exclude_defaults=True)
        if files.format != Csv():
            meaning["format"] = files.format.model_dump(mode="json", exclude_defaults=True) | {
                "type": files.format.type
            }
        if forms := _FORM.findall(files.path):
            meaning["path"] = forms
    if rest:
        meaning = rest.model_dump(mode="json", include={"items"}, exclude_defaults=True)
    if table.deleted_by:
        meaning["deleted_by"] = table.deleted_by.model_dump(mode="json")
    return meaning
