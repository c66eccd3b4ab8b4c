"""A profile as text: the table's part of a declaration, and its staging model, as people here write them."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from sluice.profiling.names import COUNT, MONEY, singular, spelt_out
from sluice.profiling.profile import TableProfile

SCHEMA_LINE = "# yaml-language-server: $schema=../../docs/reference/source.schema.json"
_WIDTH = 120
_TIMES = ("timestamptz", "timestamp")
_LOG = {
    "_batch_id": "bigint",
    "_row_number": "bigint",
    "_op": "text",
    "_effective_at": "timestamp with time zone",
    "_sequence": "bigint",
    "_row_hash": "uuid",
    "_rescued": "jsonb",
}


class _Flow(yaml.SafeDumper):
    """Quotes with the double quotes that people here write, and only where YAML needs them."""

    def choose_scalar_style(self) -> Any:
        style = super().choose_scalar_style()
        return '"' if style == "'" else style


def source_text(head: dict[str, Any], tables: str) -> str:
    """A whole declaration: the source's own fields, then `tables`, which is indented already."""
    fields = "\n".join(
        line
        for name, value in head.items()
        for line in (_mapping(name, value) if isinstance(value, dict) else _plain(name, value))
    )
    return f"{SCHEMA_LINE}\n{fields}\n\ntables:\n\n{tables}"


def declaration_text(declaration: dict[str, Any], remarks: list[str]) -> str:
    """A whole declaration from its plain values, with remarks at its head."""
    head = {name: value for name, value in declaration.items() if name != "tables"}
    lines = [line for remark in remarks for line in comment(remark)]
    for name, table in declaration["tables"].items():
        lines += ["", f"{name}:"]
        for field, value in table.items():
            if field == "columns":
                lines += ["  columns:", *(f"    {line}" for n, rules in value.items() for line in _mapping(n, rules))]
            else:
                lines += [
                    f"  {line}"
                    for line in (_mapping(field, value) if isinstance(value, dict) else _plain(field, value))
                ]
    return source_text(head, textwrap.indent("\n".join(lines).lstrip("\n"), "  ") + "\n")


def _plain(name: str, value: Any) -> list[str]:
    line = f"{name}: {scalar(value)}"
    if len(line) <= _WIDTH + 20 or not isinstance(value, str):
        return [line]
    return [f"{name}: >-", *(f"  {part}" for part in textwrap.wrap(value, _WIDTH))]


def table_text(profile: TableProfile) -> str:
    """A table of a declaration, with what was assumed as comments; indented as it stands below `tables:`."""
    kind, origin = next(iter(profile.origin.items()))
    lines = [
        *comment(
            f"Written by `sluice source add` from {profile.seen} of {profile.where}. Read it through: the rules "
            "are guesses that this data bears out, and the descriptions only spell the names out."
        ),
        *(line for text in profile.assumed for line in comment(f"- {text}")),
        f"description: {scalar(profile.description)}",
        *_mapping("from", {kind: origin}),
        f"mode: {profile.mode}",
        f"key: [{', '.join(profile.key)}]",
        *(line for name, value in profile.more.items() for line in _mapping(name, value)),
        *([f"start: {profile.start}"] if profile.start and "rest" in profile.origin else []),
        "freshness: 2d",
        "columns:",
    ]
    for column in profile.columns:
        lines += [f"  {line}" for note in column.notes for line in comment(note)]
        lines += [f"  {line}" for line in _mapping(column.name, column.declared)]
    return textwrap.indent("\n".join([f"{profile.name}:", *(f"  {line}" for line in lines)]), "  ") + "\n"


def comment(text: str) -> list[str]:
    """A text as YAML comments."""
    return [
        f"# {line}" for line in textwrap.wrap(text, _WIDTH, subsequent_indent="  " if text.startswith("- ") else "")
    ]


def scalar(value: Any) -> str:
    """A value as YAML, in one line."""
    text = yaml.dump(value, Dumper=_Flow, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _mapping(name: str, value: dict[str, Any]) -> list[str]:
    """`name: {…}` in one line where that is readable, else each field on a line of its own."""
    line = f"{name}: {scalar(value)}"
    if len(line) <= _WIDTH + 20:
        return [line]
    lines = [f"{name}:"]
    for field, inner in value.items():
        if isinstance(inner, dict):
            lines += [f"  {part}" for part in _mapping(field, inner)]
        elif isinstance(inner, list | tuple) and len(scalar(inner)) > _WIDTH:
            lines += [f"  {field}:", *(f"    - {scalar(item)}" for item in inner)]
        elif isinstance(inner, str) and len(inner) > _WIDTH:
            lines += [f"  {field}: >-", *(f"    {part}" for part in textwrap.wrap(inner, _WIDTH))]
        else:
            lines.append(f"  {field}: {scalar(inner)}")
    return lines


# -- the staging model --------------------------------------------------------------------------------------


def staged_names(profile: TableProfile) -> dict[str, str]:
    """What each column is called in the staging model: a bare `id` says there whose it is."""
    entity = singular(profile.name)
    renamed = {"id": f"{entity}_id", "name": f"{entity}_name", "code": f"{entity}_code", "type": f"{entity}_type"}
    names = {column.name: column.name for column in profile.columns}
    taken = set(names)
    return {name: renamed[name] if name in renamed and renamed[name] not in taken else name for name in names}


def model_sql(source: str, profile: TableProfile) -> str:
    """The staging model: renames only, in sections."""
    staged = staged_names(profile)
    keys = [staged[name] for name in profile.key]
    unique = f"'{keys[0]}'" if len(keys) == 1 else f"[{', '.join(repr(key) for key in keys)}]"
    sections: dict[str, list[str]] = {"keys": [], "attributes": [], "measures": [], "times": []}
    for column in profile.columns:
        line = column.name if staged[column.name] == column.name else f"{column.name} as {staged[column.name]}"
        sections[_section(profile, column.name, column.type)].append(line)
    blocks = [
        f"    -- {name}\n" + "".join(f"    {line},\n" for line in lines) for name, lines in sections.items() if lines
    ]
    return (
        f"{{{{ config(unique_key={unique}) }}}}\n\nselect\n"
        + "\n".join(blocks)
        + "\n    -- the log\n    {{ log_columns() }}\n\n"
        + f"from {{{{ change_log(source('{source}', '{profile.name}')) }}}}\n"
    )


def _section(profile: TableProfile, name: str, kind: str) -> str:
    if name in profile.key or name.endswith(("_id", "_key")):
        return "keys"
    if kind in _TIMES:
        return "times"
    is_number = kind.startswith(("numeric", "integer", "bigint"))
    return "measures" if is_number and (MONEY.search(name) or COUNT.search(name)) else "attributes"


def model_yml(source: str, owner: str, profile: TableProfile) -> str:
    """The description of the staging model, in the order of its columns."""
    staged = staged_names(profile)
    lines = [
        "version: 2",
        "",
        "models:",
        f"  - name: stg_{source}__{profile.name}",
        "    description: >-",
        *textwrap.wrap(
            f"One row per version of a {spelt_out(singular(profile.name)).lower()} that {source} has shown.",
            _WIDTH,
            initial_indent="      ",
            subsequent_indent="      ",
        ),
        "    config:",
        "      meta:",
        f"        owner: {scalar(owner)}",
        "    columns:",
    ]
    for column in profile.columns:
        lines += [
            f"      - name: {staged[column.name]}",
            f"        data_type: {_dbt_type(column.type)}",
            *_described(str(column.declared["description"])),
        ]
        if column.name in profile.key:
            lines += [
                "        data_tests:",
                "          - not_null:",
                "              config: {severity: error}",
            ]
    for name, kind in _LOG.items():
        lines += [
            f"      - name: {name}",
            f"        data_type: {kind}",
            f"        description: \"{{{{ doc('log{name}') }}}}\"",
        ]
    return "\n".join(lines) + "\n"


def _described(text: str) -> list[str]:
    sentence = text if text.endswith((".", "!", "?")) else f"{text}."
    sentence = sentence.replace("{{", "{ {").replace("{%", "{ %")  # a description is a template to dbt
    if len(sentence) > _WIDTH:
        return ["        description: >-", *(f"          {part}" for part in textwrap.wrap(sentence, _WIDTH))]
    return [f"        description: {scalar(sentence)}"]


def _dbt_type(kind: str) -> str:
    return {
        "timestamptz": "timestamp with time zone",
        "timestamp": "timestamp without time zone",
        "time": "time without time zone",
    }.get(kind, kind)
