"""Messages through real servers: a mail server, a webhook, Slack's form. One that is down delays, and never loses."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request

import psycopg
import pytest
from typer.testing import CliRunner

from sluice.alerts import Cause, channels, open_incident, outbox, resolve, watcher
from sluice.cli import app
from sluice.runtime.ports import free_port
from tests.watch.conftest import scrape

CAUSE = Cause(
    "task_failed", "ingest_shop/orders.land", "ingest_shop orders.land failed", "no answer", owner="shop-data"
)


def sluice(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["alert", *arguments])
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


def test_an_incident_is_told_once_by_every_channel_with_all_that_one_must_know(warehouse, hook, mail):
    for _ in range(3):
        open_incident(warehouse, CAUSE)
        watcher.once(warehouse)
    assert hook.titles() == ["[page] ingest_shop orders.land failed"]
    (message,) = mail.got
    assert message["subject"] == "[page] ingest_shop orders.land failed"
    assert message["to"] == "oncall@example.org"
    body = str(message.get_body(("plain",)))
    for part in ("no answer", "owner: shop-data", "runbook: docs/runbooks/task-failed.md", "sluice alert show"):
        assert part in body
    resolve(warehouse, CAUSE.kind, CAUSE.subject, "done")
    watcher.once(warehouse)
    watcher.once(warehouse)
    assert hook.titles()[1:] == ["[page] over: ingest_shop orders.land failed (3 times)"]


def test_o8_a_channel_that_is_down_delays_a_message_and_never_loses_it_while_the_others_get_theirs(
    warehouse, warehouse_url, hook, mail, exporting
):
    hook.status = 503
    open_incident(warehouse, CAUSE)
    for _ in range(3):
        watcher.once(warehouse)
    assert hook.got == []
    assert len(mail.got) == 1
    warehouse.execute("update ops.alert_delivery set next_try_at = clock_timestamp() where sent_at is null")
    watcher.once(warehouse)
    found = scrape(exporting)
    assert found.of("sluice_alert_delivery_failed_total", channel="hook") == 2, "not tried before it is due"
    assert found.of("sluice_alert_undelivered", channel="hook") == 1
    assert time.time() - found.of("sluice_alert_oldest_undelivered_timestamp_seconds", channel="hook") < 60
    resolve(warehouse, CAUSE.kind, CAUSE.subject, "done")
    hook.status = 200
    warehouse.execute("update ops.alert_delivery set next_try_at = clock_timestamp() where sent_at is null")
    watcher.once(warehouse)
    watcher.once(warehouse)
    assert hook.titles() == ["[page] ingest_shop orders.land failed", "[page] over: ingest_shop orders.land failed"]


def test_slack_gets_its_own_form(warehouse, hook, monkeypatch):
    from apprise.plugins.slack import NotifySlack

    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{hook.port}/services")
    token = f"{'T' * 9}/{'B' * 9}/{'c' * 24}"
    assert channels.send("slack", f"slack://{token}/#alerts", "a title", "a body") is None
    assert hook.got[0]["path"] == f"/services/{token}"
    assert "a title" in json.dumps(hook.got[0])


def test_a_channels_secret_is_in_no_row_and_no_output(warehouse, monkeypatch, caplog):
    secret = "s3cret-token"
    monkeypatch.setenv(f"{channels.PREFIX}HOOK", f"json://user:{secret}@127.0.0.1:{free_port()}/{secret}")
    open_incident(warehouse, CAUSE)
    watcher.once(warehouse)
    told = sluice("channels", "--test", code=1) + sluice("show", _number(warehouse)) + caplog.text
    assert secret not in told + str(warehouse.execute("select d::text from ops.alert_delivery as d").fetchall())


def test_a_symptom_is_not_told_and_is_when_its_cause_is_gone(warehouse, hook):
    cause = Cause("circuit_open", "drop", "left alone", source="shop")
    late = Cause("source_late", "shop", "shop is late", source="shop")
    open_incident(warehouse, cause)
    open_incident(warehouse, late)
    deliver(warehouse)
    assert hook.titles() == ["[page] left alone"]
    resolve(warehouse, "circuit_open", "drop", "it answers")
    deliver(warehouse)
    assert sorted(hook.titles()[1:]) == ["[page] over: left alone", "[page] shop is late"]


def deliver(warehouse) -> None:
    """What the watcher does, without looking for incidents by itself."""
    from sluice.alerts import outbox

    known = channels.channels()
    outbox.enqueue(warehouse, list(known))
    outbox.deliver(warehouse, known)


def _number(warehouse) -> str:
    return str(warehouse.execute("select max(incident_id) from ops.incident").fetchone()[0])


def test_a_silence_has_a_reason_and_an_end_and_what_still_stands_is_told_after_it(warehouse, hook):
    sluice("silence", "ingest_shop*", "--for", "2h", code=2)
    sluice("silence", "ingest_shop*", "--for", "99d", "--reason", "x", code=2)
    sluice("silence", "ingest_sho*", "--for", "2h", "--reason", "the shop moves house")
    assert "the shop moves house" in sluice("silences")
    open_incident(warehouse, CAUSE)
    open_incident(warehouse, Cause("task_failed", "ingest_shoe/x", "another"))
    watcher.once(warehouse)
    assert hook.titles() == []
    warehouse.execute("update ops.alert_silence set subject = 'ingest_shop/*'")
    watcher.once(warehouse)
    assert hook.titles() == ["[page] another"], "a silence is of what it names"
    sluice("unsilence", "1")
    watcher.once(warehouse)
    assert hook.titles()[1:] == ["[page] ingest_shop orders.land failed"]


def test_an_incident_that_somebody_has_taken_is_told_no_more_and_one_that_nobody_has_is_told_again_daily(
    warehouse, hook
):
    open_incident(warehouse, CAUSE)
    watcher.once(warehouse)
    assert "ingest_shop/orders.land" in sluice("list", code=1)
    warehouse.execute("update ops.alert_delivery set sent_at = sent_at - interval '25 hours'")
    watcher.once(warehouse)
    assert hook.titles()[1:] == ["[page] still: ingest_shop orders.land failed"]
    sluice("ack", _number(warehouse), "--reason", "the network team is at it")
    warehouse.execute("update ops.alert_delivery set sent_at = sent_at - interval '25 hours'")
    watcher.once(warehouse)
    assert len(hook.got) == 2
    assert "taken by" in sluice("list")
    assert "network team" in sluice("show", _number(warehouse))


def test_alarms_of_alertmanager_become_incidents_once_and_end(warehouse, hook):
    server = watcher.listen("127.0.0.1", free_port())
    alarm = {
        "labels": {"alertname": "SluiceMartLate", "relation": "marts.fct", "source": "shop", "severity": "page"},
        "annotations": {"summary": "marts.fct is old", "runbook": "docs/runbooks/mart-late.md"},
    }
    for status in ("firing", "firing", "resolved"):
        _post(server.server_port, {"alerts": [{**alarm, "status": status}]})
        watcher.once(warehouse)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        _post(server.server_port, {"nothing": 1})
    server.shutdown()
    server.server_close()
    assert hook.titles() == ["[page] marts.fct is old", "[page] over: marts.fct is old"]
    assert "docs/runbooks/mart-late.md" in hook.got[0]["message"]


def _post(port: int, body: dict) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/alertmanager", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_after_a_long_outage_a_channel_gets_each_message_once_in_the_order_in_which_it_happened(warehouse, hook):
    hook.status = 503
    for number in range(3):
        open_incident(warehouse, Cause("task_failed", f"ingest_shop/{number}", f"{number} failed"))
        watcher.once(warehouse)
    for _ in range(3):  # days
        warehouse.execute(
            "update ops.alert_delivery set created_at = created_at - interval '25 hours',"
            " sent_at = sent_at - interval '25 hours' where channel = 'hook'"
        )
        watcher.once(warehouse)
    open_incident(warehouse, Cause("task_failed", "ingest_shop/3", "3 failed"))
    hook.status = 200
    watcher.once(warehouse)
    assert hook.titles() == [], "what is new waits behind what was there before it"
    warehouse.execute(
        "update ops.alert_delivery set next_try_at = clock_timestamp()"
        " where delivery_id = (select min(delivery_id) from ops.alert_delivery where channel = 'hook')"
    )
    watcher.once(warehouse)
    assert hook.titles() == [f"[page] {number} failed" for number in range(4)]


def test_a_message_that_a_channel_refuses_holds_up_no_other(warehouse):
    taken: list[str] = []

    def send(name, url, title, body):
        if "poison" in title:
            return "not taken"
        taken.append(title)
        return None

    for title in ("poison", "one", "two"):
        open_incident(warehouse, Cause("task_failed", f"ingest_shop/{title}", title))
    outbox.enqueue(warehouse, ["hook"])
    outbox.deliver(warehouse, {"hook": ""}, send)
    open_incident(warehouse, Cause("task_failed", "ingest_shop/three", "three"))
    outbox.enqueue(warehouse, ["hook"])
    outbox.deliver(warehouse, {"hook": ""}, send)
    assert taken == ["[page] one", "[page] two", "[page] three"]


def test_many_messages_for_a_dead_channel_do_not_keep_another_from_getting_its_own(warehouse):
    taken: list[str] = []

    def send(name, url, title, body):
        return "not taken" if name == "dead" else taken.append(title)

    for number in range(60):
        open_incident(warehouse, Cause("task_failed", f"ingest_shop/{number}", str(number)))
    outbox.enqueue(warehouse, ["dead"])
    outbox.enqueue(warehouse, ["dead", "alive"])
    for _ in range(2):
        outbox.deliver(warehouse, {"dead": "", "alive": ""}, send)
    assert len(taken) == 60


def test_two_watchers_tell_an_incident_once(warehouse, warehouse_url, hook):
    with psycopg.connect(warehouse_url, autocommit=True) as one, psycopg.connect(warehouse_url, autocommit=True) as two:
        open_incident(warehouse, CAUSE)
        watchers = [threading.Thread(target=watcher.once, args=[each]) for each in (one, two)]
        hook.pause = 0.5
        for each in watchers:
            each.start()
        for each in watchers:
            each.join()
    assert hook.titles() == ["[page] ingest_shop orders.land failed"]


@pytest.mark.parametrize("pattern", ["ingest_shop/orders.lan\\", "ingest%"])
def test_a_silence_whose_pattern_means_something_to_sql_stops_no_message(warehouse, hook, pattern):
    sluice("silence", pattern, "--for", "2h", "--reason", "a slip of the keyboard")
    open_incident(warehouse, CAUSE)
    watcher.once(warehouse)
    assert hook.titles() == ["[page] ingest_shop orders.land failed"]


@pytest.mark.parametrize("command", [["silence", "shop", "--for", "2h"], ["ack", "1"], ["resolve", "1"]])
def test_a_reason_of_nothing_is_no_reason(warehouse, command):
    assert "say why" in sluice(*command, "--reason", "  ", code=2)


@pytest.mark.parametrize(
    ("length", "body", "status"),
    [
        ("x", b"", 404),
        (None, b"[]", 400),
        (None, b'{"alerts": [{"labels": []}]}', 400),
        (None, b'{"alerts": [{"labels": {"alertname": "a\\u0000b"}}]}', 400),
    ],
)
def test_a_message_that_is_no_alarm_is_refused_and_not_asked_for_again(warehouse, length, body, status):
    server = watcher.listen("127.0.0.1", free_port())
    try:
        asked = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        asked.request("POST", "/alertmanager", body, {"Content-Length": length or str(len(body))})
        assert asked.getresponse().status == status
    finally:
        server.shutdown()
        server.server_close()
