"""The pages that only show."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from sluice.loading.batch import STATES
from sluice.reports import board as boards
from sluice.reports import flow
from sluice_airflow.pages.common import Me, day_of, may_read_models, number_of, page, require_read, visible

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def board(request: Request, me: Me, q: str = "", show: str = "") -> HTMLResponse:
    """The board."""
    sources, models = visible(me), may_read_models(me)
    if not sources and not models.nodes and not me.may_read():
        raise HTTPException(403, "your role may look neither at a source nor at the warehouse")
    found = boards.board(sources.values(), models)
    shown = {
        line.name
        for line in found.lines
        if q.lower() in line.name.lower() and (show != "attention" or line.tone in ("bad", "warn"))
    }
    return page(request, "board", me, title="Board", board=found, shown=shown, q=q, show=show)


@router.get("/batches")
def batches(
    request: Request, me: Me, table: str = "", state: str = "", day: str = "", before: str = ""
) -> HTMLResponse:
    """The latest batches, and the books of a table."""
    source, _, name = table.partition(".")
    if source:
        require_read(me, source)
    wanted = flow.Wanted(source, name, state, day_of(day), number_of(before), visible(me).keys())
    lines = flow.batches(wanted, limit=51)
    totals = flow.totals(source, name) if name else None
    return page(
        request, "batches", me, title="Batches", lines=lines[:50], totals=totals,
        older=lines[49].batch_id if len(lines) > 50 else None, name=table, state=state, states=STATES, day=day_of(day),
    )  # fmt: skip


@router.get("/batches/{batch_id}")
def batch(request: Request, me: Me, batch_id: int) -> HTMLResponse:
    """One batch as a flow."""
    found = flow.batch(batch_id, may_read_models(me))
    require_read(me, found.line.source)
    return page(request, "batch", me, title=f"Batch {batch_id}", batch=found)
