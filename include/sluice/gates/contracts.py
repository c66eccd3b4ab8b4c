"""A contract once more, by another hand: suites of Great Expectations over what was newly published in staging.

The loader compiled the same declaration to SQL of its own and judged each row before it was published. Here its result
is judged from outside: a row that breaks the contract and is in the change log is a hole in the loader. Only batches
that were published since the last time are read, and of those so many rows: the cost follows what came.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from sluice.declarations import Table
from sluice.gates.expectations import Expectation, Suite, run_suites
from sluice.gates.results import Check

_ROWS = 100_000  # that are looked at, of the latest batches
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")

# sequence numbers, not times: a batch may become visible after a gate that began later than it
_NEW = """
select batch_id, rows_applied
from ops.batch
where source = %s and table_name = %s and state = 'published' and rows_applied > 0 and published_seq > %s
order by batch_id desc
"""
_LAST = """
select substring(bound from '[0-9]+$')::bigint
from ops.gate_result
where object = %s and check_name = %s and verdict = 'pass'
order by gate_result_id desc
limit 1
"""

_CHECK = "contract_holds"


def check_contracts(
    connection: psycopg.Connection, layer: str, run_id: str, tables: Sequence[tuple[str, str]]
) -> list[Check]:
    """One result for each table: what was published since the last time keeps its contract. And one for each
    expectation that does not hold."""
    checks: list[Check] = []
    now = connection.execute("select seq from ops.clock").fetchone()
    bound = f"every row of batches up to {now[0] if now else 0}"
    for table in tables_of(tables):
        relation = f"staging.{table.log_name}"
        suite = new_suite(connection, table, _CHECK)
        if suite is None:
            told = "no batch was published since this passed"
            checks.append(Check(_CHECK, relation, "pass", observed="nothing new", bound=bound, message=told))
            continue
        judged = run_suites(connection, layer, run_id, [suite])
        bad = [check for check in judged if check.outcome != "pass"]
        checks.append(
            Check(
                _CHECK,
                relation,
                "fail" if any(check.blocks for check in bad) else "pass",
                observed=f"{len(judged) - len(bad)} of {len(judged)} expectations",
                bound=bound,
            )
        )
        checks += bad
    return checks


def new_suite(connection: psycopg.Connection, table: Table, check: str) -> Suite | None:
    """The suite of what was published since `check` last passed; None when nothing was, or nothing is demanded."""
    relation = f"staging.{table.log_name}"
    last = connection.execute(_LAST, [relation, check]).fetchone()
    found = connection.execute(_NEW, [table.source, table.name, (last and last[0]) or 0]).fetchall()
    expectations = expectations_of(table)
    if not found or not expectations:
        return None
    chosen: list[int] = []
    rows = 0
    for batch_id, count in found:
        if chosen and rows + count > _ROWS:
            break
        chosen, rows = [*chosen, batch_id], rows + count
    some = sql.SQL("")
    if rows > _ROWS:
        some = sql.SQL(" and _row_number % {} = 0").format(sql.Literal(rows // _ROWS + 1))
    query = sql.SQL("select {} from {} where _batch_id in ({}) and _op = 'upsert'{}").format(
        sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        sql.Identifier("staging", table.log_name),
        sql.SQL(", ").join(map(sql.Literal, chosen)),
        some,
    )
    is_personal = any(table.columns[name].personal for name in table.key)
    return Suite(relation, () if is_personal else table.key, expectations, query.as_string(connection))


def expectations_of(table: Table) -> tuple[Expectation, ...]:
    """What the contract says of a row, in Great Expectations' words."""
    made: list[Expectation] = []
    for name, column in table.columns.items():
        known = dict(column.severity)

        def say(kind: str, rule: str, _name: str = name, _known: dict = known, **arguments: object) -> None:
            severity = "warn" if _known.get(rule) == "warn" else "block"
            made.append(Expectation(kind, severity, {"column": _name, **arguments}))

        if column.required or name in table.key:
            say("expect_column_values_to_not_be_null", "required")
        if column.accepted is not None and column.type == "text":
            say("expect_column_values_to_be_in_set", "accepted", value_set=list(column.accepted))
        if (column.minimum is not None or column.maximum is not None) and column.type.startswith(_NUMBERS):
            bounds = {"min_value": column.minimum, "max_value": column.maximum}
            say("expect_column_values_to_be_between", "range", **{k: v for k, v in bounds.items() if v is not None})
        if column.pattern is not None and column.type == "text":
            say("expect_column_values_to_match_regex", "pattern", regex=column.pattern)
    return tuple(made)


def tables_of(wanted: Sequence[tuple[str, str]]) -> list[Table]:
    """The declared tables of these names; one that is not declared any more has no contract."""
    from sluice import settings
    from sluice.declarations import load_folder

    sources = load_folder(settings.sources_dir()).sources
    return [sources[s].tables[t] for s, t in wanted if s in sources and t in sources[s].tables]
