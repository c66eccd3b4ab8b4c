"""Settings: where they come from, in which order, and that no message holds a secret."""

import json
from pathlib import Path

import pytest

from sluice import settings
from sluice.settings import Connection, SettingsError

SECRET = "s3cret/with@signs:"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty state directory and no variables of the surroundings."""
    for name in ("SLUICE_WAREHOUSE_URL", "AIRFLOW_CONN_WAREHOUSE", "SLUICE_SOURCES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLUICE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(settings, "_resolvers", [])
    return tmp_path


def write(state_dir: Path, **variables: str) -> None:
    (state_dir / "env.json").write_text(json.dumps(variables))


def test_uri_and_json_forms_say_the_same() -> None:
    uri = Connection.parse("postgresql://loader:s3cret%2Fwith%40signs%3A@db.example:5433/shop?sslmode=require")
    form = {
        "conn_type": "postgres",
        "host": "db.example",
        "port": 5433,
        "login": "loader",
        "password": SECRET,
    }
    assert Connection.parse(json.dumps({**form, "schema": "shop", "extra": {"sslmode": "require"}})) == uri
    assert uri.password == SECRET
    assert Connection.parse(uri.postgres_url()) == uri


def test_files_and_http_keep_their_paths() -> None:
    assert Connection.parse("file:///srv/shop%20files").path == "/srv/shop files"
    assert Connection.parse('{"conn_type": "fs", "extra": {"path": "/srv/files"}}').path == "/srv/files"
    api = Connection.parse('{"conn_type": "http", "schema": "https", "host": "api", "extra": "{\\"headers\\": {}}"}')
    assert (api.scheme, api.path, api.extra) == ("https", "", {"headers": {}})
    dated = Connection.parse('{"conn_type": "http", "extra": {"base_url": "http://127.0.0.1:1/{date}/"}}')
    assert dated.extra["base_url"] == "http://127.0.0.1:1/{date}/"


def test_the_environment_wins_over_env_json(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean, AIRFLOW_CONN_SHOP_DB="postgres://u:p@written:1/shop")
    assert settings.connection("shop_db").host == "written"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", "postgres://u:p@exported:1/shop")
    assert settings.connection("shop_db").host == "exported"


def test_env_json_is_read_again_when_it_changed(clean: Path) -> None:
    write(clean, AIRFLOW_CONN_WAREHOUSE="postgres://u:p@one:1/w")
    assert "@one:1" in settings.warehouse_url()
    write(clean, AIRFLOW_CONN_WAREHOUSE="postgres://u:p@another:1/w")
    assert "@another:1" in settings.warehouse_url()


def test_the_warehouse_url_wins_over_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://u:p@connection:1/w")
    monkeypatch.setenv("SLUICE_WAREHOUSE_URL", "postgresql://u:p@given:1/w")
    assert settings.warehouse_url() == "postgresql://u:p@given:1/w"


def test_a_resolver_is_asked_last() -> None:
    settings.register_connection_resolver(lambda name: Connection("http", host="vault") if name == "api" else None)
    assert settings.connection("api").host == "vault"
    with pytest.raises(SettingsError):
        settings.connection("other")


def test_a_missing_connection_says_how_to_set_it() -> None:
    with pytest.raises(SettingsError, match=r"'shop_db' is not set. Set AIRFLOW_CONN_SHOP_DB .* make run"):
        settings.connection("shop_db")


@pytest.mark.parametrize(
    "value",
    [
        f"postgres://u:{SECRET}@host:notaport/db",
        f"postgres://u:p@host:{SECRET}/db",
        f'{{"conn_type": "postgres", "password": "{SECRET}"',
        f'{{"password": "{SECRET}"}}',
        f'{{"conn_type": "postgres", "password": "{SECRET}", "port": "{SECRET}"}}',
        SECRET,
    ],
)
def test_an_unreadable_connection_never_shows_its_secret(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", value)
    with pytest.raises(SettingsError, match="AIRFLOW_CONN_SHOP_DB") as fault:
        settings.connection("shop_db")
    assert "s3cret" not in str(fault.value)
    assert fault.value.__cause__ is None
    assert fault.value.__suppress_context__


def test_repr_never_shows_a_secret() -> None:
    connection = Connection("http", login="me", password=SECRET, extra={"headers": {"X-API-Key": SECRET}})
    assert SECRET not in repr(connection)
    assert SECRET not in f"{connection}"


def test_directories(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.state_dir() == clean
    assert settings.sources_dir() == settings.home() / "include" / "sources"
    monkeypatch.setenv("SLUICE_SOURCES_DIR", "/elsewhere")
    assert settings.sources_dir() == Path("/elsewhere")
    assert (settings.home() / "pyproject.toml").exists()
