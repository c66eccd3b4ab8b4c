"""`airflow dags backfill`: the command that Airflow 3 removed.

Through the real command line of the installed Airflow, so that an upgrade that moves the ground under it fails here and
not at a person's terminal.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture
def airflow(tmp_path: Path):
    """Run `airflow …` without a database."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("airflow")), *arguments],
            env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_the_command_is_where_people_look_for_it(airflow) -> None:
    shown = airflow("dags", "backfill", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "usage: airflow dags backfill" in shown.stdout.lower()
    for option in (
        *("--start-date", "--end-date", "--dry-run", "--reset-dagruns", "--rerun-failed-tasks", "--run-backwards"),
        *("--conf", "--max-active-runs", "--task-regex", "--yes", "--detach", "--treat-dag-id-as-regex"),
    ):
        assert option in shown.stdout


def test_the_same_command_is_in_a_group_of_our_own(airflow) -> None:
    shown = airflow("sluice", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "backfill" in shown.stdout
    assert "backfills" in shown.stdout


def test_the_functions_of_airflow_that_it_stands_on_are_as_they_were() -> None:
    """They are private. When this fails after an upgrade, read airflow/models/backfill.py, and mend
    plugins/sluice_airflow/backfill/engine.py."""
    from airflow.models import backfill

    assert set(inspect.signature(backfill._create_backfill).parameters) == {
        *("dag_id", "from_date", "to_date", "max_active_runs", "reverse", "dag_run_conf"),
        *("triggering_user_name", "reprocess_behavior", "run_on_latest_version"),
    }
    assert set(inspect.signature(backfill._do_dry_run).parameters) == {
        *("dag_id", "from_date", "to_date", "reverse", "reprocess_behavior", "session", "dag_run_conf"),
    }
    assert {behavior.value for behavior in backfill.ReprocessBehavior} == {"none", "failed", "completed"}
    for refusal in (
        *("AlreadyRunningBackfill", "DagNonPeriodicScheduleException", "InvalidBackfillDate", "InvalidBackfillConf"),
        *("InvalidBackfillDateRange", "InvalidBackfillDirection", "InvalidReprocessBehavior", "NoBackfillRunsToCreate"),
    ):
        assert issubclass(getattr(backfill, refusal), Exception)


def test_what_is_mended_of_airflow_is_still_broken() -> None:
    """When this fails after an upgrade, Airflow clears runs with a deadline by itself: plugins/sluice_airflow/mended.py
    can go, with its two callers."""
    from airflow.models import taskinstance

    source = Path(taskinstance.__file__).read_text()
    assert "deadline_interval = timedelta(seconds=deadline_alert.interval)" in source


def given(**options: object) -> Namespace:
    """The options of a command line, the rest absent."""
    from sluice_airflow.backfill.commands import ARGS

    names = [argument.flags[0 if len(argument.flags[0]) > 2 else -1].lstrip("-").replace("-", "_") for argument in ARGS]
    return Namespace(**{**dict.fromkeys(names), "dag_id": "ingest_shop", **options})


# `airflow dags backfill --help` of Airflow 2.10: each option in each of its spellings, with a value where it takes one.
AIRFLOW_2 = """
-c {"a":1} | --conf {"a":1} | --continue-on-failures | --delay-on-limit 2.0 | --disable-retry | -n | --dry-run | -x
--donot-pickle | -e 2026-01-02 | --end-date 2026-01-02 | -i | --ignore-dependencies | -I
--ignore-first-depends-on-past | -l | --local | -m | --mark-success | --pool slow | --rerun-failed-tasks
--reset-dagruns | -B | --run-backwards | -s 2026-01-01 | --start-date 2026-01-01 | -S dags | --subdir dags
-t .*land | --task-regex .*land | --treat-dag-as-regex | --treat-dag-id-as-regex | -v | --verbose | -y | --yes
"""
MEANT = {
    *("conf", "dry_run", "end_date", "rerun_failed_tasks", "reset_dagruns", "run_backwards", "start_date"),
    *("task_regex", "treat_dag_id_as_regex", "yes"),
}


@pytest.mark.parametrize("option", [each.strip() for each in AIRFLOW_2.replace("\n", "|").split("|") if each.strip()])
def test_every_option_of_airflow_2_has_a_meaning_or_says_what_became_of_it(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through Airflow's own parser, as a person types it: none is unknown, and none is ignored in silence."""
    import airflow.cli.cli_parser as cli
    from sluice_airflow.backfill import commands, request

    monkeypatch.setattr(cli, "airflow_commands", list(cli.airflow_commands))
    commands.get_commands()
    cli.get_parser.cache_clear()
    monkeypatch.setattr(request, "_dags", lambda args: [args.dag_id])
    typed = option.split(" ", 1)
    dates = [] if typed[0] in ("-s", "--start-date", "-e", "--end-date") else ["-s", "2026-01-01"]
    args = cli.get_parser().parse_args(["dags", "backfill", "ingest_shop", *dates, *typed])
    [name] = [
        (argument.flags[0] if len(argument.flags[0]) > 2 else argument.flags[-1]).lstrip("-").replace("-", "_")
        for argument in commands.ARGS
        if typed[0] in argument.flags
    ]
    assert getattr(args, name), "the parser knows it"
    try:
        request.requests_of(args)
        answer = capsys.readouterr().out
    except request.Misuse as refusal:
        answer = str(refusal)
    assert (answer == "") == (name in MEANT)
    if answer:
        assert name.replace("_", "-") in answer
        assert "has no effect: " in answer or " is gone" in answer


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give a range"),
        ({"dag_id": None, "start_date": "2026-01-01"}, "name the DAG"),
        ({"start_date": "yesterday"}, "not a date"),
        ({"start_date": "2026-02-01", "end_date": "2026-01-01"}, "is after"),
        ({"start_date": "2026-01-01", "conf": "{"}, "not JSON"),
        ({"start_date": "2026-01-01", "conf": "[1]"}, "must be a JSON object"),
        ({"start_date": "2026-01-01", "reset_dagruns": True, "rerun_failed_tasks": True}, "give one"),
        ({"start_date": "2026-01-01", "plan": "x.yml"}, "leave out of the command: the DAG, --start-date"),
        ({"dag_id": None, "plan": "x.yml", "reset_dagruns": True, "conf": "{}"}, "out of .*: --reset-dagruns, --conf$"),
        ({"dag_id": None, "plan": "x.yml", "task_regex": "wait"}, "out of the command: --task-regex"),
        ({"start_date": "2026-01-01", "conf": '{"a": NaN}'}, "NaN is none of its values"),
        ({"start_date": "2026-W01-1"}, "not a date"),
        ({"start_date": "2026-01-01", "mark_success": True}, "--mark-success is gone"),
        ({"start_date": "2026-01-01", "ignore_dependencies": True}, "--task-regex"),
        ({"start_date": "2026-01-01", "pool": "slow"}, "--pool is gone"),
        ({"start_date": "2026-01-01", "disable_retry": True}, "--disable-retry is gone"),
    ],
)
def test_an_option_without_a_meaning_says_what_to_do_instead(options: dict[str, object], says: str) -> None:
    from sluice_airflow.backfill.request import Misuse, requests_of

    with pytest.raises(Misuse, match=says):
        requests_of(given(**options))


def test_a_plan_says_all_that_the_options_would(tmp_path: Path) -> None:
    from sluice_airflow.backfill.request import Request, requests_of

    plan = tmp_path / "january.yml"
    plan.write_text(
        "dag: ingest_shop\nstart: 2026-01-01\nend: 2026-01-31\nreason: Lyon sent January again\nreprocess: completed\n"
    )
    assert requests_of(given(dag_id=None, plan=str(plan))) == [
        Request(
            dag_id="ingest_shop",
            start=datetime(2026, 1, 1, tzinfo=UTC),
            end=datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC),
            reprocess="completed",
            reason="Lyon sent January again",
            plan=str(plan),
        )
    ]


@pytest.mark.parametrize(
    ("dates", "start", "end"),
    [
        (("20260103", "20260104"), "2026-01-03T00:00+00:00", "2026-01-04T23:59:59.999999+00:00"),
        (("2026-01-03T00:00:00+02:00", "'2026-01-03T00:00:00'"), "2026-01-02T22:00+00:00", "2026-01-03T00:00+00:00"),
        (("2024-02-29", "2024-02-29"), "2024-02-29T00:00+00:00", "2024-02-29T23:59:59.999999+00:00"),
    ],
)
def test_a_date_of_a_plan_means_what_it_means_to_the_command(
    tmp_path: Path, dates: tuple[str, str], start: str, end: str
) -> None:
    """A number is no count of seconds since 1970, and midnight somewhere is no whole day here."""
    from sluice_airflow.backfill.request import requests_of

    plan = tmp_path / "plan.yml"
    plan.write_text(f"dag: x\nstart: {dates[0]}\nend: {dates[1]}\nreason: to see what it means\n")
    [request] = requests_of(given(dag_id=None, plan=str(plan)))
    assert (request.start, request.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


def test_options_without_a_meaning_for_single_tasks_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sluice_airflow.backfill import request

    monkeypatch.setattr(request, "_dags", lambda args: [args.dag_id])
    request.requests_of(given(start_date="2026-01-01", task_regex="wait", reason="to see", detach=True))
    told = capsys.readouterr().out
    assert "--reason has no effect with --task-regex" in told
    assert "--detach has no effect with --task-regex" in told


def test_a_plan_is_found_in_the_repository_from_the_shell_of_make_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sluice.backfill import load_plan

    (tmp_path / "dbt_project").mkdir()
    (tmp_path / "january.yml").write_text(
        "dag: x\nstart: 2026-01-01\nend: 2026-01-02\nreason: to see that it is found\n"
    )
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "dbt_project")
    assert load_plan(Path("january.yml")).dag == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dag: ingest_shop\nstart: 2026-01-01\nend: 2026-01-31\n", "reason: is required"),
        ("dag: x\nstart: 2026-02-01\nend: 2026-01-31\nreason: to see what happens\n", "start is after end"),
        ("dag: x\nstart: 2026-01-01T06:00\nend: 2026-01-01T05:00\nreason: to see it all\n", "start is after end"),
        ("dag: x\nstart: 1.5\nend: 2026-01-31\nreason: to see what happens\n", r"plan.yml:2: start"),
        ("dag: x\nstart: 2026-01-01\nend: 2026-01-31\nreason: '          '\n", r"plan.yml:4: reason"),
        ("dag: x\nstart: soon\nend: 2026-01-31\nreason: to see what happens\n", r"plan.yml:2: start"),
        ("dag: x\nstart: 2026-01-01\nend: 2026-01-31\nreason: to see it\nwhy: now\n", r"plan.yml:5: why"),
        ("dag: [\n", "plan.yml:"),
        ("just words\n", "must hold the fields"),
    ],
)
def test_a_plan_with_faults_names_the_line_and_runs_nothing(tmp_path: Path, text: str, says: str) -> None:
    from sluice.backfill import PlanError, load_plan

    plan = tmp_path / "plan.yml"
    plan.write_text(text)
    with pytest.raises(PlanError, match=says) as raised:
        load_plan(plan)
    assert "othing was run" in str(raised.value)
