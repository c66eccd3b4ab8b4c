"""How values look: ages, counts, bytes, small lines, links into Airflow. No HTML: the templates escape it all."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode

from sluice.reports.board import Place

NOTHING = "\N{EN DASH}"


def count(value: int | float | None) -> str:
    """A whole number with thin groups; a dash where there is none."""
    return NOTHING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def span(seconds: int | float | None) -> str:
    """A duration as a person says it."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 3 * 86400 else f"{seconds / 86400:.0f} days"


def size(value: int | float | None) -> str:
    """Bytes in the unit that fits."""
    if value is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def share(value: float | None) -> str:
    """A part of one, as a percentage that never rounds something to nothing."""
    if value is None:
        return NOTHING
    return "< 0.1 %" if 0 < value < 0.001 else f"{value * 100:.1f} %".replace(".0 %", " %")


def stamp(value: datetime | timedelta | None) -> str:
    """An instant, in UTC."""
    return NOTHING if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC"


def line(values: Sequence[float], width: int = 120, height: int = 24) -> str:
    """Points of an SVG polyline through the values, from 0 at the bottom."""
    if not values:
        return ""
    top, step = max(*values, 1) if len(values) > 1 else max(values[0], 1), width / max(len(values) - 1, 1)
    return " ".join(f"{i * step:.1f},{height - 1 - (v / top) * (height - 2):.1f}" for i, v in enumerate(values))


def histogram(shares: Sequence[float], width: int = 144, height: int = 30) -> list[tuple[float, float, float, float]]:
    """A bar for each share: left, top, width and height. What is there is high enough to be seen."""
    wide, most = width / len(shares), max(shares)
    tall = [max(share / most * height, 1.0) if share else 0.0 for share in shares]
    return [(n * wide, height - high, wide - 1, high) for n, high in enumerate(tall)]


def value(text: str, type_: str) -> str:
    """A value as a person reads it: an instant without the fractions of its second, a number without a long tail."""
    if type_.startswith("timestamp"):
        return text[:16].replace(" 00:00", "")
    return f"{float(text):g}" if type_ in ("double precision", "real") and len(text) > 8 else text


def bars(parts: Sequence[tuple[str, int]], total: int, width: float = 100) -> list[tuple[str, int, float, float]]:
    """Name, value, left and width of each part of a whole bar. What is there is wide enough to be seen."""
    found, left = [], 0.0
    shown = [(name, value) for name, value in parts if value]
    least = min(0.8, width / max(len(shown), 1))
    free = width - least * len(shown)
    for name, value in shown:
        wide = least + free * value / max(total, 1)
        found.append((name, value, left, wide))
        left += wide
    return found


def airflow_path(place: Place) -> str:
    """The page of Airflow's UI for a DAG, a run, or a task of a run."""
    parts = ["dags", place.dag_id]
    if place.run_id:
        parts += ["runs", place.run_id]
    if place.task_id:
        parts += ["tasks", place.task_id]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def query(**given: object) -> str:
    """A query string of what is given; empty where nothing is."""
    used = {name: value for name, value in given.items() if value not in ("", None, False)}
    return f"?{urlencode(used)}" if used else ""
