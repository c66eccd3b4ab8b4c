"""What tasks tell a receiver of OpenLineage events, by way of Airflow's own provider."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages.conftest import ORDERS_SQL, Company
from tests.receiver import receiving

_EMIT = """
import json
from types import SimpleNamespace
from airflow.providers.openlineage import conf
from airflow.providers.openlineage.extractors.base import DefaultExtractor
from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.uuid import generate_new_uuid
from sluice_airflow.dbt_tasks import ModelOperator
from sluice_airflow.batches import PublishOperator
from sluice.declarations import load_folder
from sluice import settings

print("DISABLED" if conf.is_disabled() else "ENABLED")
model = ModelOperator.__new__(ModelOperator)
object.__setattr__(model, "task_id", "marts.fct_order")
table = load_folder(settings.sources_dir()).sources["shop"].tables["orders"]
publish = PublishOperator.__new__(PublishOperator)
object.__setattr__(publish, "table", table)
for operator in (model, publish):
    found = DefaultExtractor(operator).extract_on_complete(None)
    event = RunEvent(
        eventTime="2026-01-01T00:00:00Z", producer="https://example.org", run=Run(runId=str(generate_new_uuid())),
        job=Job(namespace="sluice", name=type(operator).__name__), eventType=RunState.COMPLETE,
        inputs=found.inputs, outputs=found.outputs,
    )
    OpenLineageAdapter().emit(event)
"""


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that keeps what is posted to it."""
    events: list[dict[str, Any]] = []

    with receiving(events) as address:
        yield address, events


def test_a_receiver_that_the_environment_names_gets_inputs_outputs_and_columns(
    company: Company, tmp_path: Path, receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    """By the SQL that ran and the declaration: nothing has to be built before."""
    address, events = receiver
    company.query("create or replace view staging.stg_shop__orders as " + ORDERS_SQL.replace('"warehouse".', ""))
    done = subprocess.run(
        [sys.executable, "-c", _EMIT],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": address}),
            "PYTHONPATH": os.pathsep.join(
                str(Path(__file__).resolve().parents[2] / each) for each in ("include", "plugins")
            ),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "ENABLED" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    model, publish = events
    (output,) = model["outputs"]
    assert output["name"] == "pages.marts.fct_order"
    fields = output["facets"]["columnLineage"]["fields"]
    assert [(each["name"], each["field"]) for each in fields["doubled_amount"]["inputFields"]] == [
        ("pages.staging.stg_shop__orders", "order_amount")
    ]
    assert [each["name"] for each in model["inputs"]] == ["pages.staging.stg_shop__orders"]
    assert [(each["namespace"], each["name"]) for each in publish["inputs"]] == [("sluice://shop", "orders")]
    given = publish["outputs"][0]["facets"]["columnLineage"]["fields"]["amount"]["inputFields"]
    assert [(each["namespace"], each["name"], each["field"]) for each in given] == [
        ("sluice://shop", "orders", "amount")
    ]
