"""Backfills as records: who ran which past intervals, why, and what came of it; and plans, reviewed before they run."""

from sluice.backfill.plan import Plan, PlanError, load_plan
from sluice.backfill.record import Asked, Outcome, finish, forget, is_recorded, open_records, records, start

__all__ = [
    "Asked",
    "Outcome",
    "Plan",
    "PlanError",
    "finish",
    "forget",
    "is_recorded",
    "load_plan",
    "open_records",
    "records",
    "start",
]
