"""The commands, as Airflow's command line wants them described. Importing this is cheap; nothing runs until called.

`airflow sluice backfill` is a group of our own, which Airflow's provider hook supports. `airflow dags backfill` is the
same command under the name people know. There is no supported way to add to a group of Airflow's, so that it is put
there by hand; `tests/dags/test_backfill_command.py` fails when an upgrade moves the ground under it.
"""

from __future__ import annotations

import sys

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command, positive_int

_HELP = "Run past intervals of a DAG through Airflow's own backfill, wait for them, and show progress"
_EPILOG = (
    "examples:  airflow dags backfill ingest_shop -s 2026-01-01 -e 2026-01-31"
    "   |   … --dry-run   |   … --rerun-failed-tasks --yes   |   … --detach.   "
    "A date without a time means that whole day in UTC. Without --reset-dagruns or --rerun-failed-tasks, intervals "
    "that have a run already are left alone. exit code: 0 every run succeeded or there was nothing to do, 1 a run "
    "failed or the backfill was refused, 2 misuse, 130 interrupted (the backfill goes on)."
)

ARGS = (
    Arg(("dag_id",), help="The DAG; with --treat-dag-id-as-regex a pattern. Not needed with --plan", nargs="?"),
    Arg(("-s", "--start-date"), help="First interval: 2026-01-01, or with a time. Alone: that day only"),
    Arg(("-e", "--end-date"), help="Last interval, inclusive. Alone: that day only"),
    Arg(("-n", "--dry-run"), help="Say which runs would be made, and make none", action="store_true"),
    Arg(("--reset-dagruns",), help="Run intervals again that have a finished run already", action="store_true"),
    Arg(("--rerun-failed-tasks",), help="Run intervals again whose run failed", action="store_true"),
    Arg(("-B", "--run-backwards"), help="The latest interval first", action="store_true"),
    Arg(("-c", "--conf"), help="JSON for the runs' conf"),
    Arg(
        ("--max-active-runs",),
        type=positive_int(allow_zero=False),
        help="How many runs of this backfill at once (default 3). The schedule has its own limit and goes on",
    ),
    Arg(
        ("-t", "--task-regex"),
        help="Only these tasks, in runs that exist: they are cleared, and run again (no backfill is made)",
    ),
    Arg(
        ("--treat-dag-id-as-regex", "--treat-dag-as-regex"),
        help="Every active DAG whose whole id matches, one after the other",
        action="store_true",
    ),
    Arg(("-y", "--yes"), help="Ask nothing", action="store_true"),
    Arg(("--detach",), help="Do not wait", action="store_true"),
    Arg(("--reason",), help="Why; kept with the backfill in ops.backfill"),
    Arg(("--plan",), help="A reviewed YAML file that says all of this; only --dry-run, --yes and --detach go with it"),
    # Airflow 2 had these. Each says what became of it (run.py).
    Arg(("-v", "--verbose"), help="(no effect: logs are in the web UI)", action="store_true"),
    Arg(("-l", "--local"), help="(no effect: the scheduler runs the tasks)", action="store_true"),
    Arg(("-x", "--donot-pickle"), help="(no effect: Airflow 3 does not pickle)", action="store_true"),
    Arg(("-S", "--subdir"), help="(no effect: the DAG is read from Airflow's database)"),
    Arg(("--delay-on-limit",), help="(no effect: the scheduler waits for a free slot)"),
    Arg(("--continue-on-failures",), help="(no effect: a failed run never stops the others)", action="store_true"),
    Arg(("-i", "--ignore-dependencies"), help="(refused, with what to use instead)", action="store_true"),
    Arg(("-I", "--ignore-first-depends-on-past"), help="(refused, with what to use instead)", action="store_true"),
    Arg(("-m", "--mark-success"), help="(refused, with what to use instead)", action="store_true"),
    Arg(("--pool",), help="(refused, with what to use instead)"),
    Arg(("--disable-retry",), help="(refused, with what to use instead)", action="store_true"),
)

BACKFILL = ActionCommand(
    name="backfill",
    help=_HELP,
    description=_HELP + ".",
    func=lazy_load_command("sluice_airflow.backfill.run.backfill"),
    args=ARGS,
    epilog=_EPILOG,
)
BACKFILLS = ActionCommand(
    name="backfills",
    help="Write down the backfills that the web UI made and those that have ended, and list all",
    func=lazy_load_command("sluice_airflow.backfill.run.backfills"),
    args=(),
)


def get_commands() -> list[CLICommand]:
    """Our own group; on the way, `backfill` is added to Airflow's group `dags`."""
    _add_to_dags()
    return [GroupCommand(name="sluice", help="Backfills of declared sources", subcommands=(BACKFILL, BACKFILLS))]


def _add_to_dags() -> None:
    """Put the command where Airflow 2 had it.

    Airflow copies its commands to `cli_parser.airflow_commands` before it asks providers for theirs, and builds its
    parser from that list afterwards.
    """
    parser = sys.modules.get("airflow.cli.cli_parser")
    commands = getattr(parser, "airflow_commands", [])
    for index, command in enumerate(commands):
        if command.name == "dags" and not any(sub.name == "backfill" for sub in command.subcommands):
            commands[index] = command._replace(subcommands=(*command.subcommands, BACKFILL))
