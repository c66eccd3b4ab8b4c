"""What is broken in the installed Airflow and can't be gone round. Goes when Airflow mends it; a test says when."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def mend_clearing() -> None:
    """Let a run that failed before its deadline be cleared: in the web UI, over the API, and by a backfill.

    Since 3.3.0 a deadline's interval is stored as JSON, and Airflow's own function reads it as a number and raises
    (apache/airflow 70368, mended by its open 70370).
    """
    from airflow.models import taskinstance

    taskinstance._recalculate_dagrun_queued_at_deadlines = _recalculate


def _recalculate(dagrun: Any, new_queued_at: datetime, session: Any) -> None:
    """Deadlines that count from when a run was queued, anew from `new_queued_at`; the caller commits."""
    from airflow.models.deadline import Deadline
    from airflow.models.deadline_alert import DeadlineAlert
    from airflow.serialization.decoders import decode_deadline_alert
    from airflow.serialization.definitions.deadline import DeadlineAlertFields as Fields
    from airflow.serialization.definitions.deadline import SerializedReferenceModels, SerializedVariableInterval
    from airflow.serialization.enums import DagAttributeTypes, Encoding
    from sqlalchemy import false, select

    known = (
        select(Deadline, DeadlineAlert)
        .join(DeadlineAlert, Deadline.deadline_alert_id == DeadlineAlert.id)
        .where(Deadline.dagrun_id == dagrun.id, Deadline.missed == false())
    )
    for deadline, alert in session.execute(known):
        stored = {
            Fields.REFERENCE: alert.reference,
            Fields.INTERVAL: alert.interval,
            Fields.CALLBACK: alert.callback_def,
        }
        decoded = decode_deadline_alert({Encoding.TYPE: DagAttributeTypes.DEADLINE_ALERT, Encoding.VAR: stored})
        if isinstance(decoded.reference, SerializedReferenceModels.DagRunQueuedAtDeadline):
            interval = decoded.interval
            is_variable = isinstance(interval, SerializedVariableInterval)
            deadline.deadline_time = new_queued_at + (interval.resolve() if is_variable else interval)
