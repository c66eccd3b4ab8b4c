"""The gate of a batch: landed text becomes typed rows, or quarantine; then the batch as a whole is judged."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from sluice.declarations import Mode, Table
from sluice.errors import GateRefused, SluiceError
from sluice.loading import batch as batches
from sluice.loading import contract, log
from sluice.loading.batch import Batch, record_check
from sluice.loading.landing import landing_table


@dataclass(frozen=True)
class Verdict:
    """What a check decided. A refusal's message is complete: what, how much, the decision, the next step."""

    name: str
    refused: bool
    message: str = ""
    observed: object = None
    bound: object = None
    observed_count: int | None = None


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
    batches.must_be_whole(connection, batch, "", batch.rows_read - batch.rows_quarantined)
    _, table = batches.declared(batch)
    mapping = contract.map_fields(
        table, batch.details["fields"], batch.details["constants"], batch.details["empty_is_null"]
    )
    verdicts = [_judge_header(table, batch, mapping)]
    if not verdicts[0].refused:
        log.ensure(connection, table)
        rules = contract.rules_of(table, mapping)
        _split(connection, table, batch, mapping, rules)
        batch = batches.get(connection, batch_id)
        verdicts += _judge_rows(connection, table, batch)
    for verdict in verdicts:
        record_check(
            connection,
            batch,
            verdict.name,
            "fail" if verdict.refused else "pass",
            observed=verdict.observed,
            bound=verdict.bound,
            message=verdict.message or None,
        )
    _record_drift(connection, table, batch, mapping)
    refusals = [verdict.message for verdict in verdicts if verdict.refused]
    vanished = next((verdict.observed_count for verdict in verdicts if verdict.name == "deletes"), None)
    batches.add_details(connection, batch_id, vanished=vanished)
    if refusals:
        batches.refuse(connection, batch, "; ".join(refusals))
        raise GateRefused(f"batch {batch_id} ({batch.source}.{batch.table_name}, {batch.unit}): " + "; ".join(refusals))
    batches.move(connection, batch_id, "audited")
    connection.commit()
    return batches.get(connection, batch_id)


# -- rows ---------------------------------------------------------------------------------------


def _split(
    connection: psycopg.Connection, table: Table, batch: Batch, mapping: contract.Mapping, rules: list[contract.Rule]
) -> None:
    """Rows that keep the contract become `landing.b<id>_rows`; each other goes to quarantine for the first rule it
    breaks."""
    landed, rows = landing_table(batch.batch_id), landing_table(batch.batch_id, "rows")
    connection.execute("drop table if exists pg_temp.failing")
    connection.execute(
        sql.SQL(
            "create temporary table failing on commit drop as select _row_number, rule from (select _row_number, {} "
            "as rule from {}) as judged"
            " where rule is not null"
        ).format(contract.first_broken(rules), landed)
    )
    connection.execute("create unique index on failing (_row_number)")
    connection.execute("analyze failing")
    _quarantine(connection, table, batch, mapping, rules)
    casts = (sql.SQL("{} as {}").format(contract.typed(table, mapping, n), sql.Identifier(n)) for n in table.columns)
    connection.execute(sql.SQL("drop table if exists {}").format(rows))
    connection.execute(
        sql.SQL(
            """
            create unlogged table {rows} as
            select
                {columns},
                _row_number,
                case when _deleted then 'delete' else 'upsert' end as _op,
                {effective_at} as _effective_at,
                {sequence} as _sequence,
                {row_hash} as _row_hash,
                _rescued
            from (
                select _row_number, {casts}, {deleted} as _deleted, {rescued} as _rescued
                from {landed}
                where not exists (select from failing where failing._row_number = {landed}._row_number)
            ) as typed
            """
        ).format(
            rows=rows,
            columns=log.names(table.columns),
            effective_at=contract.effective_at(table, batch.effective_at),
            sequence=sql.SQL("{}::bigint").format(sql.Identifier(table.sequence))
            if table.sequence
            else sql.SQL("0::bigint"),
            row_hash=contract.row_hash(table),
            casts=sql.SQL(", ").join(casts),
            deleted=mapping.deleted,
            rescued=mapping.rescued,
            landed=landed,
        )
    )
    connection.execute(sql.SQL("analyze {}").format(rows))
    withheld = _keys_present(connection, table, batch, mapping, rules) if table.mode is Mode.FULL else False
    conflicts = _quarantine_conflicts(connection, table, batch) if table.mode is Mode.FULL else 0
    duplicates = _drop_duplicates(connection, table, rows)
    failing = connection.execute("select count(*) from failing").fetchone()[0]  # type: ignore[index]
    rejected = batch.rows_quarantined + failing + conflicts  # those that never became a row were counted at landing
    batches.move(
        connection,
        batch.batch_id,
        "landed",
        rows_quarantined=rejected,
        rows_duplicate=duplicates,
        deletes_withheld=withheld,
    )


def _quarantine(
    connection: psycopg.Connection, table: Table, batch: Batch, mapping: contract.Mapping, rules: list[contract.Rule]
) -> None:
    """The rejected rows, with the rule each broke first. Reasons name the column and never a value."""
    if not rules:
        return
    catalogue = sql.SQL(", ").join(
        sql.SQL("({}, {}, {}, {})").format(index, rule.column, rule.code, f"{rule.column} {rule.reason}")
        for index, rule in enumerate(rules)
    )
    connection.execute(
        sql.SQL(
            """
            insert into ops.quarantine (batch_id, source, table_name, row_number, key, column_name, code, reason, raw)
            select {batch_id}, {source}, {table_name}, landed._row_number,
                case when {unreadable} then null else jsonb_build_array({key})::text end,
                rules.column_name, rules.code, rules.reason, {raw}
            from failing
            inner join {landed} as landed on landed._row_number = failing._row_number
            inner join (values {catalogue}) as rules (rule, column_name, code, reason) on rules.rule = failing.rule
            """
        ).format(
            batch_id=batch.batch_id,
            source=batch.source,
            table_name=batch.table_name,
            catalogue=catalogue,
            landed=landing_table(batch.batch_id),
            raw=_raw(batch, "landed"),
            unreadable=_key_unreadable(table, rules),
            key=sql.SQL(", ").join(contract.typed(table, mapping, key) for key in table.key),
        )
    )


def _key_unreadable(table: Table, rules: list[contract.Rule]) -> sql.Composable:
    """True for a landed row whose key itself breaks a rule, whatever rule it broke first."""
    broken = [
        rule.broken for rule in rules if rule.column in table.key and rule.code in ("TYPE", "NULL_KEY", "NOT_FINITE")
    ]
    return sql.SQL(" or ").join(broken) if broken else sql.SQL("false")


def _raw(batch: Batch, alias: str) -> sql.Composable:
    """The landed fields as a JSON object: what came, under the names with which it came."""
    pairs = [
        sql.SQL("{}::text, {}").format(name, sql.Identifier(alias, f"f{index}"))
        for index, name in enumerate(batch.details["fields"])
    ]
    chunks = [pairs[start : start + 45] for start in range(0, len(pairs), 45)]
    objects = (sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(chunk)) for chunk in chunks)
    return sql.SQL("({})::text").format(sql.SQL(" || ").join(objects))


def _keys_present(
    connection: psycopg.Connection, table: Table, batch: Batch, mapping: contract.Mapping, rules: list[contract.Rule]
) -> bool:
    """`landing.b<id>_keys`: every key that a full extract holds, also those of rejected rows, which did not vanish.

    Returns True if a rejected row hides its key: then no key of this extract may be taken for deleted.
    """
    keys = landing_table(batch.batch_id, "keys")
    casts = sql.SQL(", ").join(contract.typed(table, mapping, key) for key in table.key)
    connection.execute(sql.SQL("drop table if exists {}").format(keys))
    connection.execute(
        sql.SQL("create unlogged table {} as select {} from {}").format(
            keys, log.names(table.key), landing_table(batch.batch_id, "rows")
        )
    )
    broken, landed = _key_unreadable(table, rules), landing_table(batch.batch_id)
    hidden = connection.execute(
        sql.SQL("select count(*) from failing inner join {} using (_row_number) where {}").format(landed, broken)
    ).fetchone()[0]  # type: ignore[index]
    connection.execute(
        sql.SQL(
            "insert into {} select {} from failing inner join {} using (_row_number) where case when {} then false "
            "else true end"
        ).format(keys, casts, landed, broken)
    )
    present = connection.execute(sql.SQL("select count(*) from {}").format(keys)).fetchone()[0]  # type: ignore[index]
    batches.add_details(connection, batch.batch_id, keys=present)
    connection.execute(sql.SQL("analyze {}").format(keys))  # fresh tables have no statistics, and anti joins need them
    return bool(hidden) or batch.rows_quarantined > 0


def _quarantine_conflicts(connection: psycopg.Connection, table: Table, batch: Batch) -> int:
    """A full extract with two different rows of one key: neither is believed. Returns how many rows that were."""
    rows = landing_table(batch.batch_id, "rows")
    return connection.execute(
        sql.SQL(
            """
            with conflicting as (
                select _row_number
                from (
                    select
                        _row_number,
                        count(*) over (partition by {key}) as of_key,
                        count(*) over (partition by {key}, _row_hash) as of_row
                    from {rows}
                ) as counted
                where of_key <> of_row
            ),

            removed as (
                delete from {rows} where _row_number in (select _row_number from conflicting)
                returning _row_number, jsonb_build_array({key})::text as key
            )

            insert into ops.quarantine (batch_id, source, table_name, row_number, key, column_name, code, reason, raw)
            select {batch_id}, {source}, {table_name}, landed._row_number, removed.key, {column}, 'DUPLICATE_KEY',
                'another row of the same extract has this key and other values', {raw}
            from removed
            inner join {landed} as landed using (_row_number)
            """
        ).format(
            key=log.names(table.key),
            rows=rows,
            batch_id=batch.batch_id,
            source=batch.source,
            table_name=batch.table_name,
            column=", ".join(table.key),
            raw=_raw(batch, "landed"),
            landed=landing_table(batch.batch_id),
        )
    ).rowcount


def _drop_duplicates(connection: psycopg.Connection, table: Table, rows: sql.Identifier) -> int:
    """The same version of the same key twice in one batch is once enough. Returns how many rows that were."""
    return connection.execute(
        sql.SQL(
            """
            delete from {rows}
            where ctid = any(array(
                select ctid
                from (
                    select
                        ctid,
                        row_number() over (
                            partition by {key}, _effective_at, _sequence, _row_hash, _op order by _row_number
                        ) as occurrence
                    from {rows}
                ) as counted
                where occurrence > 1
            ))
            """
        ).format(rows=rows, key=log.names(table.key))
    ).rowcount


# -- the batch as a whole -----------------------------------------------------------------------


def _judge_header(table: Table, batch: Batch, mapping: contract.Mapping) -> Verdict:
    ambiguous = [
        name for name in mapping.ambiguous if any((c.field or n).lower() == name for n, c in table.columns.items())
    ]
    if ambiguous:
        return Verdict(
            "header",
            True,
            f"{batch.unit}: the fields {', '.join(ambiguous)} occur more than once; nothing was published",
        )
    required = [n for n in mapping.missing if table.columns[n].required or n in table.key]
    if required:
        return Verdict(
            "header",
            True,
            f"{batch.unit} has no field for the required columns {', '.join(required)}; nothing was published. "
            f"Name the field in the declaration (columns.{required[0]}.field) if it was renamed",
        )
    return Verdict("header", False)


def _judge_rows(connection: psycopg.Connection, table: Table, batch: Batch) -> list[Verdict]:
    verdicts = [judge_rejects(batch.rows_read, batch.rows_quarantined, table.max_reject_share), _judge_total(batch)]
    if (deletes := judge_vanished(connection, table, batch)) is not None:
        verdicts.append(deletes)
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
                    left join (select distinct * from {keys}) as present on {same_key}
                    where known._op <> 'delete'
                ) as known
                """
            ).format(
                keys=landing_table(batch.batch_id, "keys"),
                same_key=log.same_key(table, "present", "known"),
                first=sql.Identifier(table.key[0]),
                state=log.state_before(table, inclusive=table.mode is Mode.CURSOR),
            ),
            {"instant": batch.effective_at},
        ).fetchone()  # type: ignore[misc]
        verdict = judge_deletes(vanished, known, table.deletes.max_share, batch.batch_id)
        if verdict.refused and _approved(connection, batch, vanished):
            return Verdict(
                "deletes",
                False,
                f"{vanished} deletes were approved",
                vanished,
                f"{table.deletes.max_share:.4%} of {known}",
            )
        return verdict
    return None


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


def _approved(connection: psycopg.Connection, batch: Batch, vanished: int) -> bool:
    """Whether a person approved as many deletes: of the same unit or content, or since the table was last published.

    A table that is read live never has the same content twice, so there the approval is for the number of keys.
    """
    return bool(
        connection.execute(
            """
            select 1 from ops.batch as refused
            where source = %(source)s and table_name = %(table)s and approved_by is not null
                and (
                    (unit = %(unit)s and content_hash = %(content)s)
                    or (
                        (details ->> 'vanished')::bigint >= %(vanished)s
                        and not exists (
                            select from ops.batch as later
                            where later.source = refused.source and later.table_name = refused.table_name
                                and later.state in ('published', 'superseded') and later.batch_id > refused.batch_id
                        )
                    )
                )
            """,
            {
                "source": batch.source,
                "table": batch.table_name,
                "unit": batch.unit,
                "content": batch.content_hash,
                "vanished": vanished,
            },
        ).fetchone()
    )


def _record_drift(connection: psycopg.Connection, table: Table, batch: Batch, mapping: contract.Mapping) -> None:
    """What the source brought that the contract does not know, or did not bring. Said once per change, not once per
    batch."""
    events = [
        ("new_column", name, f"{batch.unit} has the field {name}, unknown to the contract; kept in _rescued")
        for name in mapping.unknown
    ]
    events += [
        ("missing_column", name, f"{batch.unit} has no field for {name}; NULL was loaded") for name in mapping.missing
    ]
    for kind, column, message in events:
        connection.execute(
            """
            insert into ops.schema_event (batch_id, source, table_name, unit, kind, column_name, message)
            select %(batch)s, %(source)s, %(table)s, %(unit)s, %(kind)s, %(column)s, %(message)s
            where not exists (
                select from ops.schema_event
                where source = %(source)s and table_name = %(table)s and kind = %(kind)s and column_name = %(column)s
            )
            """,
            {
                "batch": batch.batch_id,
                "source": batch.source,
                "table": batch.table_name,
                "unit": batch.unit,
                "kind": kind,
                "column": column,
                "message": message,
            },
        )
