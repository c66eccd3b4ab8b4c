"""What Airflow learns of this project from its entry point `apache_airflow_provider`: that it has commands."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The section `cli` names a function that Airflow's command line calls when it starts."""
    return {
        "package-name": "sluice",
        "name": "Sluice",
        "description": "Declared sources into gated, convergent marts.",
        "cli": ["sluice_airflow.backfill.commands.get_commands"],
    }
