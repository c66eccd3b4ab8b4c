"""The gate of a batch: its rows are judged (`rows.py`), then the batch as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Table
from sluice.errors import GateRefused, SluiceError
from sluice.gates import override
from sluice.loading import approval, checks, drift, evolve, history, lateness, log, rows, shape
from sluice.loading import batch as batches
from sluice.loading.batch import Batch, record_check
from sluice.loading.landing import landing_table
from sluice.loading.mapping import Mapping, map_batch


@dataclass(frozen=True)
class Verdict:
    """What a check decided. A refusal's message is complete: what, how much, the decision, the next step."""

    name: str
    refused: bool
    message: str = ""
    observed: object = None
    bound: object = None
    observed_count: int | None = None
    severity: str = "block"
    outcome: str = "pass"  # where it is not refused


def audit_batch(connection: psycopg.Connection, batch_id: int) -> Batch:
    """Judge one landed batch in one transaction. Raises `GateRefused` once its verdict is committed."""
    batch = batches.get(connection, batch_id, lock=True)
    if batch.state == "refused":
        raise GateRefused(f"batch {batch_id} ({batch.source}.{batch.table_name}, {batch.unit}): {batch.verdict}")
    if batch.state == "abandoned":
        raise SluiceError(
            f"batch {batch_id} was abandoned: {batch.verdict}; clear the task land, which reads the unit anew"
        )
    if batch.state != "landed":
        return batch
    batches.must_be_there(connection, batch, "", batch.details["text_rows"])
    batches.must_be_there(connection, batch, "typed", batch.details["typed_rows"])
    if batches.touched(batch):
        batches.must_be_whole(connection, batch, "touched", batch.details["touched"])
    _, table = batches.declared(connection, batch)
    mapping = map_batch(table, batch.details)
    if lateness.is_left_out(connection, table, batch):
        return batches.get(connection, batch_id)
    mapping = drift.observed(table, batch, mapping)
    verdicts = [_judge_header(connection, table, batch, mapping)]
    evolved: list[tuple[str, str, str]] = []
    if table.late:
        verdicts.append(_judge_late(connection, table, batch))
    if reason := checks.unreadable_pattern(connection, table):
        verdicts.append(Verdict("pattern", True, f"{reason}; nothing was published. Correct it, then load again"))
    if not any(verdict.refused for verdict in verdicts):
        try:
            with connection.transaction():  # columns that evolve are forgotten where the log can't follow
                grown = evolve.grow(connection, table, batch, mapping)
                shape.ensure(connection, grown)
            table = grown
        except shape.Unfit as unfit:
            verdicts.append(Verdict("shape", True, str(unfit)))
            evolved = [(unfit.kind, unfit.column, str(unfit))]
    if not any(verdict.refused for verdict in verdicts):
        rows.judge(connection, table, batch, mapping)
        if table.mode is Mode.CURSOR:
            rows.leave_waiting(connection, table, batch)
        evolved = evolve.events(connection, table, batch)
        batch = batches.get(connection, batch_id)
        verdicts += _judge_rows(connection, table, batch)
        verdicts += [_of(finding) for finding in history.judge(connection, table, batch, mapping)]
        verdicts = [_as_overridden(connection, batch, verdict) for verdict in verdicts]
    for verdict in verdicts:
        record_check(
            connection,
            batch,
            verdict.name,
            "fail" if verdict.refused else verdict.outcome,
            severity=verdict.severity,
            observed=verdict.observed,
            bound=verdict.bound,
            message=verdict.message or None,
        )
    drift.record(connection, table, batch, mapping, evolved)
    refusals = [verdict.message for verdict in verdicts if verdict.refused]
    vanished = next((verdict.observed_count for verdict in verdicts if verdict.name == "deletes"), None)
    batches.add_details(connection, batch_id, vanished=vanished)
    if refusals:
        batches.refuse(connection, batch, "; ".join(refusals))
        raise GateRefused(f"batch {batch_id} ({batch.source}.{batch.table_name}, {batch.unit}): " + "; ".join(refusals))
    batches.move(connection, batch_id, "audited")
    connection.commit()
    return batches.get(connection, batch_id)


# -- the batch as a whole -----------------------------------------------------------------------


def _of(finding: history.Finding) -> Verdict:
    """What a comparison with the past does, as it is declared."""
    refused = finding.failed and finding.severity == "block"
    message = finding.message or ""
    if refused:
        message += "; nothing was published"
    return Verdict(
        finding.name,
        refused,
        message,
        finding.observed,
        finding.bound,
        severity=finding.severity,
        outcome="warn" if finding.failed else "pass",
    )


def _as_overridden(connection: psycopg.Connection, batch: Batch, verdict: Verdict) -> Verdict:
    """A refusal that a person has lifted for this run, or for this content of the unit, warns. Only of a batch whose
    rows were judged: what was refused before that can't be published."""
    if not verdict.refused or verdict.name in override.APPROVED:
        return verdict
    word = override.of_batch(
        connection, batch.run_id, verdict.name, f"{batch.source}.{batch.table_name}", batch.unit, batch.content_hash
    )
    if word is None:
        return verdict
    return replace(verdict, refused=False, severity="warn", outcome="warn", message=f"{word}; was: {verdict.message}")


def _judge_header(connection: psycopg.Connection, table: Table, batch: Batch, mapping: Mapping) -> Verdict:
    if reason := drift.refusal(connection, table, batch, mapping):
        return Verdict("header", True, reason)
    for name, text in batch.details["constants"].items():
        kind = table.columns[name].type
        valid = connection.execute("select pg_input_is_valid(%s, %s)", [text, kind]).fetchone()
        if not (valid and valid[0]):
            return Verdict(
                "header", True, f"the path of {batch.unit} gives {name}, which is no {kind}; nothing was published"
            )
    return Verdict("header", False)


def _judge_late(connection: psycopg.Connection, table: Table, batch: Batch) -> Verdict:
    """A unit that waits whole for a person, because it came late."""
    behind, horizon = lateness.of_unit(connection, table, batch, "hold"), table.late and table.late.horizon
    if behind is None or approval.covers(connection, batch, "late", batch.rows_read):
        return Verdict("late", False)
    return Verdict(
        "late",
        True,
        f"{batch.unit} lies {behind} behind what is published, more than {horizon}; nothing was published (LATE). "
        f"Approve it with: sluice batch approve {batch.batch_id} --reason …",
        behind,
        horizon,
    )


def _judge_rows(connection: psycopg.Connection, table: Table, batch: Batch) -> list[Verdict]:
    read = batch.rows_read - batch.details.get("waiting", 0)
    verdicts = [judge_rejects(read, batch.rows_quarantined, table.max_reject_share), _judge_total(batch)]
    if (deletes := judge_vanished(connection, table, batch)) is not None:
        verdicts.append(deletes)
    elif batch.deletes_withheld:
        verdicts.append(_judge_withheld(connection, batch))
    verdicts += [Verdict("severity", True, reason) for reason in checks.judge(connection, table, batch)]
    return verdicts


def judge_vanished(connection: psycopg.Connection, table: Table, batch: Batch) -> Verdict | None:
    """Compare the keys of an extract or a key scan with those known just before. None if it says nothing of absence.

    Asked at audit, and again at publish: meanwhile an earlier extract may have been published.
    """
    scanned = table.mode is Mode.FULL or table.deletes.detect == "key_scan"
    if scanned and not batch.deletes_withheld:
        vanished, known = connection.execute(
            sql.SQL(
                """
                select count(*) filter (where not known.is_present), count(*)
                from (
                    select present.{first} is not null as is_present
                    from ({state}) as known
                    left join (select distinct {key} from {keys}) as present on {same_key}
                    where known._op <> 'delete'
                ) as known
                """
            ).format(
                keys=landing_table(batch.batch_id, "keys"),
                key=log.names(table.key),
                same_key=log.same_key(table, "present", "known"),
                first=sql.Identifier(table.key[0]),
                state=log.state_before(table, inclusive=table.mode is Mode.CURSOR, touched=batches.touched(batch)),
            ),
            {"instant": batch.effective_at},
        ).fetchone()  # type: ignore[misc]
        known += batch.details.get("unchanged", 0)
        verdict = judge_deletes(vanished, known, table.deletes.max_share, batch.batch_id)
        if verdict.refused and approval.covers(connection, batch, "deletes", vanished):
            return Verdict(
                "deletes",
                False,
                f"{vanished} deletes were approved",
                vanished,
                f"{table.deletes.max_share:.4%} of {known}",
            )
        return verdict
    return None


def _judge_withheld(connection: psycopg.Connection, batch: Batch) -> Verdict:
    """Nothing is closed while a rejected row hides its key; nobody should have to guess why."""
    hidden = connection.execute(
        "select count(*) from ops.quarantine where batch_id = %s and key is null", [batch.batch_id]
    ).fetchone()[0]  # type: ignore[index]
    return Verdict(
        "deletes",
        False,
        f"the keys of {hidden} rejected rows can't be read, so no key is taken for vanished, and nothing was closed. "
        "It is once those rows are replayed, or by an extract without such rows. See: sluice quarantine list",
        severity="warn",
        outcome="warn",
    )


def judge_rejects(read: int, rejected: int, max_share: float) -> Verdict:
    """Decide whether a batch of which `rejected` of `read` rows broke the contract may go on without them."""
    share = rejected / read if read else 0.0
    if rejected and share > max_share:
        return Verdict(
            "contract",
            True,
            f"{rejected} of {read} rows break the contract, more than {max_share:.1%}; nothing was published. See: "
            f"sluice quarantine list",
            f"{share:.4%}",
            f"{max_share:.4%}",
        )
    return Verdict("contract", False, "", f"{share:.4%}", f"{max_share:.4%}")


def judge_deletes(vanished: int, known: int, max_share: float, batch_id: int) -> Verdict:
    """Decide whether an extract that lacks `vanished` of `known` keys may be published."""
    approve = f"Approve it with: sluice batch approve {batch_id} --reason …"
    if known and vanished == known:
        return Verdict(
            "deletes",
            True,
            f"the extract is empty of all {known} known keys; nothing was closed (EMPTY_SOURCE). {approve}",
            vanished,
            0,
            vanished,
        )
    if known and vanished / known > max_share:
        return Verdict(
            "deletes",
            True,
            f"{vanished} of {known} keys vanished, more than {max_share:.0%}; nothing was closed (MASS_DELETE). "
            f"{approve}",
            f"{vanished / known:.4%}",
            f"{max_share:.4%}",
            vanished,
        )
    return Verdict("deletes", False, "", vanished, f"{max_share:.4%} of {known}")


def _judge_total(batch: Batch) -> Verdict:
    if batch.control_total is not None and batch.control_total != batch.rows_read:
        return Verdict(
            "control_total",
            True,
            f"{batch.unit}: the source announces {batch.control_total} rows but {batch.rows_read} were read; nothing "
            f"was published",
            batch.rows_read,
            batch.control_total,
        )
    return Verdict("control_total", False, "", batch.rows_read, batch.control_total)
