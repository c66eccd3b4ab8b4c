"""The `sluice` command: everything an operator does without a browser. Exit code 0 done, 1 refused or failed, 2
misused."""

from __future__ import annotations

import sys

import typer

from sluice.alerts.cli import app as alert_app
from sluice.cli import (
    backfill,
    batch,
    declare,
    erase,
    exporter,
    load,
    migrate,
    period,
    quarantine,
    rebuild,
    reports,
    source,
    sql,
    verify,
)
from sluice.cli.common import NO_SUCH_PART, ledger_problem
from sluice.errors import SluiceError, unreachable
from sluice.gates.cli import app as gate_app
from sluice.settings import SettingsError
from sluice.shop.cli import app as shop_app

app = typer.Typer(
    name="sluice",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Run and inspect the pipeline without a browser.\n\n"
        "A declaration (include/sources/*.yml) describes a source. `sluice validate` checks all of them, `sluice load "
        "shop.orders` reads one "
        "table now, `sluice batch list` shows what was loaded and `sluice quarantine list` what was rejected, and why."
    ),
)
app.command()(declare.validate)
app.command()(declare.generate)
app.command()(migrate.migrate)
app.command()(load.load)
app.command("gaps")(backfill.list_gaps)
app.command("lateness")(backfill.list_lateness)
app.command()(verify.verify)
app.command()(erase.erase)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(sql.sql)
app.command()(reports.board)
app.command()(reports.lineage)
app.command()(reports.catalogue)
app.command()(reports.cost)
app.command()(exporter.exporter)
app.add_typer(source.app, name="source")
app.add_typer(batch.app, name="batch")
app.add_typer(backfill.app, name="backfill")
app.add_typer(rebuild.app, name="rebuild")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(period.app, name="period")
app.add_typer(gate_app, name="gate")
app.add_typer(alert_app, name="alert")
app.add_typer(shop_app, name="shop")


def main() -> None:
    """Entry point. A mistake of the user's, or a source that is down, is a sentence and never a traceback."""
    import psycopg

    try:
        app()
    except (SluiceError, SettingsError) as error:
        print(f"sluice: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except psycopg.OperationalError as error:
        print(f"sluice: the database can't be reached: {unreachable(error)}", file=sys.stderr)
        print("`make run` starts one; SLUICE_WAREHOUSE_URL names another.", file=sys.stderr)
        raise SystemExit(1) from None
    except NO_SUCH_PART as error:
        print(f"sluice: {ledger_problem(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except psycopg.ProgrammingError as error:
        if error.sqlstate:
            raise
        # from libpq, before it asked anybody; its text quotes the address, which may hold a password
        example = "postgresql://user:password@host:5432/warehouse"
        print(f"sluice: SLUICE_WAREHOUSE_URL can't be read; write it like {example}", file=sys.stderr)
        raise SystemExit(1) from None
    except psycopg.DataError as error:  # a number of 25 digits
        print(f"sluice: the database can't take a value that was given: {error.diag.message_primary}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
