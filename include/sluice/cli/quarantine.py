"""`sluice quarantine`: rejected rows, why, and the two ways out: replay and discard."""

from __future__ import annotations

import csv
import getpass
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from sluice.cli.common import Json, must_be_known, print_json, show
from sluice.errors import SluiceError
from sluice.loading import quarantine, replay
from sluice.loading.quarantine import Masker, Rejected, Where

app = typer.Typer(
    no_args_is_help=True, help="Rows that broke their contract. Nothing is lost: each waits with its reason."
)

Name = Annotated[str, typer.Argument(help="<source> or <source>.<table>; without it, all")]
Code = Annotated[str, typer.Option(help="Only rows rejected for this, such as TYPE")]
ColumnName = Annotated[str, typer.Option("--column", help="Only rows rejected for this column")]
Batch = Annotated[int | None, typer.Option(help="Only rows of this batch")]
Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Only rows rejected since then (UTC)"),
]
Ids = Annotated[list[int] | None, typer.Option("--row", help="Only this row; may be given again")]
Personal = Annotated[bool, typer.Option("--personal", help="Show personal values too: mind who looks on")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, it is only said what would be done")]

_META = ("_quarantine_id", "_unit", "_row_number", "_column", "_code", "_reason", "_raw")


def _where(
    name: str,
    code: str,
    column: str,
    state: str,
    batch: int | None,
    since: datetime | None,
    ids: list[int] | None = None,
) -> Where:
    must_be_known(name)
    if state and state not in quarantine.STATES:
        raise typer.BadParameter(f"{state} is not a state of a rejected row; those are {', '.join(quarantine.STATES)}")
    source, _, table = name.partition(".")
    since = since.replace(tzinfo=UTC) if since else None
    return Where(source, table, code, column, state, batch, since, tuple(ids) if ids else None)


@app.command("list")
def list_rows(
    name: Name = "",
    code: Code = "",
    column: ColumnName = "",
    state: Annotated[str, typer.Option(help="open, replayed, discarded, superseded; empty for all")] = "open",
    batch: Batch = None,
    since: Since = None,
    rows: Annotated[bool, typer.Option("--rows", help="The rows themselves, not their counts")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write the rows to this .csv or .jsonl, to be corrected and replayed")
    ] = None,
    personal: Personal = False,
    limit: Annotated[int, typer.Option(min=1, help="How many groups or rows to print")] = 30,
    as_json: Json = False,
) -> None:
    """Rejected rows counted by what is wrong with them; with --rows or --export the rows."""
    where = _where(name, code, column, state, batch, since)
    if export:
        _export(where, export, personal)
    elif as_json:
        found = quarantine.rows(where, limit=limit) if rows else quarantine.groups(where, limit=limit)
        masker = Masker()
        print_json([asdict(masker.row(each) if isinstance(each, Rejected) else each) for each in found])
    elif rows:
        masker = Masker()
        show(
            ["row", "table", "unit", "number", "code", "column", "state", "what came"],
            [
                [
                    r.quarantine_id,
                    f"{r.source}.{r.table_name}",
                    r.unit,
                    r.row_number,
                    r.code,
                    r.column_name,
                    r.state,
                    _short(r, None if personal else masker),
                ]
                for r in quarantine.rows(where, limit=limit)
            ],
            empty="no row matches",
        )
    else:
        found = quarantine.groups(where, limit=limit)
        show(
            ["table", "code", "reason", "state", "rows", "first", "latest"],
            [
                [f"{g.source}.{g.table_name}", g.code, g.reason, g.state, g.rows, g.first_id, f"{g.latest:%F %T}"]
                for g in found
            ],
            empty="quarantine is empty" if not where.narrows else "no row matches",
        )


@app.command("show")
def show_row(
    quarantine_id: Annotated[int, typer.Argument(help="As `sluice quarantine list` names it")],
    personal: Personal = False,
    as_json: Json = False,
) -> None:
    """One row as it came, with its place in its unit and what was done about it. As JSON it is always masked."""
    row = quarantine.row(quarantine_id)
    masker = Masker()
    if as_json:
        print_json(asdict(masker.row(row)))
        return
    fields = row.fields if personal else masker.fields(row)
    facts: list[tuple[str, Any]] = [
        ("table", f"{row.source}.{row.table_name}"),
        ("batch", row.batch_id),
        ("unit", row.unit),
        ("row", row.row_number),
        ("key", row.key if personal else masker.key(row)),
        ("code", row.code),
        ("reason", row.reason),
        ("rejected", f"{row.created_at:%F %T}"),
        ("state", row.state),
        ("by", row.state_by),
        ("because", row.state_reason),
        ("at", row.state_at and f"{row.state_at:%F %T}"),
        ("now in", row.replayed_by and f"batch {row.replayed_by}"),
        ("raw", row.raw if personal and fields is None else masker.raw(row)),
    ]
    for what, value in facts:
        if value is not None:
            print(f"{what:10}{value}")
    for field, value in (fields or {}).items():
        print(f"  {field:24}{'(no value)' if value is None else value}")


@app.command("replay")
def replay_rows(
    name: Name = "",
    code: Code = "",
    column: ColumnName = "",
    batch: Batch = None,
    since: Since = None,
    row: Ids = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="column=value for every chosen row; without a value, NULL; may be given again"),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="Corrected rows: a .csv or .jsonl written by `list --export`")
    ] = None,
    reason: Annotated[str, typer.Option(help="What was mended; kept with each row")] = "",
    yes: Yes = False,
) -> None:
    """Load open rows after their contract was mended, or corrected. Says what would pass; --yes does it."""
    everywhere = dict(map(_assignment, set_ or []))
    each = _corrected(file) if file else {}
    where = _where(name, code, column, "open", batch, since, [*(row or []), *each] or None)
    if not where.narrows:
        raise typer.BadParameter(
            "say which rows: a source or table, --code, --column, --batch, --since, --row or --from"
        )
    if everywhere and where.ids is None and not (where.code and where.column):
        raise typer.BadParameter(
            "--set corrects every chosen row alike: choose them by --row, or by --code and --column"
        )
    if yes and not reason.strip():
        raise typer.BadParameter("--yes needs --reason: what was mended")
    results = replay.replay(
        where,
        by=getpass.getuser(),
        reason=reason,
        corrections=replay.Corrections(everywhere, each),
        rehearse=not yes,
    )
    show(
        ["table", "unit", "of batch", "into", "rows", "applied", "unchanged", "duplicate", "closed", "still open"],
        [
            [
                f"{r.source}.{r.table_name}",
                r.unit,
                r.batch_id,
                r.replay_batch or "-",
                r.asked,
                r.applied,
                r.unchanged,
                r.duplicate,
                r.deleted,
                r.asked - r.passed,
            ]
            for r in results
        ],
        empty="",
    )
    for r in results:
        for still in r.still:
            print(f"batch {r.batch_id}: {still.rows} stay open: {still.code}: {still.reason}")
        if r.note:
            print(f"batch {r.batch_id}: {r.note}")
    passed = sum(r.passed for r in results)
    if not yes and not passed:
        print("a rehearsal: no row would pass, so there is nothing to replay. Mend the contract, or correct the rows")
    elif not yes:
        print(f"a rehearsal: nothing was changed. {passed} rows would be replayed; to do it add --yes --reason …")
    elif not passed:
        raise SluiceError("no row passes; nothing was replayed")


@app.command("discard")
def discard_rows(
    name: Name = "",
    code: Code = "",
    column: ColumnName = "",
    batch: Batch = None,
    since: Since = None,
    row: Ids = None,
    reason: Annotated[str, typer.Option(help="Why these rows may be given up; kept with each")] = ...,  # type: ignore[assignment]
    yes: Yes = False,
) -> None:
    """Give open rows up. They stay readable, with your name and reason."""
    where = _where(name, code, column, "open", batch, since, row)
    if not where.narrows:
        raise typer.BadParameter("say which rows: a source or table, --code, --column, --batch, --since or --row")
    done = quarantine.discard(where, by=getpass.getuser(), reason=reason, rehearse=not yes)
    print(f"{done.rows} rows {'would be' if done.rehearsed else 'were'} discarded")
    if done.rehearsed:
        print("a rehearsal: nothing was changed; add --yes to do it")


def _short(row: Rejected, masker: Masker | None) -> str:
    fields = row.fields if masker is None else masker.fields(row)
    if fields is None:
        return ((row.raw if masker is None else masker.raw(row)) or "")[:200]
    return ", ".join(f"{name}={value}" for name, value in fields.items() if value is not None)[:200]


# -- files to correct ---------------------------------------------------------------------------


def _export(where: Where, path: Path, personal: bool) -> None:
    """One line per row: what came, by field, and beside it in `_…` columns which row it is and what is wrong with
    it."""
    if path.suffix not in (".csv", ".jsonl"):
        raise typer.BadParameter(f"{path} should end in .csv or .jsonl")
    masker, lines, fields = Masker(), [], dict[str, None]()
    for row in quarantine.rows(where):
        values = (row.fields if personal else masker.fields(row)) or {}
        raw = None if row.fields is not None else row.raw if personal else masker.raw(row)
        meta = (row.quarantine_id, row.unit, row.row_number, row.column_name, row.code, row.reason, raw)
        fields |= dict.fromkeys(values)
        lines.append(dict(zip(_META, meta, strict=True)) | values)
    path.touch(mode=0o600)  # what was rejected is nobody else's business
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            writer = csv.DictWriter(file, [*_META, *fields])
            writer.writeheader()
            writer.writerows(lines)
    print(f"{len(lines)} rows written to {path}. Correct the fields, then: sluice quarantine replay --from {path}")
    if not personal:
        print(f"{quarantine.MASK} stands for a personal value; left so, the value that came is kept", file=sys.stderr)


def _corrected(path: Path) -> dict[int, dict[str, str | None]]:
    """The corrections in an edited file: fields only, by the number of the row. In CSV an empty field is NULL."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = (
                [json.loads(line) for line in file if line.strip()]
                if path.suffix == ".jsonl"
                else list(csv.DictReader(file))
            )
        return {
            int(line["_quarantine_id"]): {name: _as_text(v) for name, v in line.items() if name not in _META}
            for line in lines
        }
    except OSError as error:
        raise SluiceError(f"{path} can't be read: {error.strerror}; nothing was replayed") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SluiceError(
            f"{path} is not a file that `sluice quarantine list --export` wrote: each line needs its _quarantine_id; "
            "nothing was replayed"
        ) from None


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _assignment(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--set wants column=value, not {text!r}")
    return name, value or None
