"""The same bytes are the same content only while the declaration reads them in the same way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sluice.declarations import Source
from sluice.declarations.load import tree_of
from sluice.loading import drift
from sluice.loading.contract import contract_hash
from tests.loading.conftest import World

DAY = datetime(2026, 11, 1, tzinfo=UTC)
TABLE = """
t:
  description: rows
  from: {files: {connection: drop, path: "{date}.csv"}}
  mode: append
  key: [id]
  columns: {id: {type: bigint, required: true}, v: {type: text}}
"""
REST = TABLE.replace('files: {connection: drop, path: "{date}.csv"}', "rest: {connection: api, path: /rows}")


def _format(options: str) -> str:
    return TABLE.replace('.csv"', f'.csv", format: {options}')


def _hash(table: str) -> str:
    text = "source: s\ndescription: d\nowner: o\ntables:\n" + table.replace("\n", "\n  ")
    return contract_hash(Source.model_validate(tree_of(text)).tables["t"])


def _again(world: World, table: str) -> tuple[str, list[tuple]]:
    """Read the day again as `table` declares it; the state of the last batch, and the rows that stand."""
    world.declare(table)
    world.load("t", interval=(DAY, DAY + timedelta(days=1)))
    rows = world.query(
        "select id, v from staging.shop__t inner join ops.batch on batch_id = _batch_id"
        " where state = 'published' order by 1"
    )
    return world.query("select state from ops.batch order by batch_id desc limit 1")[0][0], rows


# -- what the hash covers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        _format("{type: csv, encoding: cp1252}"),
        _format("{type: csv, delimiter: ;}"),
        _format("jsonl"),
        _format("json"),
        _format("{type: json, records: data}"),
        TABLE.replace('path: "{date}.csv"', 'path: "{date}.csv", members: "*.txt"'),
        TABLE.replace("{date}", "{date:%d%m%Y}"),
        TABLE.replace("{date}", "{date:%m%d%Y}"),
        TABLE.replace("v: {type: text}", "v: {type: text, field: w}"),
        TABLE + "  deleted_by: {field: op, value: d}\n",
        TABLE + "  deleted_by: {field: op, value: D}\n",
        REST.replace("/rows", "/rows, items: data"),
    ],
)
def test_the_hash_of_a_contract_changes_with_what_its_bytes_mean(table: str) -> None:
    assert _hash(table) != _hash(REST if "rest" in table else TABLE)


def test_two_ways_to_read_never_have_one_hash() -> None:
    ways = [
        _format(way) for way in ("jsonl", "json", "parquet", "{type: json, records: a}", "{type: csv, quote: null}")
    ]
    assert len({_hash(way) for way in [*ways, TABLE]}) == len(ways) + 1


def test_a_hash_that_a_ledger_holds_already_stays_as_it_is_where_nothing_is_said_of_the_bytes() -> None:
    plain = TABLE.replace(", v: {type: text}", "").replace(", required: true", "")
    assert _hash(plain) == "7be0f846bb1443ff", "as it was computed before this was covered"
    assert _hash(plain.replace("connection: drop", "connection: other")) == _hash(plain)
    assert _hash(plain.replace("description: rows", "description: others")) == _hash(plain)
    assert _hash(plain.replace('path: "', "done: '{path}.ok', path: \"in/")) == _hash(plain)


# -- reading again ------------------------------------------------------------------------------


def test_another_encoding_is_corrected_by_reading_again_and_the_same_one_is_a_no_op(world: World) -> None:
    wrong, right = _format("{type: csv, encoding: cp1252}"), TABLE
    world.declare(wrong)
    world.deliver("2026-11-01.csv", "id,v\n1,Köln\n".encode())
    world.load("t")
    assert _again(world, wrong) == ("unchanged", [(1, "KÃ¶ln")])
    assert _again(world, right) == ("published", [(1, "Köln")])
    assert _again(world, right) == ("unchanged", [(1, "Köln")])
    assert (
        world.query("select verdict from ops.batch where state = 'unchanged'")
        == [("the same content as already published",)] * 2
    )
    assert world.books_balance()
    told = world.query("select contract -> 'read_as' from ops.contract order by contract_hash <> %s", _hash(wrong))
    assert told == [({"format": {"type": "csv", "encoding": "cp1252"}},), ({},)]
    assert drift.contract_of(world.warehouse, 1).columns["v"].type == "text"


def test_columns_in_another_order_are_corrected_by_reading_again_where_no_header_names_them(world: World) -> None:
    wrong = _format("{type: csv, header: false}")
    right = wrong.replace("id: {type: bigint, required: true}, v: {type: text}",
                          "v: {type: text}, id: {type: bigint, required: true}")  # fmt: skip
    world.declare(wrong)
    world.deliver("2026-11-01.csv", "1,2\n")
    world.load("t")
    assert _again(world, right) == ("published", [(2, "1")])


def test_another_meaning_of_the_path_is_corrected_by_reading_again(world: World) -> None:
    wrong = TABLE.replace("{date}.csv", "{date}/{shop}_{till}.csv").replace("type: text", "type: text, from_path: shop")
    world.declare(wrong)
    world.deliver("2026-11-01/a_b.csv", "id\n1\n")
    world.load("t")
    assert _again(world, wrong) == ("unchanged", [(1, "a")])
    assert _again(world, wrong.replace("{shop}_{till}", "{till}_{shop}")) == ("published", [(1, "b")])
