"""A mostly unchanged full extract: its lines are compared with those of the extract before, and only new ones are sent.

For each row that a full extract of a file put into the state of its log, `ops.lines_<n>` keeps the hash of its line and
its key. It is written in the transaction that publishes, and changes by the differences only. `ops.extract_lines` says
of which state that is: `seq` is the number under which it was published. Once anything else of the table is published
or superseded (an extract that came late, a replay, a corrected unit), that state is not the log's any more, and the
next extract is read in the ordinary way and remembered anew. So is one that has fewer hashes than it should (`rows`,
`checksum`), one whose declaration or header changed, and one in which a line that changed shares its key with one that
did not. What is lost or damaged costs time, never rows.

The keys that a compared extract may change are `landing.b<id>_touched`: those of lines that came and of lines that
went. Audit and publish look at their state only, by the same statements as for a whole extract (`log.state_before`).
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Table
from sluice.declarations.files import Csv
from sluice.loading import batch as batches
from sluice.loading import contract, log
from sluice.loading.batch import Batch
from sluice.loading.landing import landing_table
from sluice.loading.mapping import map_fields
from sluice.loading.rows import READS_KEY
from sluice.readers import Read, Unit
from sluice.readers.lines import Comparison

if TYPE_CHECKING:
    from sluice.readers.lines import Hashes

SMALLEST = 4 << 20  # bytes; below, comparing saves nothing
_UNCHANGED_SINCE = """
    not exists (
        select from ops.batch
        where (source, table_name) = (%(source)s, %(table)s)
            and greatest(published_seq, superseded_seq) > %(seq)s
    )
"""


def comparison(connection: psycopg.Connection, table: Table, unit: Unit, batch_id: int) -> Comparison | None:
    """What the reader of a unit needs to compare it; None for a table whose lines are of no use."""
    if not _suits(table):
        return None
    found = Comparison(SMALLEST)
    if remembered := _remembered(connection, table, unit, batch_id):
        found.known, found.known_shape, found.known_seq = remembered
    return found


def _suits(table: Table) -> bool:
    """Whether a line alone says what its row is, and that it is there."""
    files = table.origin.files
    return (
        table.mode is Mode.FULL
        and files is not None
        and isinstance(files.format, Csv)
        and table.deleted_by is None
        # rules that count all rows, or look at other tables, have something to say of unchanged ones too
        and not any(c.from_path or c.references or c.severity for c in table.columns.values())
    )


# -- before reading -------------------------------------------------------------------------------


def _remembered(
    connection: psycopg.Connection, table: Table, unit: Unit, batch_id: int
) -> tuple[Hashes, str, int] | None:
    """The lines of the state that this extract follows, if that is the last there is and nothing else is under way."""
    parameters = {"source": table.source, "table": table.name, "instant": unit.instant, "batch": batch_id}
    row = connection.execute(
        f"""
        select seq, shape, rows, checksum from ops.extract_lines
        where (source, table_name) = (%(source)s, %(table)s)
            and {_UNCHANGED_SINCE.replace("%(seq)s", "extract_lines.seq")}
            and not exists (
                select from ops.batch
                where (source, table_name) = (%(source)s, %(table)s) and batch_id <> %(batch)s
                    and (
                        (state = 'published' and effective_at >= %(instant)s)
                        or state in ('landing', 'landed', 'audited')
                    )
            )
        """.encode(),
        parameters,
    ).fetchone()
    if row is None:
        return None
    seq, shape, count, checksum = row
    known = _hashes().read(connection, _lines(connection, table))
    return (known, shape, seq) if _hashes().are_intact(known, count, checksum) else None


def _hashes() -> ModuleType:
    """Imported when lines are compared: most loads compare none, and numpy is 15 MB."""
    return importlib.import_module("sluice.loading.hashes")


def _lines(connection: psycopg.Connection, table: Table) -> sql.Identifier:
    row = connection.execute(
        "select lines_id from ops.extract_lines where (source, table_name) = (%s, %s)", [table.source, table.name]
    ).fetchone()
    assert row is not None
    return sql.Identifier("ops", f"lines_{row[0]}")


# -- after reading --------------------------------------------------------------------------------


def settle(
    connection: psycopg.Connection, table: Table, unit: Unit, batch_id: int, read: Read, found: Comparison
) -> dict[str, Any] | None:
    """Land what the comparison found out, beside the rows, and say it for the ledger.

    None if the unit must be read in the ordinary way.
    """
    if not found.shape:
        return {}
    _hashes().land(
        connection, landing_table(batch_id, "lines"), ("position", "line_hash"), found.positions, found.hashes
    )
    if not found.compared:
        return {"shape": found.shape}
    touched = _touch(connection, table, unit, batch_id, read, found)
    if touched is None:
        return None
    return {
        "shape": found.shape,
        "compared_with": found.known_seq,
        "matched": found.matched,
        "unchanged": found.seen,
        "repeated": found.matched - found.seen,
        "touched": touched,
    }


def _touch(
    connection: psycopg.Connection, table: Table, unit: Unit, batch_id: int, read: Read, found: Comparison
) -> int | None:
    """`landing.b<id>_touched`, and how many keys it holds; None where an unchanged line is in doubt."""
    mapping = map_fields(table, read.fields, {}, read.empty_is_null, rest=read.rest)
    values, landed, touched = mapping.text, landing_table(batch_id), landing_table(batch_id, "touched")
    rules = contract.rules_of(table, mapping, unit.instant, typed=False)
    unreadable = [rule.broken for rule in rules if rule.column in table.key and rule.code in READS_KEY]
    hidden = sql.SQL("select 1 from {} where case when {} then true else false end limit 1")
    if unreadable and connection.execute(hidden.format(landed, sql.SQL(" or ").join(unreadable))).fetchone():
        return None
    _hashes().land(connection, landing_table(batch_id, "unseen"), ("line_hash",), [found.unseen])
    lines, same = _lines(connection, table), log.same_key(table, "known", "new")
    keys = sql.SQL(", ").join(
        sql.SQL("{} as {}").format(contract.typed(table, values, key), sql.Identifier(key)) for key in table.key
    )
    connection.execute(sql.SQL("create unlogged table {} as select distinct {} from {}").format(touched, keys, landed))
    connection.execute(sql.SQL("analyze {}").format(touched))
    connection.execute("drop table if exists pg_temp.near")
    connection.execute(
        sql.SQL(
            """
            create temporary table near on commit drop as
            select
                {key}, known.line_hash, unseen.line_hash is not null or known.line_hash is null as is_gone,
                new.{first} is not null as is_new,
                known.line_hash is null or known.bound = {bound} as is_intact
            from {lines} as known
            left join {unseen} as unseen on unseen.line_hash = known.line_hash
            left join {touched} as new on {same}
            where unseen.line_hash is not null or known.line_hash is null or new.{first} is not null
            """
        ).format(
            key=log.names(table.key, "known"),
            bound=_bound(table, "known"),
            lines=lines,
            unseen=landing_table(batch_id, "unseen"),
            touched=touched,
            same=same,
            first=sql.Identifier(table.key[0]),
        )
    )
    gone, doubtful, damaged = connection.execute(
        """
        select count(line_hash) filter (where is_gone), count(*) filter (where is_new and not is_gone),
            count(*) filter (where not is_intact)
        from pg_temp.near
        """
    ).fetchone()  # type: ignore[misc]
    if damaged or gone != len(found.unseen):
        _forget(connection, table)
        return None
    if doubtful:
        return None
    connection.execute(
        sql.SQL("insert into {} select {} from pg_temp.near where not is_new").format(touched, log.names(table.key))
    )
    count = connection.execute(sql.SQL("select count(*) from {}").format(touched)).fetchone()
    connection.execute(sql.SQL("analyze {}").format(touched))
    return int(count[0]) if count else 0


def _bound(table: Table, prefix: str) -> sql.Composable:
    """Ties a key to its hash, so that a row in which one of them is not its own is noticed when it is used."""
    return sql.SQL("hash_record_extended(row({}), {})").format(
        log.names(table.key, prefix), sql.Identifier(prefix, "line_hash")
    )


def _forget(connection: psycopg.Connection, table: Table) -> None:
    """The next extract is read in the ordinary way."""
    connection.execute(
        "update ops.extract_lines set seq = -1 where (source, table_name) = (%s, %s)", [table.source, table.name]
    )


# -- at publish -----------------------------------------------------------------------------------


def must_be_current(connection: psycopg.Connection, batch: Batch) -> None:
    """Make sure that the state that a batch was compared with still is that of the log, or give the batch up."""
    parameters = {"source": batch.source, "table": batch.table_name, "seq": batch.details["compared_with"]}
    row = connection.execute(
        f"""
        select true from ops.extract_lines
        where (source, table_name, seq) = (%(source)s, %(table)s, %(seq)s) and {_UNCHANGED_SINCE}
        """.encode(),
        parameters,
    ).fetchone()
    if row is None:
        batches.give_up(connection, batch, "the log has changed since this extract was compared with it")


def remember(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """Once a batch is published: keep the hashes of the lines that its state came from, if that is the last state."""
    if "shape" not in batch.details or batch.deletes_withheld or not _is_last(connection, batch):
        return
    compared = "compared_with" in batch.details
    if not compared:
        _make_anew(connection, table)
    lines = _lines(connection, table)
    gone = _changed(
        connection,
        sql.SQL("delete from {} as known using {} as touched where {} returning known.line_hash").format(
            lines, landing_table(batch.batch_id, "touched"), log.same_key(table, "known", "touched")
        )
        if compared
        else None,
    )
    came = _changed(
        connection,
        sql.SQL(
            """
            insert into {lines} ({key}, line_hash, bound)
            select {key}, line_hash, {bound}
            from (
                select {key}, landed.line_hash
                from {rows} as row
                inner join {landed} as landed on landed.position = row._row_number
            ) as new
            returning line_hash
            """
        ).format(
            lines=lines,
            key=log.names(table.key),
            bound=_bound(table, "new"),
            rows=landing_table(batch.batch_id, "rows"),
            landed=landing_table(batch.batch_id, "lines"),
        ),
    )
    _remember_rejected(connection, table, batch, lines)
    seq = connection.execute("select published_seq from ops.batch where batch_id = %s", [batch.batch_id]).fetchone()
    landed = batch.rows_read - batch.rows_quarantined - batch.rows_duplicate - batch.details.get("unchanged", 0)
    whole = came[0] == landed
    connection.execute(
        """
        update ops.extract_lines
        set seq = %s, shape = %s, rows = rows + %s, checksum = checksum # %s::bigint # %s::bigint
        where (source, table_name) = (%s, %s)
        """,
        [
            seq[0] if seq and whole else -1,
            batch.details["shape"],
            came[0] - gone[0],
            came[1],
            gone[1],
            table.source,
            table.name,
        ],
    )


def _is_last(connection: psycopg.Connection, batch: Batch) -> bool:
    row = connection.execute(
        """
        select from ops.batch
        where (source, table_name, state) = (%s, %s, 'published') and effective_at >= %s and batch_id <> %s
        """,
        [batch.source, batch.table_name, batch.effective_at, batch.batch_id],
    ).fetchone()
    return row is None


def _make_anew(connection: psycopg.Connection, table: Table) -> None:
    """An empty table of lines, with the key as it is declared now."""
    connection.execute(
        """
        insert into ops.extract_lines (source, table_name) values (%s, %s)
        on conflict (source, table_name) do update set rows = 0, checksum = 0
        """,
        [table.source, table.name],
    )
    lines = _lines(connection, table)
    keys = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(key), sql.SQL(table.columns[key].type)) for key in table.key
    )
    connection.execute(sql.SQL("drop table if exists {}").format(lines))
    connection.execute(sql.SQL("create table {} ({}, line_hash bigint, bound bigint)").format(lines, keys))


def _changed(connection: psycopg.Connection, statement: sql.Composable | None) -> tuple[int, int]:
    """Run a statement that returns hashes: how many, and their checksum."""
    if statement is None:
        return 0, 0
    row = connection.execute(
        sql.SQL("with changed as ({}) select count(line_hash), coalesce(bit_xor(line_hash), 0) from changed").format(
            statement
        )
    ).fetchone()
    assert row is not None
    return row


def _remember_rejected(connection: psycopg.Connection, table: Table, batch: Batch, lines: sql.Identifier) -> None:
    """A key whose row was rejected lives on in the log, without a line: the next extract must show it."""
    parts = sql.SQL(", ").join(
        sql.SQL("(key::jsonb ->> {})::{} as {}").format(
            sql.Literal(index), sql.SQL(table.columns[key].type), sql.Identifier(key)
        )
        for index, key in enumerate(table.key)
    )
    connection.execute(
        sql.SQL(
            """
            insert into {lines} ({key})
            select {key}
            from ({state}) as state
            where _op <> 'delete' and not exists (select from {rows} as landed where {landed})
            """
        ).format(
            lines=lines,
            key=log.names(table.key),
            state=log.state_before(
                table,
                inclusive=True,
                touched=sql.SQL(
                    "(select distinct {} from ops.quarantine where batch_id = {} and key is not null)"
                ).format(parts, sql.Literal(batch.batch_id)),
            ),
            rows=landing_table(batch.batch_id, "rows"),
            landed=log.same_key(table, "landed", "state"),
        ),
        {"instant": batch.effective_at},
    )
