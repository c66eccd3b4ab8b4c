"""Every alarm fires when it must and not otherwise, has a page, and asks for metrics that there are."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from typer.main import get_command

from sluice.alerts.incidents import KINDS
from sluice.cli import app
from sluice.watch.metrics import QUERIES
from tests.monitoring.conftest import HOME, ROUTING, RULES, program, promtool

CASES = sorted((HOME / "monitoring/prometheus/tests").glob("*.yml"))
COMMAND = get_command(app)
DASHBOARDS = sorted((HOME / "monitoring/grafana/dashboards").glob("*.json"))


def _rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def _alarms() -> list[dict]:
    return [rule for rule in _rules() if "alert" in rule]


def test_the_rules_and_the_routes_can_be_read_by_the_programs_themselves():
    assert promtool("check", "rules", RULES).returncode == 0
    import subprocess

    assert subprocess.run([program("amtool"), "check-config", ROUTING], capture_output=True).returncode == 0


def test_every_case_of_promtool_holds():
    done = promtool("test", "rules", *CASES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alarm_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    tried: dict[str, set[bool]] = {}
    for case in [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]:
        for test in case["alert_rule_test"]:
            tried.setdefault(test["alertname"], set()).add(bool(test["exp_alerts"]))
    assert len(tried) >= 20
    assert tried == {alarm["alert"]: {True, False} for alarm in _alarms()}


def test_every_alarm_and_every_kind_of_incident_has_a_runbook_and_there_is_none_without():
    named = {alarm["annotations"]["runbook"] for alarm in _alarms()}
    named |= {f"docs/runbooks/{runbook}.md" for _, runbook in KINDS.values()}
    pages = {str(path.relative_to(HOME)) for path in (HOME / "docs/runbooks").glob("*.md")} - {
        "docs/runbooks/README.md"
    }
    assert pages == named


def test_every_alarm_says_how_bad_it_is_and_who_tells_it():
    for alarm in _alarms():
        assert alarm["labels"]["severity"] in ("page", "warn"), alarm["alert"]
        assert alarm["labels"]["told_by"] in ("incidents", "alertmanager", "direct"), alarm["alert"]
        assert alarm["annotations"]["summary"], alarm["alert"]


def _families() -> set[str]:
    found = {family.name + ("_total" if family.counts else "") for query in QUERIES for family in query.families}
    own = {"up", "last_read_timestamp_seconds", "read_seconds", "read_failures_total", "series_left_out"}
    return found | {f"sluice_exporter_{name}" for name in own}


@pytest.mark.parametrize("what", ["rules", "dashboards"])
def test_every_metric_that_is_asked_for_is_served(what):
    """A misspelt one would never fire, and never show."""
    text = (
        RULES.read_text()
        if what == "rules"
        else "\n".join(t["expr"] for d in DASHBOARDS for p in json.loads(d.read_text())["panels"] for t in p["targets"])
    )
    asked = set(re.findall(r"\bsluice_[a-z_]+\b", text)) - {
        g["name"] for g in yaml.safe_load(RULES.read_text())["groups"]
    }
    assert len(asked) > 10
    assert asked <= _families()


RUNBOOKS = sorted((HOME / "docs/runbooks").glob("*.md"))


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_says_what_it_means_how_to_check_mend_and_verify(page):
    text = page.read_text()
    for heading in ("## What it means", "## Check", "## Mend", "## Verify"):
        assert heading in text, heading
    assert re.search(r"^    |^```", text, re.M), "it names no command"


def commands(text: str) -> list[list[str]]:
    """The `sluice …` commands in the blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith("sluice ")]


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_the_commands_of_a_runbook_are_commands_with_these_options(page):
    for words in commands(page.read_text()):
        command = COMMAND
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
        assert not hasattr(command, "commands"), f"{page.name}: sluice {words} is not complete"
        options = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        options.add("--help")
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, page.name


@pytest.fixture(scope="session")
def queries() -> list[str]:
    pages = [*RUNBOOKS, HOME / "docs/how-to/alerts.md"]
    return [
        query.strip().rstrip(";")
        for page in pages
        for block in re.findall(r"```sql\n(.*?)```", page.read_text(), re.S)
        for query in block.split(";\n")
        if query.strip()
    ]


def test_the_queries_of_the_runbooks_run_on_the_ledger(warehouse, queries):
    assert len(queries) > 5
    warehouse.execute("create table staging.shop__orders (_batch_id bigint)")  # of the example in books-unbalanced
    for query in queries:
        warehouse.execute(query)


def test_the_reference_lists_every_alarm_and_every_metric():
    page = (HOME / "docs/reference/monitoring.md").read_text()
    assert {name for name in _families() if f"`{name}`" not in page} == set()
    assert {alarm["alert"] for alarm in _alarms() if f"[{alarm['alert']}]" not in page} == set()
