"""What runs on a laptop or a CI machine: an embedded PostgreSQL, the Airflow stack, and `make run` over
both."""

from sluice.runtime.faults import RuntimeFault

__all__ = ["RuntimeFault"]
