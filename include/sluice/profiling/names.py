"""Names as Sluice and Postgres take them, and what a name gives away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 48

# Postgres' reserved words: as a bare column name they are a syntax error in a model.
_RESERVED_WORDS = """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema
    current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for
    foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral
    leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps
    placing primary references returning right select session_user similar some symmetric system_user table
    tablesample then to trailing true union unique user using variadic verbose when where window with
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())
_PERSONAL = re.compile(
    r"(^|_)(e_?mail|phone|mobile|telephone|fax|(first|last|full|family|given|middle|maiden|sur|user|customer|contact)_?name|"
    r"birth_?(date|day|place)?|date_of_birth|dob|street|address_?(line)?_?\d?|ssn|passport|national_id|tax_id|iban|"
    r"card_number|ip|ip_address|visitor_id|gender|religion)($|_)"
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}")
_IP = re.compile(r"(\d{1,3}\.){3}\d{1,3}")
_PHONE = re.compile(r"\+\d[\d ()./-]{6,18}\d")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
TEXT_BY_NAME = re.compile(
    r"(^|_)(zip|zip_?code|postal|postcode|postal_code|phone|mobile|telephone|fax|ean|gtin|upc|isbn|issn|iban|bic|vat|"
    r"ssn|sku|account_(no|number)|card_number)($|_)"
)
MONEY = re.compile(
    r"(^|_)(amount|price|cost|costs|fee|tax|total|subtotal|discount|balance|salary|revenue|charge|value|net|gross)($|_)"
)
COUNT = re.compile(r"(^|_)(quantity|qty|count|number_of|on_hand|reserved)($|_)")


def sanitise(name: str) -> str:
    """The name in lower snake case, as declarations and Postgres take it: `usageType` is `usage_type`."""
    plain = unicodedata.normalize("NFKD", name.strip().replace("ß", "ss")).encode("ascii", "ignore").decode()
    plain = re.sub(r"([a-z0-9])([A-Z][a-z])", r"\1_\2", plain).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_LONGEST].rstrip("_")
    if not plain:
        return "unnamed"
    return plain if plain[0].isalpha() else f"c_{plain}"[:_LONGEST]


def sanitise_all(names: Iterable[str]) -> list[str]:
    """Each name sanitised, none twice, and none that SQL reserves."""
    taken: dict[str, int] = {}
    result = []
    for name in names:
        plain = sanitise(name)
        if plain in _RESERVED:
            plain = f"{plain}_value"
        taken[plain] = taken.get(plain, 0) + 1
        while taken[plain] > 1 and (other := f"{plain[: _LONGEST - 4]}_{taken[plain]}") in taken:
            taken[plain] += 1
        if taken[plain] > 1:
            taken[other] = 1
            plain = other
        result.append(plain)
    return result


def spelt_out(name: str) -> str:
    """A name as words: `length_ft` is 'Length ft'."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def singular(name: str) -> str:
    """The entity that a table of this name has one row of: 'countries' has a country."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("uses", "us"), ("ss", "ss"), ("us", "us")):
        if name.endswith(ending) and len(name) > len(ending) + 1:
            return name.removesuffix(ending) + instead
    return name.removesuffix("s") if len(name) > 3 else name


def says_person(name: str, values: Iterable[str]) -> str:
    """Why the column seems to speak of a person; empty if it does not. Looks at the name, then at some values."""
    if _PERSONAL.search(name) and (not name.endswith(("_id", "_key", "_ref")) or name == "visitor_id"):
        return "by its name"
    some = [value for value, _ in zip(values, range(500), strict=False)]
    for what, pattern in (
        ("e-mail addresses", _EMAIL),
        ("phone numbers", _PHONE),
        ("IP addresses", _IP),
        ("IBANs", _IBAN),
    ):
        if len(some) >= 3 and sum(bool(pattern.fullmatch(value)) for value in some) * 2 > len(some):
            return f"its values look like {what}"
    return ""
