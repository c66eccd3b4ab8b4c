"""A planned backfill: a small YAML file that is reviewed like code and then run.

dag: ingest_shop
start: 2026-01-01
end: 2026-01-31
reason: The warehouse of Lyon sent January's stock lists again (ticket 4711)
reprocess: completed       # none (default), failed, completed
max_active_runs: 3
run_backwards: false
conf: {}
rehearsed: …               # what --dry-run printed: it runs only if it would do the same
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from sluice import settings
from sluice.backfill.rehearsal import PRINTED
from sluice.errors import SluiceError


class PlanError(SluiceError):
    """A plan that can't be run. Its text lists every fault with file, line and field."""


def instant(text: str, *, is_end: bool = False) -> datetime:
    """The instant that a person wrote, UTC unless it says otherwise. A date is that whole day: as an end, its last
    instant. Raises `ValueError`."""
    if not re.match(r"\d{4}-?\d{2}-?\d{2}", text):  # weeks are dates too, to Python
        raise ValueError(f"{text!r} is not a date: write 2026-01-31 or 2026-01-31T06:00:00+00:00")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date: write 2026-01-31 or 2026-01-31T06:00:00+00:00") from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    is_day = len(text) <= len("2026-01-31")
    return found + timedelta(days=1, microseconds=-1) if is_end and is_day else found


class Plan(BaseModel):
    """What the command's options would say."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    dag: str = Field(min_length=1)
    start: datetime
    end: datetime
    reason: str = Field(min_length=10, description="Why: a reader in a year must understand it")
    reprocess: Literal["none", "failed", "completed"] = "none"
    max_active_runs: int = Field(default=3, ge=1, le=50)
    run_backwards: bool = False
    conf: dict[str, Any] = Field(default_factory=dict)
    rehearsed: str | None = Field(
        default=None, pattern=PRINTED, description="What --dry-run printed; it then runs only if it would do the same"
    )

    @field_validator("start", "end", mode="before")
    @classmethod
    def _as_the_command_reads_it(cls, given: Any, info: ValidationInfo) -> datetime:
        return instant(str(given), is_end=info.field_name == "end")

    @model_validator(mode="after")
    def _in_order(self) -> Plan:
        if self.start > self.end:
            raise ValueError("start is after end")
        return self


def load_plan(path: Path) -> Plan:
    """Read a plan, or raise `PlanError` with every fault in it. A path that is not here is looked for in the
    repository: the shell of `make dev` stands in dbt_project."""
    from ruamel.yaml.error import MarkedYAMLError

    from sluice.declarations.load import fault, plain, tree_with_lines

    try:
        place = path if path.exists() else settings.home() / path
        tree = tree_with_lines(place.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlanError(f"{path}:{line}: yaml: {error.problem}; nothing was run") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: can't be read ({type(error).__name__}); nothing was run") from None
    if not isinstance(tree, dict):
        raise PlanError(f"{path}:1: the file must hold the fields dag, start, end and reason; nothing was run")
    try:
        return Plan.model_validate(plain(tree))
    except ValidationError as error:
        faults = "\n".join(str(fault(path, tree, item, Plan)) for item in error.errors())
        raise PlanError(f"{faults}\nNothing was run") from None
