"""What a process needs to know about its surroundings, and nothing else.

Every answer comes from the environment, then from `<state_dir>/env.json` (written by `make run`, so that a
shell, dbt and the `sluice` command find the same databases as Airflow does), then from a default. Nothing is
read at import.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from sluice.errors import SluiceError

__all__ = [
    "Connection",
    "SettingsError",
    "connection",
    "home",
    "register_connection_resolver",
    "sources_dir",
    "state_dir",
    "variable",
    "warehouse_url",
]

_HTTP = {"http", "https"}
_FILES = {"file", "fs"}


class SettingsError(SluiceError):
    """Something that a person must set. The message names it and says how; it never holds a secret."""


@dataclass(frozen=True)
class Connection:
    """Where a source is and how to enter it: the fields of an Airflow connection, without Airflow.

    `path` is the path of a file or HTTP source, with its leading slash; for a database it is the database's
    name.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = field(default="", repr=False)
    path: str = ""
    extra: dict[str, Any] = field(default_factory=dict, repr=False)  # may hold API keys

    @classmethod
    def parse(cls, text: str) -> "Connection":
        """Read the URI form or the JSON form that Airflow takes in `AIRFLOW_CONN_<ID>`."""
        text = text.strip()
        return cls._from_json(json.loads(text)) if text.startswith("{") else cls._from_uri(text)

    @classmethod
    def _from_uri(cls, uri: str) -> "Connection":
        parts = urlsplit(uri)
        if not parts.scheme:
            raise ValueError("no scheme")
        extra: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        if "__extra__" in extra:
            extra = json.loads(extra["__extra__"])
        scheme = _scheme(parts.scheme)
        path = unquote(parts.path)
        return cls(
            scheme=scheme,
            host=unquote(parts.hostname or ""),
            port=parts.port,
            login=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            path=path.removeprefix("/") if scheme == "postgres" else path,
            extra=extra,
        )

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> "Connection":
        extra = value.get("extra") or {}
        if isinstance(extra, str):
            extra = json.loads(extra)
        scheme, path = _scheme(value["conn_type"]), value.get("schema") or ""
        if scheme in _HTTP and path in _HTTP:  # Airflow's HTTP connections keep the protocol there
            scheme, path = path, ""
        if scheme == "file":
            path = path or extra.get("path", "")
        port = value.get("port")
        return cls(
            scheme=scheme,
            host=value.get("host") or "",
            port=int(port) if port not in (None, "") else None,
            login=value.get("login") or "",
            password=value.get("password") or "",
            path=path,
            extra=dict(extra),
        )

    def postgres_url(self) -> str:
        """A libpq URL, with the password: for `psycopg.connect`, never for a message or a log."""
        login = quote(self.login, safe="")
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        port = f":{self.port}" if self.port else ""
        options = {k: v for k, v in self.extra.items() if isinstance(v, str | int) and not isinstance(v, bool)}
        query = "&".join(f"{quote(k, safe='')}={quote(str(v), safe='')}" for k, v in options.items())
        entry = f"{login}{secret}@" if login or secret else ""
        return f"postgresql://{entry}{self.host}{port}/{quote(self.path, safe='')}" + (f"?{query}" if query else "")


Resolver = Callable[[str], Connection | None]
_resolvers: list[Resolver] = []


def register_connection_resolver(resolver: Resolver) -> None:
    """Ask `resolver` for connections that the environment does not name: how Airflow's own stores are
    reached.

    It returns None for an id that it does not know.
    """
    if resolver not in _resolvers:
        _resolvers.append(resolver)


def home() -> Path:
    """The repository's root: `SLUICE_HOME`, or where this file was installed from."""
    return Path(os.environ.get("SLUICE_HOME") or Path(__file__).resolve().parents[2])


def state_dir() -> Path:
    """Where everything local lives: `SLUICE_STATE_DIR`, or `.sluice` in the repository."""
    return Path(os.environ.get("SLUICE_STATE_DIR") or home() / ".sluice").expanduser().absolute()


def sources_dir() -> Path:
    """Where the declarations are: `SLUICE_SOURCES_DIR`, or `include/sources`."""
    return Path(variable("SLUICE_SOURCES_DIR") or home() / "include" / "sources").absolute()


def variable(name: str, default: str = "") -> str:
    """The environment's value of `name`, else that of `<state_dir>/env.json`, else `default`. Empty means
    unset."""
    return os.environ.get(name) or written_environment().get(name) or default


def warehouse_url() -> str:
    """The warehouse as a libpq URL: `SLUICE_WAREHOUSE_URL`, or the connection `warehouse`."""
    return variable("SLUICE_WAREHOUSE_URL") or connection("warehouse").postgres_url()


def connection(conn_id: str) -> Connection:
    """The connection `conn_id`, from `AIRFLOW_CONN_<ID>` or from a registered resolver."""
    name = f"AIRFLOW_CONN_{conn_id.upper()}"
    if text := variable(name):
        try:
            return Connection.parse(text)
        except (ValueError, KeyError, TypeError, AttributeError):
            # `from None`: their texts quote the value, which holds a password.
            raise SettingsError(
                f"the connection {conn_id!r} cannot be read: {name} is neither a URI (scheme://login:password@host:port"
                "/path) nor Airflow's JSON form. Percent-encode special characters in the password, or "
                "use the JSON form."
            ) from None
    for resolver in _resolvers:
        if found := resolver(conn_id):
            return found
    raise SettingsError(
        f"the connection {conn_id!r} is not set. Set {name} to a URI "
        "(scheme://login:password@host:port/path) or to "
        f"Airflow's JSON form, or start everything with: make run (it writes {state_dir() / 'env.json'})"
    )


def _scheme(name: str) -> str:
    """Airflow's connection types and the schemes of URLs, as one vocabulary."""
    name = name.lower()
    if name in ("postgres", "postgresql"):
        return "postgres"
    return "file" if name in _FILES else name


def written_environment() -> dict[str, str]:
    path = state_dir() / "env.json"
    try:
        return _read_environment(path, path.stat().st_mtime_ns)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return {}


@lru_cache(maxsize=8)
def _read_environment(path: Path, _modified: int) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except ValueError:
        raise SettingsError(f"{path} is not valid JSON. Remove it and run: make run") from None
