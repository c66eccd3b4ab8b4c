"""Freshness is judged from `ops`: an old table fails, one that was never read is missing, one without a
promise is left out.
"""

from sluice.declarations import Source
from sluice.gates import judge_freshness

_TABLE = {
    "description": "x",
    "from": {"files": {"connection": "c", "path": "x.csv"}},
    "mode": "full",
    "key": ["id"],
    "columns": {"id": {"type": "bigint"}},
}
SOURCE = Source.model_validate(
    {
        "source": "demo",
        "description": "x",
        "owner": "someone",
        "tables": {
            "fresh": {**_TABLE, "freshness": "1d"},
            "stale": {**_TABLE, "freshness": "1h"},
            "never": {**_TABLE, "freshness": "1h"},
            "no_promise": _TABLE,
        },
    }
)


def test_freshness_is_judged_from_the_ledger(warehouse):
    for table in ("fresh", "stale"):
        warehouse.execute(
            "insert into ops.table_read (source, table_name, run_id, read_at)"
            " values ('demo', %s, 'i', clock_timestamp() - interval '2 hours')",
            (table,),
        )

    verdict = judge_freshness([SOURCE], "f1")

    assert {check.object: check.outcome for check in verdict.checks} == {
        "staging.demo__fresh": "pass",
        "staging.demo__stale": "fail",
        "staging.demo__never": "missing",
    }
    assert not verdict.passed
    rows = warehouse.execute(
        "select object, verdict from ops.gate_result where gate = 'freshness' order by 1"
    ).fetchall()
    assert rows == [
        ("staging.demo__fresh", "pass"),
        ("staging.demo__never", "missing"),
        ("staging.demo__stale", "fail"),
    ]


def test_a_source_that_nobody_reads_yet_is_said_and_alarms_nobody(warehouse):
    verdict = judge_freshness([SOURCE], "f2")
    assert verdict.passed
    assert {(check.outcome, check.severity) for check in verdict.checks} == {("missing", "warn")}
    warehouse.execute(
        "insert into ops.batch (source, table_name, unit, state, mode, run_id)"
        " values ('demo', 'stale', 'u', 'abandoned', 'full', 'i')"
    )
    assert not judge_freshness([SOURCE], "f3").passed, "a source that was tried and never read is an alarm"
