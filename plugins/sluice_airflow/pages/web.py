"""The pages that only show."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from sluice.loading.batch import STATES
from sluice.reports import board as boards
from sluice.reports import catalogue, flow
from sluice.reports import cost as costs
from sluice.reports import lineage as lineages
from sluice_airflow.pages import graph
from sluice_airflow.pages.common import (
    Me,
    day_of,
    may_read_models,
    number_of,
    page,
    require_models,
    require_read,
    visible,
)  # fmt: skip

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


@router.get("/lineage")
def lineage(request: Request, me: Me, table: str = "", column: str = "", q: str = "") -> HTMLResponse:
    """All tables by layer; or a drawing of what is around one, or of all that a column feeds and is fed by."""
    require_models(me)
    found = lineages.read()
    drawn, relation = None, ""
    if found is not None and table:
        if table not in found.by_id or found.by_id[table].layer == "exposure":
            raise HTTPException(404, f"the lineage has no table {table}; it may be new: trigger the DAG operations")
        drawn = graph.of_column(found, table, column) if column else graph.of_table(found, table)
        if drawn is None:
            raise HTTPException(404, f"{table} has no column {column}")
        relation = graph.relation_of(found, table)
    return page(
        request, "lineage", me, title="Lineage", lineage=found, drawn=drawn, table=table, column=column, q=q,
        tables=[each for each in found.tables if _has(each, q.lower())] if found and not drawn else [],
        layers=graph.HEADINGS.items(), chosen=found.by_id.get(table) if found else None, relation=relation,
    )  # fmt: skip


def _has(table: lineages.Tabled, text: str) -> bool:
    return any(text in name.lower() for name in (table.id, table.name, *table.columns))


@router.get("/catalogue")
def entries(request: Request, me: Me, q: str = "") -> HTMLResponse:
    """Every table."""
    found = catalogue.entries(visible(me).values(), may_read_models(me), search=q)
    return page(
        request, "catalogue", me, title="Catalogue", entries=found, q=q, layers=reversed(graph.HEADINGS.items())
    )


@router.get("/catalogue/{relation}")
def table(request: Request, me: Me, relation: str) -> HTMLResponse:
    """One table with its columns."""
    found = catalogue.table(relation, visible(me).values(), may_read_models(me))
    return page(request, "table", me, title=found.entry.name, table=found)


@router.get("/cost")
def cost(request: Request, me: Me) -> HTMLResponse:
    """What it takes."""
    return page(request, "cost", me, title="Cost", cost=costs.cost(may_read_models(me), visible(me).keys()))
