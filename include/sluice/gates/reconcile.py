"""Counts and sums of two places that must agree: source and staging, staging and marts.

Declared under `reconcile:` of `include/expectations/<layer>.yml`. Each side is a select of one row; the columns are
compared in their order. A side with a `connection` is asked there, read only. `{watermark:shop.orders}` stands for how
far that table was read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql
from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from sluice.declarations.base import Declared, Name
from sluice.errors import SluiceError
from sluice.gates.results import Check

_WATERMARK = re.compile(r"\{watermark:([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)\}")
_PATIENCE = "5min"


class Side(Declared):
    """One of the two numbers, or rows of numbers."""

    query: str = Field(min_length=1)
    connection: Name | None = None


class Reconciliation(Declared):
    """Two places, and how far apart they may be."""

    name: Name
    left: Side
    right: Side
    tolerance: float = Field(default=0.0, ge=0, lt=1, description="As a share of the larger side")
    severity: Literal["block", "warn"]
    on: str = Field(description="The table or model that is in doubt when they differ")
    when_changed: bool = Field(default=False, description="Only in runs that changed it")


def check_reconciliations(connection: psycopg.Connection, layer: str, run_id: str, path: Path) -> list[Check]:
    """Compare what is declared for a layer. A side that can't be asked is an error, which is no pass."""
    try:
        declared = read_reconciliations(path)
    except ValueError as fault:
        return [Check("reconciliations_are_readable", layer, "error", message=str(fault))]
    return [_check(connection, wanted) for wanted in declared if not _kept(connection, run_id, wanted)]


def read_reconciliations(path: Path) -> list[Reconciliation]:
    """What a file declares. Raises `ValueError` that names file and field."""
    if not path.is_file():
        return []
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    found = []
    for number, item in enumerate(tree.get("reconcile") or [], start=1):
        try:
            found.append(Reconciliation.model_validate(item))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}: reconcile[{number}].{where}: {first['msg']}") from None
    return found


def _kept(connection: psycopg.Connection, run_id: str, wanted: Reconciliation) -> bool:
    """Whether this run left the relation as it was, and the two agreed since it last changed."""
    if not wanted.when_changed:
        return False
    return bool(
        connection.execute(
            """
            select exists (
                select from ops.model_run where run_id = %(run)s and relation = %(on)s and state = 'unchanged'
            ) and exists (
                select from ops.gate_result
                where object = %(on)s and check_name = %(name)s and verdict = 'pass' and checked_at > coalesce(
                    (select max(committed_at) from ops.model_run where relation = %(on)s and state = 'success'),
                    '-infinity'
                )
            )
            """,
            {"run": run_id, "on": wanted.on, "name": wanted.name},
        ).fetchone()[0]  # type: ignore[index]
    )


def _check(connection: psycopg.Connection, wanted: Reconciliation) -> Check:
    check = Check(wanted.name, wanted.on, "error", severity=wanted.severity)
    sides = []
    for side, label in ((wanted.left, "left"), (wanted.right, "right")):
        try:
            sides.append(_ask(connection, side))
        except (psycopg.Error, SluiceError, LookupError) as error:
            told = error.diag.message_primary if isinstance(error, psycopg.Error) else str(error)
            return replace(check, message=f"the {label} side could not be asked: {told or type(error).__name__}")
    left, right = sides
    if len(left) != len(right):
        return replace(check, message=f"left has {len(left)} columns and right {len(right)}")
    off = [number for number, (a, b) in enumerate(zip(left, right, strict=True), 1) if _differ(a, b, wanted.tolerance)]
    return replace(
        check,
        outcome="fail" if off else "pass",
        observed=_told(right),
        bound=_told(left) + (f" within {wanted.tolerance:.2%}" if wanted.tolerance else ""),
        message=f"column {', '.join(map(str, off))} differs" if off else None,
    )


def _ask(connection: psycopg.Connection, side: Side) -> Sequence[Any]:
    from sluice.readers.base import connect

    statement = _WATERMARK.sub(lambda found: _watermark(connection, *found.groups()), side.query)
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
