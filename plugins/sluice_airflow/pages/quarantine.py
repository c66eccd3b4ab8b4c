"""Rejected rows: the same calls as `sluice quarantine`, with the viewer's name on what was decided."""

from datetime import UTC, datetime

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from sluice.loading import quarantine, replay
from sluice.loading.quarantine import Masker, Rejected, Where
from sluice_airflow.pages.access import Viewer
from sluice_airflow.pages.common import Me, day_of, declared, number_of, page, require_read, token, visible
from sluice_airflow.pages.present import query

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_CHOICES = ("table", "code", "column", "batch", "since", "row")


@router.get("/quarantine")
def listing(
    request: Request, me: Me, table: str = "", code: str = "", column: str = "", batch: str = "", since: str = "",
    state: str = "open", rows: str = "", done: str = "",
) -> HTMLResponse:  # fmt: skip
    """Rejected rows by reason, and the rows themselves once few enough reasons are chosen."""
    where = where_of(me, table, code, column, batch, since, state)
    groups = quarantine.groups(where, limit=200)
    shown = list(quarantine.rows(where, limit=50)) if groups and (code or batch or len(groups) == 1) else []
    chosen = {"table": table, "code": code, "column": column, "batch": batch, "since": since}
    masker = Masker()
    return page(
        request, "quarantine", me, title="Quarantine", groups=groups, where=where, name=table, since=day_of(since),
        rows=[(row, short(row, masker)) for row in shown], states=quarantine.STATES, token=token(request, me),
        chosen={name: value for name, value in chosen.items() if value},
        may_change=bool(where.source) and me.may_change(where.source),
        done=done if done in ("replayed", "discarded") else "", rows_done=number_of(rows) if done else None,
    )  # fmt: skip


@router.get("/quarantine/{quarantine_id}")
def one(request: Request, me: Me, quarantine_id: int, personal: bool = False) -> HTMLResponse:
    """One row as it came, and a form to correct it."""
    row = quarantine.row(quarantine_id)
    require_read(me, row.source)
    may_see = me.may_see_personal(declared()[row.source])
    if personal and not may_see:
        raise HTTPException(403, "your role may not see personal values of this source")
    masker = Masker()
    fields = row.fields if personal else masker.fields(row)
    contract = declared()[row.source].tables.get(row.table_name)
    column = contract.columns.get(row.column_name or "") if contract else None
    return page(
        request, "row", me, title=f"Row {quarantine_id}", row=row, fields=fields, personal=personal, may_see=may_see,
        raw=row.raw if personal else masker.raw(row), key=row.key if personal else masker.key(row),
        masked=quarantine.MASK in (*(fields or {}).values(), masker.raw(row)),
        wrong_field=(column.field if column else None) or row.column_name, may_change=me.may_change(row.source),
        token=token(request, me),
    )  # fmt: skip


@router.post("/quarantine/settle")
async def settle(request: Request, me: Me) -> Response:
    """Rehearse, or do, a replay or a discard of open rows of one table or source."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    request.app.state.tokens.check(request, me.name, form.get("token"))
    return await run_in_threadpool(_settle, request, me, form)


def _settle(request: Request, me: Viewer, form: dict[str, str]) -> Response:
    chosen = {name: form[name] for name in _CHOICES if form.get(name)}
    given = {name.removeprefix("set:"): value for name, value in form.items() if name.startswith("set:")}
    where = where_of(
        me, chosen.get("table", ""), chosen.get("code", ""), chosen.get("column", ""), chosen.get("batch", ""),
        chosen.get("since", ""), "open", chosen.get("row", ""),
    )  # fmt: skip
    require_change(me, where)
    corrections = corrections_of(where, given)
    rehearse, act = form.get("act", "").startswith("rehearse "), form.get("act", "").removeprefix("rehearse ")
    if act not in ("replay", "discard"):
        raise HTTPException(404, "a form says whether to replay or to discard; nothing was changed")
    reason = form.get("reason", "").strip()
    if not rehearse and not reason:
        raise HTTPException(409, "say why; nothing was changed")
    results: list[replay.Replayed] = []
    if act == "replay":
        results = replay.replay(where, by=me.name, reason=reason, corrections=corrections, rehearse=rehearse)
        rows = sum(result.passed for result in results)
    else:
        rows = quarantine.discard(where, by=me.name, reason=reason or "a rehearsal", rehearse=rehearse).rows
    if rehearse:
        return page(
            request, "settle", me, title="Rehearsal", act=act, chosen=chosen, corrections=given, results=results,
            passed=rows, token=token(request, me),
        )  # fmt: skip
    done = "replayed" if act == "replay" else "discarded"
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/quarantine{query(table=chosen['table'], done=done, rows=rows)}", 303)


def where_of(
    me: Viewer, table: str, code: str, column: str, batch: str, since: str, state: str, row: str = ""
) -> Where:
    """Which rows a form means, of those that the viewer may see."""
    source, _, name = table.partition(".")
    if source:
        require_read(me, source)
    day = day_of(since)
    number = number_of(row)
    return Where(
        source, name, code, column, state, number_of(batch), day and datetime(day.year, day.month, day.day, tzinfo=UTC),
        None if number is None else (number,), tuple(visible(me)),
    )  # fmt: skip


def require_change(me: Viewer, where: Where) -> None:
    """403 unless the viewer may change the source; which one it is must be said."""
    if not where.source:
        raise HTTPException(404, "choose a source or a table first; nothing was changed")
    if not me.may_change(where.source):
        raise HTTPException(403, f"that takes the right to run ingest_{where.source}; nothing was changed")


def corrections_of(where: Where, given: dict[str, str]) -> replay.Corrections:
    """The fields of one row that a form brings back; the engine finds those that differ from what came."""
    if not given or not where.ids:
        return replay.NOTHING
    return replay.Corrections({}, {where.ids[0]: dict(given)})


def short(row: Rejected, masker: Masker) -> str:
    """What came, in one line, masked."""
    fields = masker.fields(row)
    if fields is None:
        return (masker.raw(row) or "")[:200]
    return ", ".join(f"{name}={value}" for name, value in fields.items() if value is not None)[:200]
