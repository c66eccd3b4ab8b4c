"""The DAGs of this repository: all there, complete, and wired as a person would draw them."""

import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from sluice import settings
from sluice.declarations import load_folder
from sluice.runtime.pipeline import OWN_DAGS

HOME = Path(__file__).resolve().parents[2]
sys.path.append(str(HOME / "plugins"))

STEPS = ("wait", "land", "audit", "publish")


@pytest.fixture(scope="module")
def declared():
    found = load_folder(HOME / "include" / "sources")
    assert found.sources, "no declaration was found"
    assert not found.faults
    return found.sources


def test_the_bag_is_not_empty_and_nothing_failed_to_import(bag, capsys):
    assert len(bag.dags) >= 4
    assert bag.errors == {}
    with capsys.disabled():
        print("\nparse time per file: " + ", ".join(f"{f.strip('/')} {s:.2f} s" for f, s in bag.seconds.items()))
    assert all(seconds < 10 for seconds in bag.seconds.values())


def test_there_is_exactly_one_ingest_dag_per_declaration(bag, declared):
    assert {name for name in bag.dags if name.startswith("ingest_")} == {f"ingest_{name}" for name in declared}
    others = OWN_DAGS  # which `make run` waits for, so that none stays paused
    assert set(bag.dags) - {f"ingest_{name}" for name in declared} == others


def test_every_dag_says_what_it_is_and_has_a_deadline(bag):
    for name, dag in bag.dags.items():
        assert dag["tags"], name
        assert len(dag["doc"]) > 300, name
        assert dag["deadlines"], name
        assert dag["catchup"] is False, name
        assert dag["runs"] == 1, name


def test_every_task_has_an_owner_a_timeout_and_retries_with_backoff(bag):
    tasks = [(f"{name}.{key}", task) for name, dag in bag.dags.items() for key, task in dag["tasks"].items()]
    assert len(tasks) > 50
    for name, task in tasks:
        assert task["owner"] not in ("", "airflow"), name
        assert task["timeout"], name
        assert task["retries"] >= 1, name
        assert task["backoff"], name


def test_every_pool_that_a_task_names_is_required_and_exists(bag, declared):
    from sluice.declarations.pools import required_pools

    required = set(required_pools(declared.values())) | {"default_pool"}
    named = {task["pool"] for dag in bag.dags.values() for task in dag["tasks"].values()}
    assert named <= required
    assert "dbt" in named


def test_each_table_goes_from_wait_to_publish_and_one_announcement_ends_the_run(bag, declared):
    for name, source in declared.items():
        tasks = bag.dags[f"ingest_{name}"]["tasks"]
        assert set(tasks) == {"announce"} | {f"{table}.{step}" for table in source.tables for step in STEPS}
        for table in source.tables:
            for earlier, later in pairwise(STEPS):
                assert tasks[f"{table}.{later}"]["after"] == [f"{table}.{earlier}"]
        assert tasks["announce"]["after"] == sorted(f"{table}.publish" for table in source.tables)
        assert tasks["announce"]["outlets"] == [f"staging.{name}"]
        # A teardown runs after failures too, and the state of the run is that of the tasks before it.
        assert tasks["announce"]["teardown"]


def test_schedules_have_real_data_intervals(bag, declared):
    for name, source in declared.items():
        if source.schedule:
            assert bag.dags[f"ingest_{name}"]["schedule"] == "CronDataIntervalTimetable"


def test_the_warehouse_listens_to_every_source_and_has_a_safety_net(bag, declared):
    warehouse = bag.dags["warehouse"]
    assert warehouse["schedule"] == "AssetOrTimeSchedule"
    assert warehouse["assets"] == sorted(f"staging.{name}" for name in declared)


def test_the_warehouse_has_one_task_per_model_and_a_gate_after_each_layer(bag, manifest):
    from sluice_airflow.project import LAYERS, read_project

    project = read_project(manifest)
    tasks = bag.dags["warehouse"]["tasks"]
    gates = [f"gate_{layer}" for layer in LAYERS]
    assert set(tasks) == {"pending", "test_staging", "test_marts", *gates} | {
        f"{model.layer}.{model.name}" for model in project.models
    }

    def before(task: str) -> set[str]:
        found = set(tasks[task]["after"])
        return found.union(*(before(each) for each in found))

    for number, layer in enumerate(LAYERS):
        models = {f"{layer}.{model.name}" for model in project.layer(layer)}
        assert models, layer
        assert models <= before(gates[number])
        for model in models:
            assert "pending" in before(model)
            assert set(gates[:number]) <= before(model)
    assert tasks["gate_marts"]["outlets"] == ["marts"]

    for layer in ("staging", "marts"):
        tested = tasks[f"test_{layer}"]
        assert {f"{layer}.{model.name}" for model in project.layer(layer)} <= before(f"test_{layer}")
        assert f"test_{layer}" in tasks[f"gate_{layer}"]["after"]
        assert (tested["type"], tested["owner"], tested["pool"]) == ("TestsOperator", "warehouse", "dbt")
        assert tested["select"].split() == [test.name for test in project.tests_before(layer)]
        assert "SLUICE_RUN_ID" in tested["env"]


def test_operations_verify_the_warehouse_apart_from_freshness(bag):
    tasks = bag.dags["operations"]["tasks"]
    assert (tasks["verify"]["type"], tasks["verify"]["after"], tasks["freshness"]["after"]) == (
        "VerifyOperator",
        [],
        [],
    )
    assert tasks["verify"]["timeout"] > 3600
    assert (tasks["prune"]["type"], tasks["prune"]["after"]) == ("PruneOperator", [])


def test_every_test_runs_in_the_transaction_of_its_model_or_in_a_task_of_its_own(manifest):
    import json

    from sluice_airflow.project import read_project

    project = read_project(manifest)
    nodes = json.loads(manifest.read_text())["nodes"]
    tests = [node for node in nodes.values() if node["resource_type"] == "test"]
    attached = {test["name"]: nodes.get(test.get("attached_node")) for test in tests}
    gated = {
        name for name, node in attached.items() if node and node["config"]["materialized"] in ("convergent", "snapshot")
    }
    apart = {test.name: test for test in project.tests}
    assert set(apart) | gated == set(attached)
    assert not set(apart) & gated
    for name, test in apart.items():
        node = attached[name]
        is_staging = bool(node) and node["original_file_path"].startswith("models/staging/")
        assert test.layer == ("staging" if is_staging else "marts")
        assert test.object == (f"{node['schema']}.{node['alias']}" if node else "marts")
    assert set(project.tests_before("staging")) | set(project.tests_before("marts")) == set(project.tests)


def test_the_manifest_in_memory_keeps_what_the_gates_need_to_find_their_tests(manifest, monkeypatch):
    import json

    from sluice_airflow import warm_dbt

    monkeypatch.setenv("SLUICE_DBT_MANIFEST", str(manifest))
    monkeypatch.setattr(warm_dbt, "_loaded", None)
    expected = {
        key: (node["test_metadata"]["name"], node["attached_node"])
        for key, node in json.loads(manifest.read_text())["nodes"].items()
        if node.get("test_metadata")
    }

    loaded = warm_dbt.manifest().flat_graph["nodes"]  # what `graph.nodes` is in macros/sluice/gate.sql

    assert len(expected) > 100
    assert {
        key: (node["test_metadata"]["name"], node["attached_node"])
        for key, node in loaded.items()
        if node.get("test_metadata")
    } == expected


@pytest.mark.parametrize(
    ("status", "warns", "verdict", "blocks"),
    [
        ("pass", False, "pass", False),
        ("fail", False, "fail", True),
        ("error", False, "error", True),
        ("skipped", False, "missing", True),
        (None, False, "missing", True),
        ("warn", False, "fail", False),  # `warn_if`
        ("warn", True, "fail", False),
        ("error", True, "error", False),
    ],
)
def test_a_test_that_did_not_pass_blocks_unless_it_only_warns(status, warns, verdict, blocks):
    from types import SimpleNamespace

    from sluice_airflow.dbt_tasks import checks_of
    from sluice_airflow.project import Test

    node = SimpleNamespace(node=SimpleNamespace(name="t"), status=status, failures=3, message="Got 3\n  results")
    (check,) = checks_of([Test("t", "marts", "marts", warns)], [node] if status else [])

    assert (check.name, check.outcome, check.blocks) == ("t", verdict, blocks)
    assert "t on marts" in str(check)


def test_the_manifest_shows_the_fingerprint_of_the_code(manifest, tmp_path):
    from sluice_airflow.project import read_project

    changed = tmp_path / "manifest.json"
    text = manifest.read_text()
    changed.write_text(text)
    assert read_project(changed).fingerprint == read_project(manifest).fingerprint
    other = tmp_path / "other.json"
    other.write_text(text.replace("select * from final", "select * from final -- changed"))
    assert read_project(other).fingerprint != read_project(manifest).fingerprint


def test_o6_a_broken_declaration_breaks_only_its_own_dag_and_names_file_line_and_field(read_bag, tmp_path, declared):
    for path in (HOME / "include" / "sources").glob("*.yml"):
        shutil.copy(path, tmp_path)
    (tmp_path / "broken.yml").write_text(
        "source: broken\ndescription: x\nowner: me\nshedule: daily\n"
        "tables:\n  t:\n    description: x\n    from: {files: {connection: c, path: x}}\n    mode: full\n"
        "    key: [id]\n"
        "    columns:\n      id: {type: nonsense}\n"
    )

    bag = read_bag(sources=tmp_path)

    assert {name for name in bag.dags if name.startswith("ingest_")} == {f"ingest_{name}" for name in declared}
    assert "warehouse" in bag.dags
    assert [Path(path).name for path in bag.errors] == ["declaration_faults.py"]
    (text,) = bag.errors.values()
    assert f"{tmp_path / 'broken.yml'}:4: shedule" in text
    assert f"{tmp_path / 'broken.yml'}:12: tables.t.columns.id.type" in text


def test_a_project_that_was_not_parsed_says_how_and_leaves_the_ingest_dags(read_bag, tmp_path, declared):
    bag = read_bag(manifest=tmp_path / "none.json")

    assert {name for name in bag.dags if name.startswith("ingest_")} == {f"ingest_{name}" for name in declared}
    (text,) = bag.errors.values()
    assert "none.json does not exist. Write it with: dbt parse" in text


def test_the_pools_of_the_running_system_hold_every_required_pool(declared):
    import json

    from sluice.declarations.pools import required_pools

    known = set(json.loads((settings.home() / "config" / "pools.json").read_text()))
    assert set(required_pools(declared.values())) <= known


def test_a_gate_runs_although_a_model_of_its_layer_was_skipped(bag):
    """Cosmos 2698: a run whose models were skipped must not end green. The gate is not skipped with them, and
    tests/gates/test_layers.py shows that it then finds each without a result; only `pending` skips gates, by name."""
    tasks = bag.dags["warehouse"]["tasks"]
    gates = {name: task for name, task in tasks.items() if name.startswith("gate_")}
    assert len(gates) == 4
    assert {task["rule"] for task in gates.values()} == {"none_failed"}
    assert {task["rule"] for name, task in tasks.items() if name not in gates} == {"all_success"}


@pytest.mark.parametrize(
    ("status", "success"), [("skipped", True), ("partial success", True), ("warn", True), ("error", False)]
)
def test_S5_a_node_that_did_not_succeed_fails_its_task_whatever_dbt_says_of_the_whole(
    status, success, warehouse, warehouse_url
):
    from types import SimpleNamespace

    from sluice_airflow.dbt_tasks import ModelOperator

    model = SimpleNamespace(name="fct_order", schema="marts", alias="fct_order")
    task = ModelOperator.__new__(ModelOperator)
    object.__setattr__(task, "execution_timeout", None)
    with pytest.raises(RuntimeError, match=f"fct_order: {status}"):
        task.judge(
            [SimpleNamespace(node=model, status=status, message="x")], success, {"dag_run": SimpleNamespace(run_id="r")}
        )
    assert warehouse.execute(
        "select run_id, gate, check_name, object, severity, verdict from ops.gate_result"
    ).fetchall() == [("r", "marts", "model_has_a_result", "marts.fct_order", "block", "error")]


def test_each_layer_of_the_warehouse_has_the_deadline_that_is_declared_for_it(bag):
    assert bag.dags["warehouse"]["deadlines"] == [
        "warehouse_within_120_minutes",
        "warehouse_staging_within_30_minutes",
        "warehouse_snapshots_within_60_minutes",
        "warehouse_intermediate_within_75_minutes",
        "warehouse_marts_within_110_minutes",
    ]


def test_o6_a_broken_file_of_layers_breaks_the_warehouse_dag_alone_and_names_file_line_and_field(
    read_bag, tmp_path, monkeypatch
):
    broken = tmp_path / "layers.yml"
    broken.write_text("owner: warehouse\nmarts:\n  deadline: soon\n")
    monkeypatch.setenv("SLUICE_LAYERS", str(broken))
    found = read_bag()
    assert "warehouse" not in found.dags
    assert {"operations", "ingest_shop", "canary"} <= set(found.dags)
    assert f"{broken}:3: marts.deadline" in str(found.errors)
