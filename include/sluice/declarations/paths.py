"""A declared path: plain text, globs, names in braces, and times written in any form of `strftime`.

`orders/{date:%Y%m%d}/{region}-*.csv` says which files belong to a table, which interval each of them speaks for, and
what its name tells about its rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

_TOKEN = re.compile(r"\{(?P<name>[a-z_][a-z0-9_]*)(?::(?P<form>[^{}]*))?\}|\*\*/|\*\*|\*|\?")
_TIMES = {"date": "%Y-%m-%d", "month": "%Y-%m", "hour": "%H"}
_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "j": 3, "H": 2, "M": 2, "S": 2}
_GRAINS = "YmdHMS"
_FORM_HELP = "%" + ", %".join(_DIGITS)


@dataclass(frozen=True)
class Matched:
    """What a file's path says: its name below the connection, its placeholders, and the interval it speaks for."""

    name: str
    values: dict[str, str]
    interval: tuple[datetime, datetime] | None


@dataclass(frozen=True)
class PathPattern:
    """`base` is the connection's part, in which only braces have a meaning; `path` is the declared part. The times in
    them are those of `zone`."""

    base: str
    path: str
    zone: tzinfo = UTC

    @property
    def is_plain(self) -> bool:
        """Whether it names exactly one file."""
        return not _TOKEN.search(self.path) and "{" not in self.base

    @property
    def names(self) -> frozenset[str]:
        """The placeholders that a column may be taken from."""
        found = {match["name"] for match in _TOKEN.finditer(self.path) if match["name"]}
        times = _directives(self.path)
        return frozenset(
            (found - set(_TIMES))
            | ({"month"} if _reaches(times, "m") else set())
            | ({"date"} if _reaches(times, "d") else set())
            | ({"hour"} if _reaches(times, "H") else set())
        )

    def check(self) -> None:
        """Raises `ValueError` that says what can't be meant."""
        for match in _TOKEN.finditer(self.path):
            form = match["form"]
            if form is not None and match["name"] not in _TIMES:
                raise ValueError(f"{{{match['name']}:…}}: only date, month and hour may have a form")
            for letter in re.findall(r"%(.?)", form or ""):
                if letter not in _DIGITS:
                    raise ValueError(f"%{letter} in {match[0]}: a form is made of {_FORM_HELP}")
        times = _directives(self.path)
        if times and not _grain(times):
            raise ValueError(f"the times in {self.path} don't name an interval: an hour needs a date, a day its month")

    def glob(self) -> str:
        """The same for a file system's own glob, which may find more than is meant."""

        def star(match: re.Match[str]) -> str:
            folders = (match["form"] or "").count("/")
            return "*" + "/*" * folders if match["name"] else match[0]

        base = re.sub(r"[\[*?]", r"[\g<0>]", re.sub(r"\{[a-z_]+(:[^{}]*)?\}", "\0", self.base)).replace("\0", "*")
        ends, text = 0, ""
        for match in _TOKEN.finditer(self.path):
            text += self.path[ends : match.start()].replace("[", "[[]") + star(match)
            ends = match.end()
        return f"{base}/{text}{self.path[ends:].replace('[', '[[]')}"

    def match(self, location: str) -> Matched | None:
        """What the path of a found file says; None if it is not meant."""
        found = _regex(self.base, self.path).fullmatch(location)
        if not found:
            return None
        groups = found.groupdict()
        times = {name[2:]: text for name, text in groups.items() if name.startswith("t_")}
        values = {name[2:]: text for name, text in groups.items() if name.startswith("n_")}
        if not times:
            return Matched(found["name_"], values, None)
        try:
            start, end = _interval(times)  # on the wall of the zone
            interval = start.replace(tzinfo=self.zone).astimezone(UTC), end.replace(tzinfo=self.zone).astimezone(UTC)
        except (ValueError, OverflowError):  # 30 February is no date; 9999-12-31 has no end
            return None
        letters = set(times)
        for name, letter, form in (("month", "m", "%Y-%m"), ("date", "d", "%Y-%m-%d"), ("hour", "H", "%H")):
            if _reaches(letters, letter):
                values[name] = start.strftime(form)
        name = found["name_"]
        if not _directives(self.path):  # the date stands in the connection's part of the path
            name = f"{start:%Y-%m-%d}/{name}"
        return Matched(name, values, interval)


def fill(text: str, values: dict[str, str], start: datetime | None) -> str:
    """The path that belongs to a file with these placeholders and this beginning of its interval."""

    def filled(match: re.Match[str]) -> str:
        name, form = match["name"], match["form"]
        if not name:
            return match[0]
        if name in _TIMES and start is not None:
            return start.strftime(form or _TIMES[name])
        return values[name]

    return _TOKEN.sub(filled, text)


@lru_cache(maxsize=256)
def _regex(base: str, path: str) -> re.Pattern[str]:
    seen: set[str] = set()
    return re.compile(f"{_translate(base, seen, globs=False)}/(?P<name_>{_translate(path, seen, globs=True)})")


def _translate(text: str, seen: set[str], *, globs: bool) -> str:
    parts, ends = [], 0
    for match in _TOKEN.finditer(text):
        literal = text[ends : match.start()]
        parts.append(re.escape(literal))
        begins = not text[: match.start()] or text[match.start() - 1] == "/"
        if name := match["name"]:
            form = _TIMES.get(name) if match["form"] is None else match["form"]
            parts.append(_time(form, seen) if form else _group(f"n_{name}", r"[^/]+?", seen))
        else:
            parts.append(_wildcard(match[0], begins) if globs else re.escape(match[0]))
        ends = match.end()
    return "".join(parts) + re.escape(text[ends:])


def _wildcard(text: str, begins: bool) -> str:
    """As in a shell: a wildcard at the beginning of a name finds no hidden file, which is how many a tool names one
    that it is still writing."""
    visible = r"(?!\.)" if begins else ""
    return {"**/": r"(?:(?!\.)[^/]+/)*", "**": visible + ".*", "*": visible + "[^/]*", "?": visible + "[^/]"}[text]


def _time(form: str, seen: set[str]) -> str:
    pieces = re.split(r"%(.)", form)
    return "".join(
        _group(f"t_{piece}", rf"\d{{{_DIGITS.get(piece, 2)}}}", seen) if index % 2 else re.escape(piece)
        for index, piece in enumerate(pieces)
    )


def _group(name: str, pattern: str, seen: set[str]) -> str:
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    return f"(?P<{name}>{pattern})"


def _directives(text: str) -> set[str]:
    forms = [
        _TIMES[match["name"]] if match["form"] is None else match["form"]
        for match in _TOKEN.finditer(text)
        if match["name"] in _TIMES
    ]
    return {letter for form in forms for letter in re.findall(r"%(.)", form)}


def _grain(letters: set[str]) -> str:
    """The finest unit of time that is named without a gap above it: one of YmdHMS, or nothing."""
    known = {"Y"} if letters & {"Y", "y"} else set()
    known |= {"m", "d"} if "j" in letters else set()
    known |= letters & set("mdHMS")
    size = 0
    while size < len(_GRAINS) and _GRAINS[size] in known:
        size += 1
    return _GRAINS[size - 1] if size and size == len(known) else ""


def _reaches(letters: set[str], letter: str) -> bool:
    grain = _grain(letters)
    return bool(grain) and _GRAINS.index(letter) <= _GRAINS.index(grain)


def _interval(times: dict[str, str]) -> tuple[datetime, datetime]:
    start = datetime.strptime(" ".join(times.values()), " ".join(f"%{letter}" for letter in times))
    match _grain(set(times)):
        case "Y":
            return start, start.replace(year=start.year + 1)
        case "m":
            return start, (start.replace(day=28) + timedelta(days=4)).replace(day=1)
        case grain:
            return start, start + timedelta(seconds={"d": 86400, "H": 3600, "M": 60, "S": 1}[grain])
