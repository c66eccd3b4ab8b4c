"""A person lets one run go on although a check blocks: named, with a reason, recorded, and visible for ever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import psycopg

from sluice.errors import SluiceError
from sluice.gates.results import Check

NEVER = ("header", "shape", "pattern")  # their rows were not judged, so they can't be published, whoever wants it
APPROVED = ("deletes", "late")  # a person's word for these is for a count that was shown: `loading/approval.py`

_BLOCKED = """
select result.run_id, result.gate, result.check_name, result.object, batch.unit, batch.content_hash,
    batch.batch_id
from ops.gate_result as result
left join ops.batch as batch using (batch_id)
where result.severity = 'block' and result.verdict <> 'pass'
    and (%(run)s::text is null or result.run_id = %(run)s)
    and (%(batch)s::bigint is null or result.batch_id = %(batch)s)
    and result.check_name = %(check)s
    and (%(object)s::text is null or result.object = %(object)s)
order by result.gate_result_id desc
"""


def give(
    connection: psycopg.Connection,
    check: str,
    *,
    by: str,
    reason: str,
    run: str | None = None,
    batch: int | None = None,
    on: str | None = None,
) -> tuple[str, str]:
    """Let `check` of a run, or of a refused batch, go on. Returns the gate and the object that it is for.

    Raises `SluiceError` where no such check blocked, where it is not clear which is meant, or where nobody may.
    """
    if not by.strip() or not reason.strip():
        raise SluiceError("an override has a person and a reason; nothing was overridden")
    if (run is None) == (batch is None):
        raise SluiceError("name either the run or the batch that was stopped; nothing was overridden")
    found = connection.execute(_BLOCKED, {"run": run, "batch": batch, "check": check, "object": on}).fetchall()
    where = f"run {run}" if run else f"batch {batch}"
    if not found:
        raise SluiceError(
            f"no check {check}{f' on {on}' if on else ''} stopped {where}; nothing was overridden. "
            "See: sluice gate show --failed"
        )
    objects = sorted({row[3] for row in found})
    if len(objects) > 1:
        raise SluiceError(f"{check} stopped {where} on {', '.join(objects)}; name one with --on")
    run_id, gate, _, thing, unit, content, refused = found[0]
    if gate == "batch" and check in NEVER:
        raise SluiceError(f"{check} can't be overridden: the batch's rows could not be judged; correct the contract")
    if gate == "batch" and check in APPROVED:
        raise SluiceError(
            f"{check} is approved for the count that was shown, not overridden; nothing was changed. "
            f"Use: sluice batch approve {refused} --reason …"
        )
    keep(connection, run_id, gate, check, thing, unit=unit, content=content, by=by.strip(), reason=reason.strip())
    # whoever lets it through wants it read, also if somebody had declined it before
    connection.execute(
        """
        update ops.batch set details = details - 'declined', state = 'refused'
        where batch_id = %s and details ? 'declined'
        """,
        [refused],
    )
    return gate, thing


def keep(
    connection: psycopg.Connection,
    run_id: str,
    gate: str,
    check: str,
    thing: str,
    *,
    unit: str | None,
    content: str | None,
    by: str,
    reason: str,
) -> None:
    """Write a person's word down. Once it is used, people are told."""
    connection.execute(
        """
        insert into ops.gate_override (run_id, gate, check_name, object, unit, content_hash, overridden_by, reason)
        values (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        [run_id, gate, check, thing, unit, content, by, reason],
    )


def of_batch(
    connection: psycopg.Connection, run_id: str, check: str, table: str, unit: str, content: str | None
) -> str | None:
    """Who lifted a check of a batch, and why: for this run, or for this content of the unit, once."""
    return _use(
        connection,
        run_id,
        "gate = 'batch' and check_name = %(check)s and object = %(object)s and unit = %(unit)s"
        " and (run_id = %(run)s or content_hash = %(content)s)",
        {"check": check, "object": table, "unit": unit, "content": content},
    )


def approved(connection: psycopg.Connection, run_id: str, check: str, table: str) -> None:
    """An approval was used by a run; it was given for a count, which the caller compared."""
    _use(
        connection,
        run_id,
        "gate = 'batch' and check_name = %(check)s and object = %(object)s",
        {"check": check, "object": table},
    )


def applied(connection: psycopg.Connection, run_id: str, gate: str, checks: Iterable[Check]) -> list[Check]:
    """The checks of a gate; those that block and were lifted for this very run warn instead."""
    judged = list(checks)
    for index, check in enumerate(judged):
        if not check.blocks:
            continue
        where = "gate = %(gate)s and check_name = %(check)s and object = %(object)s and run_id = %(run)s"
        word = _use(connection, run_id, where, {"gate": gate, "check": check.name, "object": check.object})
        if word:
            said = f"{word}; was: {check.outcome}" + (f", {check.message}" if check.message else "")
            judged[index] = replace(check, outcome="warn", severity="warn", message=said)
    return judged


def _use(connection: psycopg.Connection, run_id: str, where: str, values: dict[str, str | None]) -> str | None:
    row = connection.execute(
        f"""
        update ops.gate_override set used_at = coalesce(used_at, clock_timestamp()), used_run_id = %(run)s
        where gate_override_id = (
            select max(gate_override_id) from ops.gate_override
            where {where} and (used_run_id is null or used_run_id = %(run)s)
        )
        returning overridden_by, reason
        """,
        {**values, "run": run_id},
    ).fetchone()
    return f"overridden by {row[0]}: {row[1]}" if row else None
