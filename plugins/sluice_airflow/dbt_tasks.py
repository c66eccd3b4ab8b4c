"""Cosmos' operators for a model, a snapshot and a seed, run by `warm_dbt` instead of a copy of the project.

Cosmos still renders the graph, builds the command and templates `env`, `vars`, `select` and `full_refresh`.
Left out of its `run_command`: the temporary copy of the project, `dbt deps`, the partial-parse cache,
reading artifacts back for OpenLineage. A task here is one node, its tests run inside the transaction that
builds it (macros/sluice/gate.sql), and the layers announce themselves by assets of their own.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from cosmos.constants import DbtResourceType
from cosmos.operators.local import DbtRunLocalOperator, DbtSeedLocalOperator, DbtSnapshotLocalOperator

from sluice_airflow import warm_dbt
from sluice_airflow.steps import statement_timeout

log = logging.getLogger("sluice.dbt")


class _Warm:
    """Replaces how Cosmos runs a command, and nothing else."""

    def run_command(self, cmd: list[str], env: dict[str, Any], context: Any, **_: Any) -> None:
        """Run the command in this process; the log gets one line that says what happened."""
        environment = {key: str(value) for key, value in env.items()}
        environment["PGOPTIONS"] = statement_timeout(self.execution_timeout)
        result = warm_dbt.run_node(cmd[1:], environment)
        if result.exception is not None:
            raise AirflowFailException(f"dbt could not run {self.task_id}: {result.exception}") from None
        nodes = list(result.result.results)
        if not nodes:
            raise AirflowFailException(f"dbt knows no node for {' '.join(cmd[1:])}. Write the manifest anew: dbt parse")
        for node in nodes:
            log.info("%s: %s (%s) in %.2f s", node.node.name, node.status, node.message, node.execution_time)
        self.compiled_sql = "\n\n".join(node.node.compiled_code or "" for node in nodes)
        self.overwrite_rtif_after_execution = True  # the SQL is shown under "Rendered Templates"
        if not result.success:
            # A failed check is no accident that another try could mend; a lost connection is.
            failed = "\n".join(str(node.message) for node in nodes if node.status not in ("success", "skipped"))
            raise (AirflowFailException if "gate: " in failed else RuntimeError)(failed)


class ModelOperator(_Warm, DbtRunLocalOperator):
    """One model: its rows, its tests and its ledger entry, in one transaction."""


class SnapshotOperator(_Warm, DbtSnapshotLocalOperator):
    """One snapshot: the history of one entity."""


class SeedOperator(_Warm, DbtSeedLocalOperator):
    """One seed."""


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
