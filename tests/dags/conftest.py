"""The DAGs as Airflow loads them, without a database or a scheduler: over declarations and a manifest of this
repository.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]


@dataclass
class Bag:
    """What a fresh process found in the folder `dags/`."""

    dags: dict[str, dict] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


_READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1], collect_dags=True)
print("BAG" + json.dumps({
    "dags": {dag.dag_id: {
        "tags": sorted(dag.tags), "doc": dag.doc_md or "",
        "catchup": dag.catchup, "runs": dag.max_active_runs,
        "deadlines": [alert.name for alert in dag.deadline or []],
        "schedule": type(dag.timetable).__name__,
        "assets": sorted(asset.name for asset in dag.timetable.asset_condition.objects)
            if getattr(dag.timetable, "asset_condition", None) else [],
        "tasks": {task.task_id: {
            "type": type(task).__name__, "rule": task.trigger_rule.value,
            "owner": task.owner, "retries": task.retries, "pool": task.pool,
            "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
            "backoff": bool(task.retry_exponential_backoff),
            "teardown": task.is_teardown, "after": sorted(task.upstream_task_ids),
            "outlets": sorted(outlet.name for outlet in task.outlets),
            "select": str(getattr(task, "select", "")), "env": sorted(getattr(task, "env", None) or []),
        } for task in dag.tasks}} for dag in bag.dags.values()},
    "errors": {path: text for path, text in bag.import_errors.items()},
    "seconds": {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats},
}))
"""


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of the repository's dbt project, parsed now, as `make run` does it."""
    target = tmp_path_factory.mktemp("dbt")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dbt")),
            *("--no-use-colors", "--log-path", str(target), "parse", "--profiles-dir", "."),
            *("--profile", "sluice", "--target", "prod"),
        ],
        cwd=HOME / "dbt_project",
        env={**os.environ, "DBT_TARGET_PATH": str(target), "DBT_SEND_ANONYMOUS_USAGE_STATS": "False"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return target / "manifest.json"


@pytest.fixture(scope="session")
def read_bag(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bag]:
    """Load `dags/` in a process of its own, as the dag-processor does, with the declarations of a folder."""
    airflow_home = tmp_path_factory.mktemp("airflow")

    def read(sources: Path = HOME / "include" / "sources", manifest: Path = manifest) -> Bag:
        done = subprocess.run(
            [sys.executable, "-c", _READ, str(HOME / "dags")],
            env={
                **os.environ,
                "AIRFLOW_HOME": str(airflow_home),
                "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
                "PYTHONPATH": f"{HOME / 'include'}{os.pathsep}{HOME / 'plugins'}",
                "SLUICE_HOME": str(HOME),
                "SLUICE_SOURCES_DIR": str(sources),
                "SLUICE_DBT_MANIFEST": str(manifest),
                # Parsing must ask neither: a DAG file that does, fails here.
                "SLUICE_WAREHOUSE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home}/none.db",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        line = next(line for line in done.stdout.splitlines() if line.startswith("BAG"))
        return Bag(**json.loads(line.removeprefix("BAG")))

    return read


@pytest.fixture(scope="session")
def bag(read_bag: Callable[..., Bag]) -> Iterator[Bag]:
    """The DAGs of this repository."""
    return read_bag()
