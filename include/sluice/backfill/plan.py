"""A planned backfill: a small YAML file that is reviewed like code and then run.

dag: ingest_shop
start: 2026-01-01
end: 2026-01-31
reason: The warehouse of Lyon sent January's stock lists again (ticket 4711)
reprocess: completed       # none (default), failed, completed
max_active_runs: 3
run_backwards: false
conf: {}
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sluice import settings
from sluice.errors import SluiceError


class PlanError(SluiceError):
    """A plan that can't be run. Its text lists every fault with file, line and field."""


class Plan(BaseModel):
    """What the command's options would say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dag: str = Field(min_length=1)
    start: date | datetime
    end: date | datetime
    reason: str = Field(min_length=10, description="Why: a reader in a year must understand it")
    reprocess: Literal["none", "failed", "completed"] = "none"
    max_active_runs: int = Field(default=3, ge=1, le=50)
    run_backwards: bool = False
    conf: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> Plan:
        if str(self.start)[:10] > str(self.end)[:10]:
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
