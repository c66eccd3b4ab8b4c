"""What `airflow dags backfill` does: Airflow 2's options, Airflow 3's engine, waiting and progress in between."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.utils.cli import action_cli
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from sluice_airflow.backfill import engine
from sluice_airflow.backfill.request import Misuse, Request, requests_of
from sluice_airflow.backfill.settle import ledger, settle, settle_all
from sluice_airflow.mended import mend_clearing

if TYPE_CHECKING:
    from sluice.backfill.rehearsal import Rehearsal


@action_cli
@providers_configuration_loaded
def backfill(args: Namespace) -> None:
    """Entry point of the command."""
    mend_clearing()
    with _plain_errors():
        requests = requests_of(args)
        if args.task_regex:
            raise SystemExit(max(_clear(request, args) for request in requests))
        if len(requests) > 1:
            for request in requests:  # what is refused of one is said before hours of another
                if engine.rehearse(request) and not args.dry_run:
                    engine.refuse_if_paused(request.dag_id)
        raise SystemExit(max(_one(request, args) for request in requests))


@action_cli
@providers_configuration_loaded
def backfills(args: Namespace) -> None:
    """Entry point of `airflow sluice backfills`: write down what the web UI made and what has ended, then list."""
    from sluice.backfill import records
    from sluice.cli.common import show

    with _plain_errors(), ledger() as connection:
        settle_all(connection)
        show(
            ["backfill", "what", "from", "to", "intervals", "reprocess", "state", "succeeded", "failed", "applied",
             "deleted", "asked by", "asked at", "finished at", "reason"],
            records(connection),
            empty="no backfill was asked for yet: airflow dags backfill --help",
        )  # fmt: skip


def _one(request: Request, args: Namespace) -> int:
    """One backfill, from rehearsal to its end. Returns the exit code."""
    planned = engine.rehearse(request)
    span = f"{request.start:%Y-%m-%d} to {request.end:%Y-%m-%d}"
    if not planned:
        hint = "" if request.reprocess == "completed" else "; --reset-dagruns runs intervals again that have a run"
        print(f"{request.dag_id}: nothing to run from {span}{hint}")
        return 0
    print(f"{request.dag_id}: {len(planned)} intervals from {span}, at most {request.max_active_runs} at once")
    for each in planned if args.dry_run or len(planned) <= 5 else [*planned[:3], None, planned[-1]]:
        print(f"  {each.when:%Y-%m-%d %H:%M} UTC" if each else "  …")
    if args.dry_run:
        if request.plan:
            found = _found(request, planned)
            print(f"{found.files} files to read. A line for the plan, which then runs only if it would do the same:")
            print(f"rehearsed: {found}")
        print("A rehearsal: nothing was run.")
        return 0
    if request.rehearsed:
        _found(request, planned).must_be(request.rehearsed, f"airflow dags backfill --plan {request.plan} --dry-run")
    if request.reprocess != "none" and not args.yes and not _agreed(request):
        print("Nothing was run.")
        return 1
    engine.refuse_if_paused(request.dag_id)
    engine_id = engine.create(request)
    print(f"backfill {engine_id} is made; the web UI shows it on the page of {request.dag_id}", flush=True)
    _record(request, engine_id, len(planned))
    if args.detach:
        print("Not waiting. How far it is: airflow sluice backfills")
        return 0
    return _wait(engine_id, request.dag_id)


def _found(request: Request, planned: list[engine.Planned]) -> Rehearsal:
    """What running the plan now would do."""
    from sluice.backfill.rehearsal import rehearse
    from sluice_airflow.connections import use_airflow_connections

    use_airflow_connections()
    said = {name: value for name, value in asdict(request).items() if name not in ("reason", "plan", "rehearsed")}
    return rehearse(said, [each.interval or (each.when, each.when) for each in planned])


def _agreed(request: Request) -> bool:
    what = "failed runs" if request.reprocess == "failed" else "runs that are there already, also successful ones"
    if not sys.stdin.isatty():
        raise Misuse(f"this would run again {what}; say --yes")
    with suppress(EOFError):  # Ctrl-D
        return input(f"Run again {what}? [y/N] ").strip().lower() in ("y", "yes")
    return False


def _wait(engine_id: int, dag_id: str) -> int:
    """Show how far it is until every run has ended. Ctrl-C leaves it running."""
    started, shown = time.monotonic(), ""
    try:
        while True:
            runs = engine.runs(engine_id)
            ended = [state for _, state in runs if state in engine.ENDED]
            line = (
                f"{len(ended)} of {len(runs)} intervals done, {sum(s == 'running' for _, s in runs)} running, "
                f"{ended.count('failed')} failed"
            )
            if line != shown:
                print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)
                shown = line
            if len(ended) == len(runs):
                break
            time.sleep(engine.POLL)
    except KeyboardInterrupt:
        print(f"\nNo longer waiting; backfill {engine_id} goes on. The web UI pauses or cancels it, at {dag_id}.")
        return 130
    failed = [run_id for run_id, state in runs if state == "failed"]
    for run_id in failed[:10]:
        print(f"failed: {run_id}")
    with ledger() as connection:
        outcome = settle(engine_id, connection)
    if outcome is not None:
        print(f"{outcome.rows_applied} rows applied, {outcome.rows_deleted} deleted in staging; the warehouse follows")
    if failed:
        print(f"Run the failed ones again: airflow dags backfill {dag_id} -s … -e … --rerun-failed-tasks --yes")
    return 1 if failed else 0


def _record(request: Request, engine_id: int, intervals: int) -> None:
    from sluice.backfill import Asked, start

    with ledger() as connection:
        start(
            connection,
            Asked(
                dag_id=request.dag_id,
                engine_id=engine_id,
                range_start=request.start,
                range_end=request.end,
                intervals=intervals,
                reprocess=request.reprocess,
                asked_by=engine.user() or "unknown",
                reason=request.reason,
                plan=request.plan,
                rehearsed=request.rehearsed,
            ),
        )


def _clear(request: Request, args: Namespace) -> int:
    """`--task-regex`: Airflow 3 has no backfill of single tasks; clearing them in runs that exist is the same thing."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.utils.session import create_session

    if not (request.reprocess == "completed" or args.dry_run):
        raise Misuse(
            "--task-regex runs tasks of existing runs again: say --reset-dagruns with it, or --dry-run to see which"
        )
    with create_session() as session:
        dag = SerializedDagModel.get_dag(request.dag_id, session=session)
    try:  # a text would be taken for a part of the name
        named = [task_id for task_id in dag.task_ids if re.search(args.task_regex, task_id)]
    except re.error as error:
        raise Misuse(f"--task-regex {args.task_regex!r} is not a regular expression: {error}") from None
    tasks = dag.partial_subset(task_ids=named, include_downstream=False, include_upstream=False)
    if not named:
        raise Misuse(f"no task of {request.dag_id} matches {args.task_regex!r}. It has: {', '.join(dag.task_ids)}")

    def clear(dry_run: bool) -> Sequence[Any]:
        found = SerializedDAG.clear_dags([tasks], start_date=request.start, end_date=request.end, dry_run=dry_run)
        return found if isinstance(found, list | tuple | set) else []

    found = clear(dry_run=True)
    print(f"{request.dag_id}: {len(found)} task instances match {args.task_regex!r} in runs that exist")
    if args.dry_run or not found:
        print("A rehearsal: nothing was run." if args.dry_run else "Nothing to run.")
        return 0
    engine.refuse_if_paused(request.dag_id)
    if not args.yes and not _agreed(request):
        print("Nothing was run.")
        return 1
    clear(dry_run=False)
    print("They were cleared, and run again when a slot is free. The grid of the DAG shows them.")
    return 0


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A mistake of the user's is a sentence and exit code 2; a refusal of the ledger's or the warehouse's is 1."""
    import psycopg
    from sqlalchemy.exc import DBAPIError as DatabaseError

    from sluice.errors import SluiceError
    from sluice.settings import SettingsError

    try:
        yield
    except KeyboardInterrupt:
        print("\nairflow dags backfill: interrupted. What was made so far: airflow sluice backfills", file=sys.stderr)
        raise SystemExit(130) from None
    except Misuse as error:
        print(f"airflow dags backfill: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (SluiceError, SettingsError) as error:
        print(f"airflow dags backfill: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except DatabaseError as error:
        told = str(error.orig or error).strip().splitlines()[0]
        print(f"airflow dags backfill: Airflow's own database does not answer: {told}", file=sys.stderr)
        raise SystemExit(1) from None
    except psycopg.OperationalError as error:
        print(f"airflow dags backfill: the warehouse can't be reached: {str(error).splitlines()[0]}", file=sys.stderr)
        raise SystemExit(1) from None
