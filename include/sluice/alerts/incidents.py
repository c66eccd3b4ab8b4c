"""Incidents: opened once per cause, counted when it happens again, tied to what caused them, closed when it is over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import psycopg

from sluice.declarations.layers import LAYERS

WAREHOUSE = "warehouse"  # the DAG that is of no source

# Every kind has a page docs/runbooks/<runbook>.md. What pages wakes somebody; what warns can wait for the morning.
KINDS: dict[str, tuple[Literal["page", "warn"], str]] = {
    "task_failed": ("page", "task-failed"),
    "gate_failed": ("page", "gate-failed"),
    "rejects_exceeded": ("page", "rejects-exceeded"),
    "batch_refused": ("page", "batch-refused"),
    "circuit_open": ("page", "circuit-open"),
    "heartbeat_stale": ("page", "heartbeat-stale"),
    "source_late": ("page", "source-late"),
    "feed_stopped": ("warn", "feed-stopped"),
    "layer_late": ("page", "layer-late"),
    "deadline_missed": ("warn", "deadline-missed"),
    "gate_overridden": ("warn", "gate-overridden"),
    "alarm": ("warn", "alarm"),
}
# What only follows from another incident about the same run, source or job is tied to it, and not told.
_SYMPTOMS = ("source_late", "feed_stopped", "layer_late", "deadline_missed")


@dataclass(frozen=True)
class Cause:
    """What went wrong. `kind` and `subject` together are its identity: the same again is the same incident.

    `title` is one line without a row's values. `count` is how often it has happened, where that is known; else each
    call is one more time.
    """

    kind: str
    subject: str
    title: str
    detail: str = ""
    owner: str = ""
    source: str | None = None
    job: str | None = None
    step: str | None = None
    run_id: str | None = None
    log_url: str | None = None
    severity: Literal["page", "warn"] | None = None
    runbook: str | None = None
    count: int | None = None


_UPSERT = """
insert into ops.incident as known (kind, subject, severity, title, detail, owner, source, job, step, run_id, log_url,
    runbook, affected, last_good_at, caused_by, count)
values (%(kind)s, %(subject)s, %(severity)s, %(title)s, %(detail)s, %(owner)s, %(source)s, %(job)s, %(step)s,
    %(run_id)s, %(log_url)s, %(runbook)s, %(affected)s, %(last_good)s, %(caused_by)s, coalesce(%(count)s, 1))
on conflict (kind, subject) where resolved_at is null do update
set title = excluded.title, detail = excluded.detail, owner = excluded.owner, run_id = excluded.run_id,
    log_url = excluded.log_url, affected = excluded.affected, last_good_at = excluded.last_good_at,
    caused_by = coalesce(known.caused_by, excluded.caused_by),
    count = coalesce(%(count)s, known.count + 1), last_seen_at = clock_timestamp()
returning incident_id
"""


def open_incident(connection: psycopg.Connection, cause: Cause) -> int:
    """Open the incident of a cause, or count one more time; returns its number. The caller commits."""
    severity, runbook = KINDS[cause.kind]
    row = connection.execute(
        _UPSERT,
        {
            **cause.__dict__,
            "severity": cause.severity or severity,
            "runbook": cause.runbook or f"docs/runbooks/{runbook}.md",
            "owner": cause.owner or _owner(connection, cause.source),
            "affected": _affected(connection, cause),
            "last_good": _last_good(connection, cause),
            "caused_by": _cause_of(connection, cause),
        },
    ).fetchone()
    assert row is not None
    if cause.kind not in _SYMPTOMS:
        _take_over_symptoms(connection, row[0], cause)
    return int(row[0])


def resolve(connection: psycopg.Connection, kind: str, subject: str, reason: str) -> None:
    """Close an incident, if it is open; what it caused is on its own from now on. The caller commits."""
    closed = connection.execute(
        "update ops.incident set resolved_at = clock_timestamp(), resolved_reason = %s"
        " where (kind, subject) = (%s, %s) and resolved_at is null returning incident_id",
        [reason, kind, subject],
    ).fetchone()
    if closed:
        connection.execute(
            "update ops.incident set caused_by = null where caused_by = %s and resolved_at is null", closed
        )


def _cause_of(connection: psycopg.Connection, cause: Cause) -> int | None:
    """The open incident from which this one follows: of the same run, job or source, and not itself a symptom."""
    wanted = "not kind = any(%(symptoms)s) and kind not in ('alarm', 'gate_overridden')"
    if cause.kind in ("task_failed", "gate_failed") and cause.job == "operations" and cause.step == "freshness":
        wanted = "kind = 'source_late'"  # the daily look at freshness fails because of what is told already
    elif cause.kind == "task_failed":
        wanted = "kind = 'heartbeat_stale' and step = %(step)s"  # Airflow noticed the kill, too
    elif cause.kind == "feed_stopped":
        wanted = "(kind = 'source_late' or " + wanted + ")"  # who is not read brings nothing
    elif cause.kind not in _SYMPTOMS:
        return None
    row = connection.execute(
        f"""
        select incident_id from ops.incident
        where resolved_at is null and caused_by is null and {wanted}
            and (%(freshness)s or run_id = %(run_id)s or job = %(job)s or source = %(source)s)
        order by incident_id limit 1
        """,
        {**cause.__dict__, "symptoms": list(_SYMPTOMS), "freshness": wanted == "kind = 'source_late'"},
    ).fetchone()
    return row[0] if row else None


def _take_over_symptoms(connection: psycopg.Connection, incident_id: int, cause: Cause) -> None:
    """What was told as late before its cause was known belongs to the cause from now on."""
    connection.execute(
        """
        update ops.incident set caused_by = %(id)s
        where resolved_at is null and caused_by is null and kind = any(%(symptoms)s)
            and (run_id = %(run_id)s or job = %(job)s or source = %(source)s)
        """,
        {**cause.__dict__, "id": incident_id, "symptoms": list(_SYMPTOMS)},
    )


def _owner(connection: psycopg.Connection, source: str | None) -> str:
    row = connection.execute(
        "select owner from ops.objective where source = %s or (%s::text is null and kind = 'layer')"
        " order by source limit 1",
        [source, source],
    ).fetchone()
    return row[0] if row else ""


def _affected(connection: psycopg.Connection, cause: Cause) -> list[str]:
    """Snapshots and marts that are made from the source; of the warehouse, those of the layer that failed and of later
    ones: its gate lets none of them be built, or told."""
    later = LAYERS
    if cause.job == WAREHOUSE:
        named = re.sub("^(gate_|test_|warehouse:)", "", cause.step or cause.subject).partition(".")[0]
        later = LAYERS[LAYERS.index(named) if named in LAYERS else 0 :]
    rows = connection.execute(
        "select distinct relation from ops.lineage where (source = %s or %s) and layer = any(%s)"
        " and layer in ('marts', 'snapshots') order by 1",
        [cause.source, cause.job == WAREHOUSE, list(later)],
    ).fetchall()
    return [relation for (relation,) in rows]


def _last_good(connection: psycopg.Connection, cause: Cause) -> object:
    """When a batch of the source was last published; of the warehouse, when its marts were last found complete."""
    if cause.job == WAREHOUSE:
        found = connection.execute(
            "select max(checked_at) from ops.gate_result"
            " where gate = 'marts' and check_name = 'layer_is_complete' and verdict = 'pass'"
        )
    else:
        found = connection.execute(
            "select max(published_at) from ops.batch where source = %s and state in ('published', 'superseded')",
            [cause.source],
        )
    row = found.fetchone()
    return row[0] if row else None
