"""One incident per cause, told once by every channel, and never lost. No Airflow in here.

`incidents` opens and closes them in `ops.incident`; `detect` finds what `ops` says by itself; `outbox` tells them;
`watcher` is the process that does both beside Airflow. See docs/how-to/alerts.md.
"""

from sluice.alerts.incidents import Cause, open_incident, resolve

__all__ = ["Cause", "open_incident", "resolve"]
