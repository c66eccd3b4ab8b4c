"""Every format on real bytes: what a file says is exactly what staging holds."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd
from openpyxl import Workbook

from sluice.errors import GateRefused
from tests.loading.conftest import World

TABLE = """
{name}:
  description: d
  from: {{files: {{connection: drop, path: "{path}", {files}}}}}
  mode: append
  key: [{key}]
  max_reject_share: 0.9
  columns:
"""


def table(name: str, path: str, files: str, key: str, *columns: str) -> str:
    head = TABLE.format(name=name, path=path, files=files, key=key)
    return head + "".join(f"    {column}\n" for column in columns)


def rejected(world: World) -> list[tuple]:
    return world.query("select row_number, code from ops.quarantine where state = 'open' order by row_number, code")


# -- fixed width --------------------------------------------------------------------------------

FIXED = """format: {{type: fixed, skip_lines: 1,
      record: {{value: {own}, others: [{other}]}},
      trailer: {{begins: "T", rows: {{start: 2, length: 6}}, counts: [{counts}]}},
      fields: {fields}}}"""
ORDERS = "{id: {start: 2, length: 4}, amount: {start: 6, length: 8, decimals: 2}, note: {start: 14, length: 10}}"
LINES = "{id: {start: 2, length: 4}, sku: {start: 6, length: 9}}"
FIXED_FILE = (
    "HEADER 2026\n"
    "O000100001050  caf\u00e9 \n"
    "L0001   00SKU1\n"
    "L0001   00SKU2\n"
    "O00020000007-\n"
    "X000300000007\n"
    "O000300000x07note\n"
    "T000005\n"
)


def test_fixed_width_files_hold_several_tables_and_every_record_is_accounted_for(world: World) -> None:
    world.declare(
        table(
            "orders",
            "{name}.txt",
            FIXED.format(own="O", other="L", counts="O, L", fields=ORDERS),
            "id",
            "id: {type: text}",
            'amount: {type: "numeric(10,2)"}',
            "note: {type: text}",
        )
        + table(
            "lines",
            "{name}.txt",
            FIXED.format(own="L", other="O", counts="O, L", fields=LINES),
            "id, sku",
            "id: {type: text}",
            "sku: {type: text}",
        )
    )
    world.deliver("a.txt", FIXED_FILE)
    (orders,), (lines,) = world.load("orders"), world.load("lines")
    assert world.query("select id, amount::text, note from staging.shop__orders order by id") == [
        ("0001", "10.50", "caf\u00e9"),
        ("0002", "-0.07", None),
    ]
    assert world.query("select id, sku from staging.shop__lines order by sku") == [
        ("0001", "00SKU1"),
        ("0001", "00SKU2"),
    ]
    assert (orders.rows_read, lines.rows_read) == (4, 3)  # the unknown record is rejected by both, dropped by none
    assert rejected(world) == [(3, "RECORD_TYPE"), (3, "RECORD_TYPE"), (4, "IMPLIED_DECIMALS")]
    assert world.books_balance()


def test_E18_a_damaged_fixed_width_record_is_kept_as_it_came_with_the_place_of_the_damage(world: World) -> None:
    world.declare(
        """
        t:
          description: t
          from:
            files:
              connection: drop
              path: t.txt
              format: {type: fixed, fields: {id: {start: 1, length: 2}, v: {start: 3, length: 4}}}
          mode: append
          key: [id]
          max_reject_share: 1
          columns: {id: {type: bigint}, v: {type: text}}
        """
    )
    world.deliver("t.txt", b"01\xc3\xa9\xff\xfe \n02abcd\n")
    world.load("t")
    assert world.query("select row_number, code, reason, raw_bytes from ops.quarantine") == [
        (1, "ENCODING", "bytes that are not utf-8 at offset 4 of the record", b"01\xc3\xa9\xff\xfe ")
    ]
    assert world.query("select id, v from staging.shop__t") == [(2, "abcd")]


def test_a_map_with_a_key_twice_keeps_both_of_its_pairs_and_refuses_no_file(world: World) -> None:
    world.declare(
        """
        t:
          description: t
          from: {files: {connection: drop, path: t.parquet, format: parquet}}
          mode: append
          key: [id]
          columns: {id: {type: bigint}, m: {type: jsonb}}
        """
    )
    kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
    maps = pyarrow.array([[("a", 1), ("a", 2)], [("b", 3)], None], kind)
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "m": maps}), out)
    world.deliver("t.parquet", out.getvalue())
    world.load("t")
    assert world.query("select m from staging.shop__t order by id") == [([["a", 1], ["a", 2]],), ({"b": 3},), (None,)]


def test_attributes_of_one_name_in_two_namespaces_are_both_kept(world: World) -> None:
    world.declare(
        """
        t:
          description: t
          from: {files: {connection: drop, path: t.xml, format: {type: xml, record: r}}}
          mode: append
          key: [id]
          columns: {id: {type: bigint, field: "@id"}}
        """
    )
    world.deliver("t.xml", '<l xmlns:m="urn:b"><r id="1" m:id="2"/></l>')
    world.load("t")
    assert world.query("select id, _rescued from staging.shop__t") == [(1, {"@{urn:b}id": "2", "#text": ""})]


def test_E17_E14_a_fixed_width_trailer_counts_and_its_absence_means_a_cut_file(world: World) -> None:
    both = FIXED.format(own="O", other="L", counts="O, L", fields=ORDERS)
    own = FIXED.format(own="O", other="L", counts="O", fields=ORDERS)
    columns = ("id: {type: text}", 'amount: {type: "numeric(10,2)"}', "note: {type: text}")
    world.declare(table("both", "{n}.txt", both, "id", *columns) + table("own", "{n}.txt", own, "id", *columns))
    world.deliver("short.txt", "H\nO000100001050  x\nL0001\nT000003\n")
    world.deliver("cut.txt", "H\nO000100001050  x\nL0001\n")
    with pytest.raises(GateRefused) as refused:
        world.load("both")
    said = str(refused.value)
    assert "short.txt: the trailer announces 3 records of the types O, L but the file has 2; nothing" in said
    assert "cut.txt: the last line does not begin with T, so that the end of the file is missing" in said
    with pytest.raises(GateRefused, match="announces 3 rows but 1 were read; nothing"):
        world.load("own")


# -- documents ----------------------------------------------------------------------------------

PEOPLE = (
    "id: {type: text}",
    "city: {type: text, field: address.city}",
    'paid: {type: "numeric(30,10)", field: account.paid}',
    "active: {type: boolean}",
    "tags: {type: jsonb}",
)


def test_json_an_array_at_a_path_with_nested_fields_and_what_is_not_named_is_rescued(world: World) -> None:
    world.declare(table("people", "{n}.json", "format: {type: json, records: data.items}", "id", *PEOPLE))
    world.deliver(
        "a.json",
        b"\xef\xbb\xbf" + b'{"page": {"items": [1]}, "data": {"count": 3, "items": ['
        b'{"id": "007", "address": {"city": "K\\u00f6ln", "zip": "050"},'
        b' "account": {"paid": 12345678901234567890.1000000001},'
        b' "active": true, "tags": ["a", {"b": 0.10}], "new": {"x": 1.50}},'
        b'{"id": "", "address": null, "tags": null}, 5, {"id": "n\\u0000l"}, {"id": "n", "tags": ["\\u0000"]},'
        b' {"id": "\\ud83d"}, {"id": "\\ud83d\\ude00"}]}}',
    )
    world.load("people")
    assert world.query(
        "select id, city, paid::text, active, tags::text, _rescued::text from staging.shop__people order by id desc"
    ) == [
        ("\U0001f600", None, None, None, None, None),
        (
            "007",
            "Köln",
            "12345678901234567890.1000000001",
            True,
            '["a", {"b": 0.10}]',
            '{"new": {"x": 1.50}, "address": {"zip": "050"}}',
        ),
        ("", None, None, None, None, None),
    ]
    assert rejected(world) == [(3, "JSON"), (4, "NUL_BYTE"), (5, "NUL_BYTE"), (6, "ENCODING")]
    assert world.books_balance()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"data": {"items": [{"id": "1"}, {"id": ', "no whole JSON document"),
        ('{"data": {"items": [{"id": "1"}]}', "no whole JSON document"),
        ("<html>sorry</html>", "no whole JSON document"),
        ('{"data": {"rows": []}}', "has no array at data.items"),
        ('{"data": {"items": {"id": "1"}}}', "has no array at data.items"),
    ],
)
def test_E14_json_that_is_cut_off_or_has_no_array_is_refused_whole(tmp_path: Path, body: str, said: str) -> None:
    from sluice.declarations.files import Json
    from sluice.readers.formats.json import JsonReader

    (tmp_path / "a.json").write_text(body)
    with pytest.raises(GateRefused, match=said):
        list(JsonReader(Json(records="data.items")).records(tmp_path / "a.json"))


def test_xml_elements_attributes_namespaces_and_nil(world: World) -> None:
    world.declare(
        table(
            "items",
            "{n}.xml",
            "format: {type: xml, record: orders/order}",
            "id",
            'id: {type: text, field: "@id"}',
            "name: {type: text, field: customer.name}",
            'amount: {type: "numeric(8,2)", field: price.#text}',
            "currency: {type: text, field: price.@currency}",
            "note: {type: text}",
            "tag: {type: jsonb}",
        )
    )
    world.deliver(
        "a.xml",
        """<?xml version="1.0" encoding="iso-8859-1"?>
        <f:feed xmlns:f="urn:f" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
        <head><order id="no"/></head><f:orders>
        <f:order id="007"><customer><name>Ren\u00e9 &amp; Co</name></customer><price currency="EUR">1.50</price>
        <note/><tag>a</tag><tag>b</tag><extra>x</extra></f:order>
        <f:order id="8"><note xsi:nil="true"/></f:order></f:orders></f:feed>""".encode("latin-1"),
    )
    world.load("items")
    assert world.query(
        "select id, name, amount::text, currency, note, tag::text, _rescued::text from staging.shop__items order by id"
    ) == [
        ("007", "René & Co", "1.50", "EUR", "", '["a", "b"]', '{"extra": "x"}'),
        ("8", None, None, None, None, None, None),
    ]


BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><r><i>&b;</i></r>'
OUTSIDE = '<!DOCTYPE b [<!ENTITY x SYSTEM "file:///etc/passwd">]><r><i>&x;</i></r>'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BOMB, "declares an entity"),
        (OUTSIDE, "declares an entity"),
        ("<r><i>1</i><i>2", "cut off, at line 1, column 16"),
    ],
)
def test_xml_bombs_and_cut_documents_are_refused(tmp_path: Path, body: str, said: str) -> None:
    from sluice.declarations.files import Xml
    from sluice.readers.formats.xml import XmlReader

    (tmp_path / "a.xml").write_text(body)
    with pytest.raises(GateRefused, match=said):
        list(XmlReader(Xml(record="i")).records(tmp_path / "a.xml"))


def test_excel_cells_come_as_a_person_sees_them(world: World) -> None:
    world.declare(
        table(
            "stock",
            "{n}.xlsx",
            'format: {type: excel, sheet: Stock, header_row: 3, columns: "B:H", last_row: 8}',
            "sku",
            "sku: {type: text}",
            "pieces: {type: bigint}",
            'price: {type: "numeric(12,4)"}',
            "counted_at: {type: timestamp, field: Counted at}",
            "valid: {type: date}",
            "open: {type: boolean}",
        )
    )
    book = Workbook()
    sheet = book.create_sheet("Stock")
    for row in (
        [],
        ["", "made by Anna"],
        ["skip", "sku", "pieces", "price", "Counted at", "valid", "open", "shelf"],
        ["", "007", 12345678901234, 0.1 + 0.2, datetime(2026, 2, 3, 4, 5, 6), date(2026, 2, 28), True, "à"],
        [],
        ["", 8, 1.0, 1e-7, None, datetime(2026, 1, 1), False, time(7, 30)],
        ["", "9", 1, None, None, None, None, None],
        ["", "x", 1, 1, None, None, None, None, "beyond B:H, and not read"],
        ["", "after last_row", 1],
    ):
        sheet.append(row)
    sheet["D7"].value = "#DIV/0!"
    buffer = io.BytesIO()
    book.save(buffer)
    world.deliver("a.xlsx", buffer.getvalue())
    world.deliver("b.xlsx", buffer.getvalue()[:-200])
    with pytest.raises(GateRefused, match=r"no whole \.xlsx workbook"):
        world.load("stock")
    assert (
        world.query(
            "select sku, pieces, price::text, counted_at::text, valid::text, open, _rescued::text"
            " from staging.shop__stock order by sku"
        )
        == [
            ("007", 12345678901234, "0.3000", "2026-02-03 04:05:06", "2026-02-28", True, '{"shelf": "à"}'),
            ("x", 1, "1.0000", None, None, None, None),
        ]
        or rejected(world) == []
    )
    assert rejected(world) == [(2, "PRECISION"), (3, "CELL_ERROR")]


def test_parquet_keeps_every_digit(world: World) -> None:
    columns = (
        "id: {type: text}",
        'amount: {type: "numeric(38,10)"}',
        "at: {type: timestamptz}",
        "local: {type: timestamp}",
    )
    columns += ("day: {type: date}", "ratio: {type: double precision}", "flag: {type: boolean}", "tags: {type: jsonb}")
    world.declare(table("facts", "{n}.parquet", "format: parquet", "id", *columns))
    amount = Decimal("1234567890123456789012345678.0123456789")
    at = datetime(2026, 3, 29, 1, 59, 59, 123456, tzinfo=UTC)
    facts = pyarrow.table(
        {
            "id": pyarrow.array(["007", "", "nul\0"], pyarrow.string()),
            "amount": pyarrow.array([amount, Decimal("-0.0000000001"), None], pyarrow.decimal128(38, 10)),
            "at": pyarrow.array([at, None, None], pyarrow.timestamp("us", "Europe/Brussels")),
            "local": pyarrow.array([datetime(1900, 1, 1), None, None], pyarrow.timestamp("ns")),
            "day": pyarrow.array([date(9999, 12, 31), None, None]),
            "ratio": pyarrow.array([0.1 + 0.2, float("inf"), None]),
            "flag": pyarrow.array([True, False, None]),
            "tags": pyarrow.array([[{"a": Decimal("1.50")}], [], None]),
            "new": pyarrow.array(["x", "y", None]).dictionary_encode(),
        }
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(facts, buffer, compression="zstd")
    world.deliver("a.parquet", buffer.getvalue())
    world.deliver("cut.parquet", buffer.getvalue()[:-5])
    with pytest.raises(GateRefused, match=r"cut\.parquet: the file is no whole Parquet file"):
        world.load("facts")
    statement = (
        "select id, amount, at, local::text, day::text, ratio, flag, tags::text, _rescued from staging.shop__facts"
    )
    assert world.query(f"{statement} order by id desc") == [
        ("007", amount, at, "1900-01-01 00:00:00", "9999-12-31", 0.1 + 0.2, True, '[{"a": 1.50}]', {"new": "x"}),
    ]
    assert rejected(world) == [(2, "NOT_FINITE"), (3, "NUL_BYTE")]


# -- packed files -------------------------------------------------------------------------------


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ITEM = ("id: {type: text}", "n: {type: integer}")
FIRST, SECOND = b"id,n\na,1\nb,2\n", b"id,n\nc,3"


def test_packed_files_are_unpacked_by_their_bytes_and_all_members_of_an_archive_are_one_unit(world: World) -> None:
    files = 'members: "*.csv"'
    world.declare(table("items", "{name}", files, "id", *ITEM))
    world.deliver("a.csv.gz", gzip.compress(b"id,n\na,1\n") + gzip.compress(b"b,2\n"))
    world.deliver("b.csv", zstd.compress(b"id,n\nc,3\n"))
    world.deliver(
        "c.zip",
        zipped({"y/2.csv": b"id,n\nf,6\n", "y/1.csv": b"id,n\nd,4\ne,5", "read.me": b"?", "__MACOSX/1.csv": b"?"}),
    )
    published = world.load("items")
    assert [p.rows_read for p in published] == [2, 1, 3]
    assert world.query("select id, n from staging.shop__items order by id") == list(
        zip("abcdef", range(1, 7), strict=True)
    )
    assert world.query("select count(*) from ops.quarantine") == [(0,)]


def test_E14_a_cut_damaged_or_swollen_archive_refuses_its_unit_and_nothing_of_it_is_read(world: World) -> None:
    world.declare(table("items", "{name}", 'max_unpacked: 1MB, members: "*.csv"', "id", *ITEM))
    whole = zipped({"1.csv": FIRST * 50})
    crc = bytearray(whole)
    crc[40] ^= 0xFF
    bz2, lzma = (bytearray(zipped({"1.csv": FIRST * 50}, kind)) for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    bz2[50] ^= 0xFF
    lzma[60] ^= 0xFF
    packed = {
        "cut.csv.gz": gzip.compress(FIRST * 1000)[:-20],
        "cut.csv.zst": zstd.compress(json.dumps(list(range(9999))).encode())[:-20],
        "cut.zip": whole[:-30],
        "crc.zip": bytes(crc),
        "bz2.zip": bytes(bz2),
        "lzma.zip": bytes(lzma),
        "empty.csv.gz": b"",
        "other.zip": zipped({"1.txt": FIRST}),
        "plain.csv.gz": FIRST,
        "two.zip": zipped({"1.csv": FIRST, "2.csv": b"id,m\nc,3\n"}),
        "bomb.zip": zipped({"1.csv": b"id,n\n" + b"x" * 2_000_000}),
        "bomb.csv.gz": gzip.compress(b"id,n\n" + b"x" * 2_000_000),
    }
    for name, content in packed.items():
        world.deliver(name, content)
    with pytest.raises(GateRefused) as refused:
        world.load("items")
    said = str(refused.value).splitlines()
    assert len(said) == len(packed)
    for name, words in {
        "cut.csv.gz": "gzip data can't be unpacked",
        "cut.csv.zst": "zstd data can't be unpacked",
        "cut.zip": "zip data can't be unpacked",
        "crc.zip": "zip data can't be unpacked",
        "bz2.zip": "zip data can't be unpacked",
        "lzma.zip": "zip data can't be unpacked",
        "empty.csv.gz": "it is empty",
        "other.zip": r"no member that match",
        "plain.csv.gz": "is no gzip data although its name ends so",
        "two.zip": "another header than the member before it",
        "bomb.zip": "unpacks to more than 1,000,000 bytes",
        "bomb.csv.gz": "unpacks to more than 1,000,000 bytes",
    }.items():
        assert any(name in line and words in line for line in said), (name, said)
    assert world.query("select count(*) from ops.batch where state <> 'refused'") == [(0,)]
