"""Whom PostgreSQL runs as, and what that account can reach.

PostgreSQL refuses to run as root. As an ordinary user nothing here does anything; as root the server gets an
account of its own, and a place that this account can enter.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.runtime.faults import RuntimeFault

_ACCOUNT = "pgserver"


@dataclass(frozen=True)
class Account:
    """A user of this machine that runs PostgreSQL."""

    name: str
    uid: int
    gid: int

    def identity(self) -> dict[str, Any]:
        """Arguments for `subprocess` that run a command as this account; none when we are it already."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_enter(self, directory: Path) -> bool:
        """Whether this account reaches `directory`: asked of the system, so access lists count too."""
        probe = ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)]
        return subprocess.run(probe, cwd="/", stderr=subprocess.DEVNULL, **self.identity()).returncode == 0

    def can_run(self, program: Path) -> bool:
        """Whether this account may execute `program`."""
        probe = ["/bin/sh", "-c", 'test -x "$1" && test -r "$1"', "sh", str(program)]
        return subprocess.run(probe, cwd="/", stderr=subprocess.DEVNULL, **self.identity()).returncode == 0

    def owns(self, directory: Path) -> bool:
        """Whether `directory` is this account's own, and no link planted by someone else."""
        return directory.is_dir() and not directory.is_symlink() and directory.stat().st_uid == self.uid


def server_account() -> Account:
    """Ourselves; or, for root, the account `pgserver` (made if this machine lets us), else `nobody`."""
    if os.geteuid() != 0:
        return _account(pwd.getpwuid(os.geteuid()))
    for name in (_ACCOUNT, "nobody"):
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            if name == _ACCOUNT and _make_account():
                return _account(pwd.getpwnam(name))
    raise RuntimeFault(
        "PostgreSQL refuses to run as root, and this machine has neither the account 'pgserver' nor "
        "'nobody'. "
        "Create one (useradd --system pgserver), or run as an ordinary user."
    )


def _make_account() -> bool:
    """Add the system account; False where there is no useradd (macOS, Alpine) or it may not."""
    if not (program := shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")):
        return False
    command = [program, "--system", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", _ACCOUNT]
    subprocess.run(command, capture_output=True)
    try:
        pwd.getpwnam(_ACCOUNT)  # also true when another process was faster
    except KeyError:
        return False
    return True


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def outside_place(wanted: Path) -> Path:
    """A directory that every account can enter, standing in for `wanted`; the same one each time."""
    place = Path("/var/tmp") / f"sluice-{hashlib.sha256(str(wanted).encode()).hexdigest()[:12]}"
    place.mkdir(mode=0o755, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RuntimeFault(f"{place} belongs to someone else. Remove it, or set SLUICE_STATE_DIR to another directory.")
    place.chmod(0o755)
    return place
