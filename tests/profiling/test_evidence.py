"""What the evidence says, and what is refused with a sentence, leaving everything as it was."""

from __future__ import annotations

import gzip
import io
import json
import threading
import zipfile
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd
from openpyxl import Workbook

from sluice.profiling.keys import find_key
from sluice.profiling.names import sanitise_all, says_person, singular
from sluice.profiling.values import type_of
from tests.profiling.conftest import Home, Shop


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("store_id", ["1", "22"], "bigint"),
        ("pieces", ["0", "-5"], "integer"),
        ("code", ["007", "012"], "text"),
        ("zip", ["10115", "80331"], "text"),
        ("big", ["9999999999999"], "bigint"),
        ("ean_like", ["12345678901234567890"], "text"),
        ("price", ["1.5", "12.25"], "numeric(18,2)"),
        ("unit_cost", ["1.2345"], "numeric(18,4)"),
        ("latitude", ["50.123456789", "-3.1"], "numeric"),
        ("ratio", ["1e-5", "0.1"], "numeric"),
        ("day", ["2026-01-31"], "date"),
        ("day", ["2026-02-30"], "text"),
        ("day", ["31.01.2026"], "text"),
        ("delivery_date", ["20260131"], "date"),
        ("at", ["2026-01-31T10:00:00Z", "2026-01-31T10:00:00.5+02:00"], "timestamptz"),
        ("at", ["2026-01-31 10:00:00"], "timestamp"),
        ("at", ["2026-01-31 10:00:00", "2026-01-31T10:00:00Z"], "text"),
        ("open", ["08:30"], "time"),
        ("ok", ["true", "false"], "boolean"),
        ("ok", ["yes", "no"], "boolean"),
        ("ok", ["no"], "text"),
        ("ok", ["0", "1"], "integer"),
        ("uid", ["3f2504e0-4f89-11d3-9a0c-0305e82c3301"], "uuid"),
        ("body", ['{"a": 1}', "[]"], "jsonb"),
        ("n", ["1", "N/A"], "text"),
        ("amount", ["1,50"], "text"),
        ("nothing", [], "text"),
    ],
)
def test_a_type_holds_for_all_values_or_is_text(name: str, values: list[str], kind: str) -> None:
    assert type_of(name, values)[0] == kind


def test_a_type_that_is_nearly_right_is_a_note_and_costs_no_row() -> None:
    assert "integer, but for N/A" in type_of("n", ["1", "2", "N/A"])[1][0]
    assert "leading zeros" in type_of("code", ["007"])[1][0]
    for values, said in (
        (
            ["01.02.2024", "28.03.2024"],
            "dates with the day first, since there is a part above 12: to_date(…, 'DD.MM.YYYY')",
        ),
        (
            ["1/2/2024", "3/28/2024"],
            "dates with the month first, since there is a part above 12: to_date(…, 'MM/DD/YYYY')",
        ),
        (["28-03-24"], "dates with the day first, since there is a part above 12: to_date() "),
        (["01.02.2024", "03.04.2024"], "day and month can't be told apart here"),
        (["28.03.2024", "03.28.2024"], "some have the day first, some the month"),
    ):
        assert said in type_of("d", values)[1][0]
    assert "decimal comma" in type_of("amount", ["1,50", "2,25"])[1][0]
    assert type_of("ref", ["1", "2"], quoted=True)[0] == "text", "a JSON string of figures is a name"


def test_names_are_those_that_postgres_and_a_model_take() -> None:
    assert sanitise_all(["usageType", "Größe 2", "order", "2020", "_op", "a b", "a-b", "", "le_heading_degT"]) == [
        "usage_type", "grosse_2", "order_value", "c_2020", "op", "a_b", "a_b_2", "unnamed", "le_heading_degt",
    ]  # fmt: skip
    assert [singular(name) for name in ("countries", "addresses", "boxes", "status", "runways")] == [
        "country", "address", "box", "status", "runway",
    ]  # fmt: skip


def test_personal_data_is_guessed_by_name_and_by_value() -> None:
    assert says_person("email_address", [])
    assert says_person("contact", ["a@b.de", "c@d.fr", "e@f.it"])
    assert says_person("host", ["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    assert not says_person("address_id", ["1"])
    assert not says_person("name", ["Paris", "Rome", "Bonn"])


def test_a_key_is_a_name_and_never_a_measure_that_is_unique_by_chance() -> None:
    rows = [[str(n // 2), str(n % 2), str(n * 1.5), f"text {n}"] for n in range(40)]
    columns = {"order_id": "bigint", "line_no": "integer", "amount": "numeric(18,2)", "note": "text"}
    assert find_key("lines", columns, rows) == ("order_id", "line_no")
    assert find_key("lines", {"amount": "numeric(18,2)", "note": "text"}, [row[2:] for row in rows]) is None


def _csv(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


ITEMS = [{"id": 1, "price": 1.25, "day": "2026-01-01"}, {"id": 2, "price": 10, "day": "2026-01-02"}]
LINES = b"".join(json.dumps(item).encode() + b"\n" for item in ITEMS)
CSV = b"id,price,day\n1,1.25,2026-01-01\n2,10,2026-01-02\n"


XML = b"""<?xml version="1.0" encoding="utf-8"?>
<shop:feed xmlns:shop="urn:shop"><link/><link/>
<shop:products><product id="1"><price>1.25</price><day>2026-01-01</day></product>
<product id="2"><price>10</price><day>2026-01-02</day></product><product id="2" /></shop:products></shop:feed>"""


def _xlsx() -> bytes:
    book, out = Workbook(), io.BytesIO()
    for row in (["id", "price", "day"], [1, 1.25, date(2026, 1, 1)], [2, 10, date(2026, 1, 2)]):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


def _parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2]} | columns), out)
    return out.getvalue()


def _zip(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(CSV)),
        ("a.csv.zst", zstd.compress(CSV)),
        ("a.csv.zip", _zip("inner.csv", CSV)),
        ("a.tsv", CSV.replace(b",", b"\t")),
        ("a.csv", CSV.decode().encode("utf-16")),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.json", LINES),
        ("a.json", json.dumps(ITEMS).encode()),
        ("a.json", json.dumps({"meta": {"n": 2}, "data": {"items": ITEMS}}).encode()),
        ("a.xml", XML.replace(b'<product id="2" />', b"").replace(b"<link/><link/>", b"<link/>")),
        ("a.xml.gz", gzip.compress(XML.replace(b'<product id="2" />', b"").replace(b"<link/><link/>", b""))),
        ("a.xlsx", _xlsx()),
        ("a.parquet", _parquet(price=[Decimal("1.25"), Decimal(10)], day=[date(2026, 1, 1), date(2026, 1, 2)])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_and_packing_is_profiled_and_loads(name: str, content: bytes, home: Home, tmp_path: Path) -> None:
    home.add(_csv(tmp_path, name, content), "--source", "s")
    table = home.table("s.a")
    assert [column.type for column in table.columns.values()] == ["bigint", "numeric(18,2)", "date"]
    assert home.load("s.a") == (2, 0)
    assert home.rows("select id, price, day::text from staging.s__a order by 1") == [
        (1, Decimal("1.25"), "2026-01-01"),
        (2, Decimal(10), "2026-01-02"),
    ]


def test_a_parquet_file_says_itself_which_columns_are_texts_and_which_are_nested(home: Home, tmp_path: Path) -> None:
    content = _parquet(zone=["1", "2"], size=[1.5, 2.0], tags=[["a"], []])
    home.add(_csv(tmp_path, "a.parquet", content), "--source", "s")
    kinds = {name: column.type for name, column in home.table("s.a").columns.items()}
    assert (kinds["zone"], kinds["tags"]) == ("text", "jsonb")
    assert home.load("s.a") == (2, 0)


def test_of_xml_the_element_that_repeats_most_is_the_record_and_what_is_in_it_becomes_columns(
    home: Home, tmp_path: Path
) -> None:
    def order(n: int) -> str:
        lines = "".join(f"<line><item>{n}-{m}</item></line>" for m in range(n % 3))
        return (
            f'<order><number>{n}</number><customer vip="{n % 2}"><item>c{n}</item></customer>{lines}'
            f'<total currency="EUR">{n}.50</total><note>{"x" if n % 7 == 0 else ""}</note><paid/></order>\n'
        )

    body = "<orders><item>1</item>" + "".join(map(order, range(1, 301)))
    said = home.add(_csv(tmp_path, "orders.xml", body + "</orders>"), "--source", "s")
    assert "record order: of all elements it stands most often side by side, 300 times" in said
    table = home.table("s.orders")
    assert table.key == ("number",)
    assert {column.field or name: column.type for name, column in table.columns.items()} == {
        "number": "integer", "customer.@vip": "integer", "customer.item": "text", "line": "jsonb",
        "total.@currency": "text", "total.#text": "numeric(18,2)", "note": "text", "paid": "text",
    }  # fmt: skip
    assert home.load("s.orders") == (300, 0)
    assert home.rows("select customer_item, total_text, line from staging.s__orders where number = 2") == [
        ("c2", Decimal("2.50"), [{"item": "2-0"}, {"item": "2-1"}])
    ]
    home.add(_csv(tmp_path, "cut.xml", body), "--source", "s", "--rows", "100")
    assert "100 rows" in (home.sources / "s.yml").read_text()


def test_two_dated_files_tell_full_from_append(home: Home, tmp_path: Path) -> None:
    for day, first in (("2026-01-01", 1), ("2026-01-02", 2)):
        _csv(tmp_path, f"in/{day}/state.csv", "id,v\n" + "".join(f"{n},x\n" for n in range(first, first + 50)))
        _csv(
            tmp_path,
            f"in/{day}/events.csv",
            "id,v\n" + "".join(f"{n},x\n" for n in range(first * 100, first * 100 + 50)),
        )
    assert "mode full: 98% of the keys" in home.add(tmp_path / "in/2026-01-02/state.csv", "--source", "s")
    assert "mode append: 0% of the keys" in home.add(tmp_path / "in/2026-01-02/events.csv", "--source", "s")
    assert home.table("s.state").origin.files.path == "{date}/state.csv"


def test_few_values_are_a_comment_and_with_strict_a_rule(home: Home, tmp_path: Path) -> None:
    path = _csv(tmp_path, "a.csv", "id,state\n" + "".join(f"{n},{'on' if n % 2 else 'off'}\n" for n in range(300)))
    home.add(path, "--source", "loose")
    assert home.table("loose.a").columns["state"].accepted is None
    assert "# accepted: [off, on] would be a rule" in (home.sources / "loose.yml").read_text()
    home.add(path, "--source", "strict", "--strict")
    assert home.table("strict.a").columns["state"].accepted == ("off", "on")


def test_a_table_is_added_below_the_others_and_no_other_byte_changes(home: Home, tmp_path: Path) -> None:
    text = (
        "# who wrote this\nsource: s\ndescription:   odd   spacing\nowner: 'o'\ntables:\n    # the first\n"
        "    one:   # a remark\n        description: d\n        from: {files: {connection: drop, path: x.csv}}\n"
        "        mode: full\n        key:\n        - id\n        columns: {id: {type: bigint}}   # all\n\n\n"
        "# how it is read\nschedule: '0 1 * * *'\n"
    )
    (home.sources / "s.yml").write_text(text)
    home.add(_csv(tmp_path, "two.csv", "id,v\n1,a\n2,b\n"), "--source", "s")
    after = (home.sources / "s.yml").read_text()
    head, tail = text.split("\n\n\n")
    assert after.startswith(head + "\n\n    two:\n")
    assert after.endswith("\n\n\n" + tail)
    assert home.table("s.two").key == ("id",)
    assert home.table("s.one").key == ("id",)


def test_a_dry_run_prints_everything_and_writes_nothing(home: Home, tmp_path: Path) -> None:
    path = _csv(tmp_path, "two.csv", "id,v\n1,a\n")
    said = home.add(path, "--dry-run")
    assert "stg_" in said
    assert "mode: full" in said
    assert not list(home.sources.iterdir())


def test_what_can_not_be_declared_is_refused_and_everything_stays(home: Home, tmp_path: Path, shop: Shop) -> None:
    def refused(name: str, text: str | bytes, *more: str) -> str:
        return home.refused(_csv(tmp_path, name, text), "--source", "s", *more)

    rows = "".join(f"{n % 3},{n % 2}\n" for n in range(9))
    assert "no key was found for a" in (said := refused("a.csv", "kind,state\n" + rows))
    assert "kind and state together are unique, perhaps by chance (and 3 rows are equal" in said
    moves = "store,kind,amount\n" + "".join(f"{n % 7},{n % 2},{n % 50}.5\n" for n in range(300))
    key = refused("m.csv", moves).rpartition("--key ")[2]
    assert key == "store,amount", "the advice is tried on the rows, too"
    holes = "kind,note\n" + "".join(f"{n % 3},{n or ''}\n" for n in range(9))
    assert "no --key would be unique" in refused("h.csv", holes)
    assert "no column of a" in refused("a.csv", "kind,state\n" + rows, "--key", "nope")
    assert "holds values and no names" in refused("b.csv", "1,2026-01-01\n2,2026-01-02\n")
    assert "names id twice" in refused("d.csv", "id,ID\n1,2\n")
    assert "no JSON object" in refused("e.jsonl", "[1]\n")
    assert "no file" in refused("f.csv", "")
    assert "g.docx ends in .docx, which source add can't look into; it knows csv," in refused("g.docx", "x")
    assert "g.xml is XML in which no element stands beside its like" in refused("g.xml", "<a><b/><c/></a>")
    assert "the file is not XML" in refused("h.xml", "id,v\n1,a\n")
    assert "not well formed, or cut off, at line 1, column 12" in refused("i.xml", "<a><b/><b/>")
    assert "declares an entity" in refused("j.xml", '<!DOCTYPE a [<!ENTITY e "x">]><a><b/><b>&e;</b></a>')
    assert "no password" in home.refused("postgresql://u:secret@h/db", "--source", "s")
    assert "secret" not in home.refused("postgresql://u:secret@h/db", "--source", "s")
    assert "looks like a secret" in home.refused(f"{shop.api}/v1/x?api_key=1", "-c", "shop_api")
    assert "it has public.orders" in home.refused("private.orders", "-c", "shop_db").lower()
    assert "has no field with a list" in home.refused("/health", "-c", "shop_api")
    home.add(_csv(tmp_path, "a.csv", "id,v\n1,a\n"), "--source", "s")
    assert "declares s.a already" in home.refused(tmp_path / "a.csv", "--source", "s")
    (home.staging / "s/stg_s__b.sql").write_text("mine")
    assert "stg_s__b.sql is there already" in home.refused(_csv(tmp_path, "b.csv", "id,v\n1,a\n"), "--source", "s")


def test_the_catalog_of_a_database_gives_types_rules_key_and_comments(
    home: Home, postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.database()
    monkeypatch.setenv("AIRFLOW_CONN_DB", url)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(
            """
            create type mood as enum ('good', 'bad');
            create domain positive as integer not null check (value > 0);
            create table "Odd Table" (
                "Part A" varchar(10) not null, b char(3) not null, mood mood,
                amount numeric(10,2) check (amount >= 0.5),
                age integer check (age > 17), n positive, state text check (state in ('it''s', 'b')),
                tags text[], body json, "order" interval, at timestamp, e_mail text, unique ("Part A", b)
            );
            comment on table "Odd Table" is 'What a row is.';
            comment on column "Odd Table".age is 'In years: {{ full }}';
            insert into "Odd Table" values ('a', 'b', 'good', 1, 20, 1, 'b', '{x,y}', '{}', '1 day', now(), 'a@b.c');
            """
        )
    home.add("public.Odd Table", "-c", "db", "--source", "odd")
    table = home.table("odd.odd_table")
    assert (table.key, table.mode, table.description) == (("part_a", "b"), "full", "What a row is.")
    columns = table.columns
    assert [columns[name].type for name in ("part_a", "amount", "n", "tags", "body", "order_value", "at")] == [
        "text", "numeric(10,2)", "integer", "text", "jsonb", "text", "timestamp",
    ]  # fmt: skip
    assert columns["mood"].accepted == ("good", "bad")
    assert columns["state"].accepted == ("it's", "b")
    assert (columns["amount"].minimum, columns["age"].minimum) == (0.5, 18)
    assert (columns["n"].required, columns["e_mail"].personal, columns["part_a"].field) == (True, True, "Part A")
    assert home.load("odd.odd_table") == (1, 0)
    postgres.drop(url)


PEOPLE = [{"id": n, "day": "2026-01-01"} for n in range(1, 8)]


@pytest.mark.parametrize("style", ["bare", "nested", "link", "next_url"])
def test_the_pages_of_a_service_are_found_out_and_all_of_them_load(
    style: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
            rows, more = PEOPLE[(page - 1) * 3 : page * 3], f"/people?page={page + 1}" if page < 3 else None
            body = {
                "bare": PEOPLE,
                "nested": {"data": {"people": rows}, "meta": {"total": 7, "total_pages": 3}},
                "link": rows,
                "next_url": {"people": rows, "links": {"next": more}},
            }[style]
            self.send_response(200)
            self.send_header("content-type", "application/json")
            if style == "link" and more:
                self.send_header("link", f'<{more}>; rel="next"')
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AIRFLOW_CONN_PEOPLE_API", f"http://127.0.0.1:{server.server_port}")
    try:
        home.add("/people", "-c", "people_api")
        assert home.load("people.people") == (7, 0)
    finally:
        server.shutdown()
        server.server_close()
