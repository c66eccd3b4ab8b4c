"""land → audit → publish: one task each, so that a person sees where a batch stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import XComArg
from airflow.sdk.exceptions import AirflowSkipException

from sluice.declarations import Source, Table
from sluice_airflow.sensors import must_be_ready, waiting
from sluice_airflow.steps import EngineOperator, engine, ids, is_backfill, run_context


class LandOperator(EngineOperator):
    """Read every pending unit of a table into the landing area. Returns the batch ids.

    A connection that is left alone for a while is no failure of this task: it waits, without a worker and without
    using up a retry, until the source may be asked again and answers, as long as `wait` would have.
    """

    def __init__(self, *, source: Source, table: Table, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source, self.table = source, table

    def step(self, context: Any) -> list[int]:
        """Land."""
        from sluice.errors import CircuitOpen
        from sluice.loading import land

        try:
            found = ids(land(self.source, self.table, run_context(context)))
        except CircuitOpen as open_circuit:
            self.log.info("%s waits: %s", self.table.log_name, open_circuit)
            self.defer(trigger=waiting(self.source, self.table, datetime.now(UTC)), method_name="resume")
        self.log.info("%s: %s", self.table.log_name, f"landed batches {found}" if found else "nothing is pending")
        return found

    def resume(self, context: Any, event: dict[str, Any]) -> list[int]:
        """Land after all, or say what was waited for, and since when."""
        must_be_ready(self.source, self.table, event)
        with engine(self.execution_timeout):
            return self.step(context)


class _BatchOperator(EngineOperator):
    template_fields: Sequence[str] = ("batch_ids",)

    def __init__(self, *, batch_ids: list[int] | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_ids = batch_ids


class AuditOperator(_BatchOperator):
    """Judge landed batches. A refusal is recorded, fails the task once, and publishes nothing."""

    def step(self, context: Any) -> list[int]:
        """Audit."""
        from sluice.loading import audit

        for judged in audit(ids(self.batch_ids)):
            self.log.info("%s", judged)
        return ids(self.batch_ids)


class PublishOperator(_BatchOperator):
    """Move audited batches into the change log, each in one transaction."""

    def __init__(self, *, table: Table, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """The source's table and its log, by column: for Airflow's OpenLineage provider, where a receiver is named."""
        from sluice_airflow.openlineage import of_table

        return of_table(self.table)

    def step(self, context: Any) -> list[int]:
        """Publish."""
        from sluice.loading import publish

        for done in publish(ids(self.batch_ids)):
            self.log.info("%s", done)
        return ids(self.batch_ids)


class AnnounceOperator(EngineOperator):
    """Tell the warehouse that a source has something new, or end as skipped when it has not.

    What is new is what was published and not announced yet, by the ledger: by this run, by one that left it to others,
    by one that was killed, or by a person's command. So it does not matter who is the last.

    One asset per source, not one per table: five tables that publish within seconds of each other start one
    warehouse run, not two. Airflow writes no event for a skipped task, so a run that finds nothing wakes
    nobody. It is a teardown: it also runs when one table failed, so that the others' rows go on, and it
    does not hide that failure, because Airflow decides the state of the run by the tasks before a teardown.
    A lost announcement delays, and loses nothing: the warehouse drains whatever is published, and has a
    periodic run. A run of a backfill leaves it to those that wait behind it, whichever they are, so that ninety days
    wake the warehouse once or twice and not ninety times.
    """

    def __init__(self, *, source: Source, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def step(self, context: Any) -> None:
        """Look in the ledger what nobody has announced."""
        from sluice import warehouse
        from sluice.loading.announcement import announce

        if is_backfill(context["dag_run"]):
            waiting = context["ti"].get_dr_count(dag_id=self.dag_id, states=["queued"])
            if waiting:
                raise AirflowSkipException(f"{waiting} more runs wait behind this one of a backfill; they announce")
        with warehouse.connect() as connection:
            new = announce(connection, self.source.source, context["dag_run"].run_id)
        if not new:
            raise AirflowSkipException("Nothing new: all that was published is announced")
        for table, applied, deleted in new:
            self.log.info("%s.%s: %s rows applied, %s deleted", self.source.source, table, applied, deleted)
