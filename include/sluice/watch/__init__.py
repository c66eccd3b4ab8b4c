"""A truth that is readable when Airflow is dead: what was promised, what is being done, and both as metrics.

Everything is in `ops`. Steps write their heartbeat there; declarations leave their promises there; the exporter reads
nothing else. See docs/reference/monitoring.md.
"""

from sluice.watch.objectives import record_lineage, record_objectives
from sluice.watch.steps import beating

__all__ = ["beating", "record_lineage", "record_objectives"]
