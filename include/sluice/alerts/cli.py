"""`sluice alert`: what is wrong now, who was told, and silences."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from sluice import settings, warehouse
from sluice.alerts import channels as known_channels
from sluice.alerts import outbox, watcher
from sluice.alerts.incidents import KINDS
from sluice.cli.common import show as print_table
from sluice.declarations.base import Duration
from sluice.errors import SluiceError

app = typer.Typer(no_args_is_help=True, help="Incidents: what is wrong, who was told, and silences.")
Number = Annotated[int, typer.Argument(help="Number of the incident; see `sluice alert list`")]


def _said(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why; nothing was changed")
    return reason.strip()


Reason = Annotated[str, typer.Option(help="Why; kept in the ledger", callback=_said)]


@app.command("list")
def list_incidents(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over, the latest first")] = False,
) -> None:
    """What is wrong now, one line per cause, as the watcher found it.

    Exit code 1 if something that pages is open and nobody has taken it, or if no watcher has looked for three minutes.
    """
    with warehouse.connect() as connection:
        rows = connection.execute(
            """
            select incident_id, kind, subject, severity, count,
                case when resolved_at is not null then 'over' when caused_by is not null then 'caused by ' || caused_by
                    when acknowledged_at is not null then 'taken by ' || acknowledged_by else 'open' end as state,
                to_char(opened_at, 'YYYY-MM-DD HH24:MI'), owner, title
            from ops.incident where %s or resolved_at is null order by resolved_at is null desc, incident_id desc
            limit 200
            """,
            [everything],
        ).fetchall()
        unwatched = watcher.unwatched_since(connection)
    columns = ["incident", "kind", "subject", "severity", "count", "state", "since", "owner", "what"]
    print_table(columns, rows, empty="no incident is known" if unwatched else "nothing is wrong")
    if unwatched:
        print(
            f"{unwatched}: what is wrong now is not known. Look: sluice alert watch --once; all the time, as beside "
            "make run: sluice alert watch",
            file=sys.stderr,
        )
    if unwatched or any(row[3] == "page" and row[5] == "open" for row in rows):
        raise typer.Exit(1)


@app.command("show")
def show(incident: Number) -> None:
    """All that is known of an incident, and who was told when."""
    with warehouse.connect() as connection:
        from psycopg.rows import dict_row

        with connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(
                "select *, 'opened' as event from ops.incident where incident_id = %s", [incident]
            ).fetchone()
        if found is None:
            raise SluiceError(f"there is no incident {incident}. See: sluice alert list --all")
        told = connection.execute(
            "select event, channel, created_at, attempts, sent_at, last_error, withdrawn_at from ops.alert_delivery"
            " where incident_id = %s order by delivery_id",
            [incident],
        ).fetchall()
    title, body = outbox.text(found)
    print(f"{title}\n{body}")
    for name in ("caused_by", "run_id", "acknowledged_by", "acknowledged_reason", "resolved_at", "resolved_reason"):
        if found[name] is not None:
            print(f"{name.replace('_', ' ')}: {found[name]}")
    print()
    print_table(
        ["event", "channel", "since", "tries", "taken at", "last failure", "withdrawn at"],
        told,
        empty="nobody was told",
    )


@app.command()
def ack(incident: Number, reason: Reason) -> None:
    """Take an incident: it stays open and is told no more."""
    with warehouse.connect() as connection:
        row = connection.execute(
            "update ops.incident set acknowledged_at = clock_timestamp(), acknowledged_by = %s,"
            " acknowledged_reason = %s"
            " where incident_id = %s and resolved_at is null returning title",
            [getpass.getuser(), reason, incident],
        ).fetchone()
    if row is None:
        raise SluiceError(f"there is no open incident {incident}; nothing was changed. See: sluice alert list")
    print(f"taken: {row[0]}")


@app.command()
def resolve(incident: Number, reason: Reason) -> None:
    """Close an incident by hand. One whose cause is still there is opened anew."""
    with warehouse.connect() as connection:
        row = connection.execute(
            "update ops.incident set resolved_at = clock_timestamp(), resolved_reason = %s"
            " where incident_id = %s and resolved_at is null returning kind, job, step, run_id, title",
            [f"{reason} ({getpass.getuser()})", incident],
        ).fetchone()
        if row is None:
            raise SluiceError(f"there is no open incident {incident}; nothing was changed. See: sluice alert list")
        kind, job, step, run_id, title = row
        if kind == "heartbeat_stale":  # the row of the killed step is what the alarm is made from
            connection.execute(
                "delete from ops.step where (job, step, run_id) = (%s, %s, %s) and ended_at is null",
                [job, step, run_id],
            )
    print(f"closed: {title}")


@app.command()
def silence(
    subject: Annotated[str, typer.Argument(help="A source or a subject, or a pattern: shop, shop.*, '*'")],
    until: Annotated[str, typer.Option("--for", help="How long, such as 90m, 2h, 1d; at most 30d")],
    reason: Reason,
    kind: Annotated[str, typer.Option(help="Only this kind, such as source_late")] = "",
) -> None:
    """Tell nobody of a subject for a while. What is still wrong when the silence ends is told then."""
    if kind and kind not in KINDS:
        raise typer.BadParameter(f"{kind} is not a kind of incident; those are {', '.join(KINDS)}")
    try:
        length = TypeAdapter(Duration).validate_python(until)
    except ValidationError:
        raise typer.BadParameter("--for is a whole number and one of m, h, d, such as 90m or 1d") from None
    if not timedelta(0) < length <= timedelta(days=30):
        raise typer.BadParameter("a silence lasts at least a second and at most 30 days: what is forgotten must end")
    with warehouse.connect() as connection:
        row = connection.execute(
            "insert into ops.alert_silence (kind, subject, reason, made_by, ends_at)"
            " values (nullif(%s, ''), %s, %s, %s, clock_timestamp() + %s) returning silence_id, ends_at",
            [kind, subject, reason, getpass.getuser(), length],
        ).fetchone()
    assert row is not None
    print(f"silence {row[0]} of {kind or 'everything'} about {subject} ends {row[1]:%Y-%m-%d %H:%M} UTC")


@app.command()
def silences() -> None:
    """The silences that hold now."""
    with warehouse.connect() as connection:
        rows = connection.execute(
            "select silence_id, coalesce(kind, 'all'), subject, to_char(ends_at, 'YYYY-MM-DD HH24:MI'), made_by, reason"
            " from ops.alert_silence where ends_at > clock_timestamp() order by 1"
        ).fetchall()
    print_table(["silence", "kind", "subject", "ends", "made by", "reason"], rows, empty="nothing is silenced")


@app.command()
def unsilence(silence: Annotated[int, typer.Argument(help="Number of the silence")]) -> None:
    """End a silence now."""
    with warehouse.connect() as connection:
        done = connection.execute(
            "update ops.alert_silence set ends_at = clock_timestamp()"
            " where silence_id = %s and ends_at > clock_timestamp()",
            [silence],
        ).rowcount
    if not done:
        raise SluiceError(f"there is no silence {silence} that holds. See: sluice alert silences")
    print("ended")


@app.command("channels")
def list_channels(
    test: Annotated[bool, typer.Option("--test", help="Send a message by each, now")] = False,
) -> None:
    """The channels that are set, and whether they take messages. Exit code 1 if a test was not taken.

    They are read from this shell, and from what `make run` was started with.
    """
    failed = False
    rows = []
    here = known_channels.named(os.environ)
    for name, url in known_channels.channels().items():
        problem = None
        if test:
            problem = known_channels.send(name, url, "[test] Sluice", "A test of this channel; nothing is wrong.")
            failed = failed or problem is not None
        place = "" if name == known_channels.LOG else "this shell" if name in here else "make run"
        rows.append(
            [name, url.split(":", 1)[0] or "the log of the watcher", place, problem or ("taken" if test else "")]
        )
    print_table(["channel", "kind", "set in", "test"], rows, empty="")
    print(
        f"read from {known_channels.PREFIX}<NAME> in this shell, and from {settings.state_dir() / 'env.json'}, where "
        "make run writes those that it was started with. The watcher knows no others: to add one, start it again",
        file=sys.stderr,
    )
    if failed:
        raise typer.Exit(1)


@app.command()
def watch(
    host: Annotated[str, typer.Option(help="Address to take Alertmanager's alarms at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port", envvar="SLUICE_WATCHER_PORT", max=65535)] = watcher.PORT,
    once: Annotated[bool, typer.Option("--once", help="Look and tell once, then end")] = False,
) -> None:
    """Find incidents and tell them, beside Airflow, until it is stopped."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if once:
        with warehouse.connect(autocommit=True) as connection:
            print(f"{watcher.once(connection)} messages were taken")
        return
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    try:
        server = watcher.listen(host, port)
    except OSError as error:
        raise SluiceError(
            f"the watcher can't listen on {host}:{port}: {error.strerror}; nothing was started. "
            "Name another port: --port, or SLUICE_WATCHER_PORT"
        ) from None
    print(f"watching; alarms of Alertmanager are taken at http://{host}:{port}/alertmanager", flush=True)
    watcher.run(over)
    server.shutdown()
