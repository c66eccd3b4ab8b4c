"""Is there anything for the warehouse to do? Decided from sequence numbers in `ops`, never from a clock or an
event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from sluice import warehouse
from sluice.gates.results import Check, record

_CODE = "code:"
# Decided again when the task is cleared: the run begins anew.
_READ_AS_OF = """
insert into ops.reads_as_of (run_id, seq) select %s, seq from ops.clock
on conflict (run_id) do update set seq = excluded.seq, decided_at = excluded.decided_at
"""


@dataclass(frozen=True)
class Model:
    """A dbt node as the gates know it."""

    name: str
    relation: str  # schema.table
    layer: str
    is_view: bool = False
    log: tuple[str, str] | None = None  # the declared (source, table) whose change log a staging view shows


@dataclass(frozen=True)
class Pending:
    """Why the warehouse must run; empty reasons mean that it need not."""

    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.reasons)


def pending(run_id: str, models: Sequence[Model], fingerprint: str) -> Pending:
    """Find what the models have not read yet, and record the answer for `run_id`, and how far its models read the logs.

    Pending is: a model that was never built, an input with something newer than the model's watermark,
    other code than the last complete run's, or a layer whose latest gate did not pass.
    """
    with warehouse.connect() as connection:
        connection.execute(_READ_AS_OF, [run_id])
        reasons = (
            *unread(connection, models),
            *_gates_not_passed(connection, {model.layer for model in models}, fingerprint),
        )
        text = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        check = Check(
            "anything_pending",
            "warehouse",
            "pass",
            severity="warn",
            observed=str(len(reasons)),
            message=text or f"nothing new: all {len(models)} models have read everything that is published",
        )
        record(connection, run_id, "pending", [check])
    return Pending(reasons)


def read_as_of(connection: psycopg.Connection, run_id: str) -> int | None:
    """The sequence number up to which the models of a run read the change logs; None where `pending` did not run."""
    row = connection.execute("select seq from ops.reads_as_of where run_id = %s", [run_id]).fetchone()
    return row[0] if row else None


def unread(connection: psycopg.Connection, models: Sequence[Model]) -> list[str]:
    """One sentence for each model and input that has something newer than what the model has read."""
    logs = {
        (source, table): seq
        for source, table, seq in connection.execute(
            "select source, table_name, max(greatest(published_seq, superseded_seq)) from ops.batch"
            " where published_seq is not null and rows_applied + rows_deleted > 0 group by 1, 2"
        )
    }
    return _unread(connection, models, logs)


def read_alike(connection: psycopg.Connection, models: Sequence[Model]) -> tuple[int, list[str]]:
    """The sequence number up to which all models have read the change logs, and one sentence for each that has read
    further, or has not read what another model changed: while a run is under way, or where one failed.
    """
    (clock,) = connection.execute("select seq from ops.clock").fetchone()  # type: ignore[misc]
    of = {model.name: model.log for model in models if model.log}
    built = {model.relation for model in models if not model.is_view}
    marks = [
        (relation, of[name], seq)
        for relation, name, seq in connection.execute("select relation, input, seq from ops.model_watermark")
        if name in of and relation in built
    ]
    lowest = min((seq for _, _, seq in marks), default=clock)
    first_since = {  # log → the first thing that came to it after that
        (source, table): seq
        for source, table, seq in connection.execute(
            "select source, table_name, min(seq) from ops.batch"
            " cross join lateral (values (published_seq), (superseded_seq)) as came (seq)"
            " where published_seq is not null and rows_applied + rows_deleted > 0 and seq > %s group by 1, 2",
            [lowest],
        )
    }
    ahead = [
        f"{relation} has read more of {'.'.join(log)} than others"
        for relation, log, mark in marks
        if log in first_since and first_since[log] <= mark
    ]
    return lowest, ahead + _unread(connection, models, {})


def _unread(connection: psycopg.Connection, models: Sequence[Model], logs: dict[tuple[str, str], int]) -> list[str]:
    changes = dict(connection.execute("select relation, max(seq) from ops.change group by 1").fetchall())
    marks: dict[str, dict[str, int]] = {}
    for relation, name, seq in connection.execute("select relation, input, seq from ops.model_watermark"):
        marks.setdefault(relation, {})[name] = seq
    by_name = {model.name: model for model in models}
    reasons = []
    for model in models:
        if model.is_view:
            continue
        if model.relation not in marks:
            reasons.append(f"{model.name} was never built, or must be built anew")
            continue
        for name, mark in marks[model.relation].items():
            if name.startswith(_CODE):
                continue
            given = by_name.get(name)
            if given is None:
                reasons.append(f"{model.name} has read {name}, which is no model any more")
                continue
            newest = logs.get(given.log, 0) if given.log else changes.get(given.relation, 0)
            if newest > mark:
                reasons.append(f"{model.name} has not read the latest of {name}")
    return reasons


def _gates_not_passed(connection: psycopg.Connection, layers: set[str], fingerprint: str) -> list[str]:
    from sluice.gates.layers import COMPLETE

    latest = {
        gate: (verdict, bound)
        for gate, verdict, bound in connection.execute(
            "select distinct on (gate) gate, verdict, bound from ops.gate_result"
            " where gate = any(%s) and check_name = %s order by gate, gate_result_id desc",
            (sorted(layers), COMPLETE),
        )
    }
    reasons = []
    for layer in sorted(layers):
        verdict, ran = latest.get(layer, (None, None))
        if verdict is None:
            reasons.append(f"the gate of {layer} never ran")
        elif verdict != "pass":
            reasons.append(f"the gate of {layer} did not pass last time")
        elif ran != fingerprint:
            reasons.append(f"the models changed since the gate of {layer} passed")
    return reasons
