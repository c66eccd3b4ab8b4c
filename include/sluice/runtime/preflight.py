"""What must be true of this machine before anything is started; each fault is one sentence."""

import shutil
import sys
from pathlib import Path

from sluice.runtime.faults import RuntimeFault
from sluice.runtime.layout import number

_OLDEST = (3, 11)


def check_python() -> None:
    """Airflow, dbt and this package agree on 3.11 and later. (The Makefile asks before it makes the
    .venv.)"""
    if sys.version_info < _OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        raise RuntimeFault(f"this is Python {found}, but 3.11 or later is needed. Install one, then: make clean run")


def check_disk(directory: Path) -> None:
    """A database that runs out of disk stops half way; better not to begin."""
    needed = number("SLUICE_MIN_FREE_MB", 2048)
    existing = next(place for place in (directory, *directory.parents) if place.exists())
    free = shutil.disk_usage(existing).free // 2**20
    if free < needed:
        raise RuntimeFault(
            f"only {free:,} MB are free on the disk that holds {directory}, and {needed:,} MB are wanted; "
            "nothing was "
            "started. Free some space, set SLUICE_STATE_DIR to a directory on another disk, or lower "
            "SLUICE_MIN_FREE_MB."
        )


def check_writable(directory: Path) -> None:
    """The state directory must be ours."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".probe").write_text("")
        (directory / ".probe").unlink()
    except OSError as error:
        raise RuntimeFault(
            f"{directory} cannot be written ({error.strerror}); nothing was started. "
            "Set SLUICE_STATE_DIR to a directory of yours."
        ) from None
