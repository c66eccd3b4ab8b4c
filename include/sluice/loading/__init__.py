"""A batch: land, audit, publish. Each step commits what it decided and may be called again after a crash."""

from sluice.loading.batch import Batch
from sluice.loading.pipeline import RunContext, audit, land, load, publish, ready
from sluice.loading.publish import Published
from sluice.readers import Readiness

__all__ = ["Batch", "Published", "Readiness", "RunContext", "audit", "land", "load", "publish", "ready"]
