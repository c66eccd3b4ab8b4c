"""What a pass did, read from the ledger: the truth is in the warehouse, not in Airflow."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

Row = dict[str, Any]
_BAD = ("fail", "error", "missing")
COUNTS = ("read", "applied", "unchanged", "duplicate", "quarantined", "late", "deleted")


@dataclass(frozen=True)
class Results:
    """The ledger's rows of one pass, ready to be shown."""

    tables: list[Row]
    gates: list[Row]
    broken_checks: list[Row]
    marts: list[Row]

    @property
    def applied(self) -> int:
        """Rows that changed anything, over all tables."""
        return sum(row["applied"] + row["deleted"] for row in self.tables)

    def problems(self) -> list[str]:
        """One line for each blocking check that did not pass."""
        return [
            f"gate {row['gate']}: {row['check_name']} on {row['object']} is {row['verdict']}"
            + (f" (observed {row['observed']}, bound {row['bound']})" if row["observed"] else "")
            + (f": {row['message']}" if row["message"] else "")
            for row in self.broken_checks
            if row["severity"] == "block"
        ]


def now(warehouse_url: str) -> datetime:
    """The warehouse's clock: the one by which the ledger's rows are dated."""
    with psycopg.connect(warehouse_url) as connection:
        return connection.execute("select clock_timestamp()").fetchone()[0]


def read(warehouse_url: str, since: datetime, declared: list[tuple[str, str]]) -> Results:
    """Everything since `since`; a declared table of which nothing was loaded has a row of zeros."""
    with psycopg.connect(warehouse_url, row_factory=dict_row) as connection:
        return Results(
            tables=_tables(connection, since, declared),
            gates=_gates(connection, since),
            broken_checks=[row for row in _checks(connection, since) if row["verdict"] in _BAD],
            marts=_marts(connection, since),
        )


def _tables(connection: psycopg.Connection, since: datetime, declared: list[tuple[str, str]]) -> list[Row]:
    sums = ", ".join(f"sum(rows_{name})::bigint as {name}" for name in COUNTS)
    found = connection.execute(
        f"""
        select source, table_name, count(*) as batches, string_agg(distinct state, ', ' order by state) as
        states, {sums} from ops.batch where started_at >= %s group by source, table_name
        """,
        [since],
    ).fetchall()
    known = {(row["source"], row["table_name"]): row for row in found}
    for name in declared:
        nothing = {"source": name[0], "table_name": name[1], "batches": 0, "states": "nothing new"}
        known.setdefault(name, {**nothing, **dict.fromkeys(COUNTS, 0)})
    return [known[name] for name in sorted(known)]


_LATEST = """
    select distinct on (run_id, gate, check_name, object, batch_id) *
    from ops.gate_result
    where checked_at >= %s
    order by run_id, gate, check_name, object, batch_id, gate_result_id desc
"""  # a check that was repeated in the same run counts as it ended


def _checks(connection: psycopg.Connection, since: datetime) -> list[Row]:
    return connection.execute(f"select * from ({_LATEST}) latest order by gate, object, check_name", [since]).fetchall()


def _gates(connection: psycopg.Connection, since: datetime) -> list[Row]:
    return connection.execute(
        f"""
        select
            gate,
            count(*) as checks,
            count(*) filter (where verdict = 'pass') as passed,
            count(*) filter (where verdict = 'warn') as warned,
            count(*) filter (where verdict = any(%s)) as failed,
            case
                when bool_or(verdict = any(%s) and severity = 'block') then 'blocked'
                when bool_or(verdict <> 'pass') then 'passed with warnings'
                else 'passed'
            end as verdict
        from ({_LATEST}) latest group by gate order by gate
        """,
        [list(_BAD), list(_BAD), since],
    ).fetchall()


def _marts(connection: psycopg.Connection, since: datetime) -> list[Row]:
    names = connection.execute(
        """
        select relname as name from pg_class
        where relnamespace = to_regnamespace('marts') and relkind in ('r', 'p', 'v', 'm') and not
        relispartition order by relname
        """
    ).fetchall()
    written = {row["model"]: row for row in _written(connection, since)}
    nothing = {"inserted": 0, "deleted": 0, "seconds": None}
    return [
        {"rows": _count(connection, row["name"]), **nothing, **written.get(row["name"], {}), **row} for row in names
    ]


def _written(connection: psycopg.Connection, since: datetime) -> list[Row]:
    return connection.execute(
        """
        select
            model,
            sum(rows_inserted)::bigint as inserted,
            sum(rows_deleted)::bigint as deleted,
            sum(seconds) as seconds
        from ops.model_run where started_at >= %s group by model
        """,
        [since],
    ).fetchall()


def _count(connection: psycopg.Connection, mart: str) -> int:
    query = sql.SQL("select count(*) as rows from marts.{}").format(sql.Identifier(mart))
    return connection.execute(query).fetchone()["rows"]
