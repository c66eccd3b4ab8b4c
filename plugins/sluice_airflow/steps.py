"""What the engine's tasks have in common: how a run is named, how long it may take, how a refusal is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from sluice.loading import RunContext

DEFAULTS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
}

# A DAG that reads all there is has no past to run: one run of it does what ninety would.
NO_BACKFILL = [kind for kind in DagRunType if kind is not DagRunType.BACKFILL]


class EngineOperator(BaseOperator):
    """One call of the engine. XCom carries batch ids at most; the truth about data is in `ops`."""

    def execute(self, context: Any) -> Any:
        """Call the engine with Airflow's connections, under the task's timeout, and show in `ops` that it lives."""
        from sluice.watch import beating

        with engine(self.execution_timeout), beating(self.dag_id, self.task_id, context["dag_run"].run_id):
            return self.step(context)

    def step(self, context: Any) -> Any:
        """The call itself."""
        raise NotImplementedError


def run_context(context: Any) -> RunContext:
    """The run as the engine knows it. A backfill reads its interval again; every other run drains what is
    pending.
    """
    from sluice.loading import RunContext

    run = context["dag_run"]
    interval = (run.data_interval_start, run.data_interval_end) if is_backfill(run) else None
    return RunContext(run_id=run.run_id, interval=interval if interval and all(interval) else None)


def is_backfill(run: Any) -> bool:
    """Whether Airflow's backfill made this run."""
    return getattr(run.run_type, "value", run.run_type) == "backfill"


@contextmanager
def engine(timeout: timedelta | None) -> Iterator[None]:
    """Airflow's connections inside; every statement bounded by the task's own timeout; errors as one clean
    line.
    """
    from sluice.errors import CircuitOpen, GateRefused, SluiceError
    from sluice.gates import GateFailed
    from sluice.settings import SettingsError
    from sluice_airflow.connections import use_airflow_connections

    use_airflow_connections()
    before = os.environ.get("PGOPTIONS")
    os.environ["PGOPTIONS"] = statement_timeout(timeout)
    try:
        yield
    except (GateFailed, SettingsError) as error:
        told = "gate_failed" if isinstance(error, GateFailed) else "task_failed"
        raise told_as(AirflowFailException(str(error)), told) from None
    except SluiceError as error:
        # A refusal is a verdict: it is recorded, and another try would only repeat it.
        kind = AirflowException if error.retryable else AirflowFailException
        told = None if isinstance(error, CircuitOpen | GateRefused) else "task_failed"  # None: the ledger tells it
        raise told_as(kind(str(error)), told) from None
    finally:
        if before is None:
            os.environ.pop("PGOPTIONS", None)
        else:
            os.environ["PGOPTIONS"] = before


def told_as(error: AirflowException, kind: str | None) -> AirflowException:
    """Say which kind of incident an error is, and that its text is ours: without a row's values. See `listener`."""
    error.sluice_kind = kind  # type: ignore[attr-defined]
    return error


def statement_timeout(timeout: timedelta | None) -> str:
    """`PGOPTIONS` by which the server ends a statement that outlives its task."""
    given = os.environ.get("PGOPTIONS", "")
    return f"{given} -c statement_timeout={int(timeout.total_seconds())}s".strip() if timeout else given


def ids(value: Sequence[int] | None) -> list[int]:
    """Batch ids from XCom; a step that found nothing to do returned none."""
    return [int(item) for item in value or []]
