"""The ledger: the `ops` schema in the warehouse, where every decision about data is a committed row."""

from sluice.ledger.migrate import migrate

__all__ = ["migrate"]
