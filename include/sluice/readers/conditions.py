"""What a table waits for beyond its own data (`ready_when`): asked once, cheaply, within seconds."""

from __future__ import annotations

import json
from typing import Any

import httpx
import psycopg

from sluice.declarations.readiness import Condition, Fresh, Http, Rows
from sluice.declarations.rest import Rest
from sluice.errors import SourceUnavailable
from sluice.readers.base import connect
from sluice.readers.http import Session

_PATIENCE = "10s"  # of a query that only asks


def unmet(connection: psycopg.Connection, conditions: tuple[Condition, ...]) -> str | None:
    """The first condition that is not met yet, in words; None when all are. `connection` is to the warehouse."""
    for condition in conditions:
        if condition.rows:
            problem = _rows(condition.rows)
        elif condition.http:
            problem = _http(condition.http)
        else:
            assert condition.fresh is not None
            problem = _fresh(connection, condition.fresh)
        if problem:
            return f"{condition.what}: {problem}" if condition.what else problem
    return None


def _rows(wanted: Rows) -> str | None:
    with connect(wanted.connection) as source:
        try:
            source.execute("set transaction read only")
            source.execute(f"set local statement_timeout = '{_PATIENCE}'")
            row = source.execute(wanted.query.encode()).fetchone()
        except psycopg.Error as error:
            told = error.diag.message_primary or type(error).__name__
            return f"the query of ready_when.rows at connection {wanted.connection}, which fails: {told}"
        value = row[0] if row else None
        try:
            is_ready = value is True or (not isinstance(value, bool) and value is not None and value > 0)
        except TypeError:
            return f"connection {wanted.connection} to answer ready_when.rows with true or a number"
    return None if is_ready else f"connection {wanted.connection} to say that rows are ready (now: {_told(value)})"


def _told(value: Any) -> str:
    """What a control query answered: nothing, a truth, or a number; no other value is repeated."""
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool | int) else "not ready"


def _http(wanted: Http) -> str | None:
    where = f"{wanted.path} at connection {wanted.connection}"
    with Session(Rest(connection=wanted.connection, path=wanted.path)) as session:
        try:
            status, body = session.ask_once(wanted.path)
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"{where} does not answer ({type(error).__name__})") from None
    if status != 200:
        return f"{where} to answer 200 (now: {status})"
    if wanted.field is None:
        return None
    try:
        found: Any = json.loads(body)
        for name in wanted.field.split("."):
            found = found[int(name)] if isinstance(found, list) else found[name]
    except (ValueError, KeyError, IndexError, TypeError):
        return f"{where} to have the field {wanted.field}"
    text = str(found).lower() if isinstance(found, bool) else str(found)
    return None if text == wanted.value else f"{where} to say {wanted.field} {wanted.value}"


def _fresh(connection: psycopg.Connection, wanted: Fresh) -> str | None:
    source, _, table = wanted.table.partition(".")
    row = connection.execute(
        "select read_at, read_at > clock_timestamp() - %s from ops.table_read where source = %s and table_name = %s",
        [wanted.within, source, table],
    ).fetchone()
    if row is None:
        return f"{wanted.table}, which was never read"
    return None if row[1] else f"{wanted.table} to be read again (last: {row[0]:%Y-%m-%d %H:%M} UTC)"
