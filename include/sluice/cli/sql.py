"""`sluice sql`: psql in the warehouse, and what any other program needs to enter it."""

from __future__ import annotations

import os
import shutil
from typing import Annotated

import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sluice import settings
from sluice.errors import SluiceError
from sluice.runtime.binaries import wheel_programs
from sluice.runtime.faults import RuntimeFault

# Who looks around must break nothing; a session that has to write says: set default_transaction_read_only = off
_READING = "-c default_transaction_read_only=on -c timezone=UTC"


def sql(
    context: typer.Context,
    where: Annotated[bool, typer.Option("--where", help="Print where the warehouse is, for another program")] = False,
) -> None:
    """Ask the warehouse with psql, reading only. What follows is psql's own.

    \b
    sluice sql
    sluice sql -c "select count(*) from marts.fct_order"
    sluice sql --csv -c "table marts.dim_date" > dates.csv
    sluice sql --where          # host, port, database, role, for a GUI

    \b
    Exit codes: psql's own; 1 where there is no psql.
    """
    url = settings.warehouse_url()
    if where:
        print("\n".join(_told(url)))
        return
    parts = conninfo_to_dict(url)
    password = parts.pop("password", None)
    options = {"PGOPTIONS": f"{_READING} {os.environ.get('PGOPTIONS', '')}"}
    secret = {"PGPASSWORD": str(password)} if password else {}  # never on a command line, where others see it
    program = _psql()
    command = [program, "--dbname", make_conninfo("", **parts), *context.args]  # type: ignore[arg-type]
    os.execvpe(program, command, {**os.environ, **options, **secret})


def _psql() -> str:
    """The machine's own, which has the better line editing, or the embedded one."""
    try:
        return shutil.which("psql") or str(wheel_programs() / "psql")
    except RuntimeFault:
        raise SluiceError(
            "there is no psql on this machine. Any other program enters by what `sluice sql --where` prints"
        ) from None


def _told(url: str) -> list[str]:
    parts = conninfo_to_dict(url)
    named = (("host", "host"), ("port", "port"), ("database", "dbname"), ("role", "user"))
    lines = [f"{word:10}{parts.get(name) or 'as libpq has it'}" for word, name in named]
    return [*lines, f"{'password':10}{_password_place(url)}"]


def _password_place(url: str) -> str:
    file = settings.state_dir() / "env.json"
    written = settings.written_environment()
    if written.get("SLUICE_DBT_PASSWORD") and written["SLUICE_DBT_PASSWORD"] == conninfo_to_dict(url).get("password"):
        return f"SLUICE_DBT_PASSWORD in {file}"
    return next(
        (f"in {name}" for name in ("SLUICE_WAREHOUSE_URL", "AIRFLOW_CONN_WAREHOUSE") if os.environ.get(name)), ""
    )
