"""Counts and sums of two places that must agree: source and staging, staging and marts.

Declared under `reconcile:` of `include/expectations/<layer>.yml`. Each side is a select of one row; the columns are
compared in their order. A side with a `connection` is asked there, read only. `{watermark:shop.orders}` stands for how
far that table was read, on both sides the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from sluice.declarations.expectations import Reconciliation, Side
from sluice.errors import SluiceError
from sluice.gates.results import Check, without_values

_WATERMARK = re.compile(r"\{watermark:([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)\}")
_PATIENCE = "5min"


def check_reconciliations(
    connection: psycopg.Connection, run_id: str, declared: Sequence[Reconciliation]
) -> list[Check]:
    """Compare what is declared for a layer. A side that can't be asked is an error, which is no pass. What need not be
    compared again has a result of this run all the same, so that an absent one always means something."""
    return [
        Check(wanted.name, wanted.on, "pass", wanted.severity, message=f"unchanged since this passed {_rule(wanted)}")
        if _kept(connection, run_id, wanted)
        else _check(connection, wanted)
        for wanted in declared
    ]


def _kept(connection: psycopg.Connection, run_id: str, wanted: Reconciliation) -> bool:
    """Whether the relation is as it was when the two agreed: a model that this run left unchanged, or a change log to
    which nothing was published since, nor in the hour before: a publication may be committed after its time. And by the
    same rule."""
    if not wanted.when_changed:
        return False
    return bool(
        connection.execute(
            """
            select exists (
                select from ops.gate_result
                where object = %(on)s and check_name = %(name)s and verdict = 'pass'
                    and strpos(message, %(rule)s) > 0 and checked_at > coalesce(
                    (select max(committed_at) from ops.model_run where relation = %(on)s and state = 'success'),
                    (
                        select max(published_at) + interval '1 hour' from ops.batch
                        where format('staging.%%s__%%s', source, table_name) = %(on)s
                    ),
                    '-infinity'
                )
            ) and (%(on)s like 'staging.%%' or exists (
                select from ops.model_run where run_id = %(run)s and relation = %(on)s and state = 'unchanged'
            ))
            """,
            {"run": run_id, "on": wanted.on, "name": wanted.name, "rule": _rule(wanted)},
        ).fetchone()[0]  # type: ignore[index]
    )


def _rule(wanted: Reconciliation) -> str:
    """Names what was compared, and how closely: another query or tolerance is compared anew."""
    text = wanted.model_dump_json(include={"left", "right", "tolerance"})
    return f"by rule {hashlib.md5(text.encode()).hexdigest()[:8]}"


def _check(connection: psycopg.Connection, wanted: Reconciliation) -> Check:
    check = Check(wanted.name, wanted.on, "error", severity=wanted.severity)
    sides, marks = [], {}
    for side, label in ((wanted.left, "left"), (wanted.right, "right")):
        try:
            sides.append(_ask(connection, side, marks))
        except (psycopg.Error, SluiceError, LookupError) as error:
            told = error.diag.message_primary if isinstance(error, psycopg.Error) else str(error)
            told = without_values(told or type(error).__name__)
            return replace(check, message=f"the {label} side could not be asked: {told}")
    left, right = sides
    if len(left) != len(right):
        return replace(check, message=f"left has {len(left)} columns and right {len(right)}")
    off = [number for number, (a, b) in enumerate(zip(left, right, strict=True), 1) if _differ(a, b, wanted.tolerance)]
    return replace(
        check,
        outcome="fail" if off else "pass",
        observed=_told(right),
        bound=_told(left) + (f" within {wanted.tolerance:.2%}" if wanted.tolerance else ""),
        message=f"column {', '.join(map(str, off))} differs" if off else _rule(wanted),
    )


def _ask(connection: psycopg.Connection, side: Side, marks: dict[str, str]) -> Sequence[Any]:
    from sluice.readers.base import connect

    def mark(found: re.Match[str]) -> str:
        if found[0] not in marks:
            marks[found[0]] = _watermark(connection, found[1], found[2])
        return marks[found[0]]

    statement = _WATERMARK.sub(mark, side.query)
    with connect(side.connection) if side.connection else nullcontext(connection) as asked, asked.transaction():
        # of its own, so that one that fails leaves the gate's alive
        asked.execute(sql.SQL("set local statement_timeout = {}").format(_PATIENCE))
        if side.connection:
            asked.execute("set transaction read only")
        rows = asked.execute(statement.encode()).fetchmany(2)
    if len(rows) != 1:
        raise LookupError("it answered no row" if not rows else "it answered more than one row")
    return rows[0]


def _watermark(connection: psycopg.Connection, source: str, table: str) -> str:
    row = connection.execute(
        "select value from ops.watermark where source = %s and table_name = %s", [source, table]
    ).fetchone()
    if row is None:
        raise LookupError(f"{source}.{table} was never read")
    return sql.Literal(row[0]).as_string(connection)


def _differ(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, int | float | Decimal) and isinstance(other, int | float | Decimal):
        most = max(abs(Decimal(str(one))), abs(Decimal(str(other))))
        return abs(Decimal(str(one)) - Decimal(str(other))) > most * Decimal(str(tolerance))
    return bool(one != other)


def _told(values: Sequence[Any]) -> str:
    """Counts and sums; other values are not repeated."""
    shown = (str(v) if isinstance(v, int | float | Decimal) else "nothing" if v is None else "…" for v in values)
    return ", ".join(shown)
