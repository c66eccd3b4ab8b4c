"""Whether what stands where the names of the fields should be are names."""

from __future__ import annotations

from sluice.declarations import Table
from sluice.errors import GateRefused
from sluice.readers.base import Unit, source_fields


def must_be_header(header: list[str], table: Table, unit: Unit) -> None:
    """Refuse a header with what no name holds, or in which no field of the contract occurs. It may be a record, with
    values that nobody may see in the ledger: it is not quoted, and the unit is left unread."""
    if any("\0" in name for name in header):
        raise GateRefused(
            f"the header of {unit.name} holds a NUL character, which no name has; it was left unread. Look whether the "
            "file is damaged, or in another encoding than declared"
        )
    declared = {name.lower() for name in source_fields(table)}
    if declared and declared.isdisjoint(name.lower() for name in header):
        raise GateRefused(
            f"the header of {unit.name} names none of the fields that the contract knows, so that it is none, or one "
            "of another table; it was left unread. Look whether the file begins with a record"
        )
