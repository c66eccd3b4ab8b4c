"""`make run`: everything from nothing to a complete pass, and the web UI until Ctrl-C.

`--once` (make run ONCE=1) ends after the pass, with 0 only if every task and every blocking gate succeeded.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from sluice import ledger, settings
from sluice.declarations import load_folder
from sluice.errors import SluiceError
from sluice.runtime import deliveries, ports, preflight, results, summary, surroundings, watch
from sluice.runtime.airflow import ADMIN, AirflowStack
from sluice.runtime.demo import ensure_shop, serve_shop
from sluice.runtime.faults import RuntimeFault, last_lines
from sluice.runtime.layout import Layout
from sluice.runtime.pipeline import INGEST, OWN_DAGS, WAREHOUSE_DAG, Pass, Pipeline
from sluice.runtime.processes import Supervisor
from sluice.runtime.progress import Progress

_OURAIRPORTS = "ingest_ourairports"


class Stopped(KeyboardInterrupt):
    """Somebody asked us to end: Ctrl-C, SIGTERM or a closed terminal."""


class Session:
    """One `make run`, from preflight to the last process stopped."""

    def __init__(self, layout: Layout, progress: Progress) -> None:
        self.layout = layout
        self.progress = progress
        self.supervisor = Supervisor(layout.run_file, layout.logs)
        self.postgres = surroundings.embedded_postgres(layout) if surroundings.needs_embedded_postgres() else None
        self.not_run: dict[str, str] = {}
        self.begun = datetime.now(UTC)

    def claim(self) -> None:
        """Make the state directory this session's own; until then there is nothing of ours to stop."""
        preflight.check_python()
        preflight.check_writable(self.layout.state)
        self.supervisor.claim()

    def start(self) -> AirflowStack:
        """Everything that must run before the first DAG can."""
        with self.progress.stage("check this machine"):
            self._preflight()
        with self.progress.stage("PostgreSQL and its databases"):
            if self.postgres:
                self.postgres.start()
            around = surroundings.prepare_databases(self.postgres)
            ledger.migrate(around.warehouse_url)
            self.exporter_url = surroundings.exporter_url(self.postgres, around)
        environment = surroundings.write_environment(self.layout, around, self._serve_deliveries())
        os.environ.update(environment)  # this process asks the same settings as its children
        stack = AirflowStack(self.layout, around.metadata_url, environment)
        with ThreadPoolExecutor(1) as beside:  # Airflow's migrations take seconds of their own
            migrated = beside.submit(stack.prepare)
            self._start_shop(around.shop_url, environment)
            with self.progress.stage("dbt parse"):
                parse_dbt_project(self.layout, environment)
            with self.progress.stage("Airflow's metadata database"):
                migrated.result()
        with self.progress.stage("Airflow") as stage:
            stack.start(self.supervisor, stage.note)
        watch.start(self.supervisor, self.layout, {**os.environ, **environment}, self.exporter_url)
        return stack

    def _preflight(self) -> None:
        self._declared()  # a fault in a declaration is known at once, not after everything has been started
        preflight.check_disk(self.layout.state)
        for port, what, variable in (
            (self.layout.web_port, "Airflow's web UI", "SLUICE_WEB_PORT"),
            (self.layout.shop_port, "the demo shop's API", "SLUICE_SHOP_PORT"),
            (self.layout.deliveries_port, "the deliveries of ourairports", "SLUICE_DELIVERIES_PORT"),
            (self.layout.exporter_port, "the exporter of metrics", "SLUICE_EXPORTER_PORT"),
            (self.layout.watcher_port, "the watcher", "SLUICE_WATCHER_PORT"),
        ):
            if not ports.is_free(port):
                raise ports.busy(port, what, variable)

    def _serve_deliveries(self) -> str:
        """The base URL of ourairports: a local server over the archive, if one is named, else the public
        address."""
        archive = os.environ.get("SLUICE_OURAIRPORTS_ARCHIVE", "")
        if archive:
            with self.progress.stage("deliveries of ourairports"):
                directory = deliveries.unpack(Path(archive).absolute(), self.layout.state)
                command = [sys.executable, "-m", "sluice.runtime.deliveries", str(directory)]
                command.append(str(self.layout.deliveries_port))
                self.supervisor.spawn("deliveries", command, os.environ, self.layout.state)
            return f"http://127.0.0.1:{self.layout.deliveries_port}/ourairports/{{date}}/"
        if "AIRFLOW_CONN_OURAIRPORTS" not in os.environ and not surroundings.public_address_answers():
            self.not_run[_OURAIRPORTS] = (
                f"{surroundings.PUBLIC_OURAIRPORTS} does not answer from here, and "
                "SLUICE_OURAIRPORTS_ARCHIVE names no "
                "archive of deliveries. It stays paused; nothing of ourairports was read."
            )
        return surroundings.PUBLIC_OURAIRPORTS

    def _start_shop(self, shop_url: str, environment: dict[str, str]) -> None:
        if not shop_url:
            self.not_run[f"{INGEST}shop"] = (
                "there is no database for the demo shop: set SLUICE_SHOP_DATABASE_URL, or leave one of "
                "the databases to the "
                "embedded PostgreSQL."
            )
            return
        with self.progress.stage("the demo shop") as stage:
            ensure_shop(shop_url, self.layout.shop_files, stage.note)
            serve_shop(self.supervisor, self.layout, {**os.environ, **environment})

    def run_pass(self, stack: AirflowStack) -> int:
        """Every DAG once, then the summary; returns the exit code."""
        since = results.now(settings.warehouse_url())
        declared, expected = self._declared()
        with stack.api() as api:
            pipeline = Pipeline(api, self.supervisor.check, self.progress.note)
            with self.progress.stage("DAGs"):
                dag_ids = pipeline.wait_for_dags(expected, since=self.begun)
                pipeline.check_pools(dag_ids)
            with self.progress.stage("ingest and build"):
                done = pipeline.run(dag_ids, self.not_run)
        return self._summarise(results.read(settings.warehouse_url(), since, declared), done)

    def _declared(self) -> tuple[list[tuple[str, str]], set[str]]:
        """The declared tables, and the DAGs that must be there for them."""
        found = load_folder(settings.sources_dir())
        if found.left_out:
            raise RuntimeFault("these declarations cannot be used:\n" + "\n".join(map(str, found.left_out)))
        tables = [(name, table) for name, source in found.sources.items() for table in source.tables]
        left_out = {dag_id.removeprefix(INGEST) for dag_id in self.not_run}
        wanted = {f"{INGEST}{name}" for name in found.sources} | {WAREHOUSE_DAG}
        wanted |= {dag_id for dag_id in OWN_DAGS if (self.layout.dags / f"{dag_id}.py").exists()}
        return [each for each in tables if each[0] not in left_out], wanted

    def _summarise(self, found: results.Results, done: Pass) -> int:
        problems = [*done.problems(self.layout.logs / "tasks"), *found.problems()]
        summary.show(self.progress.console, found, done, self.progress.seconds, problems)
        return 1 if problems else 0

    def stay(self, stack: AirflowStack) -> None:
        """Keep everything running until somebody stops it."""
        login = f"login {ADMIN}, password {stack.password(ADMIN)}"
        self.progress.say(f"\nWeb UI: {self.layout.web_url}  ({login})", style="bold")
        self.progress.say("It stays up until Ctrl-C.")
        while True:
            self.supervisor.check()
            time.sleep(1)

    def stop(self) -> None:
        """End every process that was started, Airflow before its database."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them behind
        self.progress.say("stopping …")
        try:
            self.supervisor.stop()
        finally:
            if self.postgres:
                self.postgres.stop()


def parse_dbt_project(layout: Layout, environment: dict[str, str]) -> None:
    """Write the manifest that Cosmos draws the DAG from, and the parse cache that its tasks reuse.

    Profile and target are named as Cosmos names them: dbt throws its cache away when they differ.
    """
    if not (layout.dbt_project / "dbt_project.yml").exists():
        return
    log = layout.logs / "dbt-parse.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    dbt = str(Path(sys.executable).with_name("dbt"))
    command = [
        dbt,
        "--no-use-colors",
        "parse",
        "--profiles-dir",
        ".",
        "--profile",
        "sluice",
        "--target",
        "prod",
    ]
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            cwd=layout.dbt_project,
            env={**os.environ, **environment, "DBT_TARGET_PATH": str(layout.dbt_target)},
            stdout=output,
            stderr=output,
        )
    if done.returncode:
        raise RuntimeFault(f"the dbt project cannot be parsed; {log} ends:\n{last_lines(log, 30)}")


def run(once: bool, progress: Progress) -> int:
    """Start, pass, stay, stop; returns the exit code."""
    session = Session(Layout.from_environment(), progress)
    session.claim()
    code = 130
    try:
        stack = session.start()
        code = session.run_pass(stack)
        if not once:
            session.stay(stack)
    except Stopped:
        pass
    finally:
        session.stop()
    return code


def main(arguments: list[str] | None = None) -> int:
    """The command line; a fault is one message and exit code 1."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the first complete pass")
    once = parser.parse_args(arguments).once
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    progress = Progress(summary.console())
    return told(lambda: run(once, progress), progress)


def told(action: Callable[[], int], progress: Progress) -> int:
    """Run `action`; say faults as sentences on standard error instead of showing where in the code they
    arose."""
    try:
        return action()
    except SluiceError as fault:
        sys.stderr.write(f"\n{fault}\n")
        return 1


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
