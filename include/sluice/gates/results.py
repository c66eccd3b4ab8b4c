"""The outcome of a check, and how it is kept. An error and an absent result are failures, never a pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

Outcome = Literal["pass", "fail", "warn", "error", "missing"]
Severity = Literal["block", "warn"]


class GateFailed(Exception):
    """A blocking check did not pass. The text names each check and its table; the verdict is recorded."""


@dataclass(frozen=True)
class Check:
    """One check of one object, and what came of it."""

    name: str
    object: str
    outcome: Outcome
    severity: Severity = "block"
    observed: str | None = None
    bound: str | None = None
    failing_rows: int | None = None
    sample_keys: list[Any] | None = None
    message: str | None = None

    @property
    def blocks(self) -> bool:
        """Whether the next layer must wait: anything but a pass, unless it is declared to warn only."""
        return self.severity == "block" and self.outcome != "pass"

    def __str__(self) -> str:
        parts = [f"{self.name} on {self.object}: {self.outcome}"]
        if self.observed is not None:
            parts.append(f"observed {self.observed}" + (f", expected {self.bound}" if self.bound else ""))
        if self.failing_rows:
            parts.append(f"{self.failing_rows} failing rows")
        if self.sample_keys:
            parts.append(f"for example {self.sample_keys}")
        if self.message:
            parts.append(self.message)
        return "; ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """All checks of one gate in one run."""

    gate: str
    checks: Sequence[Check] = field(default_factory=tuple)

    @property
    def blocking(self) -> list[Check]:
        """The checks that stop the run."""
        return [check for check in self.checks if check.blocks]

    @property
    def passed(self) -> bool:
        """Whether readers and the next layer may go on. A gate that checked nothing has not passed."""
        return bool(self.checks) and not self.blocking

    def require(self) -> None:
        """Raise `GateFailed` unless the gate passed."""
        if self.passed:
            return
        if not self.checks:
            raise GateFailed(f"gate {self.gate} had nothing to check, which is not a pass. Look at: sluice gate show")
        lines = "\n".join(f"- {check}" for check in self.blocking)
        raise GateFailed(
            f"gate {self.gate}: {len(self.blocking)} of {len(self.checks)} checks block\n{lines}\n"
            "The layers after it were not built and keep their rows. All results: sluice gate show"
        )


_QUOTES_A_VALUE = re.compile(r"invalid input|out of range|invalid value|malformed|cannot be (?:cast|parsed)", re.I)


def without_values(error: object) -> str:
    """What a database says of a failed statement, in one line, without the values of rows that it may quote."""
    text = " ".join(re.split(r"\b(?:DETAIL|CONTEXT|LINE \d+):|\[parameters:", str(error))[0].split())
    return re.sub('".*"', '"…"', text) if _QUOTES_A_VALUE.search(text) else text


def record(connection: psycopg.Connection, run_id: str, gate: str, checks: Iterable[Check]) -> None:
    """Write one row per check to `ops.gate_result`. The caller commits."""
    rows = [
        (
            run_id,
            gate,
            check.name,
            check.object,
            check.severity,
            "warn" if check.outcome == "fail" and check.severity == "warn" else check.outcome,
            check.observed,
            check.bound,
            check.failing_rows,
            None if check.sample_keys is None else Jsonb(check.sample_keys),
            check.message,
        )
        for check in checks
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.gate_result (run_id, gate, check_name, object, severity, verdict, observed,"
            " bound, failing_rows, sample_keys, message) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
