"""JSON Lines and Parquet, which go straight into values: against an independent reading of the same file, and against
the path of rows as text. Codes are those of docs/reference/faults.md."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sluice.errors import GateRefused
from sluice.loading.landing import Landing
from sluice.readers.formats import jsonl, parquet
from tests.loading.conftest import World

generated = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking a file takes minutes
    suppress_health_check=list(HealthCheck),
)
ROWS = """
{name}:
  description: rows of every kind
  from: {{files: {{connection: drop, path: "{name}/{{n}}", format: {format}}}}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns:
    id: {{type: bigint, required: true}}
    amount: {{type: "numeric(8,2)", minimum: -10}}
    day: {{type: date}}
    name: {{type: text}}
"""
NAMES = ("id", "amount", "day", "name")
Verdict = tuple[Any, ...] | str


def forget(world: World, *names: str) -> None:
    for table in ("lease", "quarantine", "schema_event", "gate_result", "watermark", "batch"):
        world.warehouse.execute(f"truncate ops.{table} cascade")
    for name in names:
        world.warehouse.execute(f"drop table if exists staging.shop__{name}")


def judged(number: str | None, amount: str | None, day: str | None, name: str | None) -> Verdict:
    """The values that a row of texts means, or the code for which it is rejected: the contract, in plain Python."""
    if number is None:
        return "NULL_KEY"
    if not re.fullmatch(r"\s*[+-]?\d+\s*", number) or not -(2**63) <= int(number) < 2**63:
        return "TYPE"
    value = None
    if amount is not None:
        try:
            value = Decimal(amount)
        except InvalidOperation:
            return "TYPE"
        if not value.is_finite():
            return "NOT_FINITE"
        if abs(value) >= Decimal("999999.995"):
            return "TYPE"
        if value != value.quantize(Decimal("0.01")):
            return "PRECISION"
    when = None
    if day is not None:
        try:
            when = date.fromisoformat(day)
        except ValueError:
            return "TYPE"
    if value is not None and value < -10:
        return "RANGE"
    return int(number), value, when, name


def must_be(world: World, table: str, verdicts: list[tuple[Verdict, Any]]) -> None:
    """Staging, quarantine and books hold exactly this: for each row of the unit its values, or its code, and what of it
    was rescued."""
    expected, rejected, seen = [], [], set()
    for position, (verdict, rescued) in enumerate(verdicts, start=1):
        if isinstance(verdict, str):
            rejected.append((position, verdict))
        elif verdict not in seen:
            seen.add(verdict)
            expected.append((position, *verdict, rescued))
    log = f"select _row_number, id, amount, day, name, _rescued from staging.shop__{table} order by 1"
    assert world.query(log) == expected
    assert world.query("select row_number, code from ops.quarantine order by 1") == rejected
    assert world.query("select sum(rows_read) from ops.batch") == [(len(verdicts),)]
    assert world.books_balance()


days = st.one_of(
    st.dates(date(1, 1, 1), date(9999, 12, 31)).map(str),
    st.sampled_from(["", "0000-00-00", "2026-02-30", "today", " Tomorrow", "\nnow", "NOW", "infinity", "epoch"]),
)
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(
        ["", "now", 'he said "now"', "line\nline", "a,b;c", '"', "\\.", "\n\\.\n", "\r", "\r\n", "\\u0000"]
    ),
)
numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str), st.sampled_from(["", "x", "9223372036854775808", " 7", "12", "1.5"])
)
amounts = st.one_of(
    st.decimals(-100, 10**6, places=2, allow_nan=False).map(str),
    st.sampled_from(["", "NaN", "Infinity", "1e3", "999999.99", "999999.995", "0.001", "-0.00", "1.100", "1,5"]),
)


# -- JSON Lines ---------------------------------------------------------------------------------


class Literal(str):
    """Written into JSON as it is."""


def literals(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """A text, or the number that it spells, as JSON has it."""
    written = st.sampled_from(["0", "-0", "7", "1.50", "1E5", "-1.5e-2", "12345678901234567890123", "NaN", "-Infinity"])
    others = st.sampled_from([None, True, False, [1, "x"], {"a": {"b": None}}])
    return st.one_of(texts, texts, written.map(Literal), others)


def text_of(value: Any) -> str | None:
    """What Postgres is given for a JSON value. Zero is written in one way."""
    if value is None or isinstance(value, str):
        return "0" if isinstance(value, Literal) and value == "-0" else value
    return json.dumps(value)


def written(value: Any) -> str:
    return str(value) if isinstance(value, Literal) else json.dumps(value)


objects = st.fixed_dictionaries(
    {},
    optional={
        "id": literals(numbers),
        "amount": literals(amounts),
        "day": literals(days),
        "name": literals(names),
        "more": st.sampled_from([None, "x", 1, [1]]),
        "_rescued": st.just("mine"),
    },
)
damage = st.sampled_from(
    [
        (b"{", "JSON"), (b"[1]", "JSON"), (b'{"id": 1}{"id": 2}', "JSON"), (b"\\.", "JSON"), (b'{"id": 01}', "JSON"),
        (b'{"name": "\xff"}', "ENCODING"), (b'{"name": "\\ud83d"}', "ENCODING"), (b'{"name": "\\u0000"}', "NUL_BYTE"),
        (b'{"more": {"\\u0000": 1}}', "NUL_BYTE"), (b"{" * 3000, "JSON"), (b" \t", None), (b"", None),
        (b'{"id": ' * 2000 + b"1" + b"}" * 2000, "JSON"),
    ]
)  # fmt: skip


@generated
@given(
    items=st.lists(objects, min_size=1, max_size=12),
    damaged=st.lists(st.tuples(st.integers(0, 12), damage), max_size=3),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    bom=st.booleans(),
    size=st.sampled_from([16, 64, 1 << 20]),
)
def test_E18_E19_L5_L7_any_json_lines_are_what_an_independent_reading_says(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    items: list[dict[str, Any]],
    damaged: list[tuple[int, tuple[bytes, str | None]]],
    newline: bytes,
    bom: bool,
    size: int,
) -> None:
    forget(world, "rows")
    world.declare(ROWS.format(name="rows", format="jsonl"))
    made: list[tuple[bytes, Verdict | None, Any]] = []
    for item in items:
        line = "{" + ", ".join(f'"{name}": {written(value)}' for name, value in item.items()) + "}"
        verdict = judged(*(text_of(item.get(name)) for name in NAMES))
        made.append((line.encode(), verdict, {name: v for name, v in item.items() if name not in NAMES} or None))
    for at, (line, code) in damaged:
        made.insert(at, (line, code, None))
    content = newline.join(line for line, *_ in made)
    world.deliver("rows/a", b"\xef\xbb\xbf" * bom + content)
    with monkeypatch.context() as patched:
        patched.setattr(jsonl, "BLOCK", size)
        world.load("rows")
    must_be(world, "rows", [(verdict, rescued) for _, verdict, rescued in made if verdict is not None])


def test_json_lines_with_nested_values_keep_every_digit_and_every_unknown_field(world: World) -> None:
    world.declare(
        """
        rows:
          description: d
          from: {files: {connection: drop, path: "{n}.jsonl", format: jsonl}}
          mode: append
          key: [id]
          columns: {id: {type: bigint}, tags: {type: jsonb}, flag: {type: boolean}, ratio: {type: numeric}}
        """
    )
    world.deliver(
        "a.jsonl",
        '{"id": 1, "tags": [1.50, {"a": 1e2}], "flag": true, "ratio": 1.10}\n'
        '{"id": 2, "tags": null, "new": {"x": 1.50}, "ratio": 0.1000000000000000055511151231257827}\n',
    )
    world.load("rows")
    assert world.query(
        "select id, tags::text, flag, ratio::text, _rescued::text from staging.shop__rows order by 1"
    ) == [
        (1, '[1.50, {"a": 100}]', True, "1.10", None),
        (2, None, None, "0.1000000000000000055511151231257827", '{"new": {"x": 1.50}}'),
    ]
    assert world.query("select details ->> 'text_rows' from ops.batch") == [("0",)]  # all went straight into values


def test_json_lines_have_fields_of_any_name_that_json_can_write(world: World) -> None:
    names = {"plain": "x", "quoted": 'a"b', "slashed": "a\\b", "tabbed": "a\tb"}
    columns = "".join(f"    {name}: {{type: integer, field: {json.dumps(field)}}}\n" for name, field in names.items())
    world.declare(
        f"""
rows:
  description: d
  from: {{files: {{connection: drop, path: "{{n}}.jsonl", format: jsonl}}}}
  mode: append
  key: [plain]
  columns:
{columns}"""
    )
    rows = [dict.fromkeys(names.values(), number) for number in range(3)]
    world.deliver("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    world.load("rows")
    assert world.query(f"select {', '.join(names)} from staging.shop__rows order by 1") == [(n,) * 4 for n in range(3)]


@pytest.mark.parametrize("format", ["jsonl", "json"])
@pytest.mark.parametrize("depth", [600, 100_000])
def test_E19_objects_too_deep_to_be_read_put_their_row_in_quarantine_and_no_other(
    world: World, format: str, depth: int
) -> None:
    """Whether the contract knows the field or not; and what only looks like a NUL is a text."""
    if (format, depth) == ("json", 100_000):
        pytest.skip("a document so deep is no whole document to its parser")
    world.declare(
        f"""
        rows:
          description: d
          from: {{files: {{connection: drop, path: "{{n}}.x", format: {format}}}}}
          mode: append
          key: [id]
          max_reject_share: 0.9
          columns: {{id: {{type: bigint}}, tags: {{type: jsonb}}, note: {{type: text}}}}
        """
    )
    deep = "[" * depth + "]" * depth
    lines = [
        '{"id": 1, "note": "C:\\\\u0000dir"}',
        f'{{"id": 2, "tags": {deep}}}',
        f'{{"id": 3, "other": {deep}}}',
        '{"id": 4, "note": "x"}',
    ]
    world.deliver("a.x", "\n".join(lines) if format == "jsonl" else f"[{', '.join(lines)}]")
    more = [lines[1], lines[3].replace("4", "5")]
    world.deliver("b.x", "\n".join(more) if format == "jsonl" else f"[{', '.join(more)}]")
    world.load("rows")
    rows = world.query("select id, note from staging.shop__rows order by 1")
    assert rows == [(1, "C:\\u0000dir"), (4, "x"), (5, "x")]
    said = world.query("select row_number, code from ops.quarantine order by batch_id, 1")
    assert said == [(2, "JSON"), (3, "JSON"), (1, "JSON")]


@pytest.mark.parametrize("format", ["jsonl", "json"])
def test_D1_D2_a_field_that_json_has_anew_or_no_more_is_said_once_with_a_hint(world: World, format: str) -> None:
    world.declare(ROWS.format(name="rows", format=format))

    def deliver(name: str, *items: dict[str, Any]) -> None:
        lines = [json.dumps(item) for item in items]
        world.deliver(f"rows/{name}", "\n".join(lines) if format == "jsonl" else f"[{', '.join(lines)}]")
        world.load("rows")

    def events() -> list[tuple]:
        return world.query("select kind, column_name, message from ops.schema_event order by schema_event_id")

    deliver("1", {"id": 1, "name": "Ann", "amount": 1, "day": "2026-01-01"}, {"id": 2, "name": "Bob", "day": None})
    assert events() == []
    deliver("2", {"id": 3, "label": "Ann", "amount": 2}, {"id": 4, "label": "Bob", "day": None})
    (new, missing) = events()
    assert new == ("new_column", "label", "rows/2 has the field label, unknown to the contract; kept in _rescued")
    assert missing[:2] == ("missing_column", "name")
    assert "100% of the values of the field label are such as name had" in missing[2]
    deliver("3", {"id": 5, "label": "Ann"})
    assert [event[:2] for event in events()[2:]] == [("missing_column", "amount"), ("missing_column", "day")]


@pytest.mark.parametrize("format", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("new_column: block", "rows/1 has the fields label, unknown to the contract; nothing was published"),
        ("missing_column: block", "rows/1 has no field for name; nothing was published"),
    ],
)
def test_D1_D2_json_is_refused_where_the_policy_is_block(world: World, format: str, policy: str, said: str) -> None:
    world.declare(ROWS.format(name="rows", format=format) + f"  drift: {{{policy}}}\n")
    body = '{"id": 1, "label": "Ann", "amount": 1, "day": null}'
    world.deliver("rows/1", body if format == "jsonl" else f"[{body}]")
    with pytest.raises(GateRefused, match=said):
        world.load("rows")


# -- Parquet --------------------------------------------------------------------------------------


TEXTS = (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))


def parquet_of(columns: dict[str, pyarrow.Array], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, **options)
    return buffer.getvalue()


@contextmanager
def small_batches(monkeypatch: pytest.MonkeyPatch, rows: int) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "_ROWS", rows)
        yield


@generated
@given(
    rows=st.lists(
        st.tuples(*(st.none() | texts for texts in (numbers, amounts, days, names)), st.sampled_from([None, "x", ""])),
        min_size=1,
        max_size=12,
    ),
    kinds=st.tuples(*[st.sampled_from(TEXTS)] * 5),
    size=st.sampled_from([1, 3, 1000]),
)
def test_E18_E19_L5_L7_any_parquet_of_texts_is_what_an_independent_reading_says(
    world: World, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str | None, ...]], kinds: tuple[Any, ...], size: int
) -> None:
    forget(world, "rows")
    world.declare(ROWS.format(name="rows", format="parquet"))
    columns = {
        name: pyarrow.array(values, pyarrow.string()).cast(kind)
        for name, values, kind in zip((*NAMES, "more"), zip(*rows, strict=True), kinds, strict=True)
    }
    world.deliver("rows/a", parquet_of(columns, row_group_size=5))
    with small_batches(monkeypatch, size):
        world.load("rows")
    must_be(world, "rows", [(judged(*row[:4]), None if more is None else {"more": more}) for *row, more in rows])


EVERY = """
{name}:
  description: every type
  from: {{files: {{connection: drop, path: "{{n}}.parquet", format: parquet}}}}
  mode: append
  key: [id]
  max_reject_share: 1
  columns:
    id: {{type: {0}}}
    a: {{type: {1}, required: true}}
    b: {{type: {2}}}
    c: {{type: {3}}}
"""
DECLARED = ("smallint", "integer", "bigint", "numeric", '"numeric(5,2)"', "real", "double precision", "text", "boolean")
DECLARED += ("date", "time", "timestamp", "timestamptz", "uuid", "jsonb")
INSTANTS = (datetime(1900, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), datetime(2026, 3, 29, 1, 59, 59, 120000))
VALUES: list[tuple[pyarrow.DataType, list[Any]]] = [
    (pyarrow.int8(), [-128, 0, 127]),
    (pyarrow.uint16(), [0, 65535]),
    (pyarrow.int64(), [-(2**63), 2**63 - 1, 1, 32768, 99999]),
    (pyarrow.uint64(), [2**64 - 1, 7]),
    (pyarrow.float32(), [0.1, float("nan"), float("-inf"), 3e38, 1e-7]),
    (pyarrow.float64(), [0.1 + 0.2, float("nan"), float("inf"), 1e20, -0.0, 1e-7, 1e300, 123456.0, 5e-324]),
    (pyarrow.decimal128(38, 10), [Decimal("1234567890123456789012345678.0123456789"), Decimal("1e-10"), Decimal(0)]),
    (pyarrow.decimal128(7, 2), [Decimal("999.99"), Decimal("-0.01"), Decimal("99999.00"), Decimal("1.10")]),
    (pyarrow.decimal256(60, 30), [Decimal("1e-30"), Decimal("123456789012345678901234567890.5")]),
    (pyarrow.bool_(), [True, False]),
    (pyarrow.date32(), [date(1, 1, 1), date(9999, 12, 31), date(2026, 2, 28)]),
    (pyarrow.time64("us"), [time(0, 0), time(23, 59, 59, 999999), time(1, 2, 3, 100)]),
    (pyarrow.time32("s"), [time(0, 0), time(23, 59, 59)]),
    (pyarrow.timestamp("us"), list(INSTANTS)),
    (pyarrow.timestamp("ns"), [datetime(1900, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 1)]),
    (pyarrow.timestamp("ms", "UTC"), [instant.replace(microsecond=5000, tzinfo=UTC) for instant in INSTANTS]),
    (pyarrow.timestamp("us", "Europe/Brussels"), [instant.replace(tzinfo=UTC) for instant in INSTANTS[::2]]),
    (pyarrow.binary(), [b"", b"\x00\xff", b"text"]),
    (pyarrow.binary(2), [b"\x00\x01"]),
    (pyarrow.list_(pyarrow.float64()), [[], [1.5, None], [float("nan")]]),
    (pyarrow.struct([("x", pyarrow.decimal128(9, 2)), ("y", pyarrow.string())]), [{"x": Decimal("1.50"), "y": 'q"\n'}]),
    (pyarrow.struct([("x", pyarrow.string())]), [{"x": "\0"}, {"x": "\\u0000"}]),
    (pyarrow.string(), ["", "1", "-7", "1.50", "1e3", "NaN", "true", "f", "2026-01-01", "2026-01-01 10:00+02", "now"]),
    (pyarrow.string(), ["10:00", "{}", '{"a": "\\u0000"}', "[1, 2]", "\0", "a\rb", 'say "x"', "\\.", "tomorrow 10:00"]),
    (pyarrow.string(), ["6ad7ea5e-7cb6-4b3d-8e8c-5a2f4d2c1f00", "32768", "allballs", " 1 ", "\\N", "NULL", ",\n,"]),
    (pyarrow.string(), ["7", "1_1", "-1_000", "0x1F", "0b1", "1.5_0", "1e1_0", "a_1"]),
    (pyarrow.null(), []),
]
column = st.sampled_from(VALUES).flatmap(
    lambda kind: st.lists(st.sampled_from([None, *kind[1]]), min_size=8, max_size=8).map(
        lambda values: pyarrow.array(values, kind[0])
    )
)
"""A column of a Parquet file: eight values at the edges of one type."""


@settings(generated, max_examples=25)
@given(
    declared=st.tuples(*[st.sampled_from(DECLARED)] * 4),
    columns=st.tuples(column, column, column, column, column),
    size=st.sampled_from([1, 3, 1000]),
)
def test_parquet_as_columns_and_as_rows_of_text_are_the_same_rows_hashes_and_rejects(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    declared: tuple[str, ...],
    columns: tuple[pyarrow.Array, ...],
    size: int,
) -> None:
    forget(world, "columns", "texts")
    world.warehouse.prepare_threshold = None  # the tables are others each time
    world.declare("".join(EVERY.format(*declared, name=name) for name in ("columns", "texts")))
    world.deliver("a.parquet", parquet_of(dict(zip(("id", "a", "B", "other", "another"), columns, strict=True))))
    with small_batches(monkeypatch, size):
        world.load("columns")
        with monkeypatch.context() as patched:
            patched.setattr(Landing, "takes_blocks", False)
            world.load("texts")
    names = "id, a, b, c, _row_number, _op, _row_hash, _rescued"
    one, other = (
        [str(row) for row in world.query(f"select {names} from staging.shop__{name} order by _row_number")]
        for name in ("columns", "texts")
    )
    assert one == other
    rejects = "select row_number, key, column_name, code, reason from ops.quarantine where table_name = %s order by 1"
    assert world.query(rejects, "columns") == world.query(rejects, "texts")
    assert meant(world, "columns", declared) == meant(world, "texts", declared)
    assert (
        len(one) + len(world.query(rejects, "texts")) + world.query("select max(rows_duplicate) from ops.batch")[0][0]
        == 8
    )
    assert world.books_balance()


def meant(world: World, table: str, declared: tuple[str, ...]) -> list[tuple]:
    """What is kept of rejected rows; a value that its type can hold in the one way in which Postgres writes it."""
    fields = ["kept ->> 'other'", "kept ->> 'another'"]
    for name, kind in zip(("id", "a", "B", "c"), declared, strict=True):
        text, kind = f"(kept ->> '{name}')", kind.strip('"').split("(")[0]
        fields.append(f"case when pg_input_is_valid({text}, '{kind}') then {text}::{kind}::text else {text} end")
    kept = "case when pg_input_is_valid(raw, 'jsonb') then raw::jsonb end as kept"
    return world.query(
        f"select row_number, case when kept is null then raw end, raw_bytes, {', '.join(fields)}"
        f" from (select row_number, raw, raw_bytes, {kept} from ops.quarantine where table_name = %s) as q order by 1",
        table,
    )


@pytest.mark.parametrize("format", ["csv", "jsonl", "json", "parquet"])
def test_D1_a_field_with_the_name_of_the_logs_own_column_is_one_like_any_other_in_all_formats(
    world: World, format: str
) -> None:
    head = """
        {name}:
          description: d
          from: {{files: {{connection: drop, path: a, format: {format}}}}}
          mode: append
          key: [id]
          columns: {{id: {{type: text}}{more}}}
    """
    world.declare(
        head.format(name="plain", format=format, more="")
        + head.format(name="named", format=format, more=", own: {type: text, field: _rescued}")
    )
    item = {"id": "1", "_rescued": "hello", "more": "x"}
    content = {
        "csv": lambda: b"id,_rescued,more\n1,hello,x\n",
        "jsonl": lambda: json.dumps(item).encode(),
        "json": lambda: json.dumps([item]).encode(),
        "parquet": lambda: parquet_of({name: pyarrow.array([value]) for name, value in item.items()}),
    }[format]()
    world.deliver("a", content)
    world.load("plain")
    world.load("named")
    assert world.query("select _rescued from staging.shop__plain") == [({"_rescued": "hello", "more": "x"},)]
    assert world.query("select own, _rescued from staging.shop__named") == [("hello", {"more": "x"})]
