"""Where the boxes and lines of a lineage go: numbers only, which a template draws as SVG. Only what is around the
chosen table or column is drawn; the whole of two hundred tables can't be read.

Each layer is a column of boxes, and has one more where a table of it reads another of it. In a column, boxes stand in
the order of what they are joined to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from sluice.reports.lineage import LAYERS, Lineage, around, split, trace

MOST_TABLES, MOST_COLUMNS = 60, 40
_LETTERS, _LETTER = 26, 6.7  # how many are shown, and how wide one is
_HEAD, _ROW, _BEND, _GAP, _ACROSS, _TOP = 26, 19, 0, 10, 36, 30  # heights, and the room between
HEADINGS = dict(
    zip(LAYERS, ("Source", "Change log", "Staging", "Snapshots", "Intermediate", "Marts", "Exposures"), strict=True)
)


@dataclass(frozen=True)
class Row:
    """A column in a box; `y` is its middle. One without a column says how many are left out."""

    column: str | None
    label: str
    y: float
    is_chosen: bool


@dataclass(frozen=True)
class Box:
    """A table."""

    id: str
    name: str
    label: str
    layer: str
    x: float
    y: float
    width: float
    height: float
    is_chosen: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Drawn:
    """A drawing. `feeds` says the same in words: what goes into each table or column that is shown."""

    width: float
    height: float
    headings: tuple[tuple[float, str], ...]
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]  # SVG paths
    feeds: tuple[tuple[str, tuple[str, ...]], ...]
    left_out: int


End = tuple[str, str | None]  # a table, or one of its columns
Pair = tuple[str, str]  # of tables
Place = tuple[str, list[str]]  # a column of boxes: its layer, and what stands in it


def of_table(lineage: Lineage, table: str) -> Drawn:
    """The tables around one, nearest first, and the columns of that one."""
    up, down = around(lineage, table)
    nearest = [table, *(each for pair in _alternating(up, down) for each in pair)]
    shown = set(nearest[:MOST_TABLES])
    joined = [
        ((given, None), (each.id, None))
        for each in lineage.tables
        for given in each.inputs
        if each.id in shown and given in shown
    ]
    columns = {table: lineage.by_id[table].columns}
    return _drawn(lineage, shown, columns, joined, (table, None), len(nearest) - len(shown))


def of_column(lineage: Lineage, table: str, column: str) -> Drawn | None:
    """All that goes into a column, and all that it goes into; None where there is no such column."""
    traced = trace(lineage, table, column)
    if traced is None:
        return None
    keys = [f"{table}.{column}", *(key for pair in _alternating(traced.upstream, traced.downstream) for key in pair)]
    columns: dict[str, list[str]] = {}
    for of, name in map(split, keys):
        if of in columns or len(columns) < MOST_TABLES:
            columns.setdefault(of, []).append(name)
    known = {(of, name) for of, names in columns.items() for name in names}
    joined: list[tuple[End, End]] = [
        (split(given), split(into))
        for into in keys
        for given in lineage.edges.get(into, ())
        if split(given) in known and split(into) in known
    ]
    joined += [
        ((given, None), (each, None)) for each in traced.exposures for given in lineage.by_id[each].inputs
        if given in columns
    ]  # fmt: skip
    shown = {*columns, *traced.exposures}
    left_out = len({split(key)[0] for key in keys}) - len(columns)
    return _drawn(lineage, shown, columns, joined, (table, column), left_out)


def relation_of(lineage: Lineage, table: str) -> str:
    """The table's name in the catalogue; of a table at its source, that of its log."""
    if lineage.by_id[table].layer != "source":
        return table
    return next((each for each in lineage.readers.get(table, ()) if lineage.by_id[each].layer == "log"), "")


def _alternating(up: Iterable[str], down: Iterable[str]) -> Iterable[tuple[str, ...]]:
    left, right = list(up), list(down)
    for n in range(max(len(left), len(right))):
        yield (*left[n : n + 1], *right[n : n + 1])


def _drawn(
    lineage: Lineage,
    shown: set[str],
    columns: Mapping[str, Sequence[str]],
    joined: list[tuple[End, End]],
    chosen: End,
    left_out: int,
) -> Drawn:
    pairs = list(dict.fromkeys((given[0], into[0]) for given, into in joined))
    places, ways = _places(lineage, shown, pairs)
    tall = {each: _height(columns.get(each, ())) if each in shown else _BEND for _, place in places for each in place}
    heights = [sum(tall[each] + _GAP for each in place) for _, place in places]
    boxes: dict[str, Box] = {}
    bends: dict[str, tuple[float, float, float]] = {}
    headings: dict[str, float] = {}
    x = 1.0
    for (layer, place), whole in zip(places, heights, strict=True):
        headings.setdefault(HEADINGS[layer], x)
        texts = [text for each in place if each in shown for text in (_name(lineage, each), *columns.get(each, ()))]
        width = max(len(_fitted(text)) for text in texts) * _LETTER + 22
        y = _TOP + (max(heights) - whole) / 2
        for each in place:
            if each in shown:
                boxes[each] = _box(lineage, each, columns.get(each, ()), (x, y, width, tall[each]), chosen)
            else:
                bends[each] = (x, x + width, y + tall[each] / 2)
            y += tall[each] + _GAP
        x += width + _ACROSS
    lines = [_line(boxes, given, into, [bends[each] for each in ways[given[0], into[0]]]) for given, into in joined]
    feeds: dict[str, list[str]] = {}
    for given, into in joined:
        feeds.setdefault(_said(into), []).append(_said(given))
    return Drawn(
        x - _ACROSS + 1,
        _TOP + max(heights),
        tuple((at, text) for text, at in headings.items()),
        tuple(boxes.values()),
        tuple(dict.fromkeys(lines)),
        tuple((into, tuple(given)) for into, given in feeds.items()),
        left_out,
    )


def _places(lineage: Lineage, shown: set[str], pairs: list[Pair]) -> tuple[list[Place], dict[Pair, list[str]]]:
    """The columns of boxes from left to right, each with its layer; and where a line passes columns between its ends:
    a place for it in each of them, so that it does not run behind a box."""
    depth: dict[str, int] = {}
    found: dict[tuple[int, int], list[str]] = {}
    for each in lineage.tables:  # inputs come first
        if each.id in shown:
            same = [given for given, into in pairs if into == each.id and lineage.by_id[given].layer == each.layer]
            depth[each.id] = max((depth[given] + 1 for given in same if given in depth), default=0)
            found.setdefault((LAYERS.index(each.layer), depth[each.id]), []).append(each.id)
    places = [(LAYERS[layer], found[layer, deep]) for layer, deep in sorted(found)]
    column = {each: n for n, (_, place) in enumerate(places) for each in place}
    ways: dict[Pair, list[str]] = {}
    left: dict[str, list[str]] = {}
    right: dict[str, list[str]] = {}
    for given, into in pairs:
        way = ways[given, into] = [f"{given} > {into} > {n}" for n in range(column[given] + 1, column[into])]
        for n, bend in enumerate(way, column[given] + 1):
            places[n][1].append(bend)
        for one, other in pairwise((given, *way, into)):
            right.setdefault(one, []).append(other)
            left.setdefault(other, []).append(one)
    at = {each: y for _, place in places for each, y in _spread(place)}
    for near, sweep in ((left, places), (right, places[::-1])) * 4:
        for _, place in sweep:
            middle = {each: fmean(at[other] for other in near.get(each, [each])) for each in place}
            place.sort(key=middle.__getitem__)
            at.update(_spread(place))
    return places, ways


def _spread(place: list[str]) -> Iterable[tuple[str, float]]:
    return ((each, n - len(place) / 2) for n, each in enumerate(place))


def _box(
    lineage: Lineage, table: str, columns: Sequence[str], at: tuple[float, float, float, float], chosen: End
) -> Box:
    known, y = lineage.by_id[table], at[1]
    fits = columns if len(columns) <= MOST_COLUMNS else columns[: MOST_COLUMNS - 1]
    middles = [y + _HEAD + _ROW * (n + 0.5) for n in range(len(fits) + 1)]
    rows = [Row(name, _fitted(name), middles[n], (table, name) == chosen) for n, name in enumerate(fits)]
    if len(fits) < len(columns):
        rows.append(Row(None, f"and {len(columns) - len(fits)} more", middles[-1], False))
    name = _name(lineage, table)
    return Box(table, known.name, _fitted(name), known.layer, *at, table == chosen[0], tuple(rows))


def _height(columns: Sequence[str]) -> float:
    return _HEAD + _ROW * min(len(columns), MOST_COLUMNS) + (5 if columns else 0)


def _name(lineage: Lineage, table: str) -> str:
    """Above a box stands its layer already."""
    return lineage.by_id[table].name.removeprefix("staging.")


def _fitted(text: str) -> str:
    """A long name without its middle: names of this kind differ at their ends."""
    return text if len(text) <= _LETTERS else f"{text[:14]}…{text[-11:]}"


def _line(boxes: Mapping[str, Box], given: End, into: End, bends: list[tuple[float, float, float]]) -> str:
    start, end = boxes[given[0]], boxes[into[0]]
    x, y = start.x + start.width, _middle(start, given[1])
    path = f"M{x:.0f} {y:.1f}"
    for left, right, at in (*bends, (end.x, end.x, _middle(end, into[1]))):
        bend = (left - x) / 2
        path += f"C{x + bend:.0f} {y:.1f} {left - bend:.0f} {at:.1f} {left:.0f} {at:.1f}"
        path += f"H{right:.0f}" if right > left else ""
        x, y = right, at
    return path


def _middle(box: Box, column: str | None) -> float:
    if column is None:
        return box.y + _HEAD / 2
    return next((row.y for row in box.rows if row.column == column), box.y + box.height - _ROW / 2)


def _said(end: End) -> str:
    return end[0] if end[1] is None else f"{end[0]}.{end[1]}"
