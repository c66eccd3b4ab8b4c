"""The Dockerfile can be built from a clone, holds what runs and no more, and installs what is locked."""

import fnmatch
import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from sluice.runtime import run
from sluice.runtime.layout import Layout


def _ignored(rules: list[str], path: str) -> bool:
    """Whether .dockerignore leaves `path` out: the last rule that matches it or a folder above it decides."""
    parts = path.split("/")
    whole = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    left_out = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        patterns = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        if any(_matches(each, above) for each in patterns for above in whole):
            left_out = not rule.startswith("!")
    return left_out


def _matches(pattern: str, path: str) -> bool:
    wanted, parts = pattern.split("/"), path.split("/")
    if wanted[0] == "**":
        return any(_matches("/".join(wanted[1:]), "/".join(parts[start:])) for start in range(len(parts)))
    return len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))


@pytest.fixture(scope="module")
def rules(home: Path) -> list[str]:
    lines = (home / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def copied(stages) -> list[str]:
    """What the build stage takes from the context."""
    return [word for text in stages[0].all("COPY") for word in text.split()[:-1]]


@pytest.fixture(scope="module")
def tracked(home: Path) -> list[str]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=home, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("this is no git checkout, so what a clone holds is not known")
    return found.stdout.strip("\0").split("\0")


def test_every_copied_path_is_in_a_clone_and_not_ignored(copied, tracked, rules):
    assert len(copied) > 6
    for path in copied:
        inside = [name for name in tracked if name == path or name.startswith(f"{path}/")]
        assert inside, f"COPY {path}: a clone has no such path"
        assert not _ignored(rules, path), f"COPY {path}: .dockerignore leaves it out"
        assert [name for name in inside if not _ignored(rules, name)], f"COPY {path}: nothing of it is left"


def test_no_secret_and_no_local_data_enters_the_image(rules):
    for path in (
        ".env",
        "deploy/.env",
        "deploy/connections.env",
        ".git/config",
        ".sluice/secrets.json",
        ".venv/bin/python",
        "dbt_project/target/manifest.json",
        "dbt_project/logs/dbt.log",
        "dbt_project/.user.yml",
        "include/sluice/__pycache__/settings.cpython-311.pyc",
        "include/sluice.egg-info/PKG-INFO",
        "tests/conftest.py",
        "debs/redis.deb",
    ):
        assert _ignored(rules, path), path


def test_all_code_that_runs_enters_the_image(rules, tracked):
    runs = [name for name in tracked if re.match(r"(config|dags|dbt_project|include|plugins)/", name)]
    assert len(runs) > 100
    assert [name for name in runs if _ignored(rules, name)] == []


def test_the_image_is_made_of_pinned_things(stages, home):
    text = (home / "Dockerfile").read_text()
    assert re.findall(r"^ARG PYTHON_IMAGE=(.+)$", text, re.M) == ["python:3.11-slim-bookworm"]
    assert {stage.base for stage in stages} == {"${PYTHON_IMAGE}"}
    for stage in stages:
        for command in stage.all("RUN"):
            assert not re.search(r"apt-get|curl|wget|git clone", command), f"fetched without a pin: {command}"


def test_pip_installs_only_what_the_lock_names(stages):
    installs = [text for stage in stages for text in stage.all("RUN") if "pip install" in text]
    assert len(installs) == 2
    for command in installs:
        assert "--no-deps" in command, command
        if "-e ." not in command:
            assert "--require-hashes" in command, command
            assert "-r requirements-server.txt" in command, command


def _pins(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)(?:\[[^]]+\])?==([^ ]+)", path.read_text(), re.M):
        found.setdefault(name, []).append(version)
    return found


def test_the_image_installs_what_gives_airflow_its_commands_as_make_run_does(stages, home):
    """`airflow dags backfill` comes by an entry point: code that is only on the path would not have it."""
    [installed] = [text for text in stages[0].all("RUN") if text.endswith("-e .")]
    [by_make] = [line for line in (home / "Makefile").read_text().splitlines() if line.endswith("-e .")]
    assert "--no-build-isolation" in installed
    assert "--no-build-isolation" in by_make
    entries = tomllib.loads((home / "pyproject.toml").read_text())["project"]["entry-points"]
    where, _, name = entries["apache_airflow_provider"]["provider_info"].partition(":")
    [command] = getattr(importlib.import_module(where), name)()["cli"]
    assert callable(getattr(importlib.import_module(command.rpartition(".")[0]), command.rpartition(".")[2]))


def test_a_server_runs_the_versions_of_make_run(home):
    here, server = _pins(home / "requirements.txt"), _pins(home / "requirements-server.txt")
    assert len(here) > 100
    for name, versions in here.items():
        assert server.get(name) == versions, f"{name}: compile requirements-server.in again; it says how"
    assert {"celery", "redis", "apache-airflow-providers-celery"} <= set(server) - set(here)
    assert tuple(map(int, server["celery"][0].split(".")[:2])) < (5, 7)
    for block in re.split(r"\n(?=[a-z])", (home / "requirements-server.txt").read_text())[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_the_manifest_is_parsed_as_make_run_does(stages, home, tmp_path, monkeypatch):
    seen: list[list[str]] = []

    def called(command, **_):
        seen.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(run.subprocess, "run", called)
    run.parse_dbt_project(Layout(home, tmp_path, 1, 2, 3, 4, 5, 6), {})
    wanted = " ".join(seen[0][seen[0].index("parse") :])
    parse = [text for text in stages[0].all("RUN") if " parse " in text]
    assert len(parse) == 1
    assert wanted in parse[0]
    assert parse[0].startswith("cd dbt_project &&")
    for name in ("manifest.json", "partial_parse.msgpack"):
        assert f"test -s target/{name}" in parse[0]


def test_the_code_is_root_s_and_the_process_is_not(stages):
    last = stages[-1]
    assert last.all("USER") == ["10001:10001"]
    words = [word for word, _ in last.instructions]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("COPY", "RUN"))
    for text in last.all("COPY"):
        assert "--from=build" in text
        assert "--chown" not in text, "the process could change its own code"
    made = " ".join(last.all("RUN"))
    assert "/opt" not in made
    assert "--uid 10001 --gid sluice" in made, "Airflow does not start as a user without a name"


def test_paths_of_the_environment_are_in_the_image(stages, image_environment, home):
    created = " ".join(stages[-1].all("RUN"))
    for name, value in image_environment.items():
        for place in value.split(":") if value.startswith("/") else []:
            if place.startswith("/opt/sluice/") and "/target/" not in place:
                assert (home / place.removeprefix("/opt/sluice/")).exists(), name
            elif place.startswith("/var/lib/sluice"):
                assert f"{place} " in f"{created} ", f"{name}: {place} is not created"


def test_the_entrypoint_is_in_the_image(stages, home, compose):
    assert stages[-1].all("ENTRYPOINT") == ['["/opt/venv/bin/python", "/opt/sluice/deploy/entrypoint.py"]']
    assert (home / "deploy/entrypoint.py").exists()
    assert compose["services"]["init"]["command"] == ["bash", "/opt/sluice/deploy/init.sh"]
    assert (home / "deploy/init.sh").exists()
