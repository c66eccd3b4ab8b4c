"""Making a company and letting days pass: what is behind `sluice shop init` and `sluice shop advance`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from psycopg import Connection, sql

from sluice.shop import database, files
from sluice.shop.apply import Applier
from sluice.shop.clickstream import write_clickstream
from sluice.shop.company import Company
from sluice.shop.database import Progress, Spares
from sluice.shop.day import entries
from sluice.shop.inventory import write_inventory
from sluice.shop.params import Params, ShopError

OnDay = Callable[[int, int], None]
"""Called after each day with (days done now, days asked for)."""


@dataclass(frozen=True)
class Outcome:
    """What a call did: the days it simulated, how many are done in all, and the files that it wrote again."""

    days_simulated: int
    days_done: int
    days_of_files_restored: int = 0


@dataclass(frozen=True)
class Status:
    """Where the company stands."""

    params: Params
    days_done: int
    now: datetime
    is_mid_day: bool
    rows: dict[str, int]
    files_missing: int


def init(
    database_url: str,
    files_dir: Path | str,
    params: Params,
    days: int = 14,
    *,
    reset: bool = False,
    on_day: OnDay | None = None,
) -> Outcome:
    """Make the company, if it is not there, and bring it to `days` simulated days; nothing is done twice.

    Raises ShopError when the database holds a company of other parameters and `reset` is not set.
    """
    root = Path(files_dir)
    with database.simulating(database_url) as connection:
        found = database.read_progress(connection)
        if reset:
            database.drop(connection)
            files.remove_files(root)
            found = None
        if found is None:
            database.create(connection, Company(params))
            found = Progress(params, 0, "")
        _refuse_other_params(found.params, params)
        restored = _restore_files(root, Company(params), found.days_done)
        done = _run_days(connection, database_url, root, found, days, on_day)
    return Outcome(done - found.days_done, done, restored)


def advance(database_url: str, files_dir: Path | str, days: int = 1, *, on_day: OnDay | None = None) -> Outcome:
    """Let `days` more days pass."""
    with database.simulating(database_url) as connection:
        found = database.need_progress(connection)
        done = _run_days(connection, database_url, Path(files_dir), found, found.days_done + days, on_day)
    return Outcome(done - found.days_done, done)


def status(database_url: str, files_dir: Path | str) -> Status:
    """Where the company stands, counted in the database and on the disk."""
    with database.connect(database_url) as connection:
        progress = database.need_progress(connection)
        clock = connection.execute("select now from clock").fetchone()
        rows = {table: _count(connection, table) for table in (*database.ENTITIES, *database.HISTORIES)}
    if clock is None:
        raise ShopError("the shop's clock is missing. Make the shop again with: sluice shop init --reset")
    dates = (progress.params.date(day) for day in range(progress.days_done))
    paths = (path for when in dates for path in files.expected_paths(Path(files_dir), when))
    missing = sum(1 for path in paths if not path.is_file())
    return Status(progress.params, progress.days_done, clock[0], bool(progress.last_commit), rows, missing)


def _count(connection: Connection, table: str) -> int:
    row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else 0


def _refuse_other_params(found: Params, asked: Params) -> None:
    """A company cannot become another one by asking."""
    if found != asked:
        differing = ", ".join(
            f"{name} is {value}, not {asdict(asked)[name]}"
            for name, value in asdict(found).items()
            if value != asdict(asked)[name]
        )
        raise ShopError(
            f"this database already holds another company: its {differing}. Nothing was changed. "
            "Ask for the same parameters, or replace the company with: sluice shop init --reset"
        )


def _run_days(
    connection: Connection, database_url: str, root: Path, found: Progress, days: int, on_day: OnDay | None
) -> int:
    """Simulate until `days` are done; returns how many are."""
    company = Company(found.params)
    last_commit = found.last_commit
    with Spares(database_url) as spares:
        for day in range(found.days_done, days):
            Applier(connection, spares, found.params, day, last_commit).run(entries(company, day))
            _write_files(company, root, day)
            database.end_day(connection, found.params, day + 1)
            last_commit = ""
            if on_day:
                on_day(day + 1, days)
    return max(days, found.days_done)


def _write_files(company: Company, root: Path, day: int) -> None:
    write_inventory(company, root, day)
    write_clickstream(company, root, day)


def _restore_files(root: Path, company: Company, days_done: int) -> int:
    """Write the files of done days again where one is missing; returns the number of such days."""
    restored = 0
    for day in range(days_done):
        if not all(path.is_file() for path in files.expected_paths(root, company.params.date(day))):
            _write_files(company, root, day)
            restored += 1
    return restored
