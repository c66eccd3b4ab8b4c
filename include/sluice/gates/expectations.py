"""Great Expectations suites of a layer, from `include/expectations/<layer>.yml` (`declarations/expectations.py`).

Importing Great Expectations takes 5 to 9 s, so it is imported where it is used, and in the parents of task
processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import psycopg

from sluice import settings
from sluice.declarations.expectations import TableExpectations
from sluice.gates import data_docs
from sluice.gates.results import Check, without_values

_SAMPLES = 5


@dataclass(frozen=True)
class Expectation:
    """One sentence about a table, in Great Expectations' own words."""

    type: str
    severity: str
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The check's name in `ops.gate_result`: the expectation, and the column if it speaks of one."""
        column = self.arguments.get("column") or ",".join(self.arguments.get("column_list", ()))
        return self.type + (f"({column})" if column else "")

    @property
    def bound(self) -> str:
        """What is expected, as text."""
        told = {k: v for k, v in self.arguments.items() if k not in ("column", "column_list")}
        text = json.dumps(told, sort_keys=True, default=str) if told else "every row"
        return text if len(text) <= 200 else f"{text[:180]}… {hashlib.md5(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Suite:
    """All expectations of one table. `key` names the columns that a sample of failing rows may show."""

    table: str
    key: tuple[str, ...]
    expectations: tuple[Expectation, ...]
    query: str | None = None  # the rows that are judged, where it is not the whole table


def check_expectations(
    connection: psycopg.Connection, layer: str, run_id: str, tables: Mapping[str, TableExpectations]
) -> list[Check]:
    """Run the suites of a layer, and say for every expectation what came of it.

    A table that this run built and left unchanged is not scanned again when every one of its expectations
    passed before: cost follows change.
    """
    checks: list[Check] = []
    due: list[Suite] = []
    for table, said in tables.items():
        suite = _suite(table, said)
        kept = _kept(connection, layer, run_id, suite)
        if kept is None:
            due.append(suite)
        else:
            checks += kept
    return checks + run_suites(connection, layer, run_id, due)


def _suite(table: str, said: TableExpectations) -> Suite:
    expectations = (Expectation(e.type, e.severity, e.model_extra or {}) for e in said.expect)
    return Suite(table, said.key, tuple(expectations))


def _kept(connection: psycopg.Connection, layer: str, run_id: str, suite: Suite) -> list[Check] | None:
    """The earlier results of a table that this run did not change, or None if it must be scanned."""
    states = connection.execute(
        "select state from ops.model_run where run_id = %s and relation = %s", (run_id, suite.table)
    ).fetchall()
    if not states or any(state != "unchanged" for (state,) in states):
        return None
    # The suite must have run after the table last changed: that run may have died before its gate.
    passed = {
        (name, bound): (seen, first)
        for name, bound, seen, first in connection.execute(
            "select distinct on (check_name, bound) check_name, bound, observed, run_id from ops.gate_result"
            " where gate = %s and object = %s and verdict = 'pass' and checked_at > coalesce("
            "(select max(committed_at) from ops.model_run where relation = %s and state = 'success'),"
            " '-infinity')"
            " order by check_name, bound, gate_result_id desc",
            (layer, suite.table, suite.table),
        )
    }
    if any((e.name, e.bound) not in passed for e in suite.expectations):
        return None
    return [
        Check(
            e.name,
            suite.table,
            "pass",
            severity=e.severity,  # type: ignore[arg-type]
            observed=passed[e.name, e.bound][0],
            bound=e.bound,
            failing_rows=0,
            message="the table is unchanged since this passed",
        )
        for e in suite.expectations
    ]


def run_suites(connection: psycopg.Connection, layer: str, run_id: str, suites: Sequence[Suite]) -> list[Check]:
    """Judge tables by their suites, and keep a page of each for people."""
    if not suites:
        return []
    context = _context()
    source = context.data_sources.add_postgres("warehouse", connection_string=_sqlalchemy_url(settings.warehouse_url()))
    checks: list[Check] = []
    try:
        for suite in suites:
            judged, results = _run_suite(connection, source, suite)
            checks += judged
            if results:
                passed = not any(check.blocks for check in judged)
                data_docs.keep(connection, layer, suite.table, run_id, results, passed=passed)
    finally:
        source.get_engine().dispose()
    return checks


def _run_suite(connection: psycopg.Connection, source: Any, suite: Suite) -> tuple[list[Check], list[Any]]:
    """The checks of one table, and what Great Expectations said of them."""
    schema, _, table = suite.table.partition(".")
    exists = connection.execute("select to_regclass(%s) is not null", (suite.table,)).fetchone()
    if not exists or not exists[0]:
        return [
            Check(e.name, suite.table, "missing", e.severity, bound=e.bound, message="the table does not exist")  # type: ignore[arg-type]
            for e in suite.expectations
        ], []
    asset = (
        source.add_query_asset(suite.table, query=suite.query)
        if suite.query
        else source.add_table_asset(suite.table, table_name=table, schema_name=schema)
    )
    batch = asset.add_batch_definition_whole_table("all").get_batch()
    results: list[Any] = []
    return [_run_one(batch, suite, expectation, results) for expectation in suite.expectations], results


def _run_one(batch: Any, suite: Suite, expectation: Expectation, results: list[Any]) -> Check:
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    check = Check(
        expectation.name,
        suite.table,
        "error",
        severity=expectation.severity,  # type: ignore[arg-type]
        bound=expectation.bound,
    )
    try:
        wanted = ExpectationConfiguration(type=expectation.type, kwargs=dict(expectation.arguments)).to_domain_obj()
        # Keys alone may be shown: the values of other columns may speak of a person.
        result = batch.validate(
            wanted,
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": _SAMPLES,
                "unexpected_index_column_names": list(suite.key),
            }
            if suite.key
            else "BASIC",
        )
    except Exception as error:  # whatever it is: a check that could not be made has not passed
        return replace(check, message=_brief(error))
    results.append(result)
    raised = (result.exception_info or {}).get("exception_message") or _nested_exception(result.exception_info)
    if raised:
        result.exception_info = {
            "raised_exception": True,
            "exception_message": _brief(raised),
            "exception_traceback": "",
        }
        return replace(check, message=_brief(raised))
    told = result.result or {}
    if "observed_value" in told and not _is_shown(expectation, told["observed_value"]):
        told["observed_value"] = "…"
    failing = told.get("unexpected_count")
    observed = told.get("observed_value")
    if observed is None and failing is not None:
        observed = f"{failing} of {told.get('element_count')} rows"
    samples = [[row.get(column) for column in suite.key] for row in told.get("partial_unexpected_index_list") or []]
    return replace(
        check,
        outcome="pass" if result.success else "fail",
        observed=None if observed is None else str(observed),
        failing_rows=failing,
        sample_keys=json.loads(json.dumps(samples[:_SAMPLES], default=str)) or None,
    )


def _is_shown(expectation: Expectation, value: Any) -> bool:
    """Numbers, and names of columns; any other value of a row may speak of a person."""
    if isinstance(value, Mapping):
        return all(_is_shown(expectation, each) for each in value.values())
    if isinstance(value, list | tuple | set):
        return expectation.type.startswith("expect_table_") or all(_is_shown(expectation, each) for each in value)
    return value is None or isinstance(value, int | float | Decimal) or expectation.type.startswith("expect_table_")


def _nested_exception(info: Mapping[str, Any] | None) -> str | None:
    """Great Expectations keeps one entry per metric when a metric raised."""
    for value in (info or {}).values():
        if isinstance(value, Mapping) and value.get("raised_exception"):
            return str(value.get("exception_message"))
    return None


def _brief(error: object) -> str:
    """The first line of an error, without values of rows."""
    return without_values(str(error).strip().split("\n", 1)[0])[:300]


def _context() -> Any:
    import logging

    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


def _sqlalchemy_url(url: str) -> str:
    return "postgresql+psycopg://" + url.split("://", 1)[1]
