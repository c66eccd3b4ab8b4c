"""Run one dbt node in a process that already holds dbt and the parsed manifest. Measurements:
docs/decisions/cosmos-speed.md.

A dbt command spends 3 to 4 s before its first SQL statement: imports, the project's configuration, the
manifest. Task processes are forked from a parent that called `preload()` and inherit all of it, so that a
node costs about 0.1 s plus its SQL. Without a preloaded parent everything here still works; it is only
slower.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sluice import settings

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from dbt.contracts.graph.manifest import Manifest

_loaded: tuple[tuple[Path, int, int], Manifest] | None = None

# Nothing is written beside the result: tasks run side by side, and artifacts or a log file of one would
# overwrite another's.
_QUICK = (
    "--no-write-json",
    "--log-level-file=none",
    "--no-use-colors",
    "--quiet",  # the task logs one line of its own; errors are shown all the same
    "--no-populate-cache",
    "--no-send-anonymous-usage-stats",
    "--no-version-check",
)


def project_dir() -> Path:
    """The dbt project: `SLUICE_DBT_PROJECT`, or `dbt_project/` of the repository."""
    return Path(settings.variable("SLUICE_DBT_PROJECT") or settings.home() / "dbt_project").absolute()


def manifest_path() -> Path:
    """The manifest that `dbt parse` wrote for the scheduler: `SLUICE_DBT_MANIFEST`, or that in the project's
    `target/`.

    A path of its own keeps a developer's `dbt build` from replacing it under running tasks.
    """
    return Path(settings.variable("SLUICE_DBT_MANIFEST") or project_dir() / "target" / "manifest.json").absolute()


def run_node(command: list[str], environment: Mapping[str, str]) -> dbtRunnerResult:
    """Run a dbt command such as `["run", "--select", "dim_customer"]` with the manifest of the project."""
    from dbt.cli.main import dbtRunner
    from dbt_common.behavior_flags import BehaviorFlagRendered

    # dbt labels each behaviour flag with the module that asked, by walking the stack through every loaded
    # module: 0.25 s below Airflow's 70 frames, more than all else. The label appears in one warning only.
    # May go when dbt passes a source.
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt.adapters")
    place = str(project_dir())
    arguments = [*command, "--project-dir", place, "--profiles-dir", place, "--threads", "1", *_QUICK]
    with _environment(environment):
        return dbtRunner(manifest=manifest()).invoke(arguments)


def manifest() -> Manifest:
    """The parsed project, from memory unless the file changed. Its nodes run without parsing."""
    global _loaded
    path = manifest_path()
    try:
        state = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist. Write it with: dbt parse (make run does)") from None
    identity = (path, state.st_mtime_ns, state.st_size)
    if _loaded is None or _loaded[0] != identity:
        _loaded = (identity, _read(path))
    return _loaded[1]


def preload() -> None:
    """Import dbt and Cosmos, read the manifest, and run the parts of dbt that need no database, once for all
    children.

    Called in the parents of task processes by `config/airflow_local_settings.py`. Never raises: a project
    that is not parsed yet only means that the first task pays.
    """
    import dbt.adapters.postgres
    import dbt.compilation
    import dbt.task.run
    import dbt.task.snapshot
    import dbt.task.test  # noqa: F401
    from dbt_common.clients.jinja import template_cache

    try:
        # Compiles no node: builds dbt's schemas, configuration and adapter classes, and connects to nothing.
        run_node(["compile", "--select", "resource_type:unit_test,tag:no_such_tag"], {})
        for macro in manifest().macros.values():
            template_cache.get_node_template(macro)
    except Exception as error:
        print(f"dbt is not preloaded: {error}")
    finally:
        from dbt.adapters.factory import reset_adapters

        reset_adapters()
        gc.collect()
        # A collection in a child would touch, and so copy, every page that it shares with its parent.
        gc.freeze()


def _read(path: Path) -> Manifest:
    from dbt.contracts.graph.manifest import Manifest, WritableManifest
    from dbt.contracts.graph.nodes import GenericTestNode

    found = Manifest.from_writable_manifest(WritableManifest.read_and_check_versions(str(path)))
    # dbt reads each generic test as a singular one, the first type that fits, and so without its metadata: such a
    # test cannot be run, and our gates would not see it.
    for key, node in json.loads(path.read_text(encoding="utf-8"))["nodes"].items():
        if node.get("test_metadata"):
            found.nodes[key] = GenericTestNode.from_dict(node)
    found.build_flat_graph()  # what `graph` is in our macros; dbt builds it only when it parses
    return found


@contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
