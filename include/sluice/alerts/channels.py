"""Channels: where messages go. One environment variable each, `SLUICE_ALERT_CHANNEL_<NAME>`, with the URL of apprise.

`mailto://…`, `slack://…`, `json://host/path` (a webhook) and a hundred more: https://github.com/caronc/apprise/wiki.
Without any, there is one: the log of the watcher. A URL may hold a secret: it is never logged and never stored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from sluice import settings

log = logging.getLogger("sluice.alerts")

PREFIX = "SLUICE_ALERT_CHANNEL_"
LOG = "log"


def channels() -> dict[str, str]:
    """Names and URLs, from the environment or what `make run` wrote; the log is always one."""
    return {LOG: "", **named(settings.written_environment()), **named(os.environ)}


def named(variables: Mapping[str, str]) -> dict[str, str]:
    """Names and URLs of the channels among these variables."""
    return {
        name.removeprefix(PREFIX).lower(): url for name, url in variables.items() if name.startswith(PREFIX) and url
    }


def send(name: str, url: str, title: str, body: str) -> str | None:
    """Send one message; None when the channel has taken it, else what kind of failure it was, without a secret."""
    if name == LOG:
        log.warning("%s\n%s", title, body)
        return None
    import apprise

    target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if target is None:
        return f"{PREFIX}{name.upper()} is no URL of apprise"
    sender = apprise.Apprise()
    sender.add(target)
    try:
        taken = sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT)
    except Exception as error:  # whatever a plugin of apprise raises: the message waits
        return type(error).__name__
    return None if taken else "not taken"
