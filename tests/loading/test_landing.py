"""The two ways into landing, and that a row means the same whichever it took."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from sluice.declarations import Source, Table
from sluice.loading import pipeline, rows
from sluice.readers.base import Read, Readiness, Sink, Unit
from tests.loading.conftest import World

MEASURES = """
measures:
  description: what was measured
  from: {postgres: {connection: db, table: public.measures}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns:
    id: {type: bigint, required: true}
    amount: {type: "numeric(8,2)", minimum: 0}
    at: {type: timestamptz}
    name: {type: text, pattern: "^[a-z]+$"}
"""


class BinaryReader:
    """Pipes a table of the test's source database into two binary streams; the second does not know where it begins."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ready(self, source: Source, table: Table) -> Readiness:
        return Readiness(True, "")

    def units(self, source: Source, table: Table, interval: object, watermark: object) -> list[Unit]:
        return [Unit("now", datetime.now(UTC))]

    def read(self, source: Source, table: Table, unit: Unit, sink: Sink) -> Read:
        fields = list(table.columns)
        sink.create(fields)
        columns = ", ".join(f"{name}::{sink.types[name]}" for name in fields)
        for where in ("id <= 3", "id > 3"):
            with sink.binary(fields) as write:
                for block in self._copy(f"select {columns} from measures where {where} order by id"):
                    write(block)
        return Read(fields, content_hash="x", bytes_read=1)

    def _copy(self, query: str) -> Iterator[bytes]:
        statement = f"copy ({query}) to stdout (format binary)"
        with psycopg.connect(self.url) as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
            yield from map(bytes, copy)


@pytest.fixture
def measures(world: World, monkeypatch: pytest.MonkeyPatch) -> psycopg.Connection:
    world.declare(MEASURES)
    monkeypatch.setattr(pipeline, "reader_of", lambda table: BinaryReader(world.source_url))
    with psycopg.connect(world.source_url, autocommit=True) as connection:
        connection.execute("create table measures (id bigint, amount numeric, at timestamptz, name text)")
        yield connection


def test_L5_L7_values_by_binary_copy_are_judged_by_the_same_rules(world: World, measures: psycopg.Connection) -> None:
    measures.execute(
        "insert into measures values (1, 1.50, '2026-01-01', 'a'), (2, 1.005, null, 'b'), (3, 'NaN', null, 'c'),"
        " (4, 99999999, null, 'd'), (5, -1, null, 'e'), (6, 999999.99, 'infinity', 'f'), (7, 2, null, 'G'),"
        " (null, 2, null, 'h'), (8, 3, '2026-01-01 00:00:00.000001', 'i'), (8, 3.00, '2026-01-01 00:00:00.000001', 'i')"
    )
    measures.execute("update measures set id = 9 where id is null")
    (published,) = world.load("measures")
    assert (published.rows_read, published.rows_applied, published.rows_duplicate) == (10, 3, 1)
    assert world.query("select row_number, key, code, raw::jsonb from ops.quarantine order by 1") == [
        (number, f"[{key}]", code, raw)
        for number, key, code, raw in [
            (2, 2, "PRECISION", {"id": "2", "amount": "1.005", "at": None, "name": "b"}),
            (3, 3, "NOT_FINITE", {"id": "3", "amount": "NaN", "at": None, "name": "c"}),
            (4, 4, "TYPE", {"id": "4", "amount": "99999999", "at": None, "name": "d"}),
            (5, 5, "RANGE", {"id": "5", "amount": "-1", "at": None, "name": "e"}),
            (6, 6, "TYPE", {"id": "6", "amount": "999999.99", "at": "infinity", "name": "f"}),
            (7, 7, "PATTERN", {"id": "7", "amount": "2", "at": None, "name": "G"}),
        ]
    ]
    assert world.query("select id, amount::text, _row_number from staging.shop__measures order by id") == [
        (1, "1.50", 1),
        (8, "3.00", 8),
        (9, "2.00", 10),
    ], "streams follow each other"
    assert world.books_balance()


def test_a_pattern_is_kept_or_broken_alike_by_values_that_were_known_and_others(
    world: World, measures: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large batch the values of its first rows are matched once: a bad one among them, or one that comes later, is
    judged for itself."""
    monkeypatch.setattr(rows, "_MANY", 1)
    monkeypatch.setattr(rows, "_SOME", 4)
    ask, rules = rows._knowing_some, []
    monkeypatch.setattr(rows, "_knowing_some", lambda *given: rules.append(ask(*given)) or rules[-1])
    names = ["a", "B", "a", None, "a", "c", "C", "B"]
    values = ", ".join("(%s, 1, null, %s)" for _ in names)
    measures.execute(f"insert into measures values {values}", [x for pair in enumerate(names, 1) for x in pair])
    world.load("measures")
    assert [rule.broken.as_string() for rule in rules] == [
        """(("name")::text <> all('{a}'::text[]) and ("name")::text !~ '^[a-z]+$')"""
    ]
    assert world.query("select row_number, code from ops.quarantine order by 1") == [
        (2, "PATTERN"),
        (7, "PATTERN"),
        (8, "PATTERN"),
    ]
    assert world.query("select _row_number from staging.shop__measures order by 1") == [(1,), (3,), (4,), (5,), (6,)]
