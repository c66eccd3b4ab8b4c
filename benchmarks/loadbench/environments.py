"""The peers, each in a virtual environment of its own, made once and kept below `.sluice/bench/environments`."""

from __future__ import annotations

import platform
import subprocess
import sys
import venv
from pathlib import Path

_PINS = Path(__file__).resolve().parents[1] / "requirements.txt"
_SLING = f"sling-linux-{'arm64' if platform.machine() in ('arm64', 'aarch64') else 'amd64'}"
_PACKAGES = {
    "data": ["tpchgen-cli", "duckdb"],
    "pandas": ["pandas", "pyarrow", "sqlalchemy", "psycopg[binary]"],
    "dlt": ["dlt[postgres,parquet]", "adbc-driver-manager", "adbc-driver-postgresql", "sqlalchemy"],
    "sling": [_SLING],
    "ingestr": ["ingestr"],
}
PEERS = ("pandas", "dlt", "sling", "ingestr")


class Environments:
    """Virtual environments below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, name: str) -> None:
        """Create and fill it, unless it holds what is pinned already. Raises CalledProcessError."""
        where, stamp = self._directory / name, self._directory / name / "installed"
        wanted = _PINS.read_text() + " ".join(_PACKAGES[name])
        if stamp.exists() and stamp.read_text() == wanted:
            return
        venv.create(where, with_pip=True, clear=True)
        command = [str(self.python(name)), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*command, "--constraint", str(_PINS), *_PACKAGES[name]], check=True)
        stamp.write_text(wanted)

    def python(self, name: str) -> Path:
        """The interpreter of an environment."""
        return self._directory / name / "bin" / "python"

    def program(self, name: str) -> Path:
        """The peer's own binary, not the Python script that starts it."""
        if name != "sling":
            return self._directory / name / "bin" / name
        package = _SLING.replace("-", "_")
        binary = self._directory / name / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / package
        return binary / "bin" / _SLING

    def versions(self, name: str) -> str:
        """The pinned versions of what an environment is about."""
        pins = dict(line.split("==") for line in _PINS.read_text().splitlines() if "==" in line)
        return ", ".join(f"{p} {pins[p]}" for p in (q.split("[")[0] for q in _PACKAGES[name]) if p in pins)
