"""Backfills as records: who ran which past intervals, why, and what came of it; and plans, reviewed before they run."""

from sluice.backfill.plan import Plan, PlanError, load_plan
from sluice.backfill.record import (
    Asked,
    Outcome,
    end_lost,
    finish,
    forget,
    open_records,
    recorded,
    records,
    start,
    without_airflow,
)

__all__ = [
    "Asked",
    "Outcome",
    "Plan",
    "PlanError",
    "end_lost",
    "finish",
    "forget",
    "load_plan",
    "open_records",
    "recorded",
    "records",
    "start",
    "without_airflow",
]
