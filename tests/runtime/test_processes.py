"""Nothing that was started stays behind: not after a stop, not after a crash of ours or of theirs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sluice.runtime import processes
from sluice.runtime.faults import RuntimeFault
from sluice.runtime.processes import Supervisor

# As Airflow does: a child in a process group of its own, which moreover ignores SIGTERM.
STUBBORN = """
import os, signal, sys, time
if os.fork() == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor whose children do not outlive the test."""
    made = Supervisor(tmp_path / "run.json", tmp_path / "logs")
    yield made
    made.stop()


def spawn(supervisor: Supervisor, tmp_path: Path) -> int:
    """Start a parent with a stubborn child; returns the child's pid."""
    note = tmp_path / "child.pid"
    supervisor.spawn("stubborn", [sys.executable, "-c", STUBBORN, str(note)], os.environ, tmp_path)
    deadline = time.monotonic() + 20
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(note.read_text())


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_stop_ends_children_and_grandchildren(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.claim()
    child = spawn(supervisor, tmp_path)
    supervisor.stop()
    assert is_gone(child)
    assert not supervisor.run_file.exists()


def test_a_component_that_dies_is_told_with_the_end_of_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    child = supervisor.spawn("scheduler", command, os.environ, tmp_path)
    child.process.wait(20)
    with pytest.raises(
        RuntimeFault, match=r"(?s)scheduler stopped by itself \(exit code 3\).*scheduler.log.*the reason"
    ):
        supervisor.check()


def test_what_a_killed_run_left_behind_is_ended_by_the_next(supervisor: Supervisor, tmp_path: Path) -> None:
    child = spawn(supervisor, tmp_path)
    record = json.loads(supervisor.run_file.read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    supervisor.run_file.write_text(json.dumps({**record, "pid": gone.pid}))  # the runner is no more
    following = Supervisor(supervisor.run_file, tmp_path / "logs")
    following.claim()
    assert is_gone(child)


def test_a_second_run_is_refused_while_the_first_lives(supervisor: Supervisor) -> None:
    supervisor.claim()
    with pytest.raises(RuntimeFault, match=rf"already up \(process {os.getpid()}\).*make down"):
        Supervisor(supervisor.run_file, supervisor.logs).claim()
    assert supervisor.run_file.exists()


def test_a_pid_that_now_belongs_to_another_program_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        record = {"pid": other.pid, "created": 1.0, "sessions": {str(other.pid): 1.0}}
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert processes.running_pid(tmp_path / "run.json") is None
        assert processes.end_recorded(tmp_path / "run.json") == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
