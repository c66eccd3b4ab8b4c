"""`make dev` in a shell that was never told of the ports: it speaks of what runs, or says that nothing does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sluice.alerts import channels
from sluice.runtime.layout import Layout
from sluice.runtime.ports import free_port
from sluice.runtime.processes import Supervisor
from sluice.runtime.surroundings import Surroundings, write_environment

SHOWN = "import json, os, cosmos.settings; print(json.dumps(dict(os.environ)))"  # as a DAG that is parsed imports it


def dev(state: Path) -> subprocess.CompletedProcess[str]:
    """The command in a second terminal, of which only the state directory is known."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "AIRFLOW_", "DBT_"))}
    return subprocess.run(
        [sys.executable, "-m", "sluice.runtime.dev", sys.executable, "-c", SHOWN],
        env={**mine, "SLUICE_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_second_terminal_finds_the_ports_of_the_running_stack(tmp_path: Path, warehouse_url, monkeypatch) -> None:
    web, metadata = str(free_port()), "postgresql://airflow:secret@127.0.0.1:1/airflow"
    with monkeypatch.context() as terminal:
        terminal.delenv("SLUICE_WAREHOUSE_URL", raising=False)
        terminal.setenv("SLUICE_STATE_DIR", str(tmp_path))
        terminal.setenv("SLUICE_WEB_PORT", web)
        terminal.setenv("SLUICE_ALERT_CHANNEL_TEAM", "json://hooks.example.org/x")
        layout = Layout.from_environment()
        write_environment(layout, Surroundings(warehouse_url, metadata, "", ""), "http://127.0.0.1:1/")
    Supervisor(layout.run_file, layout.logs).claim()

    done = dev(tmp_path)

    assert done.returncode == 0, done.stderr
    assert "not found in config" not in done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == metadata.replace("postgresql:", "postgresql+psycopg2:")
    assert found["AIRFLOW__API__PORT"] == web
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://127.0.0.1:{web}/execution/"
    assert channels.named(found) == {"team": "json://hooks.example.org/x"}


def test_where_nothing_runs_it_says_so_in_a_sentence(tmp_path: Path) -> None:
    done = dev(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"nothing runs here: no `make run` keeps its state in {tmp_path}. "
        "Start one in another terminal with: make run\n"
    )
