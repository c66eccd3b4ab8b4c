"""Open Data Contract Standard v3: exports are contracts by the standard's own schema, and come back as they were."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft201909Validator
from typer.testing import CliRunner

from sluice.cli import app
from sluice.declarations import Source, load_file
from sluice.declarations.load import tree_of
from sluice.declarations.odcs import from_odcs, to_odcs
from sluice.errors import SluiceError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "include/sources").glob("*.yml"))
STANDARD = Draft201909Validator(json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text()))
RICH = """\
source: rich
description: everything that a declaration can say
owner: team-rich
schedule: "5 4 * * 1"
start: 2026-02-03
deadline: 90m
wait: 10m
tags: [one, two]
at_once: {db: 1}
clock: {connection: db, query: select now()}
tables:
  events:
    description: Events
    from: {files: {connection: drop, path: "{date}/{place}.csv", done: "{path}.ok", stable_for: 5m}}
    mode: append
    key: [place, id]
    effective_at: at
    sequence: n
    max_reject_share: 0.2
    freshness: 90m
    start: 2026-02-04
    columns:
      place: {type: text, from_path: place, required: true}
      id: {type: bigint, minimum: 1, maximum: 9, description: "The id"}
      code: {type: text, field: Code, accepted: [a, b], pattern: "^[ab]$", personal: true}
      ref: {type: uuid, pattern: "^0"}
      at: {type: timestamptz, required: true}
      n: {type: integer}
      amount: {type: "numeric(12,2)", minimum: 0.5}
      more: {type: jsonb, required: false}
  rows:
    description: Rows
    from: {postgres: {connection: db, table: public.rows}}
    mode: cursor
    cursor: {column: changed, overlap: 1d}
    deletes: {detect: key_scan, max_share: 0.3}
    deleted_by: {field: op, value: d}
    key: [id]
    columns:
      id: {type: bigint}
      changed: {type: timestamptz}
"""


def _text(path: Path | str) -> str:
    return path.read_text(encoding="utf-8") if isinstance(path, Path) else path


@pytest.mark.parametrize("path", [*SOURCES, RICH], ids=lambda path: path.stem if isinstance(path, Path) else "rich")
def test_a_declaration_comes_back_from_its_contract_as_it_was(path: Path | str) -> None:
    tree = tree_of(_text(path))
    contract = yaml.safe_load(yaml.safe_dump(to_odcs(tree)))
    errors = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in STANDARD.iter_errors(contract)]
    assert not errors
    back = from_odcs(contract)
    assert Source.model_validate(back.declaration) == Source.model_validate(tree)
    assert (back.left_out, back.assumed) == ([], [])


def test_the_standard_says_what_it_has_words_for() -> None:
    contract = to_odcs(tree_of(RICH))
    events, rows = contract["schema"]
    place, number, code, *_ = events["properties"]
    assert (place["primaryKeyPosition"], number["primaryKeyPosition"]) == (1, 2)
    assert rows["properties"][0]["unique"] is True
    assert code["classification"] == "personal"
    assert code["physicalName"] == "Code"
    assert code["quality"][0]["arguments"] == {"validValues": ["a", "b"]}
    assert number["logicalTypeOptions"] == {"minimum": 1, "maximum": 9}
    assert contract["team"] == {"name": "team-rich"}
    assert {"property": "freshness", "value": 90, "unit": "m", "element": "events"} in contract["slaProperties"]
    assert "5 4 * * 1" in str(contract["slaProperties"])
    assert {server["server"] for server in contract["servers"]} == {"drop", "db"}
    said = json.dumps(contract["schema"][0]["customProperties"])
    assert "required" not in said
    assert "accepted" not in said


FOREIGN = """\
apiVersion: v3.0.2
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553a
name: Seller Payments
version: 1.1.0
status: active
domain: seller
tenant: ClimateQuantumInc
description: {purpose: Payments of sellers, usage: any, limitations: None}
team:
  - {username: ceastwood, role: Data Scientist}
servers:
  - {server: my-postgres, type: postgres, host: db.example.org, port: 5432, database: pypl, schema: fin}
price: {priceAmount: 9.95, priceCurrency: USD}
slaProperties:
  - {property: latency, value: 2, unit: days, element: tbl.paid_at}
  - {property: retention, value: 3, unit: y}
schema:
  - name: tbl
    physicalName: tbl_1
    description: Provides core payment metrics
    quality:
      - {type: library, rule: rowCount, mustBeGreaterThan: 100}
    properties:
      - {name: txnRef, primaryKey: true, primaryKeyPosition: 2, logicalType: string, physicalType: varchar(18)}
      - {name: rcvrId, primaryKey: true, primaryKeyPosition: 1, logicalType: integer, physicalType: int8}
      - {name: paid_at, logicalType: timestamp, physicalType: TIMESTAMP_TZ, partitioned: true, partitionKeyPosition: 1}
      - name: state
        logicalType: string
        physicalType: enum_state
        classification: restricted
        quality:
          - {type: library, metric: invalidValues, arguments: {validValues: [a, b]}, mustBe: 0}
          - {type: library, metric: nullValues, mustBe: 0}
          - {type: sql, query: select 1, mustBe: 1}
      - {name: mail, logicalType: string, classification: PII}
"""


def test_a_contract_of_others_is_imported_and_what_we_have_no_field_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_SOURCES_DIR", str(tmp_path / "sources"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    (tmp_path / "sources").mkdir()
    (tmp_path / "c.odcs.yaml").write_text(FOREIGN)
    done = CliRunner().invoke(app, ["source", "import", str(tmp_path / "c.odcs.yaml")])
    assert done.exit_code == 0, (done.output, done.exception)
    for left in (
        "domain",
        "tenant",
        "price.priceAmount",
        "slaProperties: retention",
        "schema[0].quality: rowCount",
        "schema[0].properties[0].physicalType: varchar(18) (taken as text, of any length)",
        "schema[0].properties[2].partitioned",
        "schema[0].properties[3].classification",
        "schema[0].properties[3].physicalType: enum_state (taken as text)",
        "schema[0].properties[3].quality",
    ):
        assert f"left out: {left}" in done.stderr, left
    source = load_file(tmp_path / "sources/seller_payments.yml")
    table = source.tables["tbl"]
    assert table.origin.postgres.table == "fin.tbl_1"
    assert table.origin.postgres.connection == "my_postgres"
    assert table.key == ("rcvr_id", "txn_ref")
    assert table.columns["txn_ref"].field == "txnRef"
    assert (table.columns["rcvr_id"].type, table.columns["paid_at"].type) == ("bigint", "timestamptz")
    assert (table.columns["state"].accepted, table.columns["state"].required) == (("a", "b"), True)
    assert table.columns["mail"].personal
    assert table.freshness.days == 2
    assert source.owner == "ceastwood"
    assert source.description == "Payments of sellers. Usage: any."
    again = CliRunner().invoke(app, ["source", "import", str(tmp_path / "c.odcs.yaml")])
    assert again.exit_code == 1
    assert "is there already; nothing was written" in str(again.exception)


def _spoilt(**parts: object) -> str:
    """The contract with some parts of it replaced; with `column`, of its second property; with `table`, of `tbl`."""
    contract = yaml.safe_load(FOREIGN)
    contract["schema"][0]["properties"][1] |= parts.pop("column", {})
    contract["schema"][0] |= parts.pop("table", {})
    return yaml.safe_dump(contract | parts)


TWICE = [{"name": "orderId", "primaryKey": True}, {"name": "order_id"}]
OURS = "customProperties: sluice.value of the contract must be an object"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_spoilt(table={"properties": TWICE}), "schema[0].properties[1]: order_id becomes order_id here, and so does"),
        (_spoilt(schema=yaml.safe_load(FOREIGN)["schema"] * 2), "schema[1]: tbl becomes tbl here, and so does another"),
        (_spoilt(team="x"), "team of the contract must be an object with a list of members"),
        (_spoilt(team={"members": 5}), "team of the contract must be an object with a list of members"),
        (_spoilt(schema={"orders": {}}), "schema of the contract must be a list of objects"),
        (_spoilt(schema=[{"properties": []}]), "schema[0].name of the contract must be there"),
        (_spoilt(table={"properties": [{"primaryKey": True}]}), "schema[0].properties[0].name of the contract must be"),
        (_spoilt(slaProperties=["daily"]), "slaProperties of the contract must be a list of objects"),
        (_spoilt(servers="db"), "servers of the contract must be a list of objects"),
        (_spoilt(column={"quality": ["not null"]}), "schema[0].properties[1].quality of the contract must be a list"),
        (
            _spoilt(column={"quality": [{"arguments": [1]}]}),
            "properties[1].quality[0].arguments of the contract must be",
        ),
        (_spoilt(column={"logicalTypeOptions": "pattern"}), "properties[1].logicalTypeOptions of the contract must be"),
        (_spoilt(customProperties=[{"property": "sluice"}]), OURS),
        (
            _spoilt(column={"customProperties": [{"property": "sluice", "value": "x"}]}),
            f"schema[0].properties[1].{OURS}",
        ),
        (_spoilt(name=None, id=None), "neither name nor id"),
        (FOREIGN + "tags: !!bool maybe", "can't be read"),
        (FOREIGN + "x: &a {b: *a}", "contains itself"),
        ("a: 1", "no contract"),
        ("kind: DataContract\napiVersion: v2.2.2", "of version v2.2.2"),
        (FOREIGN.replace("primaryKey: true", "primaryKey: false"), "no property with primaryKey"),
        (FOREIGN.split("schema:\n")[0], "has no schema"),
    ],
)
def test_what_can_be_no_declaration_is_refused_with_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = CliRunner().invoke(app, ["source", "import", str(tmp_path / "c.yaml"), "--dry-run"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SluiceError)
    assert "nothing was written" in str(done.exception).lower()
    assert said in str(done.exception)


def test_a_contract_that_says_of_a_part_that_there_is_nothing_is_imported() -> None:
    nothing = dict.fromkeys(("servers", "team", "slaProperties", "customProperties", "tags"))
    made = from_odcs(yaml.safe_load(_spoilt(column={"quality": None, "logicalTypeOptions": None}, **nothing)))
    assert Source.model_validate(made.declaration).owner == "unknown"


def test_what_aliases_repeat_is_there_in_each_place() -> None:
    contract = yaml.safe_load(FOREIGN)
    contract["schema"].append({"name": "other", "properties": contract["schema"][0]["properties"]})
    tables = Source.model_validate(from_odcs(contract).declaration).tables
    assert tables["other"].columns == tables["tbl"].columns
    declaration = tree_of(RICH)
    declaration["tables"]["rows"]["columns"]["again"] = declaration["tables"]["rows"]["columns"]["changed"]
    assert Source.model_validate(from_odcs(to_odcs(declaration)).declaration) == Source.model_validate(declaration)
