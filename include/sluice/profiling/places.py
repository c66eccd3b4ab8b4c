"""From what a person types to a connection and a path below it. An address or a password never enters a declaration."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sluice import settings
from sluice.errors import SluiceError
from sluice.profiling.names import sanitise

_DATE = re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)")
_HOUR = re.compile(r"(?<=\{date\}/)([01]\d|2[0-3])(?=\.|/|$)")


@dataclass(frozen=True)
class Place:
    """A connection and what lies below it. `new`: the address that the connection has yet to be set to."""

    connection: str
    path: str
    new: str = ""

    @property
    def export(self) -> str:
        """The line that sets a new connection in a shell."""
        return f"export AIRFLOW_CONN_{self.connection.upper()}={self.new}" if self.new else ""


def place_of(what: str, connection: str) -> Place:
    """Where `what` (a path or an HTTP address) is: below the named connection, one that is set, or a new one."""
    if connection:
        try:
            settings.connection(connection)
        except settings.SettingsError:
            return _new(what, connection)
        return Place(connection, _below(what, base_of(connection), connection))
    address = what if "://" in what else f"file://{Path(what).expanduser().absolute()}"
    fitting = {name: base for name in _known() if (base := base_of(name)) and address.startswith(f"{base}/")}
    if fitting:
        name = max(fitting, key=lambda name: len(fitting[name]))
        return Place(name, address.removeprefix(fitting[name]).lstrip("/"))
    return _new(what, connection)


def with_placeholders(path: str) -> str:
    """The path of every file like this one: a date in it is {date}, an hour below that {hour}."""
    return _HOUR.sub("{hour}", _DATE.sub("{date}", path)) if "{" not in path else path


def database_name(connection: str) -> str:
    """What the connection calls its database; for a name of the source."""
    return settings.connection(connection).path


def _new(what: str, connection: str) -> Place:
    """A connection of its own for a place that none is set for; set in this process, so that the source can be read."""
    if "://" in what:
        parts = urlsplit(what)
        folder, _, rest = parts.path.lstrip("/").rpartition("/")
        base = f"{parts.scheme}://{parts.netloc}" + (f"/{folder}" if folder else "")
        path = rest + (f"?{parts.query}" if parts.query else "")
        name = connection or sanitise((parts.hostname or "web").removeprefix("www.").split(".")[0]) + "_http"
    else:
        whole = with_placeholders(str(Path(what).expanduser().absolute()))
        fixed = whole.split("{", 1)[0].rpartition("/")[0] or "/"
        base, path = f"file://{fixed}", whole.removeprefix(fixed).lstrip("/")
        name = connection or f"{sanitise(Path(fixed).name)}_files"
        path = str(Path(what).expanduser().absolute()).removeprefix(fixed).lstrip("/")
    os.environ.setdefault(f"AIRFLOW_CONN_{name.upper()}", base)
    return Place(name, path, base)


def _known() -> list[str]:
    """Ids of the connections that this process can see, without asking Airflow."""
    names = {*os.environ, *settings.written_environment()}
    return sorted(name.removeprefix("AIRFLOW_CONN_").lower() for name in names if name.startswith("AIRFLOW_CONN_"))


def base_of(name: str) -> str:
    """The address of a connection to files or to HTTP; empty for any other."""
    try:
        connection = settings.connection(name)
    except settings.SettingsError:
        return ""
    if connection.scheme == "postgres":
        return ""
    if base := connection.extra.get("base_url"):
        return str(base).rstrip("/")
    if connection.scheme in ("file", ""):
        return "file://" + str(connection.path or connection.extra.get("path", "")).rstrip("/")
    scheme = connection.scheme if connection.scheme != "generic" else "https"
    port = f":{connection.port}" if connection.port else ""
    return f"{scheme}://{connection.host}{port}{connection.path}".rstrip("/")


def _below(what: str, base: str, connection: str) -> str:
    """The path of `what` below the address of a connection."""
    if not base:
        raise SluiceError(f"the connection {connection} is a database; name one of its tables. Nothing was written")
    if "://" in what:
        address = what
    elif base.startswith("file://"):
        below = Path(base.removeprefix("file://")) / what
        address = (
            f"file://{below if not Path(what).is_absolute() and not Path(what).exists() else Path(what).absolute()}"
        )
    else:
        return what.lstrip("/")
    if not address.startswith(f"{base}/"):
        raise SluiceError(
            f"{what} does not lie below {base}, where the connection {connection} points. Nothing was written; "
            "leave --connection out, and one is proposed"
        )
    return address.removeprefix(base).lstrip("/")
