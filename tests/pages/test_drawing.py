"""Where boxes, lines and bars go, and what is told beside them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sluice_airflow.pages import graph

from sluice.reports import distribution
from sluice.reports.lineage import Lineage, Tabled


def made(*tables: Tabled, **edges: tuple[str, ...]) -> Lineage:
    return Lineage(datetime.now(UTC), tables, edges)


def table(name: str, layer: str, *inputs: str, columns: tuple[str, ...] = ("id",)) -> Tabled:
    return Tabled(name, layer, name, "", columns, inputs)


CHAIN = made(
    table("s.a", "source", columns=("id", "a.b")),
    table("staging.s__a", "log", "s.a"),
    table("staging.stg_a", "staging", "staging.s__a"),
    table("snapshots.snap_a", "snapshots", "staging.stg_a"),
    table("marts.dim", "marts", "snapshots.snap_a"),
    table("marts.fct", "marts", "marts.dim", "staging.stg_a"),
    Tabled("Board", "exposure", "Board", "", (), ("marts.fct",)),
    **{
        "staging.s__a.id": ("s.a.a.b",),
        "staging.stg_a.id": ("staging.s__a.id",),
        "snapshots.snap_a.id": ("staging.stg_a.id",),
        "marts.dim.id": ("snapshots.snap_a.id",),
        "marts.fct.id": ("marts.dim.id", "staging.stg_a.id"),
    },
)


def test_a_column_is_drawn_from_its_source_to_who_reads_it_and_said_in_words() -> None:
    drawn = graph.of_column(CHAIN, "s.a", "a.b")
    assert drawn is not None
    left_to_right = [box.id for box in sorted(drawn.boxes, key=lambda box: box.x)]
    assert left_to_right == [each.id for each in CHAIN.tables]
    assert [text for _, text in drawn.headings] == [
        "Source", "Change log", "Staging", "Snapshots", "Marts", "Exposures"
    ]  # fmt: skip
    assert dict(drawn.feeds)["marts.fct.id"] == ("marts.dim.id", "staging.stg_a.id")
    assert dict(drawn.feeds)["Board"] == ("marts.fct",)
    assert len(drawn.lines) == 7


def test_no_line_runs_behind_a_box() -> None:
    drawn = graph.of_table(CHAIN, "marts.fct")
    for path in drawn.lines:
        for y, x in re.findall(r"([\d.]+)H(\d+)", path):  # where it passes a column of boxes, it is level
            inside = [box.id for box in drawn.boxes if box.x < float(x) <= box.x + box.width + 1]
            assert all(not box.y < float(y) < box.y + box.height for box in drawn.boxes if box.id in inside), path
    assert sum(path.count("H") for path in drawn.lines) == 2  # from staging past snapshots and the dimension


def test_of_two_hundred_tables_the_nearest_are_drawn_and_the_others_counted() -> None:
    far = made(
        *(table(f"s.t{n}", "source") for n in range(100)),
        *(table(f"staging.s__t{n}", "log", f"s.t{n}") for n in range(100)),
        table("marts.all", "marts", *(f"staging.s__t{n}" for n in range(100))),
        **{"marts.all.id": tuple(f"staging.s__t{n}.id" for n in range(100))},
        **{f"staging.s__t{n}.id": (f"s.t{n}.id",) for n in range(100)},
    )
    drawn = graph.of_table(far, "marts.all")
    assert (len(drawn.boxes), drawn.left_out) == (graph.MOST_TABLES, 201 - graph.MOST_TABLES)
    of_column = graph.of_column(far, "marts.all", "id")
    assert of_column is not None
    assert (len(of_column.boxes), of_column.left_out) == (graph.MOST_TABLES, 201 - graph.MOST_TABLES)
    assert {box.layer for box in of_column.boxes} == {"log", "marts"}


def test_columns_that_do_not_fit_into_a_box_are_counted() -> None:
    wide = made(table("s.wide", "source", columns=tuple(f"c{n}" for n in range(100))))
    rows = graph.of_table(wide, "s.wide").boxes[0].rows
    assert (len(rows), rows[-1].label, rows[-1].column) == (graph.MOST_COLUMNS, "and 61 more", None)


@pytest.mark.parametrize(
    ("type_", "low", "high"),
    [
        ("numeric(12,2)", "0.00", "16.00"),
        ("date", "2026-01-01", "2026-01-17"),
        ("timestamp with time zone", "2026-01-01 00:00:00+00", "2026-01-17 00:00:00+00"),
    ],
)
def test_bins_hold_common_values_and_the_rest_and_add_up_to_the_rows_that_have_a_value(
    type_: str, low: str, high: str
) -> None:
    axis = distribution.numbers([low, high], type_)
    found = distribution.bins(axis, [(low, 0.5)], [low, high], 0.9)
    assert found == pytest.approx([0.525] + [0.025] * 15)
    assert sum(found) == pytest.approx(0.9)


def test_infinite_values_have_no_place_on_the_axis_and_what_has_no_axis_has_no_bins() -> None:
    values = ["-infinity", "2026-01-01 00:00:00+00", "2026-01-02 00:00:00+00", "infinity"]
    axis = distribution.numbers(values, "timestamp with time zone")
    assert distribution.bins(axis, [("infinity", 0.9)], values[1:3], 1.0) == pytest.approx([0.00625] * 16, abs=1e-4)
    assert distribution.bins({"7": 7.0}, [("7", 1.0)], [], 1.0) == []
    assert distribution.numbers(["{1,2}"], "integer[]") == {}
    assert distribution.numbers(["NaN"], "numeric") == {"NaN": float("inf")}
