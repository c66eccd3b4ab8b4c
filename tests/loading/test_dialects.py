"""Delimited text in the dialects that real senders use, on real bytes."""

from __future__ import annotations

import pytest

from sluice.errors import GateRefused
from tests.loading.conftest import World

CSV = """
items:
  description: d
  from: {{files: {{connection: drop, path: "{{name}}.csv", format: {{type: csv, {options}}}}}}}
  mode: append
  key: [sku]
  max_reject_share: 0.5
  columns:
    sku: {{type: text, required: true}}
    pieces: {{type: integer}}
    note: {{type: text}}
"""
ROWS = [("007", 1, "à | b"), ("8", 2, 'two\nlines, "quoted"')]


def items(world: World, number: int | None = None) -> list[tuple]:
    name = "items" if number is None else f"items_{number}"
    return world.query(f"select sku, pieces, note from staging.shop__{name} order by sku")


DIALECTS = [
    ("delimiter: tab", 'sku\tpieces\tnote\n007\t1\tà | b\n8\t2\t"two\nlines, ""quoted"""\n'.encode()),
    ("delimiter: '|'", 'sku|pieces|note\n007|1|"à | b"\n8|2|"two\nlines, ""quoted"""\n'.encode()),
    ("delimiter: ';', header: false", '007;1;à | b\n8;2;"two\nlines, ""quoted"""\n'.encode()),
    ('quote: "\'"', "sku,pieces,note\n007,1,à | b\n8,2,'two\nlines, \"quoted\"'\n".encode()),
    ('escape: "\\\\"', 'sku,pieces,note\n007,1,à | b\n8,2,"two\nlines, \\"quoted\\""\n'.encode()),
    ("encoding: latin-1", 'sku,pieces,note\n007,1,à | b\n8,2,"two\nlines, ""quoted"""\n'.encode("latin-1")),
    ("encoding: utf-16", 'sku,pieces,note\r\n007,1,à | b\r\n8,2,"two\nlines, ""quoted"""\r\n'.encode("utf-16")),
    ("encoding: utf-8", b"\xef\xbb\xbf" + 'sku,pieces,note\n007,1,à | b\n8,2,"two\nlines, ""quoted"""'.encode()),
    (
        "skip_lines: 2, comment: '#', trailer: {begins: END, rows: 2}",
        'made by X\n"\nsku,pieces,note\n# no row\n007,1,à | b\n8,2,"two\nlines, ""quoted"""\nEND,2\n\n'.encode(),
    ),
]


def test_every_dialect_means_the_same_rows(world: World) -> None:
    tables = (
        CSV.format(options=options).replace("items:", f"items_{n}:", 1) for n, (options, _) in enumerate(DIALECTS)
    )
    world.declare("".join(table.replace("{name}.csv", f"{{name}}.{n}") for n, table in enumerate(tables)))
    for number, (options, body) in enumerate(DIALECTS):
        world.deliver(f"a.{number}", body)
        (published,) = world.load(f"items_{number}")
        assert (options, items(world, number), published.rows_read) == (options, ROWS, 2)
    assert world.books_balance()


def test_a_line_that_begins_like_a_comment_inside_quotes_is_data(world: World) -> None:
    world.declare(CSV.format(options="comment: '#'"))
    world.deliver("a.csv", 'sku,pieces,note\n#x,1,no\na,1,"first\n# second"\n')
    world.load("items")
    assert items(world) == [("a", 1, "first\n# second")]


def test_without_quotes_a_quote_is_a_character_like_any_other(world: World) -> None:
    world.declare(CSV.format(options="quote: null, delimiter: '|'"))
    world.deliver("a.csv", 'sku|pieces|note\na|1|5" pipe\nb|2|"x\n')
    world.deliver("b.csv", 'sku|pieces|note\nc|1|\x01 "\n')
    world.load("items")
    assert items(world) == [("a", 1, '5" pipe'), ("b", 2, '"x'), ("c", 1, '\x01 "')]


def test_E17_a_trailer_that_counts_other_rows_blocks_the_file_and_both_numbers_are_said(world: World) -> None:
    world.declare(CSV.format(options="trailer: {begins: T, rows: 2}"))
    world.deliver("a.csv", "sku,pieces,note\na,1,\nb,2,\nT,3\n")
    with pytest.raises(GateRefused, match=r"announces 3 rows but 2 were read; nothing"):
        world.load("items")


def test_E14_a_file_whose_trailer_is_missing_or_says_no_number_is_left_unread(world: World) -> None:
    world.declare(CSV.format(options="trailer: {begins: T, rows: 2}"))
    for name, end in (("cut", "b,2,\n"), ("no_number", "b,2,\nT,many\n"), ("no_field", "b,2,\nT\n")):
        world.deliver(f"{name}.csv", "sku,pieces,note\na,1,\n" + end)
    with pytest.raises(GateRefused) as refused:
        world.load("items")
    assert "cut.csv: the last line does not begin with T" in str(refused.value)
    assert str(refused.value).count("field 2 of the trailer is no number of rows") == 2
    assert world.query("select count(*) from ops.batch where state = 'published'") == [(0,)]


def test_E18_a_damaged_character_rejects_its_row_and_no_other_in_any_encoding(world: World) -> None:
    world.declare(CSV.format(options="encoding: utf-16"))
    good = "sku,pieces,note\na,1,x\n".encode("utf-16")
    world.deliver("a.csv", good + "b,2,".encode("utf-16-le") + b"\x00\xd8" + "\nc,3,z\n".encode("utf-16-le"))
    world.load("items")
    assert items(world) == [("a", 1, "x"), ("c", 3, "z")]
    assert world.query("select row_number, code from ops.quarantine") == [(2, "ENCODING")]
    assert world.books_balance()


def test_lines_that_end_in_carriage_returns_alone_are_the_same_records(world: World) -> None:
    """As a Macintosh of old writes them: one within quotes is a character of its value."""
    world.declare(CSV.format(options="skip_lines: 1"))
    body = b'made by "X\rsku,pieces,note\r007,1,"one\rtwo"\rbad,5" pipe,z\r8,2,x'
    world.deliver("a.csv", body)
    world.deliver("b.csv", b"\xef\xbb\xbfX\r\rsku,pieces,note\r9,3,y\r\r10,4,\xff\r11,5,z\n")
    world.load("items")
    assert items(world) == [("007", 1, "one\rtwo"), ("11", 5, "z"), ("8", 2, "x"), ("9", 3, "y")]
    assert world.query("select row_number, code from ops.quarantine order by 1, 2") == [(2, "CSV"), (2, "ENCODING")]
    assert world.books_balance()


def test_lines_that_end_now_so_now_so_are_left_unread_and_none_of_their_values_is_said(world: World) -> None:
    world.declare(CSV.format(options=""))
    world.deliver("a.csv", b"sku,pieces,note\r1,1,Anna Secret\n2,2,Bert Secret\n3,3,x\r")
    with pytest.raises(GateRefused, match=r"a\.csv: the first line ends in a carriage return alone and others do not"):
        world.load("items")
    assert "Secret" not in world.whole_ledger()


@pytest.mark.parametrize("options", ["", "delimiter: ';', header: true, escape: '!'"])
def test_a_first_record_in_the_place_of_a_header_is_refused_and_not_quoted(world: World, options: str) -> None:
    world.declare(CSV.format(options=options))
    world.deliver("a.csv", "1,Anna Secret,x\n2,Bert,y\n")
    with pytest.raises(GateRefused, match="names none of the fields that the contract knows") as refused:
        world.load("items")
    assert "Secret" not in str(refused.value) + world.whole_ledger()


@pytest.mark.parametrize("options", ["", "escape: '!'", "encoding: utf-16", "skip_lines: 1"])
def test_blank_lines_before_the_header_are_none(world: World, options: str) -> None:
    world.declare(CSV.format(options=options))
    body = "made by X\n" * ("skip" in options) + "\n \r\nsku,pieces,note\n\na,1,\nb,2,y\n"
    world.deliver("a.csv", body.encode("utf-16" if "16" in options else "utf-8"))
    (published,) = world.load("items")
    assert published.rows_read == 2
    assert items(world) == [("a", 1, None), ("b", 2, "y")]
    assert world.query("select count(*) from ops.quarantine") == [(0,)]


def test_E18_a_header_with_a_nul_or_with_too_many_names_is_refused_and_ends_in_no_traceback(world: World) -> None:
    world.declare(CSV.format(options=""))
    world.deliver("a.csv", b"sku,pieces,note,\0\na,1,x,y\n")
    with pytest.raises(GateRefused, match="holds a NUL character"):
        world.load("items")
    names = ["sku", "pieces", "note", *(f"x{number}" for number in range(1600))]
    world.deliver("a.csv", f"{','.join(names)}\n{','.join(['1'] * len(names))}\n")
    with pytest.raises(GateRefused, match="more fields than a table of Postgres can have columns"):
        world.load("items")


def test_E18_bytes_that_are_no_text_are_kept_as_they_came_in_an_encoding_that_only_python_knows(world: World) -> None:
    world.declare(CSV.format(options="encoding: shift-jis"))
    world.deliver("a.csv", b"sku,pieces,note\na,1,\x82\xff\nb,2," + "日本\n".encode("shift-jis"))
    world.load("items")
    assert items(world) == [("b", 2, "日本")]
    ((raw,),) = world.query("select raw_bytes from ops.quarantine")
    halves = bytes(raw).decode("utf-8", "surrogatepass")  # each byte as half a surrogate pair, which no text has
    assert halves == "a,1,\udc82\udcff\n"
