"""The type that a column of text has, by all the values that were seen of it.

A type is only said when every value is one; the loader sends what is not to quarantine, and a declaration that was
only guessed must not cost rows. Where a guess was close, the notes say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from uuid import UUID

from sluice.profiling.names import MONEY, TEXT_BY_NAME

MISSING = frozenset(
    {"", "NULL", "null", "N/A", "n/a", "NA", "#N/A", r"\N", "-", "--", "?", "none", "None", "nan", "NaN"}
)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)?\.?\d+([eE][-+]?\d{1,2})?")
_LEADING_ZERO = re.compile(r"0\d+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2})?)(\.\d+)?(Z|[+-]\d{2}(?::?\d{2})?)?")
_TIME = re.compile(r"\d{2}:\d{2}(:\d{2}(\.\d+)?)?")
_OTHER_DATE = re.compile(
    r"(?P<first>\d{1,2})(?P<sign>[./-])(?P<second>\d{1,2})[./-](?P<year>\d{2,4})(?P<time> \d{1,2}:\d{2}.*)?"
)
_COMMA = re.compile(r"-?\d{1,3}(\.?\d{3})*,\d+")
_BOOLEANS = ({"true", "false"}, {"t", "f"}, {"yes", "no"}, {"y", "n"})
_SMALL, _LARGE = 10**8, 9 * 10**18


def type_of(name: str, values: Iterable[str], *, quoted: bool = False) -> tuple[str, list[str]]:
    """The Postgres type of a column, and what a person should know about the choice.

    `values` are the distinct ones. `quoted`: a JSON source wrote them as strings, so that figures are a name and no
    number.
    """
    values = list(values)
    if not values:
        return "text", ["no value was seen; text holds any"]
    if kind := _kind(name, values, quoted):
        return kind, _about(kind, values)
    return "text", _near_miss(name, values, quoted)


def _kind(name: str, values: list[str], quoted: bool) -> str | None:
    """The one type that all values are of; None when there is none but text."""
    folded = {value.lower() for value in values}
    if not quoted and (folded in _BOOLEANS or folded < _BOOLEANS[0]):
        return "boolean"
    if not TEXT_BY_NAME.search(name):
        if not quoted and _all(_INTEGER.fullmatch, values):
            return _integer(name, values)
        if _all(_is_decimal, values) and not (quoted and _all(_INTEGER.fullmatch, values)):
            return _numeric(name, values)
    for kind, is_one in _TESTS:
        if _all(is_one, values):
            return kind
    return None


def _all(is_one: Callable[[str], object], values: list[str]) -> bool:
    return all(is_one(value) for value in values)


def _integer(name: str, values: list[str]) -> str:
    if name.endswith("date") and _all(lambda value: len(value) == 8 and _parses(date.fromisoformat, value), values):
        return "date"
    largest = max(abs(int(value)) for value in values)
    if largest > _LARGE:
        return "numeric" if len({len(value) for value in values}) > 1 else "text"
    return "bigint" if largest > _SMALL or name == "id" or name.endswith(("_id", "_ref", "_key")) else "integer"


def _is_decimal(value: str) -> bool:
    return bool(_DECIMAL.fullmatch(value)) and not _LEADING_ZERO.match(value.lstrip("-"))


def _numeric(name: str, values: list[str]) -> str:
    """Amounts get a scale; of other numbers `numeric` keeps every digit, which no number of bits does."""
    if not MONEY.search(name) or any("e" in value.lower() for value in values):
        return "numeric"
    scale = max(len(value.partition(".")[2]) for value in values)
    return f"numeric(18,{max(2, scale)})" if scale <= 6 else "numeric"


def _parses(parse: Callable[[str], object], value: str) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True


def _is_date(value: str) -> bool:
    return bool(_DATE.fullmatch(value)) and _parses(date.fromisoformat, value)


def _stamp(value: str, zone: bool) -> bool:
    found = _STAMP.fullmatch(value)
    return bool(found) and bool(found[4]) == zone and _parses(datetime.fromisoformat, f"{found[1]} {found[2]}")


def _is_json(value: str) -> bool:
    return value[:1] in "{[" and _parses(json.loads, value)


_TESTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("uuid", lambda value: len(value) == 36 and _parses(UUID, value)),
    ("date", _is_date),
    ("timestamptz", lambda value: _stamp(value, True)),
    ("timestamp", lambda value: _stamp(value, False)),
    ("time", lambda value: bool(_TIME.fullmatch(value)) and _parses(time.fromisoformat, value)),
    ("jsonb", _is_json),
)


def _about(kind: str, values: list[str]) -> list[str]:
    if kind in ("integer", "bigint") and set(values) == {"0", "1"}:
        return ["only 0 and 1 were seen: boolean, if that is what they mean"]
    if kind == "timestamp":
        return ["the values carry no zone: if they are UTC, say so in the staging model with: at time zone 'UTC'"]
    return []


def _near_miss(name: str, values: list[str], quoted: bool) -> list[str]:
    """Why the column stays text although it looks like something else."""
    if any(_LEADING_ZERO.fullmatch(value) for value in values) and _all(str.isdigit, values):
        return ["figures with leading zeros are a name and no number: text keeps them"]
    rest = [value for value in values if value not in MISSING]
    tokens = sorted(set(values) & MISSING)
    if tokens and rest and (kind := _kind(name, rest, quoted)):
        told = ", ".join(token or "the empty text" for token in tokens)
        return [f"{kind}, but for {told}: turn that to null in the staging model, and cast"]
    if _all(lambda value: _STAMP.fullmatch(value), values):
        return ["times with and without a zone are mixed; cast in the staging model"]
    if _all(_OTHER_DATE.fullmatch, values):
        return [_other_dates(values)]
    if _all(lambda value: _COMMA.fullmatch(value) or _is_decimal(value), values):
        return ["numbers with a decimal comma: replace it in the staging model, and cast"]
    for kind, is_one in (("a number", _is_decimal), *_TESTS):
        odd = sum(not is_one(value) for value in values)
        if 0 < odd < len(values) / 2 and (odd == 1 or odd * 20 <= len(values)):
            return [f"{kind} in all but {odd} of {len(values)} different values; those would be rejected"]
    return []


def _other_dates(values: list[str]) -> str:
    """In which order dates have day and month: a part above 12, wherever it stands, can't be a month."""
    found = [match for value in values if (match := _OTHER_DATE.fullmatch(value))]
    first, second = (any(int(match[part]) > 12 for match in found) for part in ("first", "second"))
    if first == second:
        why = "some have the day first, some the month" if first else "day and month can't be told apart here"
        return f"dates that are not ISO 8601: {why}; use to_date() in the staging model"
    forms = {(match["sign"], len(match["year"]), match["time"]) for match in found}
    sign, digits, time_of_day = forms.pop()
    form = sign.join(("DD", "MM", "YYYY") if first else ("MM", "DD", "YYYY"))
    how = "to_date()" if forms or digits != 4 or time_of_day else f"to_date(…, '{form}')"
    which = "day" if first else "month"
    return f"dates with the {which} first, since there is a part above 12: {how} in the staging model"
