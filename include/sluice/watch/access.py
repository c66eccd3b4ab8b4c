"""What the exporter's own role may read: the tables that metrics are made of, and of quarantine no row's values."""

from __future__ import annotations

import psycopg
from psycopg import sql

ROLE = "sluice_exporter"
_TABLES = (
    "backfill", "batch", "circuit", "deadline_miss", "gate_result", "lineage", "model_watermark", "objective", "step",
    "table_read", "watcher", "watermark",
)  # fmt: skip
_COLUMNS = {
    "quarantine": ("quarantine_id", "source", "table_name", "state", "created_at"),
    "incident": ("kind", "severity", "caused_by", "resolved_at"),
    "alert_delivery": ("channel", "attempts", "created_at", "sent_at", "withdrawn_at"),
}


def grant(warehouse_url: str, role: str = ROLE) -> bool:
    """Let `role` read what it needs, as the owner of the ledger. False where there is no such role."""
    name = sql.Identifier(role)
    with psycopg.connect(warehouse_url) as connection:
        if connection.execute("select from pg_roles where rolname = %s", [role]).fetchone() is None:
            return False
        connection.execute(sql.SQL("grant usage on schema ops to {}").format(name))
        for table in _TABLES:
            connection.execute(sql.SQL("grant select on {} to {}").format(sql.Identifier("ops", table), name))
        for table, columns in _COLUMNS.items():
            connection.execute(
                sql.SQL("grant select ({}) on {} to {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier("ops", table), name
                )
            )
    return True
