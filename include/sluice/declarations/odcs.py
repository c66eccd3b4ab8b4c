"""Declarations as Open Data Contract Standard v3 contracts, and contracts as declarations.

What the standard has a word for is said in it; everything else of ours travels in one custom property `sluice` of the
part that it belongs to, so that a declaration comes back equal. What a contract says and we have no field for is named.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sluice.declarations.load import plain
from sluice.declarations.model import ColumnType
from sluice.errors import SluiceError

API_VERSION = "v3.1.0"
_OURS = "sluice"
_LOGICAL = {
    "text": "string",
    "uuid": "string",
    "bigint": "integer",
    "integer": "integer",
    "smallint": "integer",
    "numeric": "number",
    "real": "number",
    "double precision": "number",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "time": "time",
    "jsonb": "object",
}
_TYPES = {
    "string": "text",
    "integer": "bigint",
    "number": "numeric",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamptz",
    "time": "time",
    "object": "jsonb",
    "array": "jsonb",
    "map": "jsonb",
}
_SYNONYMS = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "long": "bigint",
    "int2": "smallint",
    "bool": "boolean",
    "decimal": "numeric",
    "number": "numeric",
    "float8": "double precision",
    "double": "double precision",
    "float4": "real",
    "json": "jsonb",
    "timestamp with time zone": "timestamptz",
    "timestamp_tz": "timestamptz",
    "timestamp without time zone": "timestamp",
    "timestamp_ntz": "timestamp",
}
_UNITS = {"s": "s", "second": "s", "m": "m", "min": "m", "minute": "m", "h": "h", "hour": "h", "d": "d", "day": "d"}
_UNITS |= {"w": "w", "week": "w"}
_KINDS = {"postgres": "postgres", "files": "local", "rest": "api"}
_NOTHING = ("none", "null", "n/a", "na", "-")  # what people write where they have nothing to say
_NAMING = ("property", "name", "metric", "rule", "username", "type")
Tree = dict[str, Any]


# -- export -------------------------------------------------------------------------------------------------


def to_odcs(declaration: Tree) -> Tree:
    """A declaration, as its YAML says it, as a contract."""
    rest = plain(declaration)
    tables = rest.pop("tables")
    name, schedule = rest.pop("source"), rest.pop("schedule", None)
    contract: Tree = {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": name,
        "name": name,
        "version": "1.0.0",
        "status": "active",
        "description": {"purpose": rest.pop("description")},
        "team": {"name": rest.pop("owner")},
    }
    if tags := rest.pop("tags", None):
        contract["tags"] = tags
    contract["servers"] = _servers(tables)
    service = [{"property": "frequency", "value": 1, "scheduler": "cron", "schedule": schedule}] if schedule else []
    contract["schema"] = []
    for table_name, table in tables.items():
        if fresh := re.fullmatch(r"\s*(\d+)\s*([smhdw])\s*", str(table.get("freshness", ""))):
            del table["freshness"]
            level = {"property": "freshness", "value": int(fresh[1]), "unit": fresh[2], "element": table_name}
            service.append(level)
        contract["schema"].append(_object(table_name, table))
    if service:
        contract["slaProperties"] = service
    return contract | _custom(rest)


def _servers(tables: Tree) -> list[Tree]:
    """One server for each connection. Where it is stays with the connection: a contract is shown to others."""
    kinds = {
        origin["connection"]: kind for table in tables.values() for kind, origin in table["from"].items() if origin
    }
    return [
        {"server": connection, "type": "custom", "description": f"Connection {connection} ({kind})"}
        for connection, kind in kinds.items()
    ]


def _object(name: str, table: Tree) -> Tree:
    key = table.pop("key")
    made: Tree = {"name": name, "logicalType": "object", "physicalType": "table"}
    if relation := (table["from"].get("postgres") or {}).get("table"):
        made["physicalName"] = relation
    made["description"] = table.pop("description")
    made["properties"] = [_property(column, rules, key) for column, rules in table.pop("columns").items()]
    return made | _custom(table)


def _property(name: str, rules: Tree, key: list[str]) -> Tree:
    kind = rules.pop("type")
    logical = _LOGICAL[kind.split("(")[0].strip().lower()]
    made: Tree = {"name": name, "logicalType": logical, "physicalType": kind}
    if source := rules.pop("field", None):
        made["physicalName"] = source
    for ours, theirs in (("description", "description"), ("required", "required")):
        if ours in rules:
            made[theirs] = rules.pop(ours)
    if name in key:
        made |= {"primaryKey": True, "primaryKeyPosition": key.index(name) + 1}
        if len(key) == 1:
            made["unique"] = True
    if rules.get("personal") is True:
        del rules["personal"]
        made["classification"] = "personal"
    bounds = ("minimum", "maximum") if logical in ("integer", "number") else ()
    options = {name: rules.pop(name) for name in bounds if rules.get(name) is not None}
    if logical == "string" and rules.get("pattern") is not None:
        options["pattern"] = rules.pop("pattern")
    if options:
        made["logicalTypeOptions"] = options
    if accepted := rules.pop("accepted", None):
        rule = {"metric": "invalidValues", "arguments": {"validValues": accepted}, "mustBe": 0}
        made["quality"] = [{"type": "library", **rule, "description": "The only values allowed"}]
    return made | _custom(rules)


def _custom(rest: Tree) -> Tree:
    return {"customProperties": [{"property": _OURS, "value": rest}]} if rest else {}


# -- import -------------------------------------------------------------------------------------------------


@dataclass
class Imported:
    """A declaration that was made of a contract, with what it left out and what it had to assume."""

    declaration: Tree
    left_out: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


def from_odcs(contract: Any, connection: str = "") -> Imported:
    """A declaration from a contract of v3. `connection` stands for a contract that names no server."""
    if not isinstance(contract, dict) or contract.get("kind") != "DataContract":
        raise SluiceError(
            "this is no contract of the Open Data Contract Standard (kind: DataContract); nothing was written"
        )
    if not str(contract.get("apiVersion", "")).startswith("v3."):
        raise SluiceError(
            f"the contract is of version {contract.get('apiVersion')}, and v3 is read; nothing was written"
        )
    _must_be_well_formed(contract)
    rest = plain(contract)  # what an alias repeats is taken apart in each place for itself
    made = Imported({})
    for name in ("kind", "apiVersion", "version", "status", "id"):
        rest.pop(name, None)
    name = _plain_name(str(rest.pop("name", None) or contract["id"]))
    own = _take_ours(rest)
    made.declaration = {
        "source": name,
        "description": _description(rest) or f"{name}, from a data contract.",
        "owner": _owner(rest, made),
    }
    if tags := rest.pop("tags", None):
        made.declaration["tags"] = tags
    fresh = _service_levels(rest, made)
    made.declaration |= own
    servers: list[Tree] = rest.pop("servers", None) or []
    if len(servers) > 1 and not any("from" in _peek_ours(item) for item in rest.get("schema") or []):
        made.left_out.append(f"servers: {', '.join(str(server.get('server')) for server in servers[1:])}")
    made.declaration["tables"] = {}
    for index, item in enumerate(rest.pop("schema", None) or []):
        given = str(item["name"])
        table_name, table = _table(item, f"schema[{index}]", name, servers, connection, made)
        if freshness := fresh.pop(table_name, None) or fresh.pop(given, None):
            table.setdefault("freshness", freshness)
        _must_be_new(table_name, made.declaration["tables"], f"schema[{index}]", given)
        made.declaration["tables"][table_name] = table
    made.left_out += [f"slaProperties: freshness of {element}" for element in fresh]
    made.left_out += _leaves(rest)
    if not made.declaration["tables"]:
        raise SluiceError("the contract has no schema, so that there is no table to declare; nothing was written")
    return made


_OBJECTS = ("schema", "servers", "slaProperties", "properties", "quality")  # lists of them
_OBJECT = ("arguments", "logicalTypeOptions")


def _must_be_well_formed(contract: Tree) -> None:
    """Refuse what the standard has otherwise, where it is read here: with the path of the part, before any of it is."""
    if not (contract.get("name") or contract.get("id")):
        raise SluiceError(
            "the contract has neither name nor id, so that the source would have none; nothing was written"
        )
    team = contract.get("team")
    if not isinstance(team.get("members") if isinstance(team, dict) else team, list | None):
        raise _malformed("team", "an object with a list of members, or a list of them")
    _must_have_shape(contract, "")
    for index, item in enumerate(contract.get("schema") or []):
        _must_have_shape(item, f"schema[{index}].", is_named=True)
        for number, part in enumerate(item.get("properties") or []):
            where = f"schema[{index}].properties[{number}]."
            _must_have_shape(part, where, is_named=True)
            for at, rule in enumerate(part.get("quality") or []):
                _must_have_shape(rule, f"{where}quality[{at}].")


def _must_have_shape(part: Tree, where: str, *, is_named: bool = False) -> None:
    if is_named and part.get("name") in (None, ""):
        raise _malformed(f"{where}name", "there: without it nobody can say what the part is")
    for name in _OBJECTS:
        given = part.get(name)
        if given is not None and not (isinstance(given, list) and all(isinstance(item, dict) for item in given)):
            raise _malformed(f"{where}{name}", "a list of objects")
    for name in _OBJECT:
        if not isinstance(part.get(name), dict | None):
            raise _malformed(f"{where}{name}", "an object")
    custom = part.get("customProperties")
    for item in custom if isinstance(custom, list) else []:
        if isinstance(item, dict) and item.get("property") == _OURS and not isinstance(item.get("value"), dict):
            raise _malformed(f"{where}customProperties: {_OURS}.value", "an object, as our export writes it")


def _malformed(where: str, wanted: str) -> SluiceError:
    return SluiceError(f"{where} of the contract must be {wanted}; nothing was written. Correct it, then import again")


def _must_be_new(name: str, known: Tree, where: str, given: str) -> None:
    """Two names that differ by their letters' case only, or by signs, would become one, and one of the two be lost."""
    if name in known:
        raise SluiceError(
            f"{where}: {given} becomes {name} here, and so does another name before it; nothing was written. Give one "
            "of the two another name, and its own as physicalName"
        )


def _take_ours(part: Tree) -> Tree:
    """What an export of ours put into the custom properties of a part."""
    custom = part.get("customProperties") or []
    own = next((item for item in custom if isinstance(item, dict) and item.get("property") == _OURS), None)
    if own is None:
        return {}
    custom.remove(own)
    if not custom:
        del part["customProperties"]
    return dict(own["value"])


def _peek_ours(part: Tree) -> Tree:
    return _take_ours(copy.deepcopy(part))


def _plain_name(text: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text).lower()).strip("_")[:48]
    return plain if plain[:1].isalpha() else f"c_{plain}"


def _description(rest: Tree) -> str:
    given = rest.get("description")
    if isinstance(given, str):
        return str(rest.pop("description"))
    if not isinstance(given, dict):
        return ""
    said = {part: str(given.pop(part)) for part in ("purpose", "usage", "limitations") if given.get(part)}
    parts = [
        text if part == "purpose" else f"{part.capitalize()}: {text}"
        for part, text in said.items()
        if text.strip(" .").lower() not in _NOTHING
    ]
    return parts[0] if len(parts) == 1 else " ".join(f"{text.strip().rstrip('.')}." for text in parts)


def _owner(rest: Tree, made: Imported) -> str:
    team = rest.get("team")
    if isinstance(team, dict) and team.get("name"):
        return str(team.pop("name"))
    members = team if isinstance(team, list) else (team or {}).get("members") or []
    for member in members:
        if isinstance(member, dict) and (member.get("username") or member.get("name")):
            return str(member.pop("username", None) or member.pop("name"))
    made.assumed.append("owner unknown: the contract names no team")
    return "unknown"


def _service_levels(rest: Tree, made: Imported) -> dict[str, str]:
    """Takes the schedule, and returns the freshness by the name of its element."""
    fresh, others = {}, []
    for level in rest.pop("slaProperties", None) or []:
        kind, unit = level.get("property"), _UNITS.get(str(level.get("unit", "")).rstrip("s") or "s")
        if kind == "frequency" and level.get("scheduler") == "cron" and level.get("schedule"):
            made.declaration["schedule"] = level["schedule"]
        elif (
            kind in ("freshness", "latency") and unit and str(level.get("value", "")).isdigit() and level.get("element")
        ):
            fresh[str(level["element"]).split(".")[0]] = f"{level['value']}{unit}"
        else:
            others.append(level)
    if others:
        rest["slaProperties"] = others
    return fresh


def _table(
    item: Tree, where: str, source: str, servers: list[Tree], connection: str, made: Imported
) -> tuple[str, Tree]:
    given = str(item.pop("name"))
    name = _plain_name(given)
    own, physical = _take_ours(item), item.pop("physicalName", None)
    for known in ("logicalType", "physicalType"):
        item.pop(known, None)
    table: Tree = {"description": item.pop("description", None) or f"{given}, from a data contract."}
    if "from" not in own:
        table["from"] = _origin(name, physical, servers, connection or source, made)
        table["mode"] = "full"
        made.assumed.append(f"{name}: mode full, since a contract does not say how a table is read")
    positions: dict[str, int] = {}
    columns: Tree = {}
    for index, part in enumerate(item.pop("properties", None) or []):
        theirs, place = str(part["name"]), f"{where}.properties[{index}]"
        column, rules = _column(part, place, positions, made)
        _must_be_new(column, columns, place, theirs)
        columns[column] = rules
    if not positions:
        raise SluiceError(
            f"{given} has no property with primaryKey: true, and without a key nobody can tell one row from another; "
            "nothing was written. Name the key in the contract"
        )
    table["key"] = sorted(positions, key=lambda column: positions[column])
    made.left_out += _leaves(item, where)
    return name, table | own | {"columns": columns}


def _origin(name: str, physical: Any, servers: list[Tree], fallback: str, made: Imported) -> Tree:
    """Where a foreign contract says that the data is; its address belongs into the connection."""
    server = servers[0] if servers else {}
    connection = _plain_name(str(server.get("server") or fallback))
    kind = str(server.get("type", ""))
    if kind in ("postgres", "postgresql"):
        schema = server.get("schema") or "public"
        relation = str(physical or name)
        origin: Tree = {
            "postgres": {"connection": connection, "table": relation if "." in relation else f"{schema}.{relation}"}
        }
    elif kind == "api":
        origin = {"rest": {"connection": connection, "path": f"/{physical or name}"}}
    else:
        format = "jsonl" if "json" in str(server.get("format", "")) else "csv"
        path = str(server.get("path") or server.get("location") or f"{physical or name}.{format}").rsplit("/", 1)[-1]
        origin = {"files": {"connection": connection, "path": path, "format": format}}
    made.assumed.append(
        f"{name}: read from the connection {connection} ({next(iter(origin))}); set it, and check the path"
    )
    return origin


def _column(part: Tree, where: str, positions: dict[str, int], made: Imported) -> tuple[str, Tree]:
    given = str(part.pop("name"))
    name, own = _plain_name(given), _take_ours(part)
    rules: Tree = {"type": _type(part, where, made)}
    source = part.pop("physicalName", None) or given
    if source != name:
        rules["field"] = source
    for known in ("required", "description"):
        if part.get(known):
            rules[known] = part.pop(known)
        part.pop(known, None)
    if part.pop("primaryKey", False):
        at = part.pop("primaryKeyPosition", -1)
        positions[name] = at if isinstance(at, int) and at > 0 else 1000 + len(positions)
        part.pop("unique", None)
    part.pop("primaryKeyPosition", None)
    if str(part.get("classification", "")).lower() in ("personal", "pii", "personal data", "sensitive personal"):
        del part["classification"]
        rules["personal"] = True
    options = part.get("logicalTypeOptions") or {}
    numeric = rules["type"].startswith(("numeric", "bigint", "integer", "smallint", "real", "double"))
    for known in ("minimum", "maximum") if numeric else ("pattern",):
        if known in options:
            rules[known] = options.pop(known)
    _quality(part, rules)
    for known in ("required", "unique", "partitioned"):  # false is what we take for granted
        if part.get(known) is False:
            del part[known]
    made.left_out += _leaves(part, where)
    return name, rules | own


def _type(part: Tree, where: str, made: Imported) -> str:
    physical, logical = str(part.pop("physicalType", "")).strip(), part.pop("logicalType", None)
    plain = re.sub(r"^(var)?char(acter)?( varying)?|^string|^nvarchar2?|^citext", "text", physical.lower())
    plain = (
        plain.split("(")[0]
        if plain.startswith("text")
        else _SYNONYMS.get(plain, plain).replace("decimal", "numeric", 1)
    )
    if plain == "text" and "(" in physical:
        made.left_out.append(f"{where}.physicalType: {physical} (taken as text, of any length)")
    try:
        return TypeAdapter(ColumnType).validate_python(plain)
    except ValidationError:
        kind = _TYPES.get(str(logical), "text")
        if physical:
            made.left_out.append(f"{where}.physicalType: {physical} (taken as {kind})")
        return kind


def _quality(part: Tree, rules: Tree) -> None:
    """Takes the rules that a contract of ours can hold; the others stay, and are said to be left out."""
    others = []
    for rule in part.pop("quality", None) or []:
        metric = rule.get("metric") or rule.get("rule")
        arguments = rule.get("arguments") or {}
        values = arguments.get("validValues") or rule.get("validValues")
        must_be_none = rule.get("mustBe") in (0, None)
        if metric in ("invalidValues", "validValues") and must_be_none and isinstance(values, list):
            rules["accepted"] = [str(value) for value in values]
        elif metric == "invalidValues" and must_be_none and arguments.get("pattern"):
            rules["pattern"] = arguments["pattern"]
        elif (
            metric in ("nullValues", "missingValues", "nullCheck") and must_be_none and "missingValues" not in arguments
        ):
            rules["required"] = True
        else:
            others.append(rule)
    if others:
        part["quality"] = others


def _leaves(rest: Any, where: str = "") -> list[str]:
    """What is left of a contract, by the path of each part that says something."""
    if isinstance(rest, dict):
        paths = [_leaves(value, f"{where}.{name}".lstrip(".")) for name, value in rest.items()]
        return [path for some in paths for path in some]
    if rest in (None, "", [], {}):
        return []
    if isinstance(rest, list) and all(isinstance(item, dict) for item in rest):
        named = [
            str(next((item[word] for word in _NAMING if item.get(word)), index)) for index, item in enumerate(rest)
        ]
        return [f"{where}: {', '.join(named)}"]
    return [where]
