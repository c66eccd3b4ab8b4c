"""Prometheus, Alertmanager and promtool as Debian packages them, on ports of their own, and stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.runtime.ports import free_port
from tests.watch.conftest import exporting, world  # noqa: F401

HOME = Path(__file__).resolve().parents[2]
RULES = HOME / "monitoring/prometheus/rules/sluice.yml"
ROUTING = HOME / "monitoring/alertmanager/alertmanager.yml"


def program(*names: str) -> str:
    """The path of a program. Without it a test fails in CI (.ci/run), and elsewhere is skipped with what to install."""
    for name in names:
        if path := shutil.which(name):
            return path
    told = f"{names[0]} is not installed. On Debian and Ubuntu: apt-get install prometheus prometheus-alertmanager"
    (pytest.fail if os.environ.get("SLUICE_TEST_ALL") else pytest.skip)(told)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True)


class Server:
    """An HTTP API of Prometheus's or Alertmanager's."""

    def __init__(self, port: int, prefix: str) -> None:
        self.url = f"http://127.0.0.1:{port}{prefix}"

    def get(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=10) as answer:
            return json.load(answer)

    def query(self, expression: str) -> list[dict]:
        return self.get("/query", query=expression)["data"]["result"]

    def firing(self) -> set[str]:
        """Names of alarms that fire, with the source or step they are about."""
        alarms = self.get("/alerts")["data"]["alerts"]
        return {
            " ".join(
                [a["labels"]["alertname"], *(a["labels"][k] for k in ("source", "table", "step") if k in a["labels"])]
            )
            for a in alarms
            if a["state"] == "firing"
        }

    def wait(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except OSError:
                pass  # not up yet
            assert time.monotonic() < deadline, "it did not come to be in time"
            time.sleep(0.1)


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a server that ends with the test."""
    started: list[subprocess.Popen] = []

    def start(*command: str) -> subprocess.Popen:
        log = (tmp_path / f"{Path(command[0]).name}.log").open("w")
        started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(20)


def compressed_rules(folder: Path, factor: int) -> Path:
    """The real rule file with every `for` divided: time runs `factor` times as fast."""
    tree = yaml.safe_load(RULES.read_text())
    seconds = {"m": 60, "h": 3600, "d": 86400}
    for group in tree["groups"]:
        for rule in group["rules"]:
            if wait := rule.get("for"):
                rule["for"] = f"{int(wait[:-1]) * seconds[wait[-1]] * 1000 // factor}ms"
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def prometheus(tmp_path: Path, spawn: Callable) -> Callable[..., Server]:
    """A Prometheus that scrapes the exporter of a test five times a second."""

    def start(exporter: int, factor: int = 60, alertmanager: int | None = None) -> Server:
        port = free_port()
        configuration = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [str(compressed_rules(tmp_path, factor))],
            "scrape_configs": [
                {
                    "job_name": "sluice",
                    "scrape_timeout": "200ms",
                    "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}],
                }
            ],
        }
        if alertmanager:
            targets = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
            configuration["alerting"] = {"alertmanagers": targets}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        spawn(
            program("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        )
        server = Server(port, "/api/v1")
        server.wait(lambda: server.query('up{job="sluice"} == 1'))
        return server

    return start


@pytest.fixture
def alertmanager(tmp_path: Path, spawn: Callable) -> Callable[[str], tuple[int, Server]]:
    """An Alertmanager with the repository's own routes, which sends to a webhook of the test's and hardly waits."""

    def start(webhook: str) -> tuple[int, Server]:
        tree = yaml.safe_load(ROUTING.read_text())
        for receiver in tree["receivers"]:
            for hook in receiver.get("webhook_configs", []):
                hook["url"] = webhook
        tree["route"].update(group_wait="500ms", group_interval="500ms")
        path = tmp_path / "alertmanager.yml"
        path.write_text(yaml.safe_dump(tree))
        port = free_port()
        spawn(
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={path}",
            f"--storage.path={tmp_path / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        )
        server = Server(port, "/api/v2")
        server.wait(lambda: server.get("/status"))
        return port, server

    return start
