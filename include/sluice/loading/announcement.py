"""What of a source was published and not announced to the warehouse yet: by the ledger, whoever published it."""

from __future__ import annotations

import psycopg

_KNOWN = "select run_id, since_seq, seq from ops.announcement where source = %s for update"
_NEW = """
select table_name,
    coalesce(sum(rows_applied) filter (where published_seq > %(since)s), 0)::bigint,
    coalesce(sum(rows_deleted) filter (where published_seq > %(since)s), 0)::bigint,
    max(greatest(published_seq, superseded_seq))
from ops.batch
where source = %(source)s and published_seq is not null and rows_applied + rows_deleted > 0
    and greatest(published_seq, superseded_seq) > %(since)s
group by table_name
order by table_name
"""


def announce(connection: psycopg.Connection, source: str, run_id: str) -> list[tuple[str, int, int]]:
    """Tables of `source` with something that was not announced yet: name, rows applied, rows deleted. From now on it
    counts as announced by `run_id`, which is told the same again if it asks again; the caller commits.

    Of runs that ask at once one is told. A sequence number becomes visible in commit order (`ops.next_seq`), so that
    nothing is ever published behind what was announced.
    """
    connection.execute(
        "insert into ops.announcement (source, run_id, since_seq, seq) values (%s, '', 0, 0) on conflict do nothing",
        [source],
    )
    row = connection.execute(_KNOWN, [source]).fetchone()
    assert row is not None
    by, since, until = row
    if by != run_id:
        since = until
    found = connection.execute(_NEW, {"source": source, "since": since}).fetchall()
    if found:
        connection.execute(
            "update ops.announcement set run_id = %s, since_seq = %s, seq = %s, announced_at = clock_timestamp()"
            " where source = %s",
            [run_id, since, max(seq for *_, seq in found), source],
        )
    return [(table, applied, deleted) for table, applied, deleted, _ in found]
