"""Deadlines from the declarations, and what is done when one is missed."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference

log = logging.getLogger("sluice.deadline")


def deadline(subject: str, owner: str, interval: timedelta) -> DeadlineAlert:
    """A run must end within `interval` after it was queued, however it was started."""
    return DeadlineAlert(
        name=f"{subject}_within_{int(interval.total_seconds() // 60)}_minutes",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=interval,
        callback=AsyncCallback(
            deadline_missed,
            kwargs={"subject": subject, "owner": owner, "minutes": interval.total_seconds() / 60},
        ),
    )


async def deadline_missed(subject: str, owner: str, minutes: float, context: Any = None, **_: Any) -> None:
    """Say it in the log of the triggerer and keep it in `ops`, where it is readable when Airflow is down."""
    run_id = str(((context or {}).get("dag_run") or {}).get("run_id") or (context or {}).get("run_id") or "unknown")
    log.error("deadline missed: %s run %s took longer than %.0f minutes; ask %s", subject, run_id, minutes, owner)
    await asyncio.to_thread(_record, subject, run_id, minutes, owner)


def _record(subject: str, run_id: str, minutes: float, owner: str) -> None:
    import psycopg

    from sluice import settings
    from sluice.gates.results import Check, record

    check = Check(
        "run_within_deadline",
        subject,
        "fail",
        severity="warn",
        bound=f"{minutes:.0f} minutes after it was queued",
        message=f"still running at its deadline; ask {owner}",
    )
    with psycopg.connect(settings.warehouse_url()) as connection:
        record(connection, run_id, "deadline", [check])
