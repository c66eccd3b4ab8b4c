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

_NOT_SILENCED = """
not exists (
    select from ops.alert_silence as s
    where s.ends_at > clock_timestamp() and (s.kind is null or s.kind = i.kind) and (
        i.subject like replace(replace(replace(s.subject, '_', '\\_'), '*', '%%'), '?', '_')
        or i.source like replace(replace(replace(s.subject, '_', '\\_'), '*', '%%'), '?', '_')
    )
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
_REMINDERS = f"""
insert into ops.alert_delivery (incident_id, event, channel)
select i.incident_id, 'reminder', c.channel
from ops.incident as i cross join unnest(%(channels)s::text[]) as c (channel)
where i.resolved_at is null and i.caused_by is null and i.acknowledged_at is null and {_NOT_SILENCED}
    and (
        select max(created_at) from ops.alert_delivery as d
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
        for statement in (_WITHDRAW, _OPENED, _REMINDERS, _RESOLVED):
            connection.execute(statement, values)  # type: ignore[arg-type]


def deliver(connection: psycopg.Connection, known: Mapping[str, str], send: Send = channels.send) -> int:
    """Send what is due, oldest first; what a channel does not take stays and is tried again, ever more rarely.

    A message is marked after it was taken: a crash between the two sends it twice, and never loses it. Returns how
    many were taken.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        due = cursor.execute(
            """
            select d.delivery_id, d.event, d.channel, d.created_at, i.* from ops.alert_delivery as d
            inner join ops.incident as i using (incident_id)
            where sent_at is null and withdrawn_at is null and next_try_at <= clock_timestamp()
                and channel = any(%s)
            order by delivery_id limit %s
            """,
            [list(known), _BATCH],
        ).fetchall()
    sent, failing = 0, set()
    for message in due:
        name = message["channel"]
        if name in failing:  # one try per channel and round: a dead one must not hold up the others
            continue
        problem = send(name, known[name], *text(message))
        if problem is None:
            connection.execute(
                "update ops.alert_delivery set sent_at = clock_timestamp(), attempts = attempts + 1, last_error = null"
                " where delivery_id = %s",
                [message["delivery_id"]],
            )
            sent += 1
        else:
            failing.add(name)
            connection.execute(_RETRY, [problem, message["delivery_id"]])
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
