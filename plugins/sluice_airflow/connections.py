"""Airflow's connections, wherever they are kept, for the engine, which knows no Airflow."""

from __future__ import annotations

from functools import cache

from sluice import settings


@cache
def use_airflow_connections() -> None:
    """Let `sluice.settings.connection` ask Airflow (UI, secret backends) for what the environment does not
    name.
    """
    settings.register_connection_resolver(_from_airflow)


def _from_airflow(conn_id: str) -> settings.Connection | None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = Connection.get(conn_id)
    except AirflowNotFoundException:
        return None
    return settings.Connection.parse(found.as_json() if hasattr(found, "as_json") else found.get_uri())
