"""Carrying one simulated day into Postgres: real transactions, some open while later ones commit."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice

from psycopg import Connection, Cursor, sql

from sluice.shop.changes import Change, Op, Transaction
from sluice.shop.database import Spares
from sluice.shop.day import Entry, Phase
from sluice.shop.params import Params

PRIMARY_KEYS = {
    "categories": "category_id",
    "products": "product_id",
    "customers": "customer_id",
    "addresses": "address_id",
    "orders": "order_id",
    "order_lines": "order_line_id",
    "payments": "payment_id",
}
AUDITED = frozenset(("customers", "addresses", "products"))
OPEN_AT_ONCE = 3
"""Transactions that stay open at the same time; a further late one is applied as a whole when it commits."""
PIPELINE = 100
"""Transactions sent to the server before their answers are awaited."""
HISTORY_IDS_A_DAY = 10**9
HISTORY_IDS_A_TRANSACTION = 10


@lru_cache(maxsize=256)
def _statement(op: Op, table: str, columns: tuple[str, ...]) -> bytes:
    """The statement of a change of these columns."""
    key = sql.Identifier(PRIMARY_KEYS[table])
    if op is Op.INSERT:
        return (
            sql.SQL("insert into {} ({}) values ({})")
            .format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(sql.Placeholder() * len(columns)),
            )
            .as_bytes()
        )
    if op is Op.UPDATE:
        pairs = [sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder()) for column in columns]
        return (
            sql.SQL("update {} set {} where {} = {}")
            .format(sql.Identifier(table), sql.SQL(", ").join(pairs), key, sql.Placeholder())
            .as_bytes()
        )
    return sql.SQL("delete from {} where {} = {}").format(sql.Identifier(table), key, sql.Placeholder()).as_bytes()


def _parameters(change: Change) -> list[object]:
    values = list(change.values.values())
    return values if change.op is Op.INSERT else [*values, change.key]


class Applier:
    """Applies the entries of one day, in order, to one database.

    `done` is the commit key after which to go on: what a killed run had committed is passed over, and every
    history id still comes out the same.
    """

    def __init__(
        self,
        connection: Connection,
        spares: Spares,
        params: Params,
        day: int,
        done: str = "",
    ) -> None:
        self._cursor = connection.cursor()
        self._connection = connection
        self._spares = spares
        self._params = params
        self._first_history_id = (day + 1) * HISTORY_IDS_A_DAY
        self._done = done
        self._open: dict[str, Connection | None] = {}

    def run(self, entries: Iterable[Entry]) -> int:
        """Apply everything; returns how many transactions were committed now."""
        numbered = enumerate(entries)
        committed = 0
        while batch := list(islice(numbered, PIPELINE)):
            committed += sum(self._batch(batch))
        return committed

    def _batch(self, batch: list[tuple[int, Entry]]) -> Iterator[int]:
        """One pipeline's worth. Its answers are awaited before another connection acts: order is kept."""
        with self._connection.pipeline() as pipeline:
            for position, entry in batch:
                name = entry.transaction.name
                if entry.phase is Phase.OPEN:
                    if len(self._open) < OPEN_AT_ONCE:
                        pipeline.sync()
                        self._begin_held(position, entry)
                elif name in self._open:
                    pipeline.sync()
                    yield self._commit_held(entry)
                elif entry.commit_key > self._done:
                    with _transaction(self._cursor):
                        self._write(self._cursor, position, entry.transaction)
                        _note_progress(self._cursor, entry.commit_key)
                    yield 1

    def _begin_held(self, position: int, entry: Entry) -> None:
        """Begin a transaction on its own connection and leave it open; or remember that it is long done."""
        if entry.commit_key <= self._done:
            self._open[entry.transaction.name] = None
            return
        connection = self._spares.take()
        self._open[entry.transaction.name] = connection
        cursor = connection.cursor()
        cursor.execute("begin")
        self._write(cursor, position, entry.transaction)

    def _commit_held(self, entry: Entry) -> int:
        connection = self._open.pop(entry.transaction.name)
        if connection is None:
            return 0
        _note_progress(connection.cursor(), entry.commit_key)
        connection.execute("commit")
        self._spares.give_back(connection)
        return 1

    def _write(self, cursor: Cursor, position: int, transaction: Transaction) -> None:
        """Send a transaction's changes."""
        history_id = self._first_history_id + position * HISTORY_IDS_A_TRANSACTION
        now = self._params.time(transaction.at).isoformat()
        for offset, change in enumerate(transaction.changes):
            if change.table in AUDITED:
                cursor.execute(
                    "select set_config('shop.now', %s, true), set_config('shop.history_id', %s, true)",
                    (now, str(history_id + offset)),
                )
            statement = _statement(change.op, change.table, tuple(change.values))
            cursor.execute(statement, _parameters(change))


@contextmanager
def _transaction(cursor: Cursor) -> Iterator[None]:
    """Begin and commit as statements, which can be pipelined; an error closes the connection."""
    cursor.execute("begin")
    yield
    cursor.execute("commit")


def _note_progress(cursor: Cursor, commit_key: str) -> None:
    cursor.execute("update simulation set progress = %s", (commit_key,))
