"""Gates as tasks: whether there is anything to do, and whether a layer may be built upon."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import SkipMixin

from sluice.declarations import Source
from sluice.gates import Model
from sluice_airflow import warm_dbt
from sluice_airflow.steps import EngineOperator


class PendingOperator(EngineOperator, SkipMixin):
    """Ask the ledger whether a model has something to read. If none has, all after this is skipped, and
    recorded.

    First of all, connections that gates will ask must be set: not to be missed an hour later. Then every declared
    table gets its change log: a view over a source that was never read is empty, not an error.
    """

    def __init__(self, *, models: Sequence[Model], fingerprint: str, sources: Sequence[Source], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.models, self.fingerprint, self.sources = tuple(models), fingerprint, tuple(sources)

    def step(self, context: Any) -> bool:
        """Look, and skip the rest of the run if it would change nothing."""
        from sluice import settings, warehouse
        from sluice.declarations.expectations import connections_of_the_gates
        from sluice.gates import pending
        from sluice.loading.shape import ensure
        from sluice.watch import record_lineage, record_objectives

        for name in sorted(connections_of_the_gates()):
            settings.connection(name)
        with warehouse.connect() as connection:
            record_objectives(connection)
            record_lineage(connection, warm_dbt.manifest_path())
            connection.commit()
            for source in self.sources:
                for table in source.tables.values():
                    ensure(connection, table)

        found = pending(context["dag_run"].run_id, self.models, self.fingerprint)
        for reason in found.reasons:
            self.log.info("pending: %s", reason)
        if found or context["params"].get("force"):
            return True
        self.log.info("Nothing is pending: every model has read all that is published, and every gate passed")
        self.skip(context["ti"], self.get_flat_relatives(upstream=False))
        return False


class GateOperator(EngineOperator):
    """Judge a layer after it was built. A blocking check that is not a pass fails the task; so does an absent
    result.
    """

    def __init__(
        self,
        *,
        layer: str,
        models: Sequence[Model],
        fingerprint: str,
        tests: Sequence[tuple[str, str]] = (),
        tables: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer, self.models, self.fingerprint = layer, tuple(models), fingerprint
        self.tests, self.tables = tuple(tests), tuple(tables)

    def step(self, context: Any) -> None:
        """Judge, record, and stop the run if the layer did not pass."""
        from sluice.gates import judge_layer

        verdict = judge_layer(
            self.layer,
            context["dag_run"].run_id,
            self.models,
            tests=self.tests,
            tables=self.tables,
            fingerprint=self.fingerprint,
        )
        for check in verdict.checks:
            self.log.info("%s", check)
        verdict.require()


class FreshnessOperator(EngineOperator):
    """Compare the age of every table with what its declaration allows."""

    def step(self, context: Any) -> None:
        """Judge and record; a stale or never-read table fails the task."""
        from sluice import settings
        from sluice.declarations import load_folder
        from sluice.gates import judge_freshness

        sources = load_folder(settings.sources_dir()).sources.values()
        verdict = judge_freshness(sources, context["dag_run"].run_id)
        for check in verdict.checks:
            self.log.info("%s", check)
        if verdict.checks:
            verdict.require()


class VerifyOperator(EngineOperator):
    """Rebuild the warehouse from its change logs beside itself and compare, once every `every`; skipped between.

    When the last one was is asked of the ledger: a day without a scheduler only moves it. The first is due so long
    after the warehouse was first built.
    """

    def __init__(self, *, every: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.every = every

    def step(self, context: Any) -> None:
        """Verify and record; a table that differs, or could not be compared, fails the task."""
        from airflow.sdk.exceptions import AirflowSkipException

        from sluice.verify import Budget, due, verify

        if not context["params"].get("verify") and not due(self.every):
            raise AirflowSkipException(f"the last verification is not yet {self.every.days} days old")
        budget = Budget(time=(self.execution_timeout or timedelta(hours=1)) * 0.9)
        verdict = verify(context["dag_run"].run_id, budget, self.log.info)
        for check in verdict.checks:
            self.log.info("%s", check)
        verdict.require()


class PruneOperator(EngineOperator):
    """Forget what models changed longer ago than every reader needs to know."""

    def step(self, context: Any) -> None:
        """Prune the ledger, and say what was forgotten."""
        from sluice import warehouse
        from sluice.ledger.prune import KEPT, prune

        with warehouse.connect() as connection:
            done = prune(connection)
        self.log.info("Forgot %d commits and %d changed keys, older than %s", done.changes, done.keys, KEPT)
        for relation in done.recompute:
            self.log.warning("%s had not read them: it recomputes all its rows in its next run", relation)


class ReportsOperator(EngineOperator):
    """Build what the pages show and can't ask at each visit: dbt's docs, lineage by column, profiles, sizes."""

    def step(self, context: Any) -> None:
        """Build; what was built before stays until the new is complete."""
        from sluice.reports.build import build

        build(self.log.info)
