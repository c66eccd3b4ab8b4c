"""The gate after a layer: everything that should have been built was built in this run, and is as it should
be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from sluice import warehouse
from sluice.declarations import DeclarationError
from sluice.declarations.expectations import expectations_dir, load_expectations
from sluice.gates import override
from sluice.gates.contracts import check_contracts
from sluice.gates.expectations import check_expectations
from sluice.gates.pending import Model, read_as_of
from sluice.gates.reconcile import check_reconciliations
from sluice.gates.results import Check, Verdict, record

COMPLETE = "layer_is_complete"  # one row per gate and run that sums it up; `pending` reads the latest


def judge_layer(
    layer: str,
    run_id: str,
    expected: Sequence[Model],
    *,
    tests: Sequence[tuple[str, str]] = (),
    tables: Iterable[tuple[str, str]] = (),
    fingerprint: str = "",
    expectations: Path | None = None,
) -> Verdict:
    """Judge `layer` after the run `run_id` built the models `expected`, and record every check.

    `tests` are (name, object) of the dbt tests that a task of their own has run before: skipped, that task must not
    pass for good. `tables` are the declared (source, table) whose change logs feed this layer. `fingerprint` names the
    code that was run; it is kept with the verdict. `expectations` is the file of what is expected of the
    layer, where it is not that of this repository.
    """
    tables = sorted(tables)
    with warehouse.connect() as connection:
        as_of = read_as_of(connection, run_id)
        if layer != "staging" and as_of is not None:
            # What this run did not read must not be held against it. (Staging is compared with sources as it is.)
            connection.execute("select set_config('sluice.as_of_seq', %s, false)", [str(as_of)])
        checks = [
            *_every_model_has_a_result(connection, run_id, expected),
            *_every_test_has_a_result(connection, run_id, tests),
            *_no_model_was_emptied(connection, expected),
            *_books_are_in_order(connection, tables),
        ]
        checks += check_contracts(connection, layer, run_id, tables)
        try:
            said = load_expectations(expectations or expectations_dir() / f"{layer}.yml")
        except DeclarationError as fault:
            checks.append(Check("expectations_are_readable", layer, "error", message=str(fault)))
        else:
            checks += check_expectations(connection, layer, run_id, said.tables)
            checks += check_reconciliations(connection, run_id, said.reconcile)
        if not expected:
            checks.append(Check("layer_has_models", layer, "missing", message="no model was selected for this layer"))
        checks = override.applied(connection, run_id, layer, checks)
        verdict = Verdict(layer, checks)
        summary = Check(
            COMPLETE,
            layer,
            "pass" if verdict.passed else "fail",
            observed=f"{sum(not check.blocks for check in checks)} of {len(checks)} checks let the run go on",
            bound=fingerprint,
        )
        record(connection, run_id, layer, [*checks, summary])
    return verdict


def _every_model_has_a_result(connection: psycopg.Connection, run_id: str, expected: Sequence[Model]) -> list[Check]:
    """A model writes its row in the transaction that builds it; a view writes none and must exist."""
    rows = connection.execute(
        "select distinct on (relation) relation, state, rows_inserted, rows_deleted from ops.model_run"
        " where run_id = %s and relation = any(%s) order by relation, model_run_id desc",
        (run_id, [model.relation for model in expected]),
    ).fetchall()
    built = {row[0]: row[1:] for row in rows}
    existing = {
        row[0]
        for row in connection.execute(
            "select name from unnest(%s::text[]) as name where to_regclass(name) is not null",
            ([model.relation for model in expected],),
        )
    }
    checks = []
    for model in expected:
        if model.relation not in existing:
            checks.append(Check("model_has_a_result", model.relation, "missing", message="the relation does not exist"))
        elif model.relation in built:
            state, inserted, deleted = built[model.relation]
            checks.append(
                Check("model_has_a_result", model.relation, "pass", observed=f"{state}, +{inserted} -{deleted}")
            )
        elif model.is_view:
            checks.append(Check("model_has_a_result", model.relation, "pass", observed="the view exists"))
        else:
            checks.append(
                Check(
                    "model_has_a_result",
                    model.relation,
                    "missing",
                    message="this run wrote no result for it: its task was skipped, or it failed",
                )
            )
    return checks


def _every_test_has_a_result(
    connection: psycopg.Connection, run_id: str, expected: Sequence[tuple[str, str]]
) -> list[Check]:
    """Those without one, or with a blocking one that is no pass: their task was skipped, or marked by hand."""
    judged = {
        (name, thing): (severity, verdict)
        for name, thing, severity, verdict in connection.execute(
            "select distinct on (check_name, object) check_name, object, severity, verdict from ops.gate_result"
            " where run_id = %s and gate = 'tests' order by check_name, object, gate_result_id desc",
            (run_id,),
        )
    }
    checks = []
    for name, thing in expected:
        severity, verdict = judged.get((name, thing), ("block", "missing"))
        if severity == "block" and verdict != "pass":
            told = "this run has no result of it" if verdict == "missing" else f"its result in this run is {verdict}"
            checks.append(Check("test_has_a_result", thing, "missing", observed=verdict, message=f"{name}: {told}"))
    return checks


_EMPTIED = """
select
    wanted.relation,
    exists (
        select from ops.model_run as run where run.relation = wanted.relation and run.rows_inserted > 0
    ) as had_rows,
    array(
        select mark.input
        from ops.model_watermark as mark
        where mark.relation = wanted.relation and mark.input not like 'code:%%'
        order by 1
    ) as inputs
from unnest(%s::text[]) as wanted (relation)
"""


def _no_model_was_emptied(connection: psycopg.Connection, expected: Sequence[Model]) -> list[Check]:
    """S7: a model without a row, whose inputs have rows. It blocks where there were rows before: that is a loss; a
    model that never had one may have nothing to say yet."""
    checks = []
    for relation, had_rows, inputs in connection.execute(
        _EMPTIED, ([model.relation for model in expected if not model.is_view],)
    ).fetchall():
        if _has_rows(connection, relation) is not False:
            continue  # has rows, or does not exist, which another check says
        given = [name for name in inputs if _has_rows(connection, _relation_of(connection, name))]
        if given:
            checks.append(
                Check(
                    "model_is_not_empty",
                    relation,
                    "fail",
                    severity="block" if had_rows else "warn",
                    observed="0",
                    bound="more than 0",
                    message=f"{', '.join(given)} {'have' if len(given) > 1 else 'has'} rows"
                    + ("" if had_rows else "; it never had any"),
                )
            )
    return checks


def _relation_of(connection: psycopg.Connection, name: str) -> str | None:
    row = connection.execute(
        "select format('%%I.%%I', nspname, relname)"
        " from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace"
        " where relname = %s and nspname in ('staging', 'snapshots', 'intermediate', 'marts')",
        (name,),
    ).fetchone()
    return row[0] if row else None


def _has_rows(connection: psycopg.Connection, relation: str | None) -> bool | None:
    """None where there is no such relation."""
    there = connection.execute("select to_regclass(%s) is not null", (relation,)).fetchone()
    if not there or not there[0]:
        return None
    name = sql.Identifier(*str(relation).replace('"', "").split("."))
    return bool(connection.execute(sql.SQL("select exists (select from {})").format(name)).fetchone()[0])  # type: ignore[index]


_BOOKS = """
with declared as (
    select * from unnest(%s::text[], %s::text[]) as declared (source, table_name)
),
settled as (
    select
        declared.source,
        declared.table_name,
        count(batch.batch_id) filter (where batch.state in ('published', 'superseded')) as published,
        count(batch.batch_id) filter (
            where batch.state in ('published', 'superseded')
                and batch.rows_read <> batch.rows_applied + batch.rows_unchanged + batch.rows_duplicate
                + batch.rows_quarantined + batch.rows_late
        ) as unbalanced,
        count(batch.batch_id) filter (
            where batch.state in ('landed', 'audited')
                and batch.landed_at < clock_timestamp() - interval '1 day'
        ) as stranded
    from declared
    left join ops.batch as batch using (source, table_name)
    group by 1, 2
),
audits as (
    -- What was published must have passed: else there is a hole in the gate.
    select batch.source, batch.table_name, count(*) as failed
    from ops.gate_result as result
    inner join ops.batch as batch using (batch_id)
    inner join declared on declared.source = batch.source and declared.table_name = batch.table_name
    where result.severity = 'block'
        and result.verdict <> 'pass'
        and batch.state = 'published'
        and batch.approved_by is null
        and not exists (
            select
            from ops.gate_result as later
            where later.batch_id = result.batch_id
                and later.check_name = result.check_name
                and later.gate_result_id > result.gate_result_id
                and later.verdict = 'pass'
        )
    group by 1, 2
)
select source, table_name, published, unbalanced, stranded, coalesce(failed, 0)
from settled
left join audits using (source, table_name)
order by source, table_name
"""


def _books_are_in_order(connection: psycopg.Connection, wanted: Sequence[tuple[str, str]]) -> list[Check]:
    if not wanted:
        return []
    rows = connection.execute(_BOOKS, ([s for s, _ in wanted], [t for _, t in wanted])).fetchall()
    checks = []
    for source, table, published, unbalanced, stranded, failed in rows:
        name = f"staging.{source}__{table}"
        checks.append(
            Check("books_balance", name, "fail" if unbalanced else "pass", observed=str(unbalanced), bound="0")
        )
        checks.append(
            Check(
                "published_batches_passed",
                name,
                "fail" if failed else "pass",
                observed=str(failed),
                bound="0",
            )
        )
        checks.append(
            Check(
                "no_batch_is_stranded",
                name,
                "fail" if stranded else "pass",
                severity="warn",
                observed=str(stranded),
                bound="0",
                message="landed more than a day ago and never published; run its ingest DAG" if stranded else None,
            )
        )
        if not published:
            checks.append(
                Check("has_been_read", name, "missing", severity="warn", message="no batch was ever published")
            )
    return checks
