"""`sluice quarantine`: rejected rows and why."""

from __future__ import annotations

from typing import Annotated

import typer

from sluice import warehouse
from sluice.cli.common import show
from sluice.errors import SluiceError

app = typer.Typer(
    no_args_is_help=True, help="Rows that broke their contract. Nothing is lost: each waits with its reason."
)


@app.command("list")
def list_rows(
    name: Annotated[str, typer.Argument(help="<source> or <source>.<table>; without it, all")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many groups, the largest first")] = 30,
) -> None:
    """Open rows, grouped by what is wrong with them, each group with its first row."""
    source, _, table = name.partition(".")
    with warehouse.connect() as connection:
        rows = connection.execute(
            """
            select source || '.' || table_name, code, reason, count(*), min(quarantine_id),
            max(created_at)::timestamptz(0)
            from ops.quarantine
            where state = 'open' and (%(source)s = '' or source = %(source)s) and (%(table)s = '' or table_name =
            %(table)s)
            group by 1, 2, 3 order by 4 desc limit %(limit)s
            """,
            {"source": source, "table": table, "limit": limit},
        ).fetchall()
    show(["table", "code", "reason", "rows", "first", "latest"], rows, empty="quarantine is empty")


@app.command("show")
def show_row(quarantine_id: Annotated[int, typer.Argument(help="As `sluice quarantine list` names it")]) -> None:
    """One row as it came, with its place in its unit. It may hold personal values: mind who looks on."""
    with warehouse.connect() as connection:
        row = connection.execute(
            """
            select q.source || '.' || q.table_name, b.unit, q.row_number, q.code, q.reason, q.state, coalesce(q.raw,
            encode(q.raw_bytes, 'base64'))
            from ops.quarantine as q inner join ops.batch as b using (batch_id) where quarantine_id = %s
            """,
            [quarantine_id],
        ).fetchone()
    if row is None:
        raise SluiceError(f"there is no row {quarantine_id} in quarantine")
    for what, value in zip(("table", "unit", "row", "code", "reason", "state", "raw"), row, strict=True):
        print(f"{what:8}{value}")
