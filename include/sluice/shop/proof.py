"""What can be said about the company exactly: its digest, and the damage that its files hold on purpose."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

import orjson
from psycopg import Connection, sql

from sluice.shop import database
from sluice.shop.clickstream import deliveries
from sluice.shop.company import Company
from sluice.shop.files import WAREHOUSES, existing_files
from sluice.shop.inventory import Damage, counts
from sluice.shop.rates import rates

NOT_DIGESTED = ("changed_xid",)
"""Columns that the server numbers as it likes."""


@dataclass(frozen=True)
class InventoryDamage:
    """One stock list: its rows, and how many of them have a bad `on_hand`."""

    date: date
    warehouse: str
    rows: int
    not_a_number: int
    negative: int


@dataclass(frozen=True)
class ClickstreamDamage:
    """One day's hourly files together: lines, and how many are late, repeated or cut off.

    `repeated` counts second copies, also of events first received the day before; `late` counts lines in the
    file of a later hour than their own; `malformed` lines are no JSON, and are counted in the others too.
    """

    date: date
    lines: int
    late: int
    repeated: int
    malformed: int


def digest(database_url: str, files_dir: Path | str) -> str:
    """A SHA-256 over every table, file and exchange rate: companies are equal if and only if it is."""
    total = sha256()
    with database.connect(database_url) as connection:
        progress = database.need_progress(connection)
        for table in database.TABLES:
            total.update(f"table {table}\n".encode())
            for block in _dump(connection, table):
                total.update(block)
        last = database.clock_date(connection)
    root = Path(files_dir)
    for path in existing_files(root):
        total.update(f"file {path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 16):
                total.update(block)
    for offset in range((last - progress.params.start).days + 1):
        when = progress.params.start + timedelta(days=offset)
        total.update(f"rates {when}\n".encode() + orjson.dumps(rates(progress.params.seed, when)))
    return total.hexdigest()


def _dump(connection: Connection, table: str) -> Iterator[bytes | memoryview]:
    """A table as text, in the order of its first column."""
    listed = connection.execute(
        "select column_name from information_schema.columns"
        " where table_schema = 'public' and table_name = %s order by ordinal_position",
        (table,),
    )
    columns = [name for (name,) in listed if name not in NOT_DIGESTED]
    statement = sql.SQL("copy (select {} from {} order by 1) to stdout with (header)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        yield from copy


def inventory_damage(company: Company, days: int) -> Iterator[InventoryDamage]:
    """The damage in every stock list of the first `days` days."""
    for day in range(days):
        for warehouse in WAREHOUSES:
            found: dict[Damage | None, int] = dict.fromkeys([None, *Damage], 0)
            for count in counts(company, day, warehouse):
                found[count.damage] += 1
            yield InventoryDamage(
                company.params.date(day),
                warehouse,
                sum(found.values()),
                found[Damage.NOT_A_NUMBER],
                found[Damage.NEGATIVE],
            )


def clickstream_damage(company: Company, days: int) -> Iterator[ClickstreamDamage]:
    """The damage in the clickstream of the first `days` days, by the day of reception."""
    for day in range(days):
        lines = late = repeated = malformed = 0
        for line in deliveries(company, day):
            lines += 1
            late += line.is_late
            repeated += line.copy > 0
            malformed += line.is_broken
        yield ClickstreamDamage(company.params.date(day), lines, late, repeated, malformed)
