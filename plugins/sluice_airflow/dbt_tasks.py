"""Cosmos' operators for a model, a snapshot, a seed and tests, run by `warm_dbt` instead of a copy of the project.

Cosmos still renders the graph, builds the command and templates `env`, `vars`, `select` and `full_refresh`.
Left out of its `run_command`: the temporary copy of the project, `dbt deps`, the partial-parse cache,
reading artifacts back for OpenLineage. A task here is one node, its tests run inside the transaction that
builds it (macros/sluice/gate.sql), and the layers announce themselves by assets of their own. Tests that no
such transaction runs (of views, and singular ones) have one task per layer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from cosmos.constants import DbtResourceType
from cosmos.operators.local import (
    DbtRunLocalOperator,
    DbtSeedLocalOperator,
    DbtSnapshotLocalOperator,
    DbtTestLocalOperator,
)

from sluice.gates.results import Check, without_values
from sluice.watch import beating
from sluice_airflow import warm_dbt
from sluice_airflow.connections import use_airflow_connections
from sluice_airflow.project import Test
from sluice_airflow.steps import engine, statement_timeout, told_as

log = logging.getLogger("sluice.dbt")


class _Warm:
    """Replaces how Cosmos runs a command, and nothing else."""

    def run_command(self, cmd: list[str], env: dict[str, Any], context: Any, **_: Any) -> None:
        """Run the command in this process; the log gets one line that says what happened."""
        environment = {key: str(value) for key, value in env.items()}
        environment["PGOPTIONS"] = statement_timeout(self.execution_timeout)
        use_airflow_connections()
        with beating(self.dag_id, self.task_id, context["dag_run"].run_id):
            self._run(cmd, environment, context)

    def _run(self, cmd: list[str], environment: dict[str, str], context: Any) -> None:
        result = warm_dbt.run_node(cmd[1:], environment)
        if result.exception is not None:
            raise AirflowFailException(f"dbt could not run {self.task_id}: {result.exception}") from None
        nodes = list(result.result.results)
        if not nodes:
            raise AirflowFailException(f"dbt knows no node for {' '.join(cmd[1:])}. Write the manifest anew: dbt parse")
        for node in nodes:
            told = without_values(node.message)
            log.info("%s: %s (%s) in %.2f s", node.node.name, node.status, told, node.execution_time)
        self.compiled_sql = "\n\n".join(node.node.compiled_code or "" for node in nodes)
        self.overwrite_rtif_after_execution = True  # the SQL is shown under "Rendered Templates"
        self.judge(nodes, result.success, context)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What the model read and wrote, by column: for Airflow's OpenLineage provider, where a receiver is named."""
        from sluice_airflow.openlineage import of_model

        return of_model(str(self.task_id).rpartition(".")[2], getattr(self, "compiled_sql", ""))

    def judge(self, nodes: list[Any], success: bool, context: Any) -> None:
        """Record and raise if a node did not succeed. What dbt says of the whole is not asked: it calls a run with a
        skipped node, or with a warning, a success (S5)."""
        broken = [node for node in nodes if str(node.status) != "success"]
        if not broken and success:
            return
        self._record(broken, context)
        told = [f"{node.node.name}: {node.status}: {without_values(node.message)}" for node in broken]
        failed = "\n".join(told) or "dbt did not succeed"
        # A failed check is no accident that another try could mend; a lost connection is.
        if "gate: " in failed:
            raise told_as(AirflowFailException(failed), "gate_failed")
        raise RuntimeError(failed)

    def _record(self, broken: list[Any], context: Any) -> None:
        """The gate after this task will not run, and what the model wrote of itself was rolled back with it."""
        from sluice import warehouse
        from sluice.gates.models import check_of_model
        from sluice.gates.results import record

        with engine(self.execution_timeout), warehouse.connect() as connection:
            for node in broken:
                check = check_of_model(f"{node.node.schema}.{node.node.alias}", str(node.status), str(node.message))
                record(connection, context["dag_run"].run_id, node.node.schema, [check])


class ModelOperator(_Warm, DbtRunLocalOperator):
    """One model: its rows, its tests and its ledger entry, in one transaction."""


class SnapshotOperator(_Warm, DbtSnapshotLocalOperator):
    """One snapshot: the history of one entity."""


class SeedOperator(_Warm, DbtSeedLocalOperator):
    """One seed."""


class TestsOperator(_Warm, DbtTestLocalOperator):
    """The tests of a layer that no model runs itself. Each result becomes a row of `ops.gate_result`."""

    def __init__(self, *, layer: str, tests: Sequence[Test], fingerprint: str, **kwargs: Any) -> None:
        super().__init__(select=" ".join(test.name for test in tests), **kwargs)
        self.layer, self.tests, self.fingerprint = layer, tuple(tests), fingerprint

    def execute(self, context: Any, **_: Any) -> None:
        """Run them; unlike Cosmos' own, count no warnings in the output."""
        self.build_and_run_cmd(context=context, cmd_flags=self.add_cmd_flags())

    def judge(self, nodes: list[Any], success: bool, context: Any) -> None:
        """Record every result; a blocking test that did not pass fails the task."""
        from sluice import warehouse
        from sluice.gates import Verdict, override
        from sluice.gates.layers import COMPLETE
        from sluice.gates.results import record

        run_id = context["dag_run"].run_id
        with engine(self.execution_timeout):
            with warehouse.connect() as connection:
                checks = override.applied(connection, run_id, "tests", checks_of(self.tests, nodes))
                verdict = Verdict("tests", checks)
                record(connection, run_id, verdict.gate, verdict.checks)
                if not verdict.passed:
                    # The gate after this task will not run. Without its verdict the next run would find nothing
                    # pending, because the models have read all there is, and skip the tests that failed.
                    told = f"{len(verdict.blocking)} of {len(verdict.checks)} tests before the gate block"
                    summary = Check(COMPLETE, self.layer, "fail", observed=told, bound=self.fingerprint)
                    record(connection, run_id, self.layer, [summary])
            if verdict.blocking and not any(check.outcome == "fail" for check in verdict.blocking):
                # None found a failing row: a lost connection or a lock, perhaps, that another try may mend.
                raise RuntimeError("\n".join(str(check) for check in verdict.blocking))
            verdict.require()


def checks_of(tests: Iterable[Test], nodes: Iterable[Any]) -> list[Check]:
    """One check per expected test. A test without a result is missing, which is not a pass."""
    found = {node.node.name: node for node in nodes}
    return [_check(test, found.get(test.name)) for test in tests]


def _check(test: Test, result: Any) -> Check:
    status = "missing" if result is None else str(result.status)
    # `warn_if` lets a test of severity `error` end as a warning.
    severity = "warn" if test.warns or status == "warn" else "block"
    outcomes = {"pass": "pass", "fail": "fail", "warn": "fail", "error": "error"}
    outcome: Any = outcomes.get(status, "missing")
    return Check(
        test.name,
        test.object,
        outcome,
        severity,
        failing_rows=None if result is None else result.failures,
        message=None if outcome == "pass" or result is None else without_values(result.message),
    )


def _converter(operator: type[BaseOperator]) -> Any:
    def convert(node: Any, dag: Any, task_group: Any, task_args: dict[str, Any], **_: Any) -> BaseOperator:
        """Make the task of one dbt node, named as the node is."""
        return operator(
            task_id=node.name,
            dag=dag,
            task_group=task_group,
            select=node.resource_name,
            **{**task_args, **node.operator_kwargs_to_override},
        )

    return convert


NODE_CONVERTERS = {
    DbtResourceType.MODEL: _converter(ModelOperator),
    DbtResourceType.SNAPSHOT: _converter(SnapshotOperator),
    DbtResourceType.SEED: _converter(SeedOperator),
}
