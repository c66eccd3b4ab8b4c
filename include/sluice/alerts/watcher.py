"""The process beside Airflow that finds incidents, takes Alertmanager's alarms, and tells both."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from sluice import warehouse
from sluice.alerts import channels, detect, outbox
from sluice.alerts.incidents import Cause, open_incident, resolve
from sluice.errors import SluiceError

log = logging.getLogger("sluice.alerts")

PORT = 9465
EVERY = 15.0  # seconds
_LARGEST = 1_000_000  # bytes of a request
_KEPT = "90 days"
_STOPPED = "3 minutes"
_BEAT = """
insert into ops.watcher (beat_at) values (clock_timestamp())
on conflict (one) do update set beat_at = clock_timestamp()
"""


def unwatched_since(connection: psycopg.Connection) -> str | None:
    """Since when nobody looks, in words, where the last look is so long ago that `SluiceWatcherStopped` alarms."""
    row = connection.execute(
        "select max(beat_at), max(beat_at) > clock_timestamp() - %s::interval from ops.watcher", [_STOPPED]
    ).fetchone()
    assert row is not None
    if row[1]:
        return None
    return f"nobody has looked since {row[0]:%Y-%m-%d %H:%M} UTC" if row[0] else "nobody has ever looked"


def once(connection: psycopg.Connection) -> int:
    """Find, write down, tell. Returns how many messages were taken."""
    known = channels.channels()
    detect.sweep(connection)
    outbox.enqueue(connection, list(known))
    sent = outbox.deliver(connection, known)
    connection.execute(_BEAT)
    return sent


def run(over: threading.Event, every: float = EVERY) -> None:
    """Until `over` is set. A ledger that is away is waited for: the exporter's alarm says so."""
    was_away = False
    while not over.is_set():
        try:
            with warehouse.connect(autocommit=True) as connection:
                connection.execute("set statement_timeout = '60s'")
                connection.execute(
                    f"delete from ops.incident where resolved_at < clock_timestamp() - interval '{_KEPT}'"
                    " and not exists (select from ops.incident as other where other.caused_by = incident.incident_id)"
                )
                was_away = False
                while not over.is_set():
                    once(connection)
                    over.wait(every)
        except (psycopg.OperationalError, SluiceError, OSError) as error:
            if not was_away:
                log.error("the ledger can't be asked (%s); nothing is told until it can", str(error).strip()[:200])
            was_away = True
            over.wait(every)
        except Exception:  # a fault of ours: told here, and by SluiceWatcherStopped if it stays; the next look may do
            log.exception("one look was not finished")
            over.wait(every)


def listen(host: str, port: int) -> ThreadingHTTPServer:
    """Take Alertmanager's webhook at /alertmanager; it tries again until it gets a 200."""
    server = ThreadingHTTPServer((host, port), _Receiver)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="alertmanager", daemon=True).start()
    return server


class _Receiver(BaseHTTPRequestHandler):
    timeout = 30

    def do_POST(self) -> None:
        given = self.headers.get("Content-Length") or ""
        length = int(given) if given.isdecimal() else 0
        if self.path != "/alertmanager" or not 0 < length <= _LARGEST:
            self._answer(404)
            return
        try:
            alarms = json.loads(self.rfile.read(length))["alerts"]
            with warehouse.connect() as connection:
                for alarm in alarms:
                    take(connection, alarm)
        except (ValueError, KeyError, TypeError, AttributeError, psycopg.DataError):  # to ask again would not help
            self._answer(400)
        except (psycopg.Error, SluiceError):
            self._answer(503)
        else:
            self._answer(200)

    def do_GET(self) -> None:
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not a line for each request."""


_PLAIN = ("alertname", "severity", "told_by", "job", "instance")


def take(connection: psycopg.Connection, alarm: dict[str, Any]) -> None:
    """One alarm of Alertmanager's as an incident, or as its end."""
    labels, notes = alarm["labels"], alarm.get("annotations", {})
    about = ", ".join(str(value) for name, value in sorted(labels.items()) if name not in _PLAIN)
    subject = f"{labels['alertname']}{f' {about}' if about else ''}"
    if alarm.get("status") == "resolved":
        resolve(connection, "alarm", subject, "the alarm is over")
        return
    open_incident(
        connection,
        Cause(
            "alarm",
            subject,
            str(notes.get("summary") or subject),
            source=labels.get("source"),
            severity="page" if labels.get("severity") == "page" else "warn",
            runbook=notes.get("runbook"),
            count=1,
        ),
    )
