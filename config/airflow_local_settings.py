"""Airflow imports this once per component: it loads what the forked task processes would each import again.

A task that runs one dbt model spends 3 of its 4 seconds importing. LocalExecutor and Celery fork their task
processes, which inherit what is loaded here: measured, 4 to 7 times a bare `dbt build` instead of 12. It
costs about 5 seconds at start and 300 MB once. Set SLUICE_PRELOAD=1 to have it; where Python does not fork
(macOS) it gains nothing and does no harm.
"""

import importlib
import os
import sys

_COSMOS = ["cosmos", "cosmos.converter", "cosmos.operators.local"]
_DBT = [
    "dbt.cli.main",
    "dbt.compilation",
    "dbt.parser.manifest",
    "dbt.task.run",
    "dbt.task.build",
    "dbt.task.test",
    "dbt.task.snapshot",
    "dbt.adapters.postgres",
]
_ENGINE = ["sluice.settings", "sluice.declarations", "sluice.loading", "sluice.gates"]
_WARM = ["sluice_airflow.preload"]  # runs what of dbt needs no database; last, since it freezes what is loaded
_TASKS = [*_COSMOS, *_DBT, "great_expectations", *_ENGINE, *_WARM]

# Which command of Airflow profits from what.
_PRELOADED = {
    "scheduler": _TASKS,
    "celery": _TASKS,
    "standalone": _TASKS,
    "dag-processor": [*_COSMOS, "sluice.declarations"],
}


def _preload() -> None:
    for command, modules in _PRELOADED.items():
        if command in sys.argv[:3]:
            for name in modules:
                _load(name)


def _load(name: str) -> None:
    """Import `name`; a module that cannot be imported is the matter of the task that needs it, not of the
    scheduler."""
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.stderr.write(f"not preloaded: {name}: {error!r}\n")


if os.environ.get("SLUICE_PRELOAD") == "1":
    _preload()
