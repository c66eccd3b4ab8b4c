"""Checks of a batch that put no row aside: rules that only warn, rules that block, references to other tables."""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from sluice import settings
from sluice.declarations import Table, load_folder
from sluice.declarations.load import line_of
from sluice.loading import contract
from sluice.loading.batch import Batch
from sluice.loading.landing import landing_table

_SAMPLE = 5  # keys that are shown of those that fail


def judge(connection: psycopg.Connection, table: Table, batch: Batch) -> list[str]:
    """Record what only warns, and return why the batch may not be published, if it may not."""
    for rule in contract.soft_rules_of(table):
        failing = sql.SQL("select * from {} as checked where _op = 'upsert' and {}").format(_rows(batch), rule.broken)
        _record(connection, table, batch, f"{rule.code.lower()}:{rule.column}", failing, rule.reason)
    return [*_blocked(connection, table, batch), *_references(connection, table, batch)]


def unreadable_pattern(connection: psycopg.Connection, table: Table) -> str | None:
    """File, field and fault of a declared pattern that Postgres can't read, if there is one. (Without a server,
    `declarations/patterns.py` says the most common.)"""
    for name, column in table.columns.items():
        if column.pattern is None:
            continue
        try:
            with connection.transaction():
                connection.execute("select '' ~ %s", [column.pattern])
        except psycopg.errors.InvalidRegularExpression as error:
            path = load_folder(settings.sources_dir()).paths.get(table.source)
            fields = ("tables", table.name, "columns", name, "pattern")
            where = f"{path}:{line_of(path, fields)}: " if path else ""
            problem = (error.diag.message_primary or "").removeprefix("invalid regular expression: ")
            return f"{where}{'.'.join(fields)}: Postgres can't read this regular expression ({problem})"
    return None


def _blocked(connection: psycopg.Connection, table: Table, batch: Batch) -> list[str]:
    """Rules whose severity is block, and that rejected a row of this batch."""
    counts = connection.execute(
        "select column_name, code, count(*) from ops.quarantine where batch_id = %s group by 1, 2 order by 1, 2",
        [batch.batch_id],
    ).fetchall()
    return [
        f"{count} rows break the rule {code.lower()} of {name}, whose severity is block; nothing was published. "
        f"See: sluice quarantine list --batch {batch.batch_id}"
        for name, code, count in counts
        if name in table.columns and dict(table.columns[name].severity).get(code.lower()) == "block"
    ]


def _references(connection: psycopg.Connection, table: Table, batch: Batch) -> list[str]:
    """Values without a parent among the present rows of the other table's log; of this batch's values only."""
    refusals = []
    for name, column in table.columns.items():
        if column.references is None:
            continue
        reference = column.references
        check = f"references:{name}"
        if reason := unusable(connection, table, name):
            message = f"{name} could not be compared with {reference.table}.{reference.column}: {reason}"
            _insert(connection, table, batch, check, reference.severity, "missing", None, None, message)
            if reference.severity != "warn":
                refusals.append(f"{message}; nothing was published")
            continue
        if reference.severity == "quarantine":  # they are there already
            _put_aside(connection, table, batch, name)
            continue
        failing = orphans(table, batch, name)
        count = _record(
            connection, table, batch, check, failing, f"has no row in {reference.table}", reference.severity
        )
        if count and reference.severity == "block":
            refusals.append(
                f"{count} rows have a {name} that {reference.table} does not hold; nothing was published. "
                f"Load {reference.table} first, or declare severity: warn"
            )
    return refusals


def _put_aside(connection: psycopg.Connection, table: Table, batch: Batch, name: str) -> None:
    """Record how many rows of the batch wait for their parent."""
    count = connection.execute(
        "select count(*) from ops.quarantine where batch_id = %s and column_name = %s and code = 'REFERENCE'",
        [batch.batch_id, name],
    ).fetchone()[0]  # type: ignore[index]
    message = f"{count} rows wait in quarantine for their {name}" if count else None
    _insert(
        connection, table, batch, f"references:{name}", "quarantine", "warn" if count else "pass", count, None, message
    )


def unusable(connection: psycopg.Connection, table: Table, name: str) -> str | None:
    """Why a reference can't be checked: an absent result is said, and is no pass."""
    reference = table.columns[name].references
    assert reference is not None
    source, _, parent_name = reference.table.partition(".")
    found = load_folder(settings.sources_dir()).sources.get(source)
    parent = found.tables.get(parent_name) if found else None
    if parent is None:
        return "no declaration describes it"
    if parent.key != (reference.column,):
        return f"{reference.column} is not its key"
    if parent.columns[reference.column].type != table.columns[name].type:
        return f"it is {parent.columns[reference.column].type} there and {table.columns[name].type} here"
    log = sql.Identifier("staging", parent.log_name).as_string(connection)
    there = connection.execute("select to_regclass(%s) is not null", [log]).fetchone()
    return None if there and there[0] else "it was never loaded"


def orphans(table: Table, batch: Batch, name: str) -> sql.Composable:
    """Rows whose value has no parent: each value is looked up once, by the index of the parent's log."""
    reference = table.columns[name].references
    assert reference is not None
    source, _, parent = reference.table.partition(".")
    own = sql.SQL("")
    if (source, parent) == (table.source, table.name):  # a parent may come in the same batch
        own = sql.SQL("and not exists (select from {} as own where own.{} = wanted.value)").format(
            _rows(batch), sql.Identifier(reference.column)
        )
    return sql.SQL(
        """
        select checked.* from {rows} as checked
        where checked._op = 'upsert' and checked.{name} in (
            select wanted.value
            from (select distinct {name} as value from {rows} where _op = 'upsert' and {name} is not null) as wanted
            left join lateral (
                select log._op from {parent} as log
                where log.{column} = wanted.value
                    and not exists (
                        select from ops.batch where batch_id = log._batch_id and superseded_seq is not null
                    )
                order by log._effective_at desc, log._sequence desc, log._row_hash desc limit 1
            ) as parent on true
            where parent._op is distinct from 'upsert' {own}
        )
        """
    ).format(
        rows=_rows(batch),
        name=sql.Identifier(name),
        parent=sql.Identifier("staging", f"{source}__{parent}"),
        column=sql.Identifier(reference.column),
        own=own,
    )


# -- what is kept of a check --------------------------------------------------------------------


def _rows(batch: Batch) -> sql.Identifier:
    return landing_table(batch.batch_id, "rows")


def _record(
    connection: psycopg.Connection,
    table: Table,
    batch: Batch,
    check: str,
    failing: sql.Composable,
    reason: str,
    severity: str = "warn",
) -> int:
    """Count the failing rows and keep the verdict, with a few of their keys unless a key is personal."""
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    count, sample = connection.execute(
        sql.SQL(
            """
            with failing as ({failing})
            select (select count(*) from failing),
                (select jsonb_agg(key) from (select jsonb_build_array({key}) as key from failing limit {few}) as few)
            """
        ).format(failing=failing, key=key, few=sql.Literal(_SAMPLE))
    ).fetchone()  # type: ignore[misc]
    if any(table.columns[name].personal for name in table.key):
        sample = None
    verdict = "pass" if not count else "fail" if severity == "block" else "warn"
    message = f"{check.partition(':')[2]} {reason}" if count else None
    _insert(connection, table, batch, check, severity, verdict, count, sample, message)
    return int(count)


def _insert(
    connection: psycopg.Connection,
    table: Table,
    batch: Batch,
    check: str,
    severity: str,
    verdict: str,
    failing: int | None,
    sample: list[object] | None,
    message: str | None,
) -> None:
    connection.execute(
        """
        insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed, bound, failing_rows,
            sample_keys, message, batch_id)
        values (%s, 'batch', %s, %s, %s, %s, %s, '0', %s, %s, %s, %s)
        """,
        [
            batch.run_id,
            check,
            f"{table.source}.{table.name}",
            severity,
            verdict,
            None if failing is None else str(failing),
            failing,
            None if sample is None else Jsonb(sample),
            message,
            batch.batch_id,
        ],
    )
