"""What a dbt model that was not built leaves in the ledger. What it wrote itself was rolled back with it."""

from __future__ import annotations

import json
import re
from typing import Any

from sluice.gates.results import Check, without_values

# as macros/sluice/gate.sql words it
_GATE = re.compile(r"gate: (\S+) found (\d+) failing rows in (\S+?)(?:, for example \([^)]*\) = (.*?))?\. Nothing was")


def check_of_model(relation: str, status: str, message: str) -> Check:
    """What a model that was not built leaves in the ledger: the test that stopped it, or that it has no result."""
    words = " ".join(message.split())
    if found := _GATE.search(words):
        name, count, thing, keys = found.groups()
        sample: list[Any] | None = None
        if keys:
            try:
                sample = json.loads(f"[{keys.replace('] [', '], [')}]")
            except ValueError:
                sample = [keys]
        told = "nothing was written; readers keep the rows they had"
        return Check(name, thing, "fail", failing_rows=int(count), sample_keys=sample, bound="0", message=told)
    return Check("model_has_a_result", relation, "error", observed=status, message=without_values(words)[:300])
