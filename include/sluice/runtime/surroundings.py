"""Where everything is for this run: which servers are ours, and the variables that tell every process so."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import httpx

from sluice.alerts import channels
from sluice.runtime.airflow import given_metadata_url, sqlalchemy
from sluice.runtime.layout import Layout
from sluice.runtime.postgres import EmbeddedPostgres
from sluice.runtime.secretstore import SecretStore, write_private
from sluice.settings import Connection
from sluice.watch import access

PUBLIC_OURAIRPORTS = "https://davidmegginson.github.io/ourairports-data/"
OWNER = "sluice"
SHOP = "shop"
SHOP_READER = "shop_reader"
EXPORTER = access.ROLE


@dataclass(frozen=True)
class Surroundings:
    """What a run uses. `shop_url` is empty where there is no database for the demo shop."""

    warehouse_url: str
    metadata_url: str
    shop_url: str
    shop_reader_url: str


def needs_embedded_postgres() -> bool:
    """Whether some database is not named by the user."""
    return not (os.environ.get("SLUICE_WAREHOUSE_URL") and given_metadata_url())


def embedded_postgres(layout: Layout) -> EmbeddedPostgres:
    """The cluster of this state directory."""
    return EmbeddedPostgres(layout.state / "postgres", layout.postgres_port, state_dir=layout.state)


def prepare_databases(server: EmbeddedPostgres | None) -> Surroundings:
    """Roles and databases in our own server; what the user named is taken as it is."""
    warehouse, metadata = os.environ.get("SLUICE_WAREHOUSE_URL", ""), given_metadata_url()
    shop = reader = os.environ.get("SLUICE_SHOP_DATABASE_URL", "")
    if server:
        # Each database has its own owner, and nobody else enters it. The reader must see when other sessions'
        # transactions began: that decides how far a cursor may move.
        server.create_role(OWNER)
        server.create_role("airflow")
        server.create_role(SHOP)
        server.create_role(SHOP_READER, member_of=("pg_read_all_data", "pg_read_all_stats"))
        server.create_role(EXPORTER)
        server.create_database("warehouse", owner=OWNER, readers=(EXPORTER,))
        server.create_database("airflow", owner="airflow")
        server.create_database("shop", owner=SHOP, readers=(SHOP_READER,))
        warehouse = warehouse or server.url("warehouse", OWNER)
        metadata = metadata or server.url("airflow", "airflow")
        if not shop:
            shop, reader = server.url("shop", SHOP), server.url("shop", SHOP_READER)
    return Surroundings(warehouse, metadata, shop, reader)


def exporter_url(server: EmbeddedPostgres | None, around: Surroundings) -> str:
    """How the exporter enters the warehouse: by a role that may only read, where the server is ours."""
    if server is None or around.warehouse_url != server.url("warehouse", OWNER):
        return around.warehouse_url
    access.grant(around.warehouse_url)
    return server.url("warehouse", EXPORTER)


def shop_api_key(layout: Layout) -> str:
    """The key that the shop's API asks for."""
    return SecretStore(layout.state).get("shop_api_key")


def write_environment(layout: Layout, around: Surroundings, ourairports_url: str) -> dict[str, str]:
    """The variables of this run, written to env.json and returned. A connection that the user set stays as
    set. The file also says, for a shell that was never told, which Airflow this is and by which channels it alarms."""
    variables = {
        "AIRFLOW_CONN_WAREHOUSE": around.warehouse_url,
        **dbt_environment(layout.dbt_project, around.warehouse_url),
        **_shop(layout, around),
        "AIRFLOW_CONN_OURAIRPORTS": json.dumps({"conn_type": "http", "extra": {"base_url": ourairports_url}}),
        "SLUICE_WEB_URL": layout.web_url,
    }
    variables = {name: os.environ.get(name) or value for name, value in variables.items()}
    airflow = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy(around.metadata_url),
        "SLUICE_WEB_PORT": str(layout.web_port),
    }
    told_by = {name: value for name, value in os.environ.items() if name.startswith(channels.PREFIX)}
    write_private(layout.env_file, {**variables, **airflow, **told_by})
    return variables


def _shop(layout: Layout, around: Surroundings) -> dict[str, str]:
    if not around.shop_url:
        return {}
    headers = {"X-API-Key": shop_api_key(layout)}
    api = {
        "conn_type": "http",
        "host": "127.0.0.1",
        "port": layout.shop_port,
        "extra": {"base_url": f"http://127.0.0.1:{layout.shop_port}/", "headers": headers},
    }
    return {
        "AIRFLOW_CONN_SHOP_DB": around.shop_reader_url,
        "AIRFLOW_CONN_SHOP_FILES": layout.shop_files.as_uri(),
        "AIRFLOW_CONN_SHOP_API": json.dumps(api),
        "SLUICE_SHOP_DATABASE_URL": around.shop_url,
        "SLUICE_SHOP_FILES": str(layout.shop_files),
        "SLUICE_SHOP_API_KEY": shop_api_key(layout),
    }


def dbt_environment(project: Path, warehouse_url: str) -> dict[str, str]:
    """What dbt_project/profiles.yml reads."""
    warehouse = Connection.parse(warehouse_url)
    return {
        "SLUICE_DBT_HOST": warehouse.host,
        "SLUICE_DBT_PORT": str(warehouse.port or 5432),
        "SLUICE_DBT_USER": warehouse.login,
        "SLUICE_DBT_PASSWORD": warehouse.password,
        "SLUICE_DBT_DATABASE": warehouse.path,
        "DBT_PROFILES_DIR": str(project),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "DO_NOT_TRACK": "1",
    }


def public_address_answers(seconds: float = 5) -> bool:
    """Whether ourairports' public address can be read from here."""
    try:
        answer = httpx.head(PUBLIC_OURAIRPORTS + "countries.csv", timeout=seconds, follow_redirects=True)
        return answer.is_success
    except httpx.HTTPError:
        return False
