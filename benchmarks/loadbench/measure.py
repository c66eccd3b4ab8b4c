"""Runs one program and says what it cost: seconds, CPU at the client and at the server, peak memory, WAL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

_TICK = 0.05  # seconds between two looks at the memory
Look = tuple[float, float, float, int, float]


@dataclass(frozen=True)
class Phase:
    """One part of a run. Times are seconds; `others` is the CPU time that the rest of the machine took meanwhile."""

    name: str
    seconds: float
    client_cpu: float
    server_cpu: float
    wal_bytes: int
    others: float


@dataclass(frozen=True)
class Run:
    """What one run cost. `fault` says why there is nothing to show."""

    phases: tuple[Phase, ...] = ()
    peak_bytes: int = 0
    output: str = ""
    fault: str = ""

    def phase(self, *names: str) -> Phase:
        """The named phases as one; all of them, if none is named."""
        chosen = [phase for phase in self.phases if not names or phase.name in names]
        sums = ((getattr(p, f) for p in chosen) for f in ("seconds", "client_cpu", "server_cpu", "wal_bytes", "others"))
        return Phase("+".join(p.name for p in chosen), *map(sum, sums))  # type: ignore[arg-type]


@dataclass
class Meter:
    """Looks at the clocks of a client's processes, of the server and of the machine."""

    postmaster: psutil.Process
    url: str
    _peaks: dict[int, int] = field(default_factory=dict)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        scripted: bool,
        limit: float,
        env: Mapping[str, str] | None = None,
    ) -> Run:
        """Run a command to its end, or to `limit` seconds.

        A `scripted` one reports its phases (see `phases.py`): its start, with interpreter and imports, is left out.
        """
        self._peaks = {}
        start = self._look(0.0)
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                text=True,
                start_new_session=True,
            )
            killer = threading.Timer(limit, _kill, [process])
            watcher = threading.Thread(target=self._watch, args=[process.pid], daemon=True)
            killer.start()
            watcher.start()
            try:
                phases, output = self._scripted(process) if scripted else self._plain(process, start)
            finally:
                in_time = killer.is_alive()
                killer.cancel()
                _kill(process)
                process.wait()
                watcher.join()
            errors.seek(0)
            said = errors.read().strip()
        fault = ""
        if not in_time:
            fault = f"more than {limit:.0f} s"
        elif process.returncode:
            fault = f"failed: {_last_line(said or output)}"
        return Run(tuple(phases), sum(self._peaks.values()), output, fault)

    def _scripted(self, process: subprocess.Popen[str]) -> tuple[list[Phase], str]:
        assert process.stdin
        assert process.stdout
        phases: list[Phase] = []
        output, before = [], None
        for line in process.stdout:
            if not line.startswith("@phase "):
                output.append(line)
                continue
            now = self._look(_tree_cpu(process.pid), time.monotonic())
            if before is not None:
                phases.append(_between(line.split()[1], before, now))
            before = self._look(_tree_cpu(process.pid))
            process.stdin.write("go\n")
            process.stdin.flush()
        process.wait()
        return phases, "".join(output)

    def _plain(self, process: subprocess.Popen[str], start: Look) -> tuple[list[Phase], str]:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        return [_between("loaded", start, self._look(usage.ru_utime + usage.ru_stime, ended))], output

    def _look(self, client: float, ended: float | None = None) -> Look:
        with psycopg.connect(self.url) as connection:
            wal = connection.execute("select pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
        times = psutil.cpu_times()
        machine = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return ended or time.monotonic(), client, _tree_cpu(self.postmaster.pid), int(wal[0] if wal else 0), machine

    def _watch(self, pid: int) -> None:
        """The sum of what each process of the client had at most, which no moment between two looks can hide."""
        while True:
            try:
                root = psutil.Process(pid)
                if root.status() == psutil.STATUS_ZOMBIE:
                    return
                for process in (root, *root.children(recursive=True)):
                    self._peaks[process.pid] = max(self._peaks.get(process.pid, 0), _high_water(process))
            except psutil.NoSuchProcess:
                if not psutil.pid_exists(pid):
                    return
            time.sleep(_TICK)


def _between(name: str, before: Look, now: Look) -> Phase:
    seconds, client, server, wal, machine = (after - earlier for earlier, after in zip(before, now, strict=True))
    return Phase(name, seconds, client, server, wal, max(0.0, machine - client - server))


def _tree_cpu(pid: int) -> float:
    """CPU seconds of a process, of those below it and of those that have ended."""
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _high_water(process: psutil.Process) -> int:
    """Bytes of memory that a process ever had; where the system doesn't keep that, what it has now."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(process.memory_info().rss)


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no word why"
