"""From a place to files that stand in the repository: profile, write, and check what was written before it stays."""

from __future__ import annotations

import getpass
import re
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml import YAML

from sluice import settings
from sluice.declarations import DeclarationError, Source, load_file, load_folder
from sluice.declarations.generated import write_all
from sluice.errors import SluiceError
from sluice.profiling import render
from sluice.profiling.files import is_file, profile_file
from sluice.profiling.names import sanitise, spelt_out
from sluice.profiling.places import Place, database_name, place_of
from sluice.profiling.postgres import profile_table
from sluice.profiling.profile import Bounds, TableProfile, Wishes
from sluice.profiling.rest import profile_resource

_TABLE = re.compile(r"^[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)?$")


@dataclass(frozen=True)
class Target:
    """Where the result goes and what is said of it; what is empty is derived."""

    source: str = ""
    table: str = ""
    owner: str = ""
    description: str = ""
    schedule: str = "0 3 * * *"


@dataclass
class Addition:
    """What would be written: texts by path, and what the person should know."""

    source: str
    profile: TableProfile
    texts: dict[Path, str] = field(default_factory=dict)
    place: Place | None = None

    @property
    def name(self) -> str:
        """As `sluice load` takes it."""
        return f"{self.source}.{self.profile.name}"

    def write(self) -> list[Path]:
        """Write the files, and those that follow from all declarations. Returns every path written."""
        for path, text in self.texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return [*self.texts, *write_all(list(load_folder(settings.sources_dir()).sources.values()), settings.home())]


def plan(what: str, connection: str, target: Target, wishes: Wishes, bounds: Bounds) -> Addition:
    """Profile `what` and work out what to write. Refuses to touch what is there already. Writes nothing."""
    if what.startswith(("postgres:", "postgresql:")):
        raise SluiceError(
            "a database is named by a connection, so that no password stands on a command line: set AIRFLOW_CONN_<ID> "
            "to the URL, and say --connection <id> and the table. Nothing was written"
        )
    place, name = None, target.source
    if _is_table(what, connection):
        name = name or sanitise(re.sub(r"(_db|_database|_postgres)$", "", connection) or database_name(connection))
        relation = what if "." in what else f"public.{what}"
        clocked = _clock_of(name)
        profile = profile_table(relation, connection, target.table, wishes, bounds, clocked=clocked)
    else:
        place = place_of(what, connection)
        name = name or sanitise(re.sub(r"_(files|api|http|drop)$", "", place.connection))
        is_resource = ("://" in what and not what.startswith("file:") and not is_file(what)) or _is_service(place)
        find = profile_resource if is_resource else profile_file
        profile = find(place, target.table, wishes, bounds)
    addition = Addition(name, profile, place=place)
    _add_declaration(addition, target)
    _add_model(addition, target)
    return addition


def _is_table(what: str, connection: str) -> bool:
    if not connection or "/" in what:
        return False
    return settings.connection(connection).scheme == "postgres" if _is_set(connection) else bool(_TABLE.match(what))


def _is_set(connection: str) -> bool:
    try:
        settings.connection(connection)
    except settings.SettingsError:
        return False
    return True


def _is_service(place: Place) -> bool:
    return settings.connection(place.connection).scheme in ("http", "https") and not is_file(place.path)


def _existing(name: str) -> tuple[Path | None, Source | None]:
    """The file that declares a source of this name; refuses one that is broken."""
    found = load_folder(settings.sources_dir())
    if name in found.paths:
        return found.paths[name], found.sources[name]
    path = settings.sources_dir() / f"{name}.yml"
    if path.exists():
        faults = "; ".join(str(fault) for fault in found.faults if fault.file == str(path))
        raise SluiceError(
            f"{path} is there already and can't be added to: {faults or 'it declares another source'}. "
            "Nothing was written"
        )
    return None, None


def _clock_of(name: str) -> bool:
    _, source = _existing(name)
    return source is not None and source.clock is not None


def _add_declaration(addition: Addition, target: Target) -> None:
    path, source = _existing(addition.source)
    table = render.table_text(addition.profile)
    if path is None or source is None:
        path = settings.sources_dir() / f"{addition.source}.yml"
        start = addition.profile.start or f"{datetime.now(UTC):%Y-%m-%d}"
        head = {
            "source": addition.source,
            "description": target.description
            or f"{spelt_out(addition.source)}, as profiled on {datetime.now(UTC):%Y-%m-%d}.",
            "owner": target.owner or getpass.getuser(),
            "schedule": target.schedule,
            "start": datetime.fromisoformat(start).date(),
            "deadline": "2h",
            "wait": "30m",
        }
        text = render.source_text(head, table)
    else:
        if addition.profile.name in source.tables:
            raise SluiceError(
                f"{path} declares {addition.name} already; nothing was written. Choose another name with --table, or "
                "take the entry out"
            )
        text = inserted(path, table)
    _check(addition, text, source)
    addition.texts[path] = text


def inserted(path: Path, table: str) -> str:
    """The text of a declaration with one table more, every other byte as it was."""
    text = path.read_text(encoding="utf-8")
    tree = YAML(typ="rt").load(text)
    tables = tree["tables"]
    if tables.fa.flow_style():
        raise SluiceError(f"{path} writes its tables in braces, where none can be added by lines; nothing was written")
    indent = tables.lc.col
    after = [tree.lc.key(name)[0] for name in tree if tree.lc.key(name)[0] > tree.lc.key("tables")[0]]
    lines = text.splitlines(keepends=True)
    at = min(after, default=len(lines))
    while at and (not lines[at - 1].strip() or (after and lines[at - 1].startswith("#"))):  # of the field that follows
        at -= 1
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    own = "".join(" " * (indent - 2) + line if indent >= 2 else line[2:] for line in table.splitlines(keepends=True))
    return "".join([*lines[:at], "\n", own, *lines[at:]])


def _check(addition: Addition, text: str, before: Source | None) -> None:
    """The text must be a declaration without fault, and say of the other tables what it said before."""
    after = must_be_valid(f"{addition.source}.yml", text)
    others = {name: table for name, table in after.tables.items() if name != addition.profile.name}
    if before is not None and others != dict(before.tables):
        raise SluiceError("the table could not be added without changing another one; nothing was written")


def must_be_valid(name: str, text: str) -> Source:
    """The source that a text declares; raises with its first fault when it is none, before anything is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        try:
            return load_file(path)
        except DeclarationError as error:
            fault = error.faults[0]
            raise SluiceError(
                f"what was found makes no declaration: {fault.field}: {fault.message}. Nothing was written"
            ) from None


def _add_model(addition: Addition, target: Target) -> None:
    folder = settings.home() / "dbt_project" / "models" / "staging" / addition.source
    name = f"stg_{addition.source}__{addition.profile.name}"
    _, source = _existing(addition.source)
    owner = target.owner or (source.owner if source else getpass.getuser())
    texts = {
        folder / f"{name}.sql": render.model_sql(addition.source, addition.profile),
        folder / f"{name}.yml": render.model_yml(addition.source, owner, addition.profile),
    }
    for path in texts:
        if path.exists():
            raise SluiceError(
                f"{path} is there already; nothing was written. Choose another name with --table, or remove it"
            )
    addition.texts |= texts
