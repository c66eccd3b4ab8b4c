"""Rows of a Postgres source in the form in which they travel: binary COPY out of one server and into the other.

No value becomes a Python object. A column goes this way if what arrives is, for every value that the source can hold,
what its text would have become: else the whole table goes as text, where a bad value costs its row and not the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import psycopg
from psycopg import sql

from sluice import settings
from sluice.errors import SourceUnavailable
from sluice.readers.base import SESSION, Digest, Sink

_BOOL, _NAME, _INT8, _INT2, _INT4, _TEXT = 16, 19, 20, 21, 23, 25
_FLOAT4, _FLOAT8, _BPCHAR, _VARCHAR, _NUMERIC, _UUID, _JSONB = 700, 701, 1042, 1043, 1700, 2950, 3802
_DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1083, 1114, 1184

_AS_IT_IS = {
    "text": (_TEXT, _VARCHAR, _BPCHAR, _NAME),
    "smallint": (_INT2,),
    "integer": (_INT4,),
    "bigint": (_INT8,),
    "numeric": (_NUMERIC,),
    "real": (_FLOAT4,),
    "double precision": (_FLOAT8,),
    "boolean": (_BOOL,),
    "date": (_DATE,),
    "time": (_TIME,),
    "timestamp": (_TIMESTAMP,),
    "timestamptz": (_TIMESTAMPTZ,),
    "uuid": (_UUID,),
    "jsonb": (_JSONB,),
}
# casts that lose nothing and can't fail, whatever the value; real → double precision makes another number of 0.1
_CAST = {
    "integer": (_INT2,),
    "bigint": (_INT2, _INT4),
    "numeric": (_INT2, _INT4, _INT8),
    "real": (_INT2,),
    "double precision": (_INT2, _INT4),
    "timestamp": (_TIMESTAMPTZ,),  # the session's zone is UTC
    "timestamptz": (_TIMESTAMP,),
    "text": (_INT2, _INT4, _INT8, _NUMERIC, _UUID, _JSONB, _DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ),
}
# what libpq and asyncpg both read from a URL; asyncpg takes any other for a setting of the server
_OPTIONS = ("host", "port", "passfile", "service", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl")
_OPTIONS += (
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "target_session_attrs",
    "krbsrvname",
    "gsslib",
)


def values(
    connection: psycopg.Connection, relation: sql.Composable, fields: Mapping[str, str], types: Mapping[str, str]
) -> list[sql.Composable] | None:
    """What to select from `relation` for each column in `types`; None if a column must come as text.

    `fields` names the source's field of each column.
    """
    wanted = sql.SQL(", ").join(sql.Identifier(fields[column]) for column in types)
    described = connection.execute(sql.SQL("select {} from {} limit 0").format(wanted, relation)).description or []
    made = [
        _value(sql.Identifier(fields[column]), source.type_code, types[column])
        for column, source in zip(types, described, strict=True)
    ]
    return [value for value in made if value is not None] if None not in made else None


def _value(field: sql.Identifier, source: int, wanted: str) -> sql.Composable | None:
    if source in _AS_IT_IS.get(wanted, ()):
        return field
    if source in _CAST.get(wanted, ()):
        return sql.SQL("{}::{}").format(field, sql.SQL(wanted))  # a type from a closed list
    if (
        wanted == "text"
    ):  # by the type's own output, as COPY would write it: a cast of inet or boolean says it otherwise
        return sql.SQL("case when {0} is not null then format('%s', {0}) end").format(field)
    return None


def pipe(
    connection: psycopg.Connection, conn_id: str, queries: Sequence[sql.Composable], columns: Sequence[str], sink: Sink
) -> list[Digest]:
    """Copy the rows of all queries at once, each by a session of its own in the snapshot of `connection`.

    They are numbered in the order of the queries. Returns a digest of what each query gave.
    """
    snapshot = connection.execute("select pg_export_snapshot()").fetchone()[0]  # type: ignore[index]
    texts = [query.as_string(connection) for query in queries]
    digests = [Digest() for _ in queries]
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(len(queries)))
        start = 1 if len(texts) == 1 else None
        writes = [stack.enter_context(sink.binary(columns, start=start)) for _ in texts]
        try:
            asyncio.run(_all(conn_id, snapshot, texts, writes, digests, threads))
        except Exception as error:  # a group, when one stream broke or both
            broke = _of_the_source(error)
            if broke is None:
                raise
            kind = type(broke).__name__
            raise SourceUnavailable(
                f"connection {conn_id}: reading broke off ({kind}); nothing was published", kind=kind
            ) from None
    return digests


def _of_the_source(error: BaseException) -> BaseException | None:
    """The first error that the source made, in a group of any depth; None if there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_of_the_source, error.exceptions)), None)
    return error if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError) else None


async def _all(
    conn_id: str,
    snapshot: str,
    queries: list[str],
    writes: list[Callable[[bytes], None]],
    digests: list[Digest],
    threads: ThreadPoolExecutor,
) -> None:
    async with asyncio.TaskGroup() as group:
        for query, write, digest in zip(queries, writes, digests, strict=True):
            group.create_task(_one(conn_id, snapshot, query, write, digest, threads))


async def _one(
    conn_id: str, snapshot: str, query: str, write: Callable[[bytes], None], digest: Digest, threads: ThreadPoolExecutor
) -> None:
    loop = asyncio.get_running_loop()

    def take_now(block: bytes) -> None:
        digest.add(block)
        write(block)

    async def take(block: bytes) -> None:
        await loop.run_in_executor(threads, take_now, block)

    source = await asyncpg.connect(_url(conn_id), timeout=10, statement_cache_size=0, server_settings=SESSION)
    try:
        await source.execute("begin isolation level repeatable read, read only")
        await source.execute(f"set transaction snapshot '{snapshot}'")
        await source.copy_from_query(query, output=take, format="binary")
        await source.execute("commit")
    finally:
        source.terminate()


def _url(conn_id: str) -> str:
    parts = urlsplit(settings.connection(conn_id).postgres_url())
    options = [(name, value) for name, value in parse_qsl(parts.query) if name in _OPTIONS]
    return parts._replace(query=urlencode(options)).geturl()
