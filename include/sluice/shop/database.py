"""The shop's database: connections, its schema, and the rows with which the company opens."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql

from sluice.shop.company import Company
from sluice.shop.customers import Life, address_rows, customer_row, life_of
from sluice.shop.params import DAY, Params, ShopError
from sluice.shop.products import category_row, product_of, product_row
from sluice.shop.words import CATEGORIES

ENTITIES = ("categories", "products", "customers", "addresses", "orders", "order_lines", "payments")
HISTORIES = ("customers_history", "addresses_history", "products_history")
TABLES = ("simulation", "clock", *ENTITIES, *HISTORIES)
"""Every table, parents before children."""
LOCK = 0x51_0CE_54_0B
"""The advisory lock of whoever simulates."""


class Progress(NamedTuple):
    """How far a company has come."""

    params: Params
    days_done: int
    last_commit: str


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    """A connection in UTC whose commits do not wait for the disk; the end of each day does."""
    try:
        options = _options(database_url)
        connection = psycopg.connect(database_url, autocommit=True, options=options)
    except psycopg.ProgrammingError:  # its text quotes the URL, which may hold a password
        raise ShopError("the database URL cannot be read; write it like postgresql://user@host:5432/shop") from None
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ShopError(f"the shop's database cannot be reached: {reason}. Is it running? Try: make run") from None
    try:
        yield connection
    finally:
        connection.close()  # and not `with connection`, which would commit what is open


def _options(database_url: str) -> str:
    """The session's settings, behind whatever the URL itself asks for."""
    given = psycopg.conninfo.conninfo_to_dict(database_url).get("options") or ""
    own = "-c timezone=UTC -c datestyle=ISO -c synchronous_commit=off -c application_name=sluice-shop"
    return f"{given} {own}".strip()


@contextmanager
def simulating(database_url: str) -> Iterator[Connection]:
    """A connection that alone may change the company; a second one is refused."""
    with connect(database_url) as connection:
        row = connection.execute("select pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if not (row and row[0]):
            raise ShopError("another process is simulating this shop; nothing was done. Wait for it to end.")
        yield connection


class Spares:
    """Connections for transactions that stay open, made when first needed. Leaving rolls them back."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._all = ExitStack()
        self._free: list[Connection] = []

    def __enter__(self) -> "Spares":
        return self

    def __exit__(self, *error: object) -> None:
        self._all.close()

    def take(self) -> Connection:
        """A connection with nothing open on it."""
        return self._free.pop() if self._free else self._all.enter_context(connect(self._database_url))

    def give_back(self, connection: Connection) -> None:
        """Return a connection whose transaction has ended."""
        self._free.append(connection)


def read_progress(connection: Connection) -> Progress | None:
    """How far the company in this database has come; None when there is none."""
    found = connection.execute("select to_regclass('public.simulation')").fetchone()
    if not found or found[0] is None:
        return None
    row = connection.execute("select seed, scale, start_date, days_done, progress from simulation").fetchone()
    if row is None:
        return None
    seed, scale, start, days_done, last_commit = row
    return Progress(Params(seed, scale, start), days_done, last_commit)


def need_progress(connection: Connection) -> Progress:
    """How far the company has come, or an error that says how to make one."""
    progress = read_progress(connection)
    if progress is None:
        raise ShopError("there is no shop in this database yet. Make one with: sluice shop init")
    return progress


def drop(connection: Connection) -> None:
    """Remove the company's tables and functions, and nothing else."""
    tables = sql.SQL(", ").join(map(sql.Identifier, TABLES))
    with connection.transaction():
        connection.execute(sql.SQL("drop table if exists {} cascade").format(tables))
        connection.execute("drop function if exists write_history, renew_changed_xid")


def create(connection: Connection, company: Company) -> None:
    """Create the schema and the rows with which the company opens, in one transaction."""
    params = company.params
    with connection.transaction():
        connection.execute(files("sluice.shop").joinpath("schema.sql").read_text(encoding="utf-8"))
        connection.execute(
            "insert into simulation (seed, scale, start_date) values (%s, %s, %s)",
            (params.seed, params.scale, params.start),
        )
        connection.execute("insert into clock (now) values (%s)", (params.time(0),))
        for table, rows in _opening(company):
            _copy(connection, table, rows)
    connection.execute(sql.SQL("analyze {}").format(sql.SQL(", ").join(map(sql.Identifier, TABLES))))


def _opening(company: Company) -> Iterator[tuple[str, Iterator[dict[str, object]]]]:
    """The rows that exist before the first day, table by table."""
    products = (product_of(company, number) for number in range(1, company.products.before(0) + 1))
    yield "categories", (category_row(company, category) for category in CATEGORIES)
    yield "products", (product_row(company, product) for product in products)
    yield "customers", (customer_row(company, life) for life in _opening_lives(company))
    yield "addresses", (row for life in _opening_lives(company) for row in address_rows(company, life))


def _opening_lives(company: Company) -> Iterator[Life]:
    return (life_of(company, number, -1) for number in range(1, company.customers.before(0) + 1))


def _copy(connection: Connection, table: str, rows: Iterable[dict[str, object]]) -> None:
    """Stream rows into a table."""
    iterator = iter(rows)
    first = next(iterator)
    columns = sql.SQL(", ").join(map(sql.Identifier, first))
    statement = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(table), columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write_row(tuple(first.values()))
        for row in iterator:
            copy.write_row(tuple(row.values()))


def end_day(connection: Connection, params: Params, days_done: int) -> None:
    """Move the company's clock to the end of its last day, and make all of it durable."""
    now = params.time(days_done * DAY)
    with connection.transaction():
        connection.execute("set local synchronous_commit = on")
        connection.execute("update clock set now = %s", (now,))
        connection.execute("update simulation set days_done = %s, progress = ''", (days_done,))


def clock_date(connection: Connection) -> date:
    """The date that the company's clock shows."""
    row = connection.execute("select (now at time zone 'UTC')::date from clock").fetchone()
    if row is None:
        raise ShopError("the shop's clock is missing. Make the shop again with: sluice shop init --reset")
    return row[0]
