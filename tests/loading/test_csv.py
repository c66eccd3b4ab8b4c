"""CSV against an independent reading: Python's csv, decimal and datetime say what must be in staging and what in
quarantine. Codes are those of docs/reference/faults.md."""

from __future__ import annotations

import csv
import io
import re
from datetime import date
from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sluice.readers.formats import blocks
from tests.loading.conftest import World

ROWS = """
rows:
  description: rows of every kind
  from: {files: {connection: drop, path: "{name}.csv", format: {type: csv, encoding: ENCODING, delimiter: "DELIMITER"}}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns:
    id: {type: bigint, required: true}
    amount: {type: "numeric(8,2)", minimum: -10}
    day: {type: date}
    name: {type: text}
"""
HEADER = ["id", "amount", "day", "name"]

odd = ["1_1", "0x1F", " -1_000", "1.5_0"]  # numbers to Postgres
ids = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str), st.sampled_from(["", "x", "9223372036854775808", " 7", *odd])
)
amounts = st.one_of(
    st.decimals(-100, 10**6, places=2, allow_nan=False).map(str),
    st.sampled_from(["", "NaN", "Infinity", "1e3", "999999.99", "999999.995", "0.001", "-0.00", "1.100", "1,5", *odd]),
)
days = st.one_of(
    st.dates(date(1, 1, 1), date(9999, 12, 31)).map(str),
    st.sampled_from(["", "0000-00-00", "2026-02-30", "today", " Tomorrow", "NOW", "infinity", "-infinity", "epoch"]),
)
names = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_characters="\0\r"), max_size=12),
    st.sampled_from(["", "now", 'he said "now"', "line\nline", "a,b;c", '"', "\\.", "line 3", "I know", *odd]),
)
records = st.lists(st.tuples(ids, amounts, days, names), min_size=1, max_size=12)
damage = st.sampled_from(
    ["1,2.00", "1,2.00,2026-01-01,x,y", '2,1,2026-01-01,5" pipe', '3,1,2026-01-01,"a"b', "\\.", "", "4,1\0,,"]
)


def judged(row: tuple[str, ...]) -> tuple | str:
    """The values that a row means, or the code for which it is rejected: the contract, in plain Python."""
    number, amount, day, name = row
    if number.strip() and not re.fullmatch(r"\s*[+-]?\d+\s*", number):
        return "TYPE"
    if number and not -(2**63) <= int(number) < 2**63:
        return "TYPE"
    if not number:
        return "NULL_KEY"
    value = None
    if amount:
        try:
            value = Decimal(amount)
        except InvalidOperation:
            return "TYPE"
        if "_" in amount:  # to Python and to Postgres a number, to nobody who writes files
            return "TYPE"
        if not value.is_finite():
            return "NOT_FINITE"
        if abs(value) >= Decimal("999999.995"):
            return "TYPE"
        if value != value.quantize(Decimal("0.01")):
            return "PRECISION"
    when = None
    if day:
        try:
            when = date.fromisoformat(day)
        except ValueError:
            return "TYPE"
    if value is not None and value < -10:
        return "RANGE"
    return int(number), value, when, name or None


def written(rows: list[tuple[str, ...]], *, delimiter: str, quoting: int, newline: str) -> list[str]:
    """Each row as a record, with its line break."""
    made = []
    for row in rows:
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=newline).writerow(row)
        made.append(text.getvalue())
    return made


@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking a file takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=records,
    damaged=st.lists(st.tuples(st.integers(0, 12), damage), max_size=3),
    delimiter=st.sampled_from([",", ";"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "latin-1"]),
    size=st.sampled_from([16, 64, 1 << 20]),
)
def test_E18_E19_L5_L7_any_file_is_what_an_independent_reading_says(
    world: World,
    rows: list[tuple[str, ...]],
    damaged: list[tuple[int, str]],
    delimiter: str,
    quoting: int,
    newline: str,
    encoding: str,
    size: int,
) -> None:
    for name in ("lease", "quarantine", "schema_event", "gate_result", "watermark", "batch"):
        world.warehouse.execute(f"truncate ops.{name} cascade")
    world.warehouse.execute("drop table if exists staging.shop__rows")
    world.declare(ROWS.replace("ENCODING", encoding).replace("DELIMITER", delimiter))
    made: list[tuple[str, tuple | str | None]] = [
        (text, judged(row))
        for text, row in zip(written(rows, delimiter=delimiter, quoting=quoting, newline=newline), rows, strict=True)
    ]
    for at, text in damaged:
        code = {"": None, "4,1\0,,": "NUL_BYTE"}.get(text, "CSV" if '"' in text else "FIELD_COUNT")
        made.insert(at, (text.replace(",", delimiter) + newline, code))
    content = delimiter.join(HEADER) + newline + "".join(text for text, _ in made)
    world.deliver("a.csv", content.encode(encoding))
    expected, rejected, position, seen = [], [], 0, set()
    for _, verdict in made:
        position += verdict is not None  # blank lines are no records
        if isinstance(verdict, str):
            rejected.append((position, verdict))
        elif verdict is not None and verdict not in seen:
            seen.add(verdict)
            expected.append((position, *verdict))
    before, blocks.BLOCK = blocks.BLOCK, size
    try:
        (published,) = world.load("rows")
    finally:
        blocks.BLOCK = before
    log = "select _row_number, id, amount, day, name from staging.shop__rows order by 1"
    assert world.query(log) == expected
    assert world.query("select row_number, code from ops.quarantine order by 1") == rejected
    assert published.rows_read == position
    assert world.books_balance()


def test_L5_what_many_blocks_leave_out_is_all_kept_each_row_at_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad values in each of many blocks, records of another shape in a few; they are booked sixteen at a time."""
    monkeypatch.setattr(blocks, "BLOCK", 1 << 10)
    world.declare(ROWS.replace("ENCODING", "utf-8").replace("DELIMITER", ","))
    lines, rejected = [], []
    for position in range(1, 5001):
        code = "FIELD_COUNT" if position % 500 == 25 else {3: "TYPE", 44: "RANGE"}.get(position % 50)
        lines.append({"TYPE": "x,1,,n", "FIELD_COUNT": "1,2", "RANGE": "1,-11,,n"}.get(code or "", f"{position},1,,n"))
        rejected += [(position, code)] if code else []
    world.deliver("a.csv", "\n".join([",".join(HEADER), *lines]))
    world.load("rows")
    assert world.query("select row_number, code from ops.quarantine order by 1") == rejected
    assert world.query("select count(*), bool_and(_row_number = id) from staging.shop__rows") == [(4790, True)]
    raw = {"TYPE": ["x", "1", None, "n"], "RANGE": ["1", "-11", None, "n"]}
    kept = world.query(
        "select distinct code, raw::jsonb from ops.quarantine where code <> 'FIELD_COUNT' order by 1 desc"
    )
    assert kept == [(code, dict(zip(HEADER, fields, strict=True))) for code, fields in raw.items()]
    assert world.books_balance()


STRAY = """
{name}:
  description: rows with quotes where none belongs
  from: {{files: {{connection: drop, path: "{name}.csv", format: csv}}}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns: {{id: {{type: integer}}, day: {{type: date}}, name: {{type: text}}{more}}}
"""


def test_E18_a_quote_where_none_belongs_is_rejected_on_whatever_path_its_row_goes(world: World) -> None:
    """Straight into values, as text since one field feeds two columns, and as text since a word for a time is near."""
    more = ", again: {type: text, field: name}"
    world.declare(STRAY.format(name="blocks", more="") + STRAY.format(name="texts", more=more))
    body = 'id,day,name\n1,2026-01-01,"a"b\n2,2026-01-01,5" pipe\n3,today,"a"b\n4,2026-01-01,a""b\n5,now,x\n6,,"now"\n'
    found = []
    for name in ("blocks", "texts"):
        world.deliver(f"{name}.csv", body)
        world.load(name)
        rejects = "select row_number, code from ops.quarantine where table_name = %s order by 1"
        found.append((world.query(f"select id, name from staging.shop__{name}"), world.query(rejects, name)))
    assert found[0] == found[1]
    assert found[0] == ([(6, "now")], [(1, "CSV"), (2, "CSV"), (3, "CSV"), (4, "CSV"), (5, "TYPE")])
