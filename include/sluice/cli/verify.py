"""`sluice verify`: is the warehouse what its change logs say?"""

from __future__ import annotations

import re
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from sluice.gates.results import Verdict

_SPACE = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def duration(text: str) -> timedelta:
    """`90m` as a length of time."""
    units = {"s": "seconds", "m": "minutes", "h": "hours"}
    found = re.fullmatch(r"(\d+)([smh])", text.strip())
    if not found:
        raise typer.BadParameter("a whole number and one of s, m, h, such as 90m")
    return timedelta(**{units[found[2]]: int(found[1])})


def size(text: str) -> int | None:
    """`20GB` as bytes; nothing as None."""
    found = re.fullmatch(r"(\d+)\s*(|KB|MB|GB|TB)", text.strip().upper())
    if text and not found:
        raise typer.BadParameter("a whole number and one of KB, MB, GB, TB, such as 20GB")
    return int(found[1]) * _SPACE[found[2]] if found else None


def verify(
    staging: Annotated[bool, typer.Option("--staging", help="Verify the change logs too, against their books")] = False,
    budget: Annotated[str, typer.Option(help="Longest time it may take, such as 90m")] = "1h",
    space: Annotated[str, typer.Option(help="Most disk it may take, such as 20GB; else what is free")] = "",
    wait: Annotated[str, typer.Option(help="How long to wait for models that have something to read")] = "10m",
    show: Annotated[int, typer.Option(min=1, help="How many differing rows of a table to print")] = 5,
) -> None:
    """Rebuild every snapshot and mart from the change logs beside the live ones, and compare row for row.

    Normal runs may go on. Exit code 1 if anything differs or could not be compared; results are rows of the gate
    `verify` in ops.gate_result, and the shadow schemas are gone afterwards.
    """
    from sluice.verify import Budget
    from sluice.verify import verify as run_verify
    from sluice.verify.logs import verify_logs

    limits = Budget(duration(budget), size(space), duration(wait), show)
    run_id = f"verify:{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleared away
    verdicts = ([verify_logs(run_id)] if staging else []) + [run_verify(run_id, limits, progress := Progress())]
    progress.end()
    for verdict in verdicts:
        _print(verdict)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


class Progress:
    """One line that changes on a terminal; in a log, a line every ten seconds."""

    def __init__(self) -> None:
        self.told_at = -10.0

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.told_at >= 10:
            self.told_at = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave no line behind."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)


def _print(verdict: Verdict) -> None:
    for check in verdict.checks:
        if check.outcome == "pass":
            print(f"{check.object}: {check.name}, {check.observed}")
    for check in verdict.checks:
        if check.outcome != "pass":
            print(f"{'DIFFERS' if check.outcome == 'fail' else check.outcome.upper()} {check.object}: {check.message}")
    bad = len(verdict.blocking)
    print(
        f"verify: {len(verdict.checks)} checks, {bad} failed"
        if bad
        else f"verify: {len(verdict.checks)} checks, all passed"
    )
