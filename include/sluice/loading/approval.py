"""A person's word for a refused batch: for the checks that refused it, up to the counts that the person was shown."""

from __future__ import annotations

import psycopg
from psycopg.types.json import Jsonb

from sluice.errors import SluiceError
from sluice.gates import override
from sluice.loading.batch import Batch


def approve(connection: psycopg.Connection, batch_id: int, *, by: str, reason: str) -> tuple[str, dict[str, int]]:
    """Let what refused a batch through. Returns its table, and per check the count that was approved: rows of a unit
    that came `late`, keys that `deletes` would close.

    Raises `SluiceError` where the batch is not refused, or was refused by nothing that can be approved.
    """
    row = connection.execute(
        """
        select source || '.' || table_name, run_id, unit, content_hash, jsonb_build_object(
            'late', rows_read, 'deletes', coalesce((details ->> 'vanished')::bigint, 0)
        ),
        array(
            select distinct check_name from ops.gate_result
            where gate_result.batch_id = batch.batch_id and verdict = 'fail' order by 1
        )
        from ops.batch where batch_id = %s and state = 'refused' for update
        """,
        [batch_id],
    ).fetchone()
    if row is None:
        raise SluiceError(f"batch {batch_id} is not a refused batch; nothing was approved")
    table, run_id, unit, content, counts, refused_by = row
    approved = {check: count for check, count in counts.items() if check in refused_by}
    if not approved:
        raise SluiceError(
            f"batch {batch_id} was refused by {', '.join(refused_by) or 'its source'}, and only deletes and a unit "
            "that came late can be approved; nothing was approved. See: sluice gate override --help"
        )
    connection.execute(
        "update ops.batch set approved_by = %s, approved_reason = %s, approved_checks = %s,"
        " details = details - 'declined' where batch_id = %s",
        [by, reason, Jsonb(approved), batch_id],
    )
    for check in approved:
        override.keep(connection, run_id, "batch", check, table, unit=unit, content=content, by=by, reason=reason)
    return table, approved


def decline(connection: psycopg.Connection, batch_id: int, *, by: str, reason: str) -> str:
    """Say that a refused batch is rightly so, until the content of its unit changes, or comes under another contract.
    Returns the unit.

    Who asks for the unit by name (`--from`) has it judged again; what is refused then is no news.
    """
    row = connection.execute(
        """
        update ops.batch set state = 'unchanged', verdict = concat_ws('; ', verdict, %s::text),
            details = details || '{"declined": true}'
        where batch_id = %s and state = 'refused' returning unit
        """,
        [f"declined by {by}: {reason}", batch_id],
    ).fetchone()
    if row is None:
        raise SluiceError(f"batch {batch_id} is not a refused batch; nothing was declined")
    return str(row[0])


def covers(connection: psycopg.Connection, batch: Batch, check: str, count: int) -> bool:
    """Whether a person approved this check for as many: of the same unit and content, or, for deletes, since the table
    was last published.

    A table that is read live never has the same content twice, so there the approval is for the number of keys.
    """
    is_covered = bool(
        connection.execute(
            """
            select 1 from ops.batch as refused
            where source = %(source)s and table_name = %(table)s and approved_by is not null
                and (approved_checks ->> %(check)s)::bigint >= %(count)s
                and (
                    (unit = %(unit)s and content_hash = %(content)s)
                    or (
                        %(check)s = 'deletes'
                        and not exists (
                            select from ops.batch as later
                            where later.source = refused.source and later.table_name = refused.table_name
                                and later.state in ('published', 'superseded') and later.batch_id > refused.batch_id
                        )
                    )
                )
            """,
            {
                "source": batch.source,
                "table": batch.table_name,
                "unit": batch.unit,
                "content": batch.content_hash,
                "check": check,
                "count": count,
            },
        ).fetchone()
    )
    if is_covered:
        override.approved(connection, batch.run_id, check, f"{batch.source}.{batch.table_name}")
    return is_covered
