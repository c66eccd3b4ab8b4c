"""What `airflow dags backfill` refuses when it has looked at the DAGs, and what it writes down, on a metadata database
of Airflow's own making."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import PostgresForTests

ROOT = Path(__file__).resolve().parents[2]
_DAGS = """
from datetime import datetime, timezone
from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow.providers.standard.operators.empty import EmptyOperator
from sluice_airflow.steps import NO_BACKFILL

for name, options in {
    "ingest_c": {"is_paused_upon_creation": False},
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
import contextlib, io, json, re, sqlite3, sys
from airflow.__main__ import main
results = []
for command in json.loads(sys.argv[1]):
    if command[0] == "sqlite":
        with sqlite3.connect(command[1]) as metadata:
            metadata.execute(command[2])
        continue
    if command[0] == "write":
        with open(command[1], command[2]) as file:
            file.write(command[3] or re.search("rehearsed: .*", results[-1][1])[0])
        continue
    if command[0] == "a run ends":
        import threading
        from airflow.listeners.listener import get_listener_manager
        from sluice_airflow.backfill import settle
        settle.PAUSE = 0.1
        heard = get_listener_manager().pm.get_plugins()  # another provider's wants a real run
        [ours] = [listener for listener in heard if getattr(listener, "__name__", "") == "sluice_airflow.listener"]
        for _ in range(2):
            getattr(ours, "on_dag_run_" + command[1])(None, "")
        looks = [thread for thread in threading.enumerate() if thread.name == "sluice-backfills"]
        assert len(looks) == 1, looks
        [look.join() for look in looks]
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
    # Nobody asks for the rest: a run ends, of whichever DAG, and the scheduler's listener hears of it.
    (
        "web",
        (
            "sqlite",
            "{metadata}",
            _FROM_THE_WEB_UI.replace("(2, 'ingest_b', '2026-01-05'", "(3, 'ingest_b', '2026-01-06'"),
        ),
    ),
    ("listener", ("a run ends", "failed")),
    ("asked", ("sqlite", "{metadata}", "update dag_run set state = 'success' where backfill_id = 1")),
    ("listener", ("a run ends", "success")),
)
_WITHOUT_ANSWER = ("sqlite", "a run ends", "write")
_DECLARED = """
source: c
description: a daily list
owner: tests
start: 2026-01-01
tables:
  stock:
    description: a daily list
    from: {files: {connection: drop, path: "{date}.csv"}}
    mode: append
    key: [id]
    columns: {id: {type: integer, required: true}}
"""
_PLAN = "dag: ingest_c\nstart: 2026-01-02\nend: 2026-01-04\nreason: to see that it is the same\n"
_REHEARSAL = ("dags", "backfill", "--plan", "{home}/c.yml", "-n")
_FOR_THE_PLAN = ("dags", "backfill", "--plan", "{home}/c.yml", "--detach", "--yes")
# A reviewed plan says what its rehearsal found; then the world changes, and back again.
_REHEARSED: tuple[tuple[str, tuple[str, ...], int, str], ...] = (
    ("", ("write", "{home}/c.yml", "w", _PLAN), 0, ""),
    (
        "rehearsed",
        ("dags", "backfill", "--plan", "{home}/c.yml", "-n"),
        0,
        "2 files to read.*\nrehearsed: [0-9a-f-]{35}",
    ),
    ("", ("write", "{home}/c.yml", "a", ""), 0, ""),
    ("", ("write", "{home}/files/2026-01-04.csv", "w", "id\n3\n"), 0, ""),
    ("a file more", _FOR_THE_PLAN, 1, "rehearsed, the set of its files changed; nothing was run"),
    ("", ("write", "{home}/sources/c.yml", "w", _DECLARED.replace("id:", "sku:").replace("[id]", "[sku]")), 0, ""),
    ("two things", _FOR_THE_PLAN, 1, "the declaration of the source and the set of its files changed"),
    ("", ("write", "{home}/sources/c.yml", "w", "# as it was\n" + _DECLARED), 0, ""),
    ("", ("write", "{home}/files/2026-01-04.csv", "a", "4\n"), 0, ""),
    ("rehearsed again", _REHEARSAL, 0, "3 files to read"),
    ("", ("write", "{home}/c.yml", "w", _PLAN), 0, ""),
    ("", ("write", "{home}/c.yml", "a", ""), 0, ""),
    ("the same", _FOR_THE_PLAN, 0, "backfill [0-9]+ is made"),
)


@pytest.fixture(scope="module")
def ledger(postgres: PostgresForTests, _ledger_template: str) -> Iterator[str]:
    url = postgres.database(_ledger_template)
    yield url
    postgres.drop(url)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, ledger: str) -> dict[str, tuple[object, str]]:
    """Exit code and words of each command of `_SAY`, `_RECORDS` and `_REHEARSED`."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "dags.py").write_text(_DAGS)
    plan = home / "plan.yml"
    plan.write_text("dag: ingest_nothing\nstart: 2026-01-02\nend: 2026-01-03\nreason: to see what happens\n")
    commands = [["db", "migrate"], ["dags", "reserialize"]] + [
        ["dags", "backfill", *(word.replace("{plan}", str(plan)) for word in words)] for words, _, _ in _SAY.values()
    ]
    metadata = str(home / "airflow.db")
    for name in ("files", "sources"):
        (home / name).mkdir()
    for day in ("2026-01-02", "2026-01-03"):
        (home / "files" / f"{day}.csv").write_text("id\n1\n")
    (home / "sources" / "c.yml").write_text(_DECLARED)
    after = [words for _, words in _RECORDS] + [words for _, words, _, _ in _REHEARSED]
    commands += [[word.replace("{metadata}", metadata).replace("{home}", str(home)) for word in each] for each in after]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, json.dumps(commands)],
        env={
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{metadata}",
            "AIRFLOW_CONN_DROP": f"file://{home}/files",
            "SLUICE_SOURCES_DIR": str(home / "sources"),
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
    named = [(name, words) for name, words, *_ in (*_RECORDS, *_REHEARSED)]
    told = ["db", "dags", *_SAY, *(name for name, words in named if words[0] not in _WITHOUT_ANSWER)]
    return {name: tuple(result) for name, result in zip(told, results, strict=True)}


@pytest.mark.parametrize("name", _SAY)
def test_what_can_not_be_run_is_said_in_a_sentence_before_anything_is_made(
    name: str, answers: dict[str, tuple[object, str]]
) -> None:
    code, told = answers[name]
    _, expected, says = _SAY[name]
    assert code == expected, told[-2000:]
    assert re.search(says, told), told[-2000:]
    assert "is made; the web UI" not in told


def test_a_backfill_of_the_web_ui_is_written_down_and_one_that_airflow_forgot_is_no_success(
    answers: dict[str, tuple[object, str]], ledger: str
) -> None:
    """An Airflow whose database was restored gives a number a second time: the record of the first stays its own. What
    was detached or made in the web UI is written down, and its end too, without a command: when a run ends, of any DAG.
    """
    for name in ("ask", "list", "ask again", "list again"):
        assert answers[name][0] in (0, None), answers[name][1][-2000:]
    assert "ann" in answers["list"][1]
    with psycopg.connect(ledger) as connection:
        rows = connection.execute(
            "select dag_id, engine_id, range_start::date::text, intervals, state, reprocess, reason from ops.backfill"
            " where dag_id <> 'ingest_c' order by backfill_id"
        ).fetchall()
    assert rows == [
        ("ingest_a", 1, "2026-01-02", 2, "forgotten", "none", "to see the record"),
        ("ingest_b", 2, "2026-01-05", 0, "forgotten", "failed", None),
        ("ingest_a", 1, "2026-01-08", 1, "success", "none", "to see the record"),
        ("ingest_b", 3, "2026-01-06", 0, "running", "failed", None),
    ]


def test_a_plan_that_says_what_was_rehearsed_runs_only_if_it_would_do_the_same(
    answers: dict[str, tuple[object, str]], ledger: str
) -> None:
    """A file that came since, and a declaration that says something else, are named, and nothing is made; a comment in
    the declaration, and a file that has other rows, are neither."""
    for name, _, code, says in _REHEARSED:
        if name:
            assert answers[name][0] == code, answers[name][1][-2000:]
            assert re.search(says, answers[name][1], re.DOTALL), answers[name][1][-2000:]
    printed = re.search("rehearsed: (.*)", answers["rehearsed again"][1])
    with psycopg.connect(ledger) as connection:
        rows = connection.execute("select state, intervals, rehearsed from ops.backfill where dag_id = 'ingest_c'")
        assert printed
        assert rows.fetchall() == [("running", 3, printed[1])]
