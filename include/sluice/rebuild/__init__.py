"""Chosen models, rebuilt beside the live ones, compared, and put in their place: docs/reference/rebuild.md."""

from sluice.rebuild.apply import Outcome, accept, apply, is_done, undo
from sluice.rebuild.plan import Change, Plan, Rows, records
from sluice.rebuild.rehearse import rehearse, samples

__all__ = ["Change", "Outcome", "Plan", "Rows", "accept", "apply", "is_done", "records", "rehearse", "samples", "undo"]
