"""Hashes of lines, as arrays: read from the table that remembers them, and landed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from sluice.readers.lines import Hashes

_PAGES = 2000  # of the table of lines, read at a time


def read(connection: psycopg.Connection, lines: sql.Identifier) -> Hashes:
    """All hashes of a table of lines, sorted."""
    known = np.concatenate([np.zeros(0, np.uint64), *_blocks(connection, lines)])
    known.sort()
    return known


def are_intact(known: Hashes, count: int, checksum: int) -> bool:
    """Whether sorted hashes are as many as they should be, with this xor, and each of them once."""
    if len(known) != count or int(np.bitwise_xor.reduce(known).astype(np.int64)) != checksum:
        return False
    return not bool((known[1:] == known[:-1]).any())


def _blocks(connection: psycopg.Connection, lines: sql.Identifier) -> Iterator[Hashes]:
    """Some pages at a time: a row of its own for each hash would cost more than all the rest."""
    size = connection.execute(
        "select pg_relation_size(%s::regclass) / current_setting('block_size')::int", [lines.as_string(connection)]
    ).fetchone()
    with connection.cursor(binary=True) as cursor:
        for page in range(0, int(size[0]) if size else 0, _PAGES):
            block = cursor.execute(
                sql.SQL(
                    "select string_agg(int8send(line_hash), ''::bytea) from {} where ctid >= {}::tid and ctid < {}::tid"
                ).format(lines, f"({page},0)", f"({page + _PAGES},0)")
            ).fetchone()
            if block and block[0]:
                yield np.frombuffer(block[0], ">u8").astype(np.uint64)


def land(connection: psycopg.Connection, name: sql.Identifier, columns: tuple[str, ...], *values: list[Hashes]) -> None:
    """Whole numbers into a new table `name`, by binary COPY: a block of rows is one array of bytes."""
    definitions = sql.SQL(", ").join(sql.SQL("{} bigint").format(sql.Identifier(column)) for column in columns)
    connection.execute(sql.SQL("drop table if exists {}").format(name))
    connection.execute(sql.SQL("create unlogged table {} ({})").format(name, definitions))
    row = np.dtype([("fields", ">i2"), *((f"{p}{c}", k) for c in columns for p, k in (("_", ">i4"), ("", ">u8")))])
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("copy {} from stdin (format binary)").format(name)) as copy,
    ):
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for block in zip(*values, strict=True):
            rows = np.empty(len(block[0]), row)
            rows["fields"] = len(columns)
            for column, numbers in zip(columns, block, strict=True):
                rows[f"_{column}"], rows[column] = 8, numbers
            copy.write(rows.tobytes())
        copy.write(b"\xff\xff")
    connection.execute(sql.SQL("analyze {}").format(name))
