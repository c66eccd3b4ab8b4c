"""Checks between layers: what was expected, what was observed, and a verdict in `ops.gate_result` for every
one of them.
"""

from sluice.gates.freshness import judge_freshness
from sluice.gates.layers import judge_layer
from sluice.gates.pending import Model, Pending, pending
from sluice.gates.results import Check, GateFailed, Verdict

__all__ = ["Check", "GateFailed", "Model", "Pending", "Verdict", "judge_freshness", "judge_layer", "pending"]
