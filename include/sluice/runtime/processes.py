"""Child processes that are never forgotten: each leads a session of its own, which is recorded in `run.json`.

Airflow puts every task in a process group of its own and overwrites its components' environment with their
titles, so neither groups nor variables find all of them again. The session stays the same for all
descendants.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from sluice.runtime.faults import RuntimeFault, last_lines
from sluice.runtime.secretstore import write_private

_GRACE_SECONDS = 12.0


@dataclass(frozen=True)
class Child:
    """A component that should run until we stop it."""

    name: str
    process: subprocess.Popen
    log: Path

    def fault(self) -> RuntimeFault:
        """What to say when it is gone although nobody stopped it."""
        return RuntimeFault(
            f"{self.name} stopped by itself (exit code {self.process.returncode}). The end of its log, "
            f"{self.log}:\n"
            f"{last_lines(self.log)}"
        )


class Supervisor:
    """The processes of one `make run`."""

    def __init__(self, run_file: Path, logs: Path) -> None:
        self.run_file = run_file
        self.logs = logs
        self.children: list[Child] = []

    def claim(self) -> None:
        """Make this the one stack of the state directory; refuse while another lives, tidy up after one that
        died."""
        if pid := running_pid(self.run_file):
            raise RuntimeFault(f"a `make run` of this directory is already up (process {pid}). Stop it with: make down")
        end_recorded(self.run_file)
        self._record()

    def spawn(self, name: str, command: list[str], env: Mapping[str, str], cwd: Path) -> Child:
        """Start `command` in its own session, its output appended to `<logs>/<name>.log`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
            )
        child = Child(name, process, log)
        self.children.append(child)
        self._record()
        return child

    def check(self) -> None:
        """Raise when a component died."""
        for child in self.children:
            if child.process.poll() is not None:
                raise child.fault()

    def stop(self) -> None:
        """Ask all to end, wait, then make the rest end: components first, so that nothing is started
        meanwhile."""
        for child in self.children:
            _signal(child.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in self.children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        _end_sessions({child.process.pid for child in self.children})
        for child in self.children:
            child.process.wait(5)
        self.children.clear()
        self.run_file.unlink(missing_ok=True)

    def _record(self) -> None:
        sessions = {str(child.process.pid): _created(child.process.pid) for child in self.children}
        write_private(self.run_file, {"pid": os.getpid(), "created": _created(os.getpid()), "sessions": sessions})


def running_pid(run_file: Path) -> int | None:
    """The process of the `make run` that `run_file` records, if it still is that process."""
    record = _read(run_file)
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["created"]) < 1  # else the pid was given to another program
        return process.pid if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (KeyError, psutil.Error):
        return None


def end_recorded(run_file: Path) -> int:
    """End what a `make run` left behind; returns how many processes there were."""
    recorded = _read(run_file).get("sessions", {})
    ended = _end_sessions({int(pid) for pid, created in recorded.items() if not _is_another(int(pid), created)})
    run_file.unlink(missing_ok=True)
    return ended


def _is_another(pid: int, created: float) -> bool:
    """Whether `pid` was given to another program. A pid is not given away while its session has members."""
    now = _created(pid)
    return now is not None and abs(now - created) >= 1


def _created(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _end_sessions(sessions: set[int]) -> int:
    """End every process of `sessions`, politely, then not; returns how many there were."""
    found = _members(sessions)
    _terminate(found, psutil.Process.terminate, seconds=5)
    _terminate(_members(sessions), psutil.Process.kill, seconds=5)
    return len(found)


def _members(sessions: set[int]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _terminate(processes: list[psutil.Process], act: Callable[[psutil.Process], None], seconds: float) -> None:
    for process in processes:
        try:
            act(process)
        except psutil.Error:
            continue
    psutil.wait_procs(processes, timeout=seconds)


def _signal(group: int, what: signal.Signals) -> None:
    try:
        os.killpg(group, what)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return


def _read(run_file: Path) -> dict:
    try:
        return json.loads(run_file.read_text())
    except (OSError, ValueError):
        return {}
