"""The warehouse DAG: one task group per layer, drawn by Cosmos from the manifest, with a gate after each."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable, Param, TriggerRule
from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

from sluice.declarations import Source
from sluice.declarations.layers import load_layers
from sluice.declarations.pools import DBT
from sluice_airflow import warm_dbt
from sluice_airflow.assets import marts_asset, staging_asset
from sluice_airflow.dbt_tasks import NODE_CONVERTERS, TestsOperator
from sluice_airflow.deadlines import layer_deadlines
from sluice_airflow.gates import GateOperator, PendingOperator
from sluice_airflow.project import LAYERS, SELECT, read_project
from sluice_airflow.steps import DEFAULTS, NO_BACKFILL

_SAFETY_NET = CronTriggerTimetable("17 * * * *", timezone="UTC")  # asset events can be lost
_SHORT = timedelta(minutes=15)
# A skipped model must not skip its gate, which would end the run green (cosmos 2698): the gate runs, and finds that the
# model has no result.
GATE_RULE = TriggerRule.NONE_FAILED
_OPERATOR_ARGS: dict[str, Any] = {
    "append_env": True,
    "emit_datasets": False,
    "env": {"SLUICE_RUN_ID": "{{ dag_run.run_id }}"},
    "install_deps": False,
    "pool": DBT,
}


def warehouse_dag(sources: Iterable[Source], doc_md: str | None) -> DAG:
    """Build `warehouse` for the assets of `sources`, over every model of the manifest."""
    logging.getLogger("cosmos").setLevel(logging.WARNING)  # 40 lines about rendering, in the log of every task
    declared, promised = list(sources), load_layers()
    project = read_project(warm_dbt.manifest_path())
    code = {"fingerprint": project.fingerprint, "execution_timeout": _SHORT}
    with DAG(
        dag_id="warehouse",
        description="From the change logs to the marts, gated between layers",
        doc_md=doc_md,
        schedule=AssetOrTimeSchedule(
            timetable=_SAFETY_NET, assets=AssetAny(*(staging_asset(source.source) for source in declared))
        )
        if declared
        else _SAFETY_NET,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        allowed_run_types=NO_BACKFILL,
        default_args={**DEFAULTS, "owner": promised.owner},
        tags={"warehouse", "dbt"},
        params={"force": Param(False, type="boolean", description="Run every task, even if nothing is pending")},
        deadline=layer_deadlines("warehouse", promised),
    ) as dag:
        before: Any = PendingOperator(task_id="pending", models=project.models, sources=declared, **code)
        for layer in LAYERS:
            gate = GateOperator(
                task_id=f"gate_{layer}",
                layer=layer,
                models=project.layer(layer),
                tests=[(test.name, test.object) for test in project.tests_before(layer)],
                tables=[(source.source, name) for source in declared for name in source.tables]
                if layer == "staging"
                else [],
                outlets=[marts_asset()] if layer == "marts" else [],
                trigger_rule=GATE_RULE,
                **code,
            )
            built = before
            if project.layer(layer):
                built = _group(layer)
                before >> built
            if tests := project.tests_before(layer):
                run_tests = TestsOperator(
                    task_id=f"test_{layer}",
                    layer=layer,
                    tests=tests,
                    fingerprint=project.fingerprint,
                    project_dir=str(warm_dbt.project_dir()),
                    profile_config=_profile(),
                    **_OPERATOR_ARGS,
                )
                built >> run_tests
                built = run_tests
            built >> gate
            before >> gate
            before = gate
    return dag


def _group(layer: str) -> DbtTaskGroup:
    """One task per model. Its tests have none of their own: they run inside the transaction that builds it.
    Those of views, and singular ones, run together before the gate.
    """
    place = warm_dbt.project_dir()
    return DbtTaskGroup(
        group_id=layer,
        project_config=ProjectConfig(
            dbt_project_path=place, manifest_path=warm_dbt.manifest_path(), project_name="sluice"
        ),
        profile_config=_profile(),
        execution_config=ExecutionConfig(execution_mode=ExecutionMode.LOCAL, invocation_mode=InvocationMode.DBT_RUNNER),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            select=SELECT[layer],
            test_behavior=TestBehavior.NONE,
            node_converters=NODE_CONVERTERS,
        ),
        operator_args=dict(_OPERATOR_ARGS),
    )


def _profile() -> ProfileConfig:
    return ProfileConfig(
        profile_name="sluice", target_name="prod", profiles_yml_filepath=warm_dbt.project_dir() / "profiles.yml"
    )
