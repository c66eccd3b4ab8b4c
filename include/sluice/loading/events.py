"""What sources did that somebody should know, as rows of `ops.source_event`."""

from __future__ import annotations

import psycopg

from sluice.declarations import Table


def record(connection: psycopg.Connection, code: str, conn_id: str, source: str, message: str) -> None:
    """An event of a connection, in the caller's transaction."""
    connection.execute(
        "insert into ops.source_event (code, connection, source, message) values (%s, %s, %s, %s)",
        [code, conn_id, source, message],
    )


def clock_went_back(connection: psycopg.Connection, table: Table, batch_id: int, seconds: float) -> None:
    """The source's clock went back since the watermark was taken. Said once, until the watermark moves."""
    connection.execute(
        """
        insert into ops.source_event (code, connection, source, table_name, batch_id, message)
        select 'CLOCK_SKEW', %(connection)s, %(source)s, %(table)s, %(batch)s, %(message)s
        where not exists (
            select from ops.source_event as said
            inner join ops.watermark as mark on (mark.source, mark.table_name) = (said.source, said.table_name)
            where said.code = 'CLOCK_SKEW' and (said.source, said.table_name) = (%(source)s, %(table)s)
                and said.created_at > mark.moved_at
        )
        """,
        {
            "connection": table.origin.kind.connection,
            "source": table.source,
            "table": table.name,
            "batch": batch_id,
            "message": f"the clock of connection {table.origin.kind.connection} went back by {seconds:.0f} s; "
            f"{table.log_name} was read from so much further back, and its watermark stays. Look at the source's clock",
        },
    )
