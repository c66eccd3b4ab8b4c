"""Whatever text is written into a file of any format is in staging, to the last character."""

from __future__ import annotations

import csv
import io
import itertools
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from xml.sax.saxutils import escape

import pyarrow
import pyarrow.parquet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from tests.loading.conftest import World

Row = tuple[int, str | None, str | None, str]  # a number, two texts, and the digits of a number
NAMES = ("n", "a", "b", "amount")
WIDTH = 60


@dataclass(frozen=True)
class Format:
    """How a format is declared and written, and what it can't carry by its nature."""

    declared: str
    write: Callable[[list[Row]], bytes]
    carries: Callable[[str], bool]  # whether it can hold this character at all
    has_empty: bool = True  # whether it can tell an empty text from none


def anything(char: str) -> bool:
    return True


def xml_char(char: str) -> bool:
    """XML has no control characters, and reads every end of a line as a line feed."""
    return char in "\t\n" or (unicodedata.category(char) != "Cc" and char not in "\ufffe\uffff")


def excel_char(char: str) -> bool:
    """_x0041_ is how a workbook writes an A that it could not write."""
    return xml_char(char) and char != "_"


def one_line(char: str) -> bool:
    return char not in "\r\n\x1a" and not char.isspace()


def to_csv(rows: list[Row]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([NAMES, *rows])
    return buffer.getvalue().encode()


def objects(rows: list[Row]) -> list[str]:
    pairs = ", ".join(['"n": {}', '"a": {}', '"b": {}', '"amount": {}'])
    return ["{" + pairs.format(n, json.dumps(a), json.dumps(b), amount) + "}" for n, a, b, amount in rows]


def to_xml(rows: list[Row]) -> bytes:
    def element(name: str, text: str | None) -> str:
        return "" if text is None else f"<{name}>{escape(text)}</{name}>"

    records = ("".join(map(element, NAMES, (str(n), a, b, amount))) for n, a, b, amount in rows)
    return f"<rows>{''.join(f'<row>{record}</row>' for record in records)}</rows>".encode()


def to_excel(rows: list[Row]) -> bytes:
    book = Workbook()
    for row in [NAMES, *rows]:
        book.active.append(list(row))
    for cell in itertools.chain.from_iterable(book.active.iter_rows()):
        if cell.data_type in ("f", "e"):
            cell.data_type = "s"  # a text that begins with =, as a person types it with an apostrophe
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def to_parquet(rows: list[Row]) -> bytes:
    columns = list(zip(*rows, strict=True))
    arrays = [pyarrow.array(columns[0]), *(pyarrow.array(column, pyarrow.string()) for column in columns[1:3])]
    arrays.append(pyarrow.array([Decimal(text) for text in columns[3]], pyarrow.decimal128(38, 10)))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(NAMES)), buffer)
    return buffer.getvalue()


def to_fixed(rows: list[Row]) -> bytes:
    return "".join(f"{n:<8}{a or '':<{WIDTH}}{b or '':<{WIDTH}}{amount:<40}\r\n" for n, a, b, amount in rows).encode()


FIXED = (
    f"{{type: fixed, fields: {{n: {{start: 1, length: 8}}, a: {{start: 9, length: {WIDTH}}}, "
    f"b: {{start: {9 + WIDTH}, length: {WIDTH}}}, amount: {{start: {9 + 2 * WIDTH}, length: 40}}}}}}"
)
FORMATS = {
    "csv": Format("csv", to_csv, anything, has_empty=False),
    "jsonl": Format("jsonl", lambda rows: "\n".join(objects(rows)).encode(), anything),
    "json": Format("json", lambda rows: f"[{', '.join(objects(rows))}]".encode(), anything),
    "xml": Format("{type: xml, record: row}", to_xml, xml_char),
    "excel": Format("excel", to_excel, excel_char, has_empty=False),
    "parquet": Format("parquet", to_parquet, anything),
    "fixed": Format(FIXED, to_fixed, one_line, has_empty=False),
}
TABLE = """
{name}:
  description: d
  from: {{files: {{connection: drop, path: "{{n}}.{name}", format: {declared}}}}}
  mode: append
  key: [n]
  columns:
    n: {{type: bigint}}
    a: {{type: text}}
    b: {{type: text}}
    amount: {{type: "numeric(38,10)"}}
"""
SPECIAL = ("", "007", "1e5", "1.10", "NULL", "null", "\\N", "\\.", "=1+1", "#N/A", "true", "2026-01-01", "9" * 40)
SPECIAL += ('"', "''", " x ", "\ufeff")
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.none() | st.text(letters, max_size=12) | st.sampled_from(SPECIAL)
amounts = st.decimals(min_value=-(10**20), max_value=10**20, places=10, allow_nan=False).map(lambda d: format(d, "f"))
ids = itertools.count(1)


@settings(
    max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)  # loads are slow to shrink
@given(st.lists(st.tuples(texts, texts, amounts), min_size=1, max_size=40))
def check_every_format(world: World, generated: list[tuple[str | None, str | None, str]]) -> None:
    for name, format in FORMATS.items():

        def carried(text: str | None, format: Format = format) -> str | None:
            return None if text is None else "".join(filter(format.carries, text))

        rows = [(next(ids), carried(a), carried(b), amount) for a, b, amount in generated]
        world.deliver(f"{rows[0][0]}.{name}", format.write(rows))
        (published,) = world.load(name)
        found = world.query(
            f"select n, a, b, amount from staging.shop__{name} where n between %s and %s order by n",
            rows[0][0],
            rows[-1][0],
        )
        kept = {"": None} if not format.has_empty else {}
        expected = [(n, kept.get(a, a), kept.get(b, b), Decimal(amount)) for n, a, b, amount in rows]  # type: ignore[arg-type]
        assert (name, found) == (name, expected)
        assert published.rows_quarantined == 0


def test_generated_rows_come_back_exactly_from_every_format(world: World) -> None:
    world.declare("".join(TABLE.format(name=name, declared=format.declared) for name, format in FORMATS.items()))
    check_every_format(world)
    assert world.books_balance()
