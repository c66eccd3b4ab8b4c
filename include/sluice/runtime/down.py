"""`make down`: stop what a `make run` of this directory has running, here or left behind by a crash."""

import sys
import time

import psutil

from sluice.errors import SluiceError
from sluice.runtime import processes, surroundings
from sluice.runtime.layout import Layout

_GRACE_SECONDS = 45.0


def stop_everything(layout: Layout) -> list[str]:
    """Stop the runner (which stops its own children), then what is left, then PostgreSQL; says what it
    did."""
    done = []
    if pid := processes.running_pid(layout.run_file):
        psutil.Process(pid).terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        while processes.running_pid(layout.run_file) and time.monotonic() < deadline:
            time.sleep(0.2)
        done.append(f"stopped make run (process {pid})")
    if left := processes.end_recorded(layout.run_file):
        done.append(f"stopped {left} processes that were left behind")
    server = surroundings.embedded_postgres(layout)
    if server.is_known() and server.running_port():
        server.stop()
        done.append("stopped PostgreSQL")
    return done


def main() -> int:
    """The command."""
    try:
        for line in stop_everything(Layout.from_environment()) or ["nothing was running"]:
            print(line)
    except SluiceError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
