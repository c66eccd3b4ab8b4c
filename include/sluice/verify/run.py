"""One verification, from the estimate to the verdict. Why each step is where it is: docs/reference/verify.md."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from sluice import settings, warehouse
from sluice.declarations import load_folder
from sluice.gates.pending import Model, read_alike
from sluice.gates.results import Check, Verdict, record
from sluice.verify.compare import Fingerprint, Side, Without, columns_of, differences
from sluice.verify.nodes import Node, read_nodes
from sluice.verify.shadow import Dbt, OverBudget, rebuild, shadow_schemas, told_size

GATE = "verify"
_REBUILT = "was_rebuilt"  # one row per verification that got so far; how long it took is the next one's estimate
_SLOWEST = 2 * 2**20  # bytes per second that are assumed before anything was measured
_START_SECONDS = 20
_SPACE_FACTOR = 1.3  # a rebuild next to the tables as they are, with what sorting takes

Note = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """What a verification may take. `space`: bytes on the database server's disk; None: what is seen to be free."""

    time: timedelta = timedelta(hours=1)
    space: int | None = None
    wait: timedelta = timedelta(minutes=10)  # for a moment at which the models have read all that is published
    show: int = 5  # differing rows per table, in full


@dataclass(frozen=True)
class _Live:
    """What readers had at the moment that the verification speaks of."""

    seq: int
    columns: dict[str, dict[str, str]]  # relation → column → type
    fingerprints: dict[str, Fingerprint]
    codes: dict[str, str]  # relation → hash of the code that built it
    waiting: dict[str, Without]  # relation → slices whose correction waits, since their period is closed
    retired: dict[str, Without]  # relation → rows that are kept only until nobody points to them


def verify(run_id: str, budget: Budget = Budget(), note: Note = lambda text: None) -> Verdict:
    """Rebuild from the change logs into shadow schemas, compare with the live tables, record a check per table.

    Raises `OverBudget` before anything is built if the estimate exceeds the budget, or when it runs out.
    """
    deadline = time.monotonic() + budget.time.total_seconds()
    target = Path(tempfile.mkdtemp(prefix="sluice-verify-"))
    try:
        with shadow_schemas(), warehouse.connect() as reading:
            Dbt(target, run_id).parse()
            nodes = read_nodes(target / "manifest.json", declared_personal())
            compared = [node for node in nodes if node.is_compared]
            space = afford(reading, compared, budget, note)
            live, reasons = _moment(reading, compared, nodes, budget, deadline, note)
            if live is None:
                checks = [_unsettled(reasons)]
            else:
                dbt = Dbt(target, run_id, live.seq)
                started = time.monotonic()
                rebuild(dbt, [node.shadow for node in compared], deadline, space, note)
                checks = _judge(reading, dbt, nodes, compared, live, budget, note)
                checks.append(_rebuilt(compared, time.monotonic() - started))
            reading.rollback()
        verdict = Verdict(GATE, checks)
        with warehouse.connect() as writing:
            record(writing, run_id, GATE, checks)
        return verdict
    except OverBudget as stopped:
        with warehouse.connect() as writing:
            record(writing, run_id, GATE, [Check("is_within_budget", "warehouse", "error", message=str(stopped))])
        raise
    finally:
        shutil.rmtree(target, ignore_errors=True)


def due(every: timedelta) -> bool:
    """Whether the last complete verification, or else the first build of the warehouse, is so long ago."""
    with warehouse.connect() as connection:
        (is_due,) = connection.execute(
            "select coalesce(coalesce("
            " (select max(checked_at) from ops.gate_result where gate = %s and check_name = %s),"
            " (select min(committed_at) from ops.model_run)) < clock_timestamp() - %s, false)",
            [GATE, _REBUILT, every],
        ).fetchone()  # type: ignore[misc]
    return bool(is_due)


# -- before it starts ---------------------------------------------------------------------------


def declared_personal() -> frozenset[str]:
    """Names of columns that a declaration marks as personal."""
    sources = load_folder(settings.sources_dir()).sources.values()
    columns = (column for source in sources for table in source.tables.values() for column in table.columns.items())
    return frozenset(name for name, column in columns if column.personal)


def afford(connection: psycopg.Connection, compared: Iterable[Node], budget: Budget, note: Note) -> int:
    """Say what it will take and refuse what can't be paid. Returns the space that the rebuild may take."""
    size = _size(connection, compared)
    seconds, needed = _START_SECONDS + size / _speed(connection), int(size * _SPACE_FACTOR)
    free = _free(connection)
    connection.rollback()
    seen = f"{told_size(free)} are free" if free is not None else "what is free can't be seen from here"
    note(f"{told_size(size)} of tables: about {seconds:.0f} s, and {told_size(needed)} of space; {seen}")
    if seconds > budget.time.total_seconds():
        raise OverBudget(
            f"the rebuild would take about {seconds:.0f} s, and may take {budget.time.total_seconds():.0f} s; "
            "nothing was built. Give more with --budget"
        )
    allowed = budget.space if budget.space is not None else free
    if allowed is not None and needed > allowed:
        raise OverBudget(
            f"the rebuild would take about {told_size(needed)} of space, and may take {told_size(allowed)}; nothing "
            "was built. Free some, or give more with --space"
        )
    return allowed if allowed is not None else 2 * needed + 2**28


def _speed(connection: psycopg.Connection) -> float:
    """Bytes per second of the last verification."""
    row = connection.execute(
        "select observed from ops.gate_result where gate = %s and check_name = %s order by gate_result_id desc limit 1",
        [GATE, _REBUILT],
    ).fetchone()
    found = re.match(r"(\d+) bytes in (\d+) s", row[0]) if row and row[0] else None
    return max(int(found[1]) / max(int(found[2]), 1), 1.0) if found else _SLOWEST


def _free(connection: psycopg.Connection) -> int | None:
    """Free bytes on the server's disk, where the server is on this machine: Postgres itself does not tell."""
    host = connection.info.hostaddr or connection.info.host
    if not host.startswith(("/", "127.", "::1", "localhost")):
        return None
    directories = [settings.state_dir() / "postgres"]  # that of `make run`
    if connection.execute("select pg_has_role('pg_read_all_settings', 'member')").fetchone()[0]:  # type: ignore[index]
        (directory,) = connection.execute("select current_setting('data_directory')").fetchone()  # type: ignore[misc]
        directories.insert(0, Path(directory))
    return next((shutil.disk_usage(directory).free for directory in directories if directory.exists()), None)


# -- one moment ---------------------------------------------------------------------------------


def settled(
    reading: psycopg.Connection,
    nodes: Iterable[Node],
    wait: timedelta,
    deadline: float,
    note: Note,
    how_far: Callable[[psycopg.Connection, Sequence[Model]], tuple[int, list[str]]] = read_alike,
) -> tuple[int, tuple[str, ...]]:
    """Open a snapshot of the database in which the models agree. Returns the sequence number up to which `how_far` says
    that they have read the logs, and, if there was no such moment, why they do not agree.

    The transaction stays open: what commits later is neither in the live rows nor, by the number, in the logs.
    """
    reading.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reading.read_only = True
    give_up = min(time.monotonic() + wait.total_seconds(), deadline)
    models = [node.as_model() for node in nodes if node.is_compared or node.log]
    while True:
        reading.execute("set local idle_in_transaction_session_timeout = 0")
        seq, reasons = how_far(reading, models)
        if not reasons:
            return seq, ()
        reading.rollback()
        if time.monotonic() > give_up:
            return seq, tuple(reasons)
        note(f"waiting for the end of a run: {reasons[0]}")
        time.sleep(1)


def _moment(
    reading: psycopg.Connection, compared: list[Node], nodes: list[Node], budget: Budget, deadline: float, note: Note
) -> tuple[_Live | None, tuple[str, ...]]:
    """What readers have at a moment in which all models have read the logs equally far."""
    seq, reasons = settled(reading, nodes, budget.wait, deadline, note)
    if reasons:
        return None, reasons
    codes = {
        relation: code
        for relation, code in reading.execute(
            "select relation, input from ops.model_watermark where starts_with(input, 'code:')"
        )
    }
    live = _Live(seq, {}, {}, codes, *_left_out(reading, compared))
    for node in compared:
        live.columns[node.live] = columns_of(reading, node.live)
        if live.columns[node.live]:
            note(f"reading {node.live}")
            live.fingerprints[node.live] = _side(reading, node, live).fingerprint()
            _must_stand(reading, node)
    return live, ()


def _left_out(reading: psycopg.Connection, compared: list[Node]) -> tuple[dict[str, Without], dict[str, Without]]:
    """What differs from a rebuild by somebody's word, or for a moment: see docs/reference/verify.md."""
    texts = "(select jsonb_agg(each.value) from jsonb_array_elements_text(key::jsonb) as each)::text"
    waiting = _keys(reading, "period_correction", texts, "decision in ('waits', 'moved')")
    retired = _keys(reading, "retired_key", "jsonb_build_array(key)::text", "true")
    by_name = {node.live: node for node in compared}
    return (
        {name: Without(by_name[name].slice, keys) for name, keys in waiting.items() if name in by_name},
        {name: Without(by_name[name].grain, keys) for name, keys in retired.items() if name in by_name},
    )


def _keys(reading: psycopg.Connection, table: str, key: str, which: str) -> dict[str, list[str]]:
    if not reading.execute("select to_regclass(%s) is not null", [f"ops.{table}"]).fetchone()[0]:  # type: ignore[index]
        return {}
    return dict(
        reading.execute(
            sql.SQL("select relation, array_agg({}) from {} where {} group by relation").format(
                sql.SQL(key), sql.Identifier("ops", table), sql.SQL(which)
            )
        ).fetchall()
    )


def _side(reading: psycopg.Connection, node: Node, live: _Live) -> Side:
    """The live rows of a table."""
    without = [each[node.live] for each in (live.waiting, live.retired) if node.live in each]
    return Side(reading, node.live, live.columns[node.live], node.key, without)


def _must_stand(reading: psycopg.Connection, node: Node) -> None:
    """A table that was written anew (a changed type) shows no rows to an older snapshot."""
    (stands,) = reading.execute(
        "select relfilenode = pg_relation_filenode(oid) from pg_class where oid = to_regclass(%s)", [node.live]
    ).fetchone()  # type: ignore[misc]
    if stands is False:
        raise OverBudget(f"{node.live} was written anew while it was read; nothing was compared. Verify once more")


def _unsettled(reasons: tuple[str, ...]) -> Check:
    return Check(
        "is_settled",
        "warehouse",
        "missing",
        observed=f"{len(reasons)} models have not read what the others have",
        message=f"{'; '.join(reasons[:3])}. Nothing was compared. Run the warehouse DAG to its end, then verify again, "
        "or wait longer with --wait",
    )


# -- the verdict --------------------------------------------------------------------------------


def _judge(
    reading: psycopg.Connection,
    dbt: Dbt,
    nodes: list[Node],
    compared: list[Node],
    live: _Live,
    budget: Budget,
    note: Note,
) -> list[Check]:
    """One check per table, one per view, and a word on tables that no model makes."""
    failures = dbt.failures()
    checks = []
    with warehouse.connect(autocommit=True) as building:
        codes = {
            relation: code
            for relation, code in building.execute(
                "select relation, input from ops.model_watermark where starts_with(input, 'code:')"
            )
        }
        for node in compared:
            note(f"comparing {node.live}")
            if node.name in failures:
                check = Check("equals_rebuild", node.live, "error", message=f"can't be rebuilt: {failures[node.name]}")
            elif live.codes.get(node.live) != codes.get(node.shadow):
                check = Check(
                    "equals_rebuild",
                    node.live,
                    "missing",
                    message="was built by other code than the project has now; nothing was compared. "
                    "Run the warehouse DAG first",
                )
            else:
                check = _compare(reading, building, node, live, budget)
            checks.append(check)
        if "dbt" in failures:
            checks.append(Check("was_rebuilt_whole", "warehouse", "error", message=f"dbt {failures['dbt']}"))
        checks += _strangers(reading, nodes)
    return checks


def _compare(
    reading: psycopg.Connection, building: psycopg.Connection, node: Node, live: _Live, budget: Budget
) -> Check:
    columns = columns_of(building, node.shadow)
    if live.columns[node.live] != columns:
        told = sorted(set(columns.items()) ^ set(live.columns[node.live].items()))
        return Check(
            "equals_rebuild",
            node.live,
            "fail",
            observed=f"{len(live.columns[node.live])} columns",
            bound=f"{len(columns)} columns",
            message="its columns are others than the rebuild's: " + ", ".join(f"{name} {kind}" for name, kind in told),
        )
    one, mine = live.fingerprints[node.live], _side(reading, node, live)
    waiting = live.waiting.get(node.live)
    theirs = Side(building, node.shadow, columns, node.key, [waiting] if waiting else [])
    two = theirs.fingerprint()
    if one == two:
        told = (
            f"{len(waiting.values)} slices are left out: their corrections fall into a closed period"
            if waiting
            else None
        )
        return Check(
            "equals_rebuild", node.live, "pass", observed=str(one), bound=str(two), failing_rows=0, message=told
        )
    _must_stand(reading, node)
    found = differences(mine, theirs, one, two, node.personal, budget.show)
    rows = "\n".join(f"  {row}" for row in found.shown)
    return Check(
        "equals_rebuild",
        node.live,
        "fail",
        observed=str(one),
        bound=str(two),
        failing_rows=found.count,
        sample_keys=json.loads(json.dumps([row.key for row in found.shown], default=str)),
        message=f"{'' if found.is_exact else 'at least '}{found.count} rows differ; by ({', '.join(mine.key_names)}):"
        f"\n{rows}\n  Mend it with: sluice rebuild rehearse " + node.name,
    )


def _strangers(reading: psycopg.Connection, nodes: list[Node]) -> list[Check]:
    """Tables among those of the models that no model makes: nothing says what should be in them."""
    rows = reading.execute(
        "select nspname || '.' || relname from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace"
        " where nspname = any(%s) and relkind in ('r', 'p') and not relispartition"
        " and nspname || '.' || relname <> all(%s) order by 1",
        [sorted({node.schema for node in nodes if node.is_compared}), [node.live for node in nodes]],
    ).fetchall()
    return [
        Check("has_a_model", name, "fail", "warn", message="no model makes it, so nothing was compared")
        for (name,) in rows
    ]


def _rebuilt(compared: list[Node], seconds: float) -> Check:
    with warehouse.connect() as connection:
        size = _size(connection, compared)
    return Check(_REBUILT, "warehouse", "pass", observed=f"{size} bytes in {seconds:.0f} s")


def _size(connection: psycopg.Connection, compared: Iterable[Node]) -> int:
    """Bytes of the live tables with their indexes."""
    (size,) = connection.execute(
        "select coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint from unnest(%s::text[]) as name",
        [[node.live for node in compared]],
    ).fetchone()  # type: ignore[misc]
    return int(size)
