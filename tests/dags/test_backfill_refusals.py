"""What `airflow dags backfill` refuses when it has looked at the DAGs, and what it writes down, on a metadata database
of Airflow's own making."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import PostgresForTests

_DAGS = """
from datetime import datetime, timezone
from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow.providers.standard.operators.empty import EmptyOperator
from sluice_airflow.steps import NO_BACKFILL

for name, options in {
    "ingest_a": {"is_paused_upon_creation": False},
    "ingest_b": {"is_paused_upon_creation": True},
    "ingest_n": {"is_paused_upon_creation": False, "schedule": None},
    "warehouse": {"is_paused_upon_creation": False, "allowed_run_types": NO_BACKFILL},
}.items():
    with DAG(
        name,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        **{"schedule": CronDataIntervalTimetable("0 2 * * *", timezone="UTC"), **options},
    ) as dag:
        EmptyOperator(task_id="wait")
    globals()[name] = dag
"""
# One process for all: each start of Airflow's command line costs some seconds.
_DRIVER = """
import contextlib, io, json, sqlite3, sys
from airflow.__main__ import main
results = []
for command in json.loads(sys.argv[1]):
    if command[0] == "sqlite":
        with sqlite3.connect(command[1]) as metadata:
            metadata.execute(command[2])
        continue
    sys.argv = ["airflow", *command]
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = f"a traceback: {type(error).__name__}: {error}"
    results.append((code, out.getvalue()))
print("RESULTS" + json.dumps(results))
"""
_DAY = ("-s", "2026-01-02", "-e", "2026-01-03")
_SAY: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a year mistyped": (("ingest_a", "-s", "1900-01-01", "-e", "2026-01-31", "-n"), 2, "begins on 2026-01-01 00:00"),
    "all of it too early": (("ingest_a", "-s", "2025-01-01", "-n"), 2, "nothing was run"),
    "the first day": (("ingest_a", "-s", "2026-01-01", "-n"), 0, "1 intervals"),
    "the future": (("ingest_a", "-s", "2100-01-01", "-n"), 2, "future"),
    "paused": (("ingest_b", *_DAY), 2, "airflow dags unpause ingest_b"),
    "single tasks of a paused DAG": (("ingest_b", *_DAY, "-t", "wait", "--reset-dagruns", "-y"), 0, "Nothing to run"),
    "the last of many has no past": (
        ("ingest_a|warehouse", *_DAY, "--treat-dag-id-as-regex", "--detach"),
        2,
        "has no past",
    ),
    "a source without a schedule": (("ingest_n", *_DAY), 2, "past is read again by: sluice load n --from"),
    "no plan": (("--plan", "{plan}x"), 2, "can't be read .*; nothing was run"),
    "a plan for no DAG": (("--plan", "{plan}"), 2, "knows no DAG ingest_nothing; "),
}
# Then three backfills: by the command, by the web UI as its table has it, and by the command of an Airflow that counts
# from the beginning again.
_ASKED = ("dags", "backfill", "ingest_a", "--detach", "--yes", "--reason", "to see the record")
_FROM_THE_WEB_UI = (
    "insert into backfill (id, dag_id, from_date, to_date, dag_run_conf, is_paused, reprocess_behavior,"
    " max_active_runs, created_at, updated_at, triggering_user_name)"
    " values (2, 'ingest_b', '2026-01-05', '2026-01-06', '{}', 0, 'failed', 3, '2026-02-01', '2026-02-01', 'ann')"
)
_RECORDS = (
    ("ask", (*_ASKED, *_DAY)),
    ("web", ("sqlite", "{metadata}", _FROM_THE_WEB_UI)),
    ("list", ("sluice", "backfills")),
    ("lost", ("sqlite", "{metadata}", "delete from backfill_dag_run")),
    ("lost", ("sqlite", "{metadata}", "delete from backfill")),
    ("ask again", (*_ASKED, "-s", "2026-01-08")),
    ("list again", ("sluice", "backfills")),
)


@pytest.fixture(scope="module")
def ledger(postgres: PostgresForTests, _ledger_template: str) -> Iterator[str]:
    url = postgres.database(_ledger_template)
    yield url
    postgres.drop(url)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, ledger: str) -> dict[str, tuple[object, str]]:
    """Exit code and words of each command of `_SAY` and `_RECORDS`."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "dags.py").write_text(_DAGS)
    plan = home / "plan.yml"
    plan.write_text("dag: ingest_nothing\nstart: 2026-01-02\nend: 2026-01-03\nreason: to see what happens\n")
    commands = [["db", "migrate"], ["dags", "reserialize"]] + [
        ["dags", "backfill", *(word.replace("{plan}", str(plan)) for word in words)] for words, _, _ in _SAY.values()
    ]
    metadata = str(home / "airflow.db")
    commands += [[word.replace("{metadata}", metadata) for word in words] for _, words in _RECORDS]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, json.dumps(commands)],
        env={
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{metadata}",
            "SLUICE_WAREHOUSE_URL": ledger,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "RESULTS" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(done.stdout.rsplit("RESULTS", 1)[1])
    told = ["db", "dags", *_SAY, *(name for name, words in _RECORDS if words[0] != "sqlite")]
    return {name: tuple(result) for name, result in zip(told, results, strict=True)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", _SAY)
def test_what_can_not_be_run_is_said_in_a_sentence_before_anything_is_made(
    name: str, answers: dict[str, tuple[object, str]]
) -> None:
    code, told = answers[name]
    _, expected, says = _SAY[name]
    assert code == expected, told[-2000:]
    assert re.search(says, told), told[-2000:]
    assert "is made; the web UI" not in told


@pytest.mark.timeout(300)
def test_a_backfill_of_the_web_ui_is_written_down_and_one_that_airflow_forgot_is_no_success(
    answers: dict[str, tuple[object, str]], ledger: str
) -> None:
    """An Airflow whose database was restored gives a number a second time: the record of the first stays its own."""
    for name in ("ask", "list", "ask again", "list again"):
        assert answers[name][0] in (0, None), answers[name][1][-2000:]
    assert "ann" in answers["list"][1]
    with psycopg.connect(ledger) as connection:
        rows = connection.execute(
            "select dag_id, engine_id, range_start::date::text, intervals, state, reprocess, reason from ops.backfill"
            " order by backfill_id"
        ).fetchall()
    assert rows == [
        ("ingest_a", 1, "2026-01-02", 2, "forgotten", "none", "to see the record"),
        ("ingest_b", 2, "2026-01-05", 0, "forgotten", "failed", None),
        ("ingest_a", 1, "2026-01-08", 1, "running", "none", "to see the record"),
    ]
