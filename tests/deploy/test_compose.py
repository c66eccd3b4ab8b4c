"""docker-compose.yml describes the system of `make run`, holds no secret, and starts in a right order."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from sluice.readers import places
from sluice.runtime import postgres, surroundings
from sluice.runtime.airflow import AirflowStack
from sluice.runtime.layout import Layout
from sluice.settings import Connection

from .conftest import Interpolation

# Where a server must differ from one machine. All else that `make run` sets has the same value here.
DIFFERS = {
    "AIRFLOW_HOME",
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__PORT",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API__WORKERS",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__PARALLELISM",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__COSMOS__CACHE_DIR",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
    "PATH",
    "PYTHONPATH",
    "SLUICE_DBT_MANIFEST",
    "SLUICE_HOME",
    "SLUICE_STATE_DIR",
}
# What only a server has.
ADDED = {
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY",
}
# The entrypoint derives these from SLUICE_WAREHOUSE_URL: tests/deploy/test_start.py.
DERIVED = {"HOST", "PORT", "USER", "PASSWORD", "DATABASE"}
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "deploy", "env_file", "environment", "healthcheck"),
    *("image", "init", "logging", "ports", "profiles", "restart", "security_opt", "shm_size"),
    *("stop_grace_period", "volumes", "working_dir"),
}


@pytest.fixture
def layout(tmp_path: Path, home: Path, no_settings: None) -> Layout:
    """An installation of `make run`."""
    return Layout(home, tmp_path, 1, 2, 3, 4, 5, 6)


@pytest.fixture
def of_make_run(layout: Layout) -> dict[str, str]:
    """What `make run` sets for Airflow, and only that."""
    inherited = {name for name in os.environ if name not in DIFFERS}
    found = AirflowStack(layout, "postgresql://a:b@h/airflow", {}).environment()
    found = {name: value for name, value in found.items() if name not in inherited}
    assert len(found) > 25
    return found


def test_every_component_has_every_setting_of_make_run(of_make_run, components, image_environment):
    for name, service in components.items():
        there = {**image_environment, **service["environment"]}
        assert sorted(set(of_make_run) - set(there)) == [], f"{name} lacks settings that make run has"
        same = set(of_make_run) - DIFFERS
        assert {key: there[key] for key in same} == {key: of_make_run[key] for key in same}, name


def test_a_server_sets_nothing_of_airflow_that_make_run_does_not(of_make_run, components, image_environment):
    assert set(of_make_run) >= DIFFERS, "DIFFERS lists what make run no longer sets"
    for name, service in components.items():
        airflow = {key for key in {**image_environment, **service["environment"]} if key.startswith("AIRFLOW__")}
        assert airflow - set(of_make_run) == ADDED, name


def test_every_component_has_the_variables_that_make_run_writes(layout, components, image_environment):
    around = surroundings.Surroundings(*["postgresql://u:p@h:1/d"] * 4)
    written = set(surroundings.write_environment(layout, around, "http://o/"))
    assert "AIRFLOW_CONN_SHOP_API" in written
    of_the_shop = {name for name in written if name.startswith("SLUICE_SHOP_")}
    derived = {f"SLUICE_DBT_{part}" for part in DERIVED}
    for name, service in components.items():
        there = {**image_environment, **service["environment"]}
        assert written - of_the_shop - derived <= set(there), name


def test_the_shop_has_its_variables(layout, compose):
    around = surroundings.Surroundings(*["postgresql://u:p@h:1/d"] * 4)
    written = surroundings.write_environment(layout, around, "http://o/")
    wanted = {name for name in written if name.startswith("SLUICE_SHOP_")}
    assert wanted
    assert wanted <= set(compose["services"]["shop"]["environment"])


def test_components_share_one_set_of_settings(components):
    common = components["scheduler"]["environment"]
    for name, service in components.items():
        assert common.items() <= service["environment"].items(), name
    own = set(components["api-server"]["environment"]) - set(common)
    assert own == {"SLUICE_ADMIN_PASSWORD", "SLUICE_VIEWER_PASSWORD"}, "only the api-server knows the passwords"


def test_every_required_variable_is_in_the_example_and_the_other_way_round(compose, interpolation, example):
    assert len(interpolation.required) > 10
    assert interpolation.required == set(example)


def test_the_example_shows_every_option_with_its_default(compose, interpolation, example_optional):
    assert set(interpolation.optional) == set(example_optional)
    for name, default in interpolation.optional.items():
        if "${" not in default:
            assert example_optional[name] == default, name


def test_the_example_holds_no_secret(example):
    assert set(example.values()) == {""}


def test_no_secret_is_written_in_the_file(compose, secrets):
    generated = set(secrets.values())
    seen = set()
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            found = re.findall(r"://[^/@]*:([^/@]*)@", str(value))
            if re.search(r"PASSWORD(?!S_FILE)|SECRET|_KEY$", key):
                found.append(value)
            if value.startswith("{"):
                found += [Connection.parse(value).extra["headers"]["X-API-Key"]]
            seen |= set(found)
            assert set(found) <= generated, f"{name}: {key} holds a literal secret"
    assert seen == generated, "a secret of the example is used nowhere"
    text = str([service.get("command") for service in compose["services"].values()])
    assert not any(secret in text for secret in generated), "a command line shows a secret to everybody"


def test_connections_can_be_read(components):
    environment = components["worker"]["environment"]
    found = {name: Connection.parse(value) for name, value in environment.items() if "_CONN_" in name[:13]}
    assert len(found) == 5
    assert found["AIRFLOW_CONN_WAREHOUSE"].host == "postgres"
    assert found["AIRFLOW_CONN_WAREHOUSE"].path == "warehouse"
    assert found["AIRFLOW_CONN_SHOP_API"].extra["base_url"] == "http://shop:8090/"


def test_ourairports_is_read_from_its_public_address(components, monkeypatch):
    value = components["worker"]["environment"]["AIRFLOW_CONN_OURAIRPORTS"]
    monkeypatch.setenv("AIRFLOW_CONN_OURAIRPORTS", value)
    assert places.place_of("ourairports").base + "/" == surroundings.PUBLIC_OURAIRPORTS


def test_the_warehouse_and_the_metadata_can_be_elsewhere(home, secrets):
    import yaml

    elsewhere = {
        "SLUICE_WAREHOUSE_URL": "postgresql://w@x/y",
        "AIRFLOW_METADATA_URL": "postgresql+psycopg2://a@b/c",
    }
    text = (home / "docker-compose.yml").read_text()
    found = Interpolation({**secrets, **elsewhere}).resolve(yaml.safe_load(text))
    environment = found["services"]["scheduler"]["environment"]
    assert environment["SLUICE_WAREHOUSE_URL"] == environment["AIRFLOW_CONN_WAREHOUSE"] == "postgresql://w@x/y"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://a@b/c"
    assert environment["AIRFLOW__CELERY__RESULT_BACKEND"] == "db+postgresql+psycopg2://a@b/c"


def test_services_wait_for_what_they_need(compose, components):
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert set(how) == {"condition"}, name
            if how["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], f"{name} waits for {other}, which has no check"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[other]["restart"] == "no", f"{other} never completes"
    for name, service in components.items():
        wanted = {"postgres"} if name == "init" else {"init", "postgres", "redis"}
        assert wanted <= set(service["depends_on"]), name


def test_every_lasting_service_is_checked_restarted_limited_and_its_logs_end(compose):
    once = {"init", "cli"}
    for name, service in compose["services"].items():
        assert service["logging"]["options"]["max-size"], name
        if name in once:
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert {"interval", "timeout", "retries"} <= set(check), name
        assert service["deploy"]["resources"]["limits"]["memory"], name


def test_ours_run_without_privileges_and_only_the_web_ui_is_reachable(compose):
    for name, service in compose["services"].items():
        assert "privileged" not in service
        assert "container_name" not in service, "it could not be scaled"
        if "build" in service:
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service["init"] is True, name
        ports = {"api-server": ["127.0.0.1:8080:8080"], "grafana": ["127.0.0.1:3000:3000"]}.get(name, [])
        assert service.get("ports", []) == ports, name


def test_images_have_a_version(compose):
    for name, service in compose["services"].items():
        assert re.search(r":v?\d", service["image"]), f"{name}: {service['image']}"
    project = re.search(r'^version = "(.+)"', (Path(__file__).parents[2] / "pyproject.toml").read_text(), re.M)
    assert compose["services"]["worker"]["image"] == f"sluice:{project[1]}"


def test_keys_are_known_and_volumes_declared(compose):
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    used = set()
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (Path(__file__).parents[2] / source).is_dir(), source
            else:
                used.add(source)
    assert used == set(compose["volumes"])


def test_logs_lie_where_airflow_writes_them_and_files_where_the_shop_drops_them(compose, image_environment):
    services = compose["services"]
    logs = image_environment["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]
    for name in ("api-server", "scheduler", "dag-processor", "triggerer", "worker"):
        assert f"logs:{logs}" in services[name]["volumes"]
    files_of_shop = services["shop"]["environment"]["SLUICE_SHOP_FILES"]
    assert f"shop_files:{files_of_shop}:ro" in services["worker"]["volumes"]
    assert f"shop_files:{files_of_shop}" in services["shop"]["volumes"]
    connection = services["worker"]["environment"]["AIRFLOW_CONN_SHOP_FILES"]
    assert connection == Path(files_of_shop).as_uri()


def test_postgres_is_set_up_as_the_embedded_one(compose):
    service = compose["services"]["postgres"]
    given = dict(word.split("=", 1) for word in service["command"] if "=" in word)
    not_here = {
        "listen_addresses",
        "unix_socket_directories",
        "lc_messages",
        "log_checkpoints",
        "log_line_prefix",
    }
    assert given.pop("wal_compression") == "lz4", "which the embedded server is not built with"
    assert set(given) == set(postgres._SETTINGS) - not_here
    larger = {"shared_buffers", "effective_cache_size"}
    assert {key: given[key] for key in set(given) - larger} == {
        key: postgres._SETTINGS[key] for key in set(given) - larger
    }
    assert service["image"] == "postgres:18"
    assert "postgres:/var/lib/postgresql" in service["volumes"], "18 keeps its data below, not in …/data"


def test_secrets_of_the_server_cannot_be_committed(home):
    assert "connections.env" in (home / "deploy/.gitignore").read_text().split()


def test_the_demo_is_optional(compose: dict[str, Any]):
    profiles = {name: s["profiles"] for name, s in compose["services"].items() if "profiles" in s}
    assert profiles == {"cli": ["tools"], "shop": ["demo"]}


def test_what_watches_is_wired_to_each_other_as_its_files_say(compose, home):
    import yaml

    services = compose["services"]
    assert {"exporter", "watcher", "prometheus", "alertmanager", "grafana"} <= set(services)
    prometheus = yaml.safe_load((home / "monitoring/prometheus/prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert port in services[host]["command"]
    assert prometheus["scrape_configs"][0]["job_name"] == "sluice", "the rules say job=sluice"
    assert (home / "monitoring/prometheus" / prometheus["rule_files"][0]).parent.is_dir()
    (target,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target.split(":")[0] in services
    routing = yaml.safe_load((home / "monitoring/alertmanager/alertmanager.yml").read_text())
    url = re.match(r"http://(\w+):(\d+)/alertmanager$", routing["receivers"][0]["webhook_configs"][0]["url"])
    assert url[2] in services[url[1]]["command"]
    source = yaml.safe_load((home / "monitoring/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"].split("/")[2].split(":")[0] in services
    provider = yaml.safe_load((home / "monitoring/grafana/provisioning/dashboards/sluice.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert f"./monitoring/grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]


def test_the_exporter_enters_by_a_role_that_may_only_read(compose):
    assert "://sluice_exporter:" in compose["services"]["exporter"]["environment"]["SLUICE_EXPORTER_DATABASE_URL"]
    assert "SLUICE_WAREHOUSE_URL" not in compose["services"]["exporter"]["environment"]
