"""The outbox: every open incident that is not silenced becomes one message for each channel, kept until it is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from sluice import settings
from sluice.alerts import channels

_REMIND_AFTER = timedelta(days=1)
_BATCH = 50

Send = Callable[[str, str, str, str], str | None]

# Of a pattern only * and ? mean something; what LIKE would take for more is escaped.
_NOT_SILENCED = r"""
not exists (
    select from ops.alert_silence as s
    cross join lateral (
        select replace(replace(regexp_replace(s.subject, '([\\%%_])', '\\\1', 'g'), '*', '%%'), '?', '_') as pattern
    ) as p
    where s.ends_at > clock_timestamp() and (s.kind is null or s.kind = i.kind)
        and (i.subject like p.pattern or i.source like p.pattern)
)
"""
# What has its cause in another incident is told with that one.
_OPENED = f"""
insert into ops.alert_delivery (incident_id, event, channel)
select i.incident_id, 'opened', c.channel
from ops.incident as i cross join unnest(%(channels)s::text[]) as c (channel)
where i.resolved_at is null and i.caused_by is null and i.acknowledged_at is null and {_NOT_SILENCED}
    and not exists (
        select from ops.alert_delivery as d where (d.incident_id, d.channel) = (i.incident_id, c.channel)
            and d.withdrawn_at is null
    )
"""
# Counted from when the last message was taken: one that still waits says it all when its channel is back.
_REMINDERS = f"""
insert into ops.alert_delivery (incident_id, event, channel)
select i.incident_id, 'reminder', c.channel
from ops.incident as i cross join unnest(%(channels)s::text[]) as c (channel)
where i.resolved_at is null and i.caused_by is null and i.acknowledged_at is null and {_NOT_SILENCED}
    and (
        select max(coalesce(sent_at, 'infinity')) from ops.alert_delivery as d
        where (d.incident_id, d.channel) = (i.incident_id, c.channel) and d.withdrawn_at is null
    ) < clock_timestamp() - %(remind)s
"""
# Only who was told that it began is told that it ended; what nobody was told yet needs no telling any more.
_RESOLVED = """
insert into ops.alert_delivery (incident_id, event, channel)
select distinct i.incident_id, 'resolved', d.channel
from ops.incident as i inner join ops.alert_delivery as d using (incident_id)
where i.resolved_at is not null and d.event = 'opened' and d.sent_at is not null
    and i.resolved_at > clock_timestamp() - interval '7 days' and d.channel = any(%(channels)s)
    and not exists (
        select from ops.alert_delivery as told
        where (told.incident_id, told.channel, told.event) = (i.incident_id, d.channel, 'resolved')
    )
"""
_WITHDRAW = """
update ops.alert_delivery as d set withdrawn_at = clock_timestamp()
where sent_at is null and withdrawn_at is null and (
    not channel = any(%(channels)s)
    or (event = 'reminder' and exists (
        select from ops.incident as i where i.incident_id = d.incident_id and i.resolved_at is not null
    ))
)
"""
_RETRY = """
update ops.alert_delivery
set attempts = attempts + 1, last_error = %s,
    next_try_at = clock_timestamp()
        + least(interval '15 minutes', interval '15 seconds' * power(2, least(attempts, 10)))
where delivery_id = %s
"""


def enqueue(connection: psycopg.Connection, names: list[str]) -> None:
    """Write down what is to be told by whom; one transaction."""
    values = {"channels": names, "remind": _REMIND_AFTER}
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended('sluice:alerts', 0))")  # one watcher at once
        for statement in (_WITHDRAW, _OPENED, _REMINDERS, _RESOLVED):
            connection.execute(statement, values)  # type: ignore[arg-type]


# A message that waits although a later one was taken is refused for itself: it is tried at its own times, and holds
# up no other.
_WAITING = """
select *, next_try_at <= clock_timestamp() as is_due from (
    select d.delivery_id, d.event, d.created_at, d.next_try_at, i.*, exists (
        select from ops.alert_delivery as later
        where later.channel = d.channel and later.delivery_id > d.delivery_id and later.sent_at is not null
    ) as is_refused
    from ops.alert_delivery as d inner join ops.incident as i using (incident_id)
    where d.sent_at is null and d.withdrawn_at is null and d.channel = %s
) as waiting
where not is_refused or next_try_at <= clock_timestamp()
order by delivery_id limit %s
"""


def deliver(connection: psycopg.Connection, known: Mapping[str, str], send: Send = channels.send) -> int:
    """Send what waits, channel by channel in the order in which it happened; what a channel does not take stays and is
    tried again, ever more rarely. Of two watchers one serves a channel.

    A message is marked after it was taken: a crash between the two sends it twice, and never loses it. Returns how
    many were taken.
    """
    return sum(_serve(connection, name, url, send) for name, url in known.items())


def _serve(connection: psycopg.Connection, name: str, url: str, send: Send) -> int:
    lock = [f"sluice:channel:{name}"]
    if not _is_true(connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", lock)):
        return 0  # another watcher is at it
    try:
        return _send_waiting(connection, name, url, send)
    finally:
        connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", lock)


def _is_true(cursor: psycopg.Cursor) -> bool:
    row = cursor.fetchone()
    return bool(row and row[0])


def _send_waiting(connection: psycopg.Connection, name: str, url: str, send: Send) -> int:
    with connection.cursor(row_factory=dict_row) as cursor:
        waiting = cursor.execute(_WAITING, [name, _BATCH]).fetchall()
    if not waiting or not waiting[0]["is_due"]:  # while the oldest waits for a dead channel, all wait behind it
        return 0
    sent, failed = 0, False
    for message in waiting:
        problem = send(name, url, *text(message))
        if problem is None:
            connection.execute(
                "update ops.alert_delivery set sent_at = clock_timestamp(), attempts = attempts + 1, last_error = null"
                " where delivery_id = %s",
                [message["delivery_id"]],
            )
            sent, failed = sent + 1, False
            continue
        connection.execute(_RETRY, [problem, message["delivery_id"]])
        if failed:  # two in a row: it is the channel
            break
        failed = True
    return sent


_WORD = {"opened": "", "reminder": "still: ", "resolved": "over: "}


def text(incident: Mapping[str, Any]) -> tuple[str, str]:
    """Title and body of a message: what, how often, who is asked, what is affected, where to look."""
    times = f" ({incident['count']} times)" if incident["count"] > 1 else ""
    title = f"[{incident['severity']}] {_WORD[incident['event']]}{incident['title']}{times}"
    affected = incident["affected"]
    good = incident["last_good_at"]
    lines = [
        incident["detail"],
        f"owner: {incident['owner'] or 'nobody is declared'}",
        f"since: {incident['opened_at']:%Y-%m-%d %H:%M} UTC, last seen {incident['last_seen_at']:%Y-%m-%d %H:%M} UTC",
        f"last good publish: {good:%Y-%m-%d %H:%M} UTC" if good else "",
        f"affected: {', '.join(affected[:10])}" + (f" and {len(affected) - 10} more" if len(affected) > 10 else "")
        if affected
        else "",
        f"because: {incident['resolved_reason']}" if incident["event"] == "resolved" else "",
        f"log: {incident['log_url']}" if incident["log_url"] else "",
        f"runbook: {settings.variable('SLUICE_RUNBOOK_URL')}{incident['runbook']}",
        f"more: sluice alert show {incident['incident_id']}",
    ]
    return title, "\n".join(line for line in lines if line)
