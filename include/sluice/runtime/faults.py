"""What goes wrong on a machine, in one sentence a person can act on."""

from pathlib import Path

from sluice.errors import SluiceError


class RuntimeFault(SluiceError):
    """A fault of the surroundings: shown as one clear message, without a traceback; the exit code is 1."""


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log file, indented, for a message; empty if there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 16_384))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-count:])
