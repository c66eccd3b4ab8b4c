"""The `sluice shop` command: make the demo company, let days pass, look at it, serve its API."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sluice import settings, shop
from sluice.shop import database

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "A small company to feed the pipeline: a database, stock lists, a clickstream, an API.\n\n"
        "Its time is simulated. `init` makes it and lets its first days pass; `advance` lets more pass. "
        "The same --seed, --scale and --start give the same company, byte for byte; `digest` proves it.\n\n"
        "Exit codes: 0 done, 1 refused or failed (the message says what to do), 2 wrong usage."
    ),
)
err = Console(stderr=True)
out = Console()

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database-url",
        envvar="SLUICE_SHOP_DATABASE_URL",
        help="The shop's own database, for example postgresql://user@localhost:5432/shop.",
        show_default=False,
    ),
]
Files = Annotated[
    Path | None,
    typer.Option(
        "--files",
        envvar="SLUICE_SHOP_FILES",
        help="Folder of the shop's files.  [default: <state dir>/shop/files]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
START_HELP = "Its first simulated day."
FIRST = datetime(2026, 1, 1)
SHOW_AFTER = 2.0
"""Seconds after which a bar appears."""


def _files(given: Path | None) -> Path:
    return given or settings.state_dir() / "shop" / "files"


def _database(given: str) -> str:
    url = given or settings.variable("SLUICE_SHOP_DATABASE_URL")
    if not url:
        raise shop.ShopError(
            "no database was named. Give --database-url, set SLUICE_SHOP_DATABASE_URL, or start all: make run"
        )
    return url


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Errors that a person can act on are shown as one message, with exit code 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (shop.ShopError, settings.SettingsError) as error:
            _say_error(str(error))
            raise typer.Exit(1) from None
        except psycopg.Error as error:
            reason = str(error).strip() or type(error).__name__
            _say_error(f"the shop's database refused: {reason}. When that is mended, run the same command again")
            raise typer.Exit(1) from None

    return run


def _say_error(message: str) -> None:
    err.print("error:", style="red", end=" ")
    err.print(message, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, once the work has taken two seconds."""
    columns = TextColumn("simulating days"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=err, transient=True)
    task = bar.add_task("days", total=None)
    began = time.monotonic()

    def on_day(done: int, asked: int) -> None:
        bar.update(task, completed=done, total=asked)
        if err.is_terminal and time.monotonic() - began > SHOW_AFTER:
            bar.start()

    try:
        yield on_day
    finally:
        bar.stop()


@app.command()
@_told
def init(
    database_url: DatabaseUrl = "",
    files: Files = None,
    seed: Annotated[int, typer.Option(help="Which company; any whole number.")] = 7,
    scale: Annotated[float, typer.Option(help="How large; 1 is about 60 orders and 1,500 clicks a day.")] = 1.0,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help=START_HELP, show_default="2026-01-01")] = FIRST,
    days: Annotated[int, typer.Option(min=0, help="Bring it to this many simulated days.")] = 14,
    reset: Annotated[bool, typer.Option("--reset", help="Remove the company that is there, and its files.")] = False,
) -> None:
    """Make the company and let its first days pass. Run again, it does only what is missing."""
    params = shop.Params(seed, scale, start.date())
    with _bar() as on_day:
        done = shop.init(_database(database_url), _files(files), params, days, reset=reset, on_day=on_day)
    if done.days_of_files_restored:
        out.print(f"wrote the missing files of {done.days_of_files_restored} days again")
    if done.days_simulated:
        out.print(f"simulated {done.days_simulated} days; the company is at day {done.days_done}")
    elif not done.days_of_files_restored:
        out.print(f"nothing to do: the company is already at day {done.days_done}, and {days} were asked for")


@app.command()
@_told
def advance(
    database_url: DatabaseUrl = "",
    files: Files = None,
    days: Annotated[int, typer.Option(min=1, help="How many more simulated days.")] = 1,
) -> None:
    """Let more days pass. Seven and then seven days are the same as fourteen at once."""
    with _bar() as on_day:
        done = shop.advance(_database(database_url), _files(files), days, on_day=on_day)
    out.print(f"simulated {done.days_simulated} days; the company is at day {done.days_done}")


@app.command()
@_told
def status(database_url: DatabaseUrl = "", files: Files = None, as_json: AsJson = False) -> None:
    """Show which company this is, what its clock says, and what it holds."""
    found = shop.status(_database(database_url), _files(files))
    if as_json:
        print(json.dumps(asdict(found), default=str))
        return
    table = Table("what", "value", title=f"the shop at {found.now:%Y-%m-%d %H:%M} UTC")
    for name, value in {**asdict(found.params), "days done": found.days_done, **found.rows}.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    out.print(table)
    if found.is_mid_day:
        out.print("a day is not finished: it goes on with `sluice shop advance`")
    if found.files_missing:
        out.print(f"{found.files_missing} files are missing: write them again with `sluice shop init`")


@app.command()
@_told
def serve(
    database_url: DatabaseUrl = "",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
) -> None:
    """Serve the REST API until stopped.

    It wants the header X-API-Key (SLUICE_SHOP_API_KEY, default shop-demo-key). One request in 12 is refused
    with 429 or 503 and one in 20 is slow, on purpose; SLUICE_SHOP_API_FLAKY=0 makes it well-behaved.
    """
    import uvicorn

    from sluice.shop.api import create_app

    uvicorn.run(create_app(_database(database_url)), host=host, port=port, log_level="warning")


@app.command()
@_told
def digest(database_url: DatabaseUrl = "", files: Files = None) -> None:
    """Print a SHA-256 over all tables, files and exchange rates: equal for equal companies only."""
    print(shop.digest(_database(database_url), _files(files)))


@app.command()
@_told
def damage(database_url: DatabaseUrl = "", as_json: AsJson = False) -> None:
    """Print how much damage the files hold on purpose, so that quarantine can be reconciled exactly."""
    with database.connect(_database(database_url)) as connection:
        progress = database.need_progress(connection)
    company = shop.Company(progress.params)
    stock = list(shop.inventory_damage(company, progress.days_done))
    clicks = list(shop.clickstream_damage(company, progress.days_done))
    if as_json:
        json.dump(
            {"inventory": list(map(asdict, stock)), "clickstream": list(map(asdict, clicks))},
            sys.stdout,
            default=str,
        )
        print()
        return
    out.print(_table("stock lists: rows with a bad on_hand", stock))
    out.print(_table("clickstream: lines by day of reception", clicks))


def _table(title: str, items: list[Any]) -> Table:
    """One row for each item, and the sums below."""
    rows = [asdict(item) for item in items]
    names = list(rows[0]) if rows else []
    table = Table(*names, title=title, show_footer=bool(rows))
    for column, name in zip(table.columns, names, strict=True):
        values = [row[name] for row in rows]
        is_number = all(isinstance(value, int) for value in values)
        column.justify = "right" if is_number else "left"
        column.footer = f"{sum(values):,}" if is_number else ("total" if name == names[0] else "")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    app()
