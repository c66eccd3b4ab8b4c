"""What `ops` says by itself: late sources, stopped feeds, silent steps, open circuits, refused batches, deadlines.

Each finding opens an incident, or keeps it open; what is no longer found is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg

from sluice.alerts.incidents import Cause, open_incident, resolve
from sluice.ledger.refused import STANDS

SILENT_AFTER = "2 minutes"  # as the rule SluiceHeartbeatStale


def sweep(connection: psycopg.Connection) -> None:
    """Look once; one transaction."""
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended('sluice:alerts', 0))")
        for kind, found in _FINDERS.items():
            _keep(connection, kind, list(found(connection)))
        _close_what_succeeded(connection)


def _keep(connection: psycopg.Connection, kind: str, causes: list[Cause]) -> None:
    for cause in causes:
        open_incident(connection, cause)
    gone = connection.execute(
        "select subject from ops.incident where kind = %s and resolved_at is null and not subject = any(%s)",
        [kind, [cause.subject for cause in causes]],
    ).fetchall()
    for (subject,) in gone:
        resolve(connection, kind, subject, "it is over")


def _circuits(connection: psycopg.Connection) -> Iterator[Cause]:
    for name, failures, last, since, source in connection.execute(
        """
        select connection, failures, last_error, opened_at, (
            select source from ops.source_event as e where e.connection = c.connection
            order by source_event_id desc limit 1
        ) from ops.circuit as c where opened_at is not null
        """
    ):
        yield Cause(
            "circuit_open",
            name,
            f"the connection {name} failed {failures} times in a row (last: {last}) and is left alone",
            f"since {since:%Y-%m-%d %H:%M} UTC; it is tried again from time to time, and closes by itself",
            source=source,
            job=f"ingest_{source}",
            count=failures,
        )


def _refused(connection: psycopg.Connection) -> list[tuple]:
    """Tables with a refusal that stands, the latest of each: how often in a row, why, and whether for its rejects."""
    return connection.execute(
        f"""
        select distinct on (batch.source, batch.table_name)
            batch.source, batch.table_name, batch.batch_id, batch.unit, batch.verdict, batch.run_id, (
                select count(*) from ops.batch as n
                where (n.source, n.table_name) = (batch.source, batch.table_name) and n.state = 'refused'
                    and n.batch_id <= batch.batch_id and n.batch_id > coalesce((
                        select max(g.batch_id) from ops.batch as g
                        where (g.source, g.table_name) = (batch.source, batch.table_name)
                            and g.state in ('published', 'unchanged') and g.batch_id < batch.batch_id
                    ), 0)
            ), exists (
                select from ops.gate_result as r where r.batch_id = batch.batch_id and r.check_name = 'contract'
                    and r.verdict = 'fail'
            )
        from ops.batch as batch
        where {STANDS}
        order by batch.source, batch.table_name, batch.batch_id desc
        """
    ).fetchall()


def _refusals(of_rejects: bool) -> Callable[[psycopg.Connection], Iterator[Cause]]:
    def find(connection: psycopg.Connection) -> Iterator[Cause]:
        for source, table, batch_id, unit, verdict, run_id, times, is_rejects in _refused(connection):
            if is_rejects is of_rejects:
                yield Cause(
                    "rejects_exceeded" if of_rejects else "batch_refused",
                    f"{source}.{table}",
                    f"batch {batch_id} of {source}.{table} ({unit}) was refused; nothing of it was published",
                    verdict or "",
                    source=source,
                    job=f"ingest_{source}",
                    step=f"{table}.audit",
                    run_id=run_id,
                    count=times,
                )

    return find


def _silent_steps(connection: psycopg.Connection) -> Iterator[Cause]:
    for job, step, run_id, host, pid, beat_at in connection.execute(
        f"""
        select job, step, run_id, host, pid, beat_at from ops.step
        where ended_at is null and beat_at < clock_timestamp() - interval '{SILENT_AFTER}' order by beat_at
        """
    ):
        yield Cause(
            "heartbeat_stale",
            f"{job}/{step}",
            f"{job} {step} shows no sign of life: it was killed, whatever Airflow says",
            f"process {pid} on {host}, last heard of {beat_at:%Y-%m-%d %H:%M:%S} UTC, run {run_id}",
            source=job.removeprefix("ingest_") if job.startswith("ingest_") else None,
            job=job,
            step=step,
            run_id=run_id,
            count=1,
        )


def _late_sources(connection: psycopg.Connection) -> Iterator[Cause]:
    for source, owner, late, tables, oldest in connection.execute(
        """
        select o.source, min(o.owner), array_agg(split_part(o.subject, '.', 2) order by o.subject) filter (
            where clock_timestamp() - coalesce(r.read_at, o.declared_at) > o.freshness
        ) as late, count(*), min(coalesce(r.read_at, o.declared_at))
        from ops.objective as o
        left join ops.table_read as r on r.source = o.source and r.table_name = split_part(o.subject, '.', 2)
        where o.kind = 'table' and o.freshness is not null group by 1
        """
    ):
        if late:
            yield Cause(
                "source_late",
                source,
                f"{source} is late: {len(late)} of {tables} tables are older than was promised",
                f"tables: {', '.join(late)}; the oldest is as of {oldest:%Y-%m-%d %H:%M} UTC",
                owner=owner,
                source=source,
                job=f"ingest_{source}",
                count=1,
            )


def _stopped_feeds(connection: psycopg.Connection) -> Iterator[Cause]:
    for subject, source, owner, allowed, since in connection.execute(
        """
        select o.subject, o.source, o.owner, extract(epoch from o.max_quiet)::bigint,
            coalesce(max(b.published_at), min(o.declared_at)) as since
        from ops.objective as o
        left join ops.batch as b on b.source = o.source and b.table_name = split_part(o.subject, '.', 2)
            and b.state in ('published', 'superseded') and b.rows_applied + b.rows_deleted > 0
        where o.kind = 'table' and o.max_quiet is not null group by o.kind, o.subject
        having clock_timestamp() - coalesce(max(b.published_at), min(o.declared_at)) > o.max_quiet
        """
    ):
        yield Cause(
            "feed_stopped",
            subject,
            f"{subject} is read and has brought nothing new for more than {_length(allowed)}",
            f"nothing new since {since:%Y-%m-%d %H:%M} UTC",
            owner=owner,
            source=source,
            job=f"ingest_{source}",
            count=1,
        )


def _late_layers(connection: psycopg.Connection) -> Iterator[Cause]:
    for layer, owner, allowed, since in connection.execute(
        """
        select subject, owner, extract(epoch from freshness)::bigint, since
        from ops.objective as o cross join lateral (select coalesce(greatest(
            (select max(checked_at) from ops.gate_result
             where gate = o.subject and check_name = 'layer_is_complete' and verdict = 'pass'),
            (select max(checked_at) from ops.gate_result where gate = 'pending' and observed = '0')
        ), o.declared_at)) as last (since)
        where kind = 'layer' and clock_timestamp() - since > freshness
        """
    ):
        yield Cause(
            "layer_late",
            layer,
            f"no run has found {layer} complete for more than {_length(allowed)}",
            f"the last one was {since:%Y-%m-%d %H:%M} UTC",
            owner=owner,
            job="warehouse",
            count=1,
        )


def _missed_deadlines(connection: psycopg.Connection) -> Iterator[Cause]:
    """Of the last day, until a step of the same DAG has succeeded since."""
    for subject, owner, times, allowed, run_id, job in connection.execute(
        """
        select subject, min(owner), count(*), extract(epoch from max(allowed))::bigint, max(run_id),
            split_part(subject, ':', 1)
        from ops.deadline_miss as m
        where subject <> 'canary' and missed_at > clock_timestamp() - interval '1 day' and not exists (
            select from ops.step as s where s.job = split_part(m.subject, ':', 1) and s.succeeded
                and s.ended_at > m.missed_at
        ) group by subject
        """
    ):
        yield Cause(
            "deadline_missed",
            subject,
            f"a run of {subject} was not done {_length(allowed)} after it was queued",
            f"run {run_id}",
            owner=owner,
            source=job.removeprefix("ingest_") if job.startswith("ingest_") else None,
            job=job,
            run_id=run_id,
            count=times,
        )


def _overrides(connection: psycopg.Connection) -> Iterator[Cause]:
    """Of the last day, until a person has closed it: told so that it is known."""
    for gate, check, thing, by, reason, used_at, run_id in connection.execute(
        """
        select distinct on (gate, check_name, object) gate, check_name, object, overridden_by, reason, used_at,
            used_run_id
        from ops.gate_override as o where used_at > clock_timestamp() - interval '1 day' and not exists (
            select from ops.incident as i where i.kind = 'gate_overridden'
                and i.subject = concat_ws('/', o.gate, o.check_name, o.object) and i.resolved_at > o.used_at
        )
        order by gate, check_name, object, used_at desc
        """
    ):
        yield Cause(
            "gate_overridden",
            f"{gate}/{check}/{thing}",
            f"{by} let {check} on {thing} pass, which blocked the gate {gate}",
            f"reason: {reason}; used {used_at:%Y-%m-%d %H:%M} UTC by run {run_id}",
            source=thing.partition(".")[0] if gate == "batch" else None,
            run_id=run_id,
            count=1,
        )


def _length(seconds: int) -> str:
    """As a declaration writes it: 90m, 2h, 3d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


# Causes before what may follow from them.
_FINDERS: dict[str, Callable[[psycopg.Connection], Iterator[Cause]]] = {
    "circuit_open": _circuits,
    "rejects_exceeded": _refusals(True),
    "batch_refused": _refusals(False),
    "heartbeat_stale": _silent_steps,
    "source_late": _late_sources,
    "feed_stopped": _stopped_feeds,
    "layer_late": _late_layers,
    "deadline_missed": _missed_deadlines,
    "gate_overridden": _overrides,
}


def _close_what_succeeded(connection: psycopg.Connection) -> None:
    """A failed task is over when the same step, or a later one of its table, has succeeded since."""
    over = connection.execute(
        """
        select i.kind, i.subject from ops.incident as i
        where i.resolved_at is null and i.kind in ('task_failed', 'gate_failed') and exists (
            select from ops.step as s where s.job = i.job and s.succeeded and s.ended_at > i.last_seen_at and (
                s.step = i.step or (i.step like '%%.wait' and s.step = replace(i.step, '.wait', '.land'))
            )
        )
        """
    ).fetchall()
    for kind, subject in over:
        resolve(connection, kind, subject, "the step has succeeded since")
