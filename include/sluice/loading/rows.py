"""The audit of rows: what was landed becomes typed rows in the shape of the change log, or waits in quarantine.

Rows that COPY took as values are judged where they are; rows of text are judged as text, and those that keep the
contract join the typed ones. The view `landing.b<id>_rows` is then what publish inserts.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Table
from sluice.loading import batch as batches
from sluice.loading import checks, contract, evolve, lateness, log
from sluice.loading.batch import Batch
from sluice.loading.landing import content, landing_table
from sluice.loading.mapping import Mapping, Values

READS_KEY = ("TYPE", "NULL_KEY", "NOT_FINITE", "PRECISION")  # a key that breaks one of these can't be read

_MANY = 50_000  # rows of which it is worth to know what values they have,
_SOME = 1000  # by the first of them,
_FEW = 16  # if they are no more than this


def judge(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> None:
    """Quarantine each row that breaks the contract for the first rule it breaks, and keep the books of it."""
    broken = _judge_typed(connection, table, batch, mapping) + _judge_text(connection, table, batch, mapping)
    _make_view(connection, table, batch, mapping)
    broken += _quarantine_orphans(connection, table, batch, mapping)
    duplicates, withheld, late = 0, False, lateness.set_aside(connection, table, batch, mapping)
    if table.mode is not Mode.APPEND:  # in events they are found when they are published
        with_repeats = not batch.details.get("keys_once") and _find_repeated_of_many(connection, table, batch)
        if with_repeats and table.mode is Mode.FULL:
            broken += _quarantine_conflicts(connection, table, batch, mapping)
        duplicates = drop_duplicates(connection, table, batch) if with_repeats else 0
    if table.mode is Mode.FULL:
        withheld = _keys_present(connection, table, batch)
    batches.move(
        connection,
        batch.batch_id,
        "landed",
        rows_quarantined=batch.rows_quarantined + broken,  # those that never became a row were counted at landing
        rows_duplicate=duplicates + batch.details.get("repeated", 0),
        rows_late=late,
        deletes_withheld=withheld,
    )


def leave_waiting(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """A row of a cursor table may come with every reading: one without a stamp, one stamped in the future, one in the
    overlap. Rejected once, by a batch that was published, it says nothing new unless its key got another version since:
    it is `unchanged`, whatever a person decided of it, and neither stored nor counted as a reject again."""
    waiting = connection.execute(
        sql.SQL(
            """
            delete from ops.quarantine as this
            where this.batch_id = {batch} and this.code <> 'LATE' and exists (
                select from ops.quarantine as earlier inner join ops.batch using (batch_id)
                where (earlier.source, earlier.table_name) = (this.source, this.table_name)
                    and earlier.content = this.content and earlier.raw = this.raw and earlier.code = this.code
                    and earlier.batch_id <> this.batch_id and earlier.state <> 'superseded'
                    and batch.state = 'published' and not exists (
                        select from {log} as log where ({key}) = ({this_key}) and log._batch_id > earlier.batch_id
                    )
            )
            """
        ).format(
            batch=sql.Literal(batch.batch_id),
            log=log.relation(table),
            key=log.names(table.key, "log"),
            this_key=_key_of_json(table, "this"),
        )
    ).rowcount
    if waiting:
        connection.execute(
            "update ops.batch set rows_quarantined = rows_quarantined - %s where batch_id = %s",
            [waiting, batch.batch_id],
        )
        batches.add_details(connection, batch.batch_id, waiting=waiting)


# -- each row by itself ---------------------------------------------------------------------------


def _judge_typed(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> int:
    """Judge the values that COPY took. Returns how many rows left for quarantine."""
    if not batch.details["typed_rows"]:
        return 0
    rules = contract.rules_of(table, mapping, batch.effective_at, typed=True)
    if batch.details["typed_rows"] >= _MANY:
        rules = [_knowing_some(connection, batch, rule) if rule.value is not None else rule for rule in rules]
    count = _quarantine(connection, table, batch, "typed", mapping.typed, rules)
    if count:
        delete(connection, batch, sql.SQL("select _part, _place from pg_temp.broken"))
    return count


def _knowing_some(connection: psycopg.Connection, batch: Batch, rule: contract.Rule) -> contract.Rule:
    """The rule, with the values of the first rows that keep it if they are few: to compare a code with the codes that
    there are costs a third of matching it against a pattern."""
    kept = connection.execute(
        sql.SQL(
            "select array_agg(distinct {value}) from (select * from {landed} limit {some}) as landed where not {broken}"
        ).format(value=rule.value, landed=landing_table(batch.batch_id, "typed"), some=_SOME, broken=rule.broken)
    ).fetchone()[0]  # type: ignore[index]
    return rule.knowing(kept) if kept and len(kept) <= _FEW else rule


def _judge_text(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> int:
    """Judge the rows of text; those that keep the contract become values. Returns how many did not."""
    if not batch.details["text_rows"]:
        return 0
    values, rules = mapping.text, contract.rules_of(table, mapping, batch.effective_at, typed=False)
    # to judge a text and write it down takes some ten microseconds: a small table, too, is worth a second process
    connection.execute("set local min_parallel_table_scan_size = 0")
    count = _quarantine(connection, table, batch, "", values, rules)
    connection.execute("set local min_parallel_table_scan_size to default")
    takes = {n: sql.SQL("({})::{}").format(mapping.becomes[n], sql.SQL(k)) for n, k in mapping.landed.items()}
    unbroken = sql.SQL("where not exists (select from pg_temp.broken where _place = landed.ctid)" if count else "")
    connection.execute(
        sql.SQL("insert into {} ({}_row_number) select {}_row_number from {} as landed {}").format(
            landing_table(batch.batch_id, "typed"),
            sql.SQL("").join(sql.SQL("{}, ").format(sql.Identifier(name)) for name in takes),
            sql.SQL("").join(sql.SQL("{}, ").format(value) for value in takes.values()),
            landing_table(batch.batch_id),
            unbroken,
        )
    )
    return count


def _quarantine(
    connection: psycopg.Connection, table: Table, batch: Batch, part: str, values: Values, rules: list[contract.Rule]
) -> int:
    """The rows of a landing table that break a rule, in one pass; `pg_temp.broken` says where they lie.

    Each with the rule that it broke first. Reasons name the column and never a value.
    """
    if not rules:
        return 0
    unreadable = [rule.broken for rule in rules if rule.column in table.key and rule.code in READS_KEY]
    connection.execute("drop table if exists pg_temp.broken")
    # the insert below could not use parallel workers, this can
    count = connection.execute(
        sql.SQL(
            """
            create temporary table broken on commit drop as
            select
                _part, _place, {position} as _number,
                case when {unreadable} then null else jsonb_build_array({key})::text end as _key,
                ({columns}::text[])[_rule] as _column, ({codes}::text[])[_rule] as _code,
                ({reasons}::text[])[_rule] as _reason, {raw} as _raw
            from (select *, tableoid as _part, ctid as _place, {rule} as _rule from {landed} where {suspect}) as judged
            where _rule is not null
            """
        ).format(
            position=_position(batch, "_part") if part else sql.SQL("_row_number"),
            unreadable=sql.SQL(" or ").join(unreadable) if unreadable else sql.SQL("false"),
            key=sql.SQL(", ").join(contract.typed(table, values, key) for key in table.key),
            columns=[rule.column for rule in rules],
            codes=[rule.code for rule in rules],
            reasons=[f"{rule.column} {rule.reason}" for rule in rules],
            raw=values.raw,
            rule=contract.first_broken(rules),
            landed=landing_table(batch.batch_id, part),
            suspect=contract.any_broken(rules) if part else sql.SQL("true"),
        )
    ).rowcount
    if count:
        connection.execute(
            sql.SQL(
                """
                insert into ops.quarantine
                    (batch_id, source, table_name, row_number, key, column_name, code, reason, raw, content)
                select {}, {}, {}, _number, _key, _column, _code, _reason, _raw, {} from pg_temp.broken
                """
            ).format(batch.batch_id, batch.source, batch.table_name, content(table, sql.Identifier("_raw"))),
        )
    return count


def delete(connection: psycopg.Connection, batch: Batch, places: sql.Composable) -> int:
    """Take rows out of typed landing, each by where it lies."""
    parts = connection.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = %s::regclass union all select %s",
        [name := landing_table(batch.batch_id, "typed").as_string(connection), name],
    ).fetchall()
    statement = (
        "delete from only {} where ctid = any(array(select _place from ({}) as gone where _part = {}::regclass))"
    )
    deletes = [sql.SQL(statement).format(sql.SQL(part), places, part) for (part,) in parts]  # quoted by the server
    return sum(connection.execute(delete).rowcount for delete in deletes)


# -- the view that publish reads ------------------------------------------------------------------


def _make_view(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> None:
    values, rescued, unknown = mapping.typed, mapping.typed.rescued, sql.SQL("")
    if table.evolved_columns:  # they come out of what is rescued, which is put together once per row
        rescued, unknown = sql.Identifier("_unknown"), sql.SQL(", {} as _unknown").format(rescued)
    casts = [sql.SQL("{} as {}").format(contract.typed(table, values, n), sql.Identifier(n)) for n in table.columns]
    casts += evolve.columns_of(table, rescued)
    connection.execute(
        sql.SQL(
            """
            create or replace view {rows} as
            select {columns}, _row_number, _op, {effective_at} as _effective_at, {sequence} as _sequence,
                {row_hash} as _row_hash, _rescued, _part, _place
            from (
                select {casts}, {position} as _row_number,
                    case when {deleted} then 'delete' else 'upsert' end as _op,
                    {rescued} as _rescued, _part, _place
                from (select *, tableoid as _part, ctid as _place{unknown} from {typed}) as landed
            ) as typed
            """
        ).format(
            rows=landing_table(batch.batch_id, "rows"),
            columns=log.names(table.log_columns),
            effective_at=contract.effective_at(table, batch.effective_at),
            sequence=sql.SQL("{}::bigint").format(sql.Identifier(table.sequence) if table.sequence else sql.SQL("0")),
            row_hash=contract.row_hash(table),
            casts=sql.SQL(", ").join(casts),
            position=_position(batch, "_part"),
            deleted=values.deleted,
            rescued=evolve.rest(table, rescued) if table.evolved_columns else rescued,
            typed=landing_table(batch.batch_id, "typed"),
            unknown=unknown,
        )
    )


def lacking(connection: psycopg.Connection, table: Table, batch: Batch) -> list[str]:
    """Columns that the contract, or the log, has got since the batch was audited."""
    there = connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0",
        [landing_table(batch.batch_id, "rows").as_string(connection)],
    ).fetchall()
    return [name for name in table.log_columns if (name,) not in there] if there else []


def complete(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """Give the view the columns that came after the audit, as NULL: the batch is published as it was judged, under the
    hashes of then, and what its contract did not know is in `_rescued`."""
    names = lacking(connection, table, batch)
    if not names:
        return
    view = landing_table(batch.batch_id, "rows")
    (audited,) = connection.execute("select pg_get_viewdef(%s::regclass)", [view.as_string(connection)]).fetchone()  # type: ignore[misc]
    nulls = (sql.SQL("null::{} as {}").format(sql.SQL(table.log_columns[n].type), sql.Identifier(n)) for n in names)
    connection.execute(
        sql.SQL("create or replace view {} as select audited.*, {} from ({}) as audited").format(
            view, sql.SQL(", ").join(nulls), sql.SQL(audited.rstrip().rstrip(";"))
        )
    )


def materialize(connection: psycopg.Connection, table: Table, batch: Batch) -> None:
    """Turn the view into a table of its own, from which rows can be taken."""
    view, copy = landing_table(batch.batch_id, "rows"), landing_table(batch.batch_id, "copy")
    columns = log.names((*table.log_columns, *log.SYSTEM[1:]))
    connection.execute(sql.SQL("create unlogged table {} as select {} from {}").format(copy, columns, view))
    connection.execute(sql.SQL("drop view {}").format(view))
    connection.execute(sql.SQL("alter table {} rename to {}").format(copy, sql.Identifier(f"b{batch.batch_id}_rows")))


def _position(batch: Batch, table: str) -> sql.Composable:
    """A row's position in its unit. Streams number the rows they accept, so those behind a gap are moved on.

    `table` names the column with the oid of the row's table: rows that came as text know their position.
    """
    if not batch.details["gaps"]:
        return sql.SQL("_row_number")
    return sql.SQL(
        """
        case when {table} = {typed}::regclass then _row_number else _row_number + coalesce(
            (select array_agg(shift order by at, shift) from {gaps})[
                width_bucket(_row_number, (select array_agg(at order by at, shift) from {gaps}))
            ], 0
        ) end
        """
    ).format(
        table=sql.Identifier(table),
        typed=f"landing.b{batch.batch_id}_typed",
        gaps=landing_table(batch.batch_id, "gaps"),
    )


# -- rows of the same key -------------------------------------------------------------------------


def _find_repeated_of_many(connection: psycopg.Connection, table: Table, batch: Batch) -> bool:
    """`find_repeated`, in a fresh table, of which the planner knows nothing yet."""
    connection.execute(sql.SQL("analyze {}").format(landing_table(batch.batch_id, "typed")))
    return find_repeated(connection, table, batch)


def find_repeated(connection: psycopg.Connection, table: Table, batch: Batch) -> bool:
    """`pg_temp.repeated`: the keys (in a table of versions: keys and instants) that a batch has more than once."""
    connection.execute("drop table if exists pg_temp.repeated")
    return bool(
        connection.execute(
            sql.SQL(
                "create temporary table repeated on commit drop as select {0} from {1} group by {0} having count(*) > 1"
            ).format(_same(table), landing_table(batch.batch_id, "rows"))
        ).rowcount
    )


def drop_duplicates(connection: psycopg.Connection, table: Table, batch: Batch) -> int:
    """The same version of the same key twice in one batch is once enough. Returns how many rows that were."""
    return delete(
        connection,
        batch,
        sql.SQL(
            """
            select _part, _place
            from (
                select
                    _part, _place,
                    row_number() over (
                        partition by {key}, _effective_at, _sequence, _row_hash, _op order by _row_number
                    ) as occurrence
                from {rows} inner join pg_temp.repeated using ({same})
            ) as counted
            where occurrence > 1
            """
        ).format(rows=landing_table(batch.batch_id, "rows"), key=log.names(table.key), same=_same(table)),
    )


def _same(table: Table) -> sql.Composable:
    """What two rows must share to be compared with each other."""
    return log.names(table.key if table.mode is Mode.FULL else (*table.key, "_effective_at", "_sequence"))


def _quarantine_conflicts(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> int:
    """A full extract with two different rows of one key: neither is believed. Returns how many rows that were."""
    conflicting = sql.SQL(
        """
        select * from {rows} inner join (
            select {key} from {rows} inner join pg_temp.repeated using ({key})
            group by {key} having min(_row_hash) <> max(_row_hash)
        ) as differing using ({key})
        """
    ).format(rows=landing_table(batch.batch_id, "rows"), key=log.names(table.key))
    reason = "another row of the same extract has this key and other values"
    return _put_aside(connection, table, batch, mapping, conflicting, ", ".join(table.key), "DUPLICATE_KEY", reason)


def _quarantine_orphans(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> int:
    """Rows that wait for their parent, where a reference is declared so. Returns how many rows that were."""
    total = 0
    for name, column in table.columns.items():
        reference = column.references
        if reference is None or reference.severity != "quarantine" or checks.unusable(connection, table, name):
            continue
        reason = f"{name} has no row in {reference.table}"
        orphans = checks.orphans(table, batch, name)
        while count := _put_aside(connection, table, batch, mapping, orphans, name, "REFERENCE", reason):
            total += count
            if reference.table != f"{table.source}.{table.name}":
                break  # else a row that left may have been the parent of another
    return total


def _put_aside(
    connection: psycopg.Connection,
    table: Table,
    batch: Batch,
    mapping: Mapping,
    chosen: sql.Composable,
    column: str,
    code: str,
    reason: str,
) -> int:
    """Move rows that are typed already, and chosen by a query over `landing.b<id>_rows`, to quarantine."""
    connection.execute("drop table if exists pg_temp.aside")
    count = connection.execute(
        sql.SQL(
            """
            create temporary table aside on commit drop as
            select _part, _place, _row_number, jsonb_build_array({key})::text as key from ({chosen}) as chosen
            """
        ).format(chosen=chosen, key=log.names(table.key))
    ).rowcount
    if not count:
        return 0
    connection.execute(
        sql.SQL(
            """
            insert into ops.quarantine
                (batch_id, source, table_name, row_number, key, column_name, code, reason, raw, content)
            select {batch_id}, {source}, {table_name}, aside._row_number, aside.key, {column}, {code}, {reason}, {raw},
                {content}
            from {typed} as landed inner join pg_temp.aside on landed.tableoid = _part and landed.ctid = _place
            """
        ).format(
            batch_id=batch.batch_id,
            source=batch.source,
            table_name=batch.table_name,
            column=column,
            code=code,
            reason=reason,
            raw=mapping.typed.raw,
            content=content(table, mapping.typed.raw),
            typed=landing_table(batch.batch_id, "typed"),
        )
    )
    return delete(connection, batch, sql.SQL("select _part, _place from pg_temp.aside"))


def _keys_present(connection: psycopg.Connection, table: Table, batch: Batch) -> bool:
    """`landing.b<id>_keys`: every key that a full extract holds, also those of rejected rows, which did not vanish.

    Returns True if a rejected row hides its key: then no key of this extract may be taken for deleted.
    """
    keys = landing_table(batch.batch_id, "keys")
    connection.execute(sql.SQL("drop table if exists {}").format(keys))
    present = connection.execute(
        sql.SQL(
            "create unlogged table {} as select {} from {} union all select {} from ops.quarantine where batch_id = {} "
            "and key is not null"
        ).format(
            keys,
            log.names(table.key),
            landing_table(batch.batch_id, "rows"),
            _key_of_json(table, "quarantine"),
            sql.Literal(batch.batch_id),
        )
    ).rowcount
    batches.add_details(connection, batch.batch_id, keys=present)
    connection.execute(sql.SQL("analyze {}").format(keys))  # fresh tables have no statistics, and anti joins need them
    hidden = connection.execute(
        "select exists (select from ops.quarantine where batch_id = %s and key is null)", [batch.batch_id]
    ).fetchone()
    return bool(hidden and hidden[0])


def _key_of_json(table: Table, alias: str) -> sql.Composable:
    """The typed key of a row of `ops.quarantine`; NULLs where it could not be read."""
    return sql.SQL(", ").join(
        sql.SQL("({}::jsonb ->> {})::{}").format(
            sql.Identifier(alias, "key"), sql.Literal(index), sql.SQL(table.columns[name].type)
        )
        for index, name in enumerate(table.key)
    )
