"""What containers run at their start, run for real: the entrypoint, the init, the roles of PostgreSQL."""

import json
import os
import re
import stat
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sluice.declarations import load_folder
from sluice.declarations.pools import required_pools
from sluice.runtime.layout import Layout
from sluice.runtime.ports import free_port
from sluice.runtime.postgres import EmbeddedPostgres
from sluice.runtime.surroundings import dbt_environment

from .conftest import HOME

BIN = Path(sys.executable).parent
SCRIPTS = ["deploy/init.sh", "deploy/new-env.sh", "deploy/postgres/10-databases.sh"]
SHOW = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]


def _start(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    entrypoint = [sys.executable, str(HOME / "deploy/entrypoint.py")]
    return subprocess.run([*entrypoint, *command], env=environment, capture_output=True, text=True)


@pytest.fixture
def container(tmp_path: Path) -> dict[str, str]:
    """The least that a container has set."""
    return {"PATH": f"{tmp_path}:{BIN}:{os.defpath}", "AIRFLOW_HOME": str(tmp_path), "SLUICE_HOME": str(HOME)}


# -- the entrypoint --------------------------------------------------------------------------------------


def test_dbt_is_told_the_warehouse_in_parts(container):
    url = "postgresql://sluice:p%40ss@db.example:5433/warehouse"
    done = _start(SHOW, {**container, "SLUICE_WAREHOUSE_URL": url})
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["SLUICE_DBT_PASSWORD"] == "p@ss"
    assert dbt_environment(HOME / "dbt_project", url).items() <= seen.items()


def test_what_is_set_stays(container):
    given = {"SLUICE_WAREHOUSE_URL": "postgresql://a:b@c/d", "SLUICE_DBT_HOST": "pooler"}
    assert json.loads(_start(SHOW, {**container, **given}).stdout)["SLUICE_DBT_HOST"] == "pooler"


def test_a_service_without_a_warehouse_starts(container):
    assert _start(SHOW, container).returncode == 0


def test_the_passwords_of_the_web_ui_are_in_a_private_file_and_not_in_the_environment(container, tmp_path):
    fake = tmp_path / "airflow"
    fake.write_text(f"#!{sys.executable}\nimport json, os\nprint(json.dumps(dict(os.environ)))\n")
    fake.chmod(0o755)
    passwords = tmp_path / "passwords.json"
    given = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "SLUICE_ADMIN_PASSWORD": "one",
        "SLUICE_VIEWER_PASSWORD": "two",
    }
    done = _start(["airflow", "api-server"], {**container, **given})
    assert done.returncode == 0, done.stderr
    assert json.loads(passwords.read_text()) == {"admin": "one", "viewer": "two"}
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    assert not {"SLUICE_ADMIN_PASSWORD", "SLUICE_VIEWER_PASSWORD"} & set(json.loads(done.stdout))

    passwords.unlink()
    done = _start(["airflow", "scheduler"], {**container, **given})
    assert done.returncode == 0
    assert not passwords.exists(), "only the api-server needs them"


def test_a_web_ui_without_a_password_does_not_start(container):
    done = _start(["airflow", "api-server"], {**container, "SLUICE_ADMIN_PASSWORD": "one"})
    assert done.returncode == 1
    assert "SLUICE_VIEWER_PASSWORD" in done.stderr
    assert "SLUICE_ADMIN_PASSWORD" not in done.stderr


def test_a_pid_file_of_a_killed_worker_is_forgotten(container, tmp_path):
    (tmp_path / "airflow-worker.pid").write_text("7\n")
    assert _start(SHOW, container).returncode == 0
    assert not (tmp_path / "airflow-worker.pid").exists()


# -- commands ------------------------------------------------------------------------------------------


def test_airflow_knows_the_commands_that_containers_run(compose, tmp_path):
    """Parsed by Airflow's own parser. `airflow celery` comes with the provider, which only the image has."""
    commands = [service.get("command", []) for service in compose["services"].values()]
    commands += [service.get("healthcheck", {}).get("test", [])[1:] for service in compose["services"].values()]
    script = (HOME / "deploy/init.sh").read_text()
    commands += [line.split() for line in script.splitlines() if line.startswith("airflow ")]
    airflow = [command[1:] for command in commands if command[:1] == ["airflow"]]
    assert ["celery", "worker"] in airflow
    ours = [command for command in airflow if command[0] != "celery"]
    assert len(ours) == 9
    code = (
        "import json, sys\nfrom airflow.cli.cli_parser import get_parser\n"
        "for command in json.loads(sys.argv[1]): get_parser().parse_args(command)\nprint('parsed')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(ours)],
        env={"PATH": f"{BIN}:{os.defpath}", "AIRFLOW_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("parsed"), done.stderr


def test_sluice_knows_the_commands_that_containers_run(compose):
    import typer

    from sluice.cli import app

    line = compose["services"]["shop"]["command"][-1]
    assert line == ('sluice shop init --days "$SLUICE_SHOP_DAYS" && exec sluice shop serve --host 0.0.0.0 --port 8090')
    shop = typer.main.get_command(app).commands["shop"].commands
    for name, options in {"init": {"--days"}, "serve": {"--host", "--port"}}.items():
        assert options <= {option for parameter in shop[name].params for option in parameter.opts}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_sound(script):
    path = HOME / script
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


# -- .env ----------------------------------------------------------------------------------------------


def test_a_new_env_has_every_secret_and_no_two_are_equal(example):
    made = [subprocess.check_output([HOME / "deploy/new-env.sh"], text=True) for _ in range(2)]
    values = [dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.M)) for text in made]
    assert set(values[0]) == set(example)
    everything = [*values[0].values(), *values[1].values()]
    assert len(set(everything)) == 2 * len(example)
    assert len(urlsafe_b64decode(values[0].pop("AIRFLOW_FERNET_KEY"))) == 32
    assert len(values[0]["AIRFLOW_JWT_SECRET"]) >= 64
    for value in values[0].values():
        assert re.fullmatch(r"[0-9a-f]{48,}", value)


# -- PostgreSQL ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[EmbeddedPostgres]:
    """A server of its own: the script sets passwords of roles, which the session's server uses."""
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", free_port(), durable=False)
    try:
        yield server.start()
    finally:
        server.destroy()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def made(server: EmbeddedPostgres, secrets: dict[str, str]) -> EmbeddedPostgres:
    """The server after the init script ran, twice."""
    psql = server.programs / "psql"
    environment = {
        **secrets,
        "PATH": f"{psql.parent}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": server.secrets.get("postgres_superuser"),
        "POSTGRES_USER": "postgres",
    }
    for _ in range(2):
        subprocess.run([HOME / "deploy/postgres/10-databases.sh"], env=environment, check=True)
    return server


def _url(server: EmbeddedPostgres, secrets: dict[str, str], role: str, database: str) -> str:
    name = {
        "sluice": "SLUICE_DB",
        "airflow": "AIRFLOW_DB",
        "shop": "SHOP_DB",
        "shop_reader": "SHOP_READER_DB",
        "sluice_exporter": "EXPORTER_DB",
    }[role]
    return f"postgresql://{role}:{secrets[f'{name}_PASSWORD']}@127.0.0.1:{server.port}/{database}"


def test_each_role_enters_its_own_database_only(made, secrets):
    may = {("sluice", "warehouse"), ("airflow", "airflow"), ("shop", "shop"), ("shop_reader", "shop")}
    may |= {("sluice_exporter", "warehouse")}
    for role in ("sluice", "airflow", "shop", "shop_reader", "sluice_exporter"):
        for database in ("warehouse", "airflow", "shop"):
            url = _url(made, secrets, role, database)
            if (role, database) in may:
                psycopg.connect(url).close()
            else:
                with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                    psycopg.connect(url)


def test_roles_and_databases_are_those_of_make_run(made, tmp_path):
    from sluice.runtime import surroundings

    asked: dict[str, set] = {"roles": set(), "databases": set()}

    class Recorder:
        def create_role(self, name, *, member_of=()):
            asked["roles"].add((name, tuple(sorted(member_of))))

        def create_database(self, name, *, owner=None, readers=()):
            asked["databases"].add((name, owner))

        def url(self, *_):
            return "postgresql://u@h/d"

    surroundings.prepare_databases(Recorder())
    with psycopg.connect(made.url("postgres")) as connection:
        roles = connection.execute(
            "select rolname, array(select groups.rolname::text from pg_auth_members join pg_roles as groups"
            " on groups.oid = roleid where member = pg_roles.oid order by 1)"
            " from pg_roles where rolcanlogin and rolname <> 'postgres' and not rolsuper and not rolcreatedb"
        ).fetchall()
        databases = connection.execute(
            "select datname, pg_get_userbyid(datdba) from pg_database where not datistemplate and datname <> 'postgres'"
        ).fetchall()
    assert {(name, tuple(groups)) for name, groups in roles} == asked["roles"]
    assert set(databases) == asked["databases"]


def test_init_prepares_the_metadata_the_pools_and_the_ledger(made, secrets, container, tmp_path):
    """The service `init`, as its container runs it, on the databases that PostgreSQL's container made."""
    layout = Layout(HOME, tmp_path, 1, 2, 3, 4, 5, 6)
    metadata = _url(made, secrets, "airflow", "airflow").replace("postgresql:", "postgresql+psycopg2:")
    warehouse = _url(made, secrets, "sluice", "warehouse")
    environment = {
        **container,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(layout.dags),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        "HOME": str(tmp_path),
        "SLUICE_STATE_DIR": str(tmp_path),
        "SLUICE_WAREHOUSE_URL": warehouse,
    }
    done = _start(["bash", str(HOME / "deploy/init.sh")], environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("init: done")
    with psycopg.connect(_url(made, secrets, "airflow", "airflow")) as connection:
        pools = dict(connection.execute("select pool, slots from slot_pool").fetchall())
    wanted = required_pools(load_folder(HOME / "include/sources").sources.values())
    assert len(wanted) > 2
    assert pools == {name: pool["slots"] for name, pool in wanted.items()}
    with psycopg.connect(warehouse) as connection:
        assert connection.execute("select count(*) from ops.batch").fetchone() == (0,)


def test_init_stops_at_the_first_failure(container, tmp_path):
    (tmp_path / "airflow").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "airflow").chmod(0o755)
    done = _start(["bash", str(HOME / "deploy/init.sh")], container)
    assert done.returncode == 3
    assert "init: done" not in done.stdout
