"""Deadlines from the declarations, and what is done when one is missed.

All count from when a run was queued: that instant exists for runs on a schedule, after an asset event, and by hand.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference

from sluice.declarations.layers import Layers

log = logging.getLogger("sluice.deadline")


def deadline(subject: str, owner: str, interval: timedelta, layer: str | None = None) -> DeadlineAlert:
    """A run must end, or its `layer` be judged, within `interval` after it was queued, however it was started."""
    return DeadlineAlert(
        name=f"{subject}{f'_{layer}' if layer else ''}_within_{int(interval.total_seconds() // 60)}_minutes",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=interval,
        callback=AsyncCallback(
            deadline_missed,
            kwargs={"subject": subject, "owner": owner, "seconds": interval.total_seconds(), "layer": layer},
        ),
    )


def layer_deadlines(subject: str, layers: Layers) -> list[DeadlineAlert]:
    """That of a whole run, and one for each layer that has its own."""
    return [
        deadline(subject, layers.owner, layers.deadline),
        *(
            deadline(subject, layers.owner, layer.deadline, name)
            for name, layer in layers.items()
            if layer.deadline is not None
        ),
    ]


async def deadline_missed(
    subject: str, owner: str, seconds: float, layer: str | None = None, context: Any = None, **_: Any
) -> None:
    """Keep it in `ops`, where it is readable when Airflow is down, and say it in the log of the triggerer."""
    run = (context or {}).get("dag_run") or {}
    run_id = str(run.get("run_id") or run.get("dag_run_id") or "unknown")
    if await asyncio.to_thread(record_miss, subject, owner, timedelta(seconds=seconds), layer, run_id):
        what = f"the layer {layer} of {subject}" if layer else subject
        log.error("deadline missed: %s, run %s: not done after %.0f s; ask %s", what, run_id, seconds, owner)


def record_miss(subject: str, owner: str, allowed: timedelta, layer: str | None, run_id: str) -> bool:
    """Write the miss down. False if the run's layer was judged in time after all: Airflow knows deadlines of whole
    runs only, so that of a layer comes also while a later one is at work.
    """
    import psycopg

    from sluice import settings
    from sluice_airflow.connections import use_airflow_connections

    use_airflow_connections()
    with psycopg.connect(settings.warehouse_url(), connect_timeout=10) as connection:
        if layer is not None:
            judged = connection.execute(
                "select 1 from ops.gate_result where run_id = %s and gate = %s limit 1", [run_id, layer]
            ).fetchone()
            if judged:
                return False
        connection.execute(
            "insert into ops.deadline_miss (subject, run_id, allowed, owner) values (%s, %s, %s, %s)"
            " on conflict do nothing",
            [f"{subject}:{layer}" if layer else subject, run_id, allowed, owner],
        )
    return True
