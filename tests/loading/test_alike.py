"""Lines that are all written alike are cut and not parsed. What comes of it is what parsing each line would give."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sluice.readers.base import Names
from sluice.readers.formats import jsonl
from sluice.readers.formats.alike import Alike

NAMES = st.lists(
    st.sampled_from(["a", "id", "amount_of_something", "né", "with space", "null", ""]),
    min_size=1,
    max_size=4,
    unique=True,
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"]), max_size=9),
    st.sampled_from(["null", ",", "}", "{", ":", "true", " ", "\x7f", "€", "a, b", "},{", "\u2028"]),
)
BARE = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.decimals(-1000, 1000, places=2).map(float),
)
NASTY = [
    b'"',
    b"\\",
    b",",
    b"}",
    b"{",
    b":",
    b"\n",
    b"\r",
    b"\t",
    b"\0",
    b"0",
    b"-",
    b".",
    b"e",
    b" ",
    b"x",
    b"\xff",
    b"null",
    b',"a":',
    b"[1]",
]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Lines that are alike, but for what chance did to one place of them."""
    names = draw(NAMES)
    kinds = [draw(st.sampled_from([TEXTS, TEXTS | st.none(), BARE, TEXTS | BARE])) for _ in names]
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (",", ": ")]))
    rows = draw(st.lists(st.tuples(*kinds), min_size=1, max_size=6))
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), separators=(comma, colon), ensure_ascii=draw(st.booleans()))
        for row in rows
    ]
    block = "\n".join(lines).encode()
    if draw(st.booleans()):
        place, nasty = draw(st.integers(0, len(block))), draw(st.sampled_from(NASTY))
        block = block[:place] + nasty + block[place + draw(st.integers(0, 2)) :]
    return names, block


def parsed(names: list[str], block: bytes) -> Any:
    """The same by parsing."""
    decoder = jsonl._Decoder(names, Names(names))
    decoder._trials = 0
    (rows,) = decoder.rows(iter([block]))
    return rows


def cut(names: list[str], block: bytes) -> tuple[int, bytes] | None:
    try:
        return Alike(block, names).rows(block)
    except ValueError:
        return None


@settings(max_examples=600, deadline=None)
@given(blocks())
@example((["a"], b'{"a":1,2}'))
@example((["a", "id"], b'{"a":1,"id":2}\n{"a":1},"id":2}'))
@example((["a"], b'{"a":-0}'))
@example((["a"], b'{"a":01}'))
@example((["a"], b'{"a":"x\ty"}'))
@example((["a"], b'{"a":nullx}'))
@example((["a"], b'{"a":1}\n\n{"a":1}'))
@example((["a"], b'{"a":1}\r\n{"a":2}'))
def test_lines_that_are_cut_are_the_rows_that_parsing_gives(given_block: tuple[list[str], bytes]) -> None:
    names, block = given_block
    if found := cut(names, block):
        rows = parsed(names, block)
        assert (rows.count, rows.data) == found
        assert rows.damaged == {}


@pytest.mark.parametrize("colon", [":", ": "])
@pytest.mark.parametrize("comma", [",", ", "])
def test_what_programs_write_is_cut(colon: str, comma: str) -> None:
    rows = [
        {"id": 1, "name": None, "amount": 1.50, "ok": True, "note": None, "last": "ü"},
        {"id": 22, "name": "", "amount": -0.5, "ok": False, "note": None, "last": None},
        {"id": -3, "name": "null", "amount": None, "ok": None, "note": 1e300, "last": "x"},
    ]
    block = "\n".join(json.dumps(row, separators=(comma, colon), ensure_ascii=False) for row in rows).encode()
    count, data = cut(list(rows[0]), block) or (0, b"")
    assert count == 3
    assert data.decode().splitlines() == [
        "1\t\\N\t1.5\ttrue\t\\N\tü\t\\N",
        "22\t\t-0.5\tfalse\t\\N\t\\N\t\\N",
        "-3\tnull\t\\N\t\\N\t1e+300\tx\t\\N",
    ]


def test_a_file_of_other_lines_is_tried_a_few_times_only() -> None:
    names = ["a"]
    decoder = jsonl._Decoder(names, Names(names))
    list(decoder.rows(iter([b'{"a": "with \\n escape"}'] * 9)))
    assert decoder._trials == 0
