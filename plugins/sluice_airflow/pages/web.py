"""The pages that only show."""

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from sluice.loading.batch import STATES
from sluice.reports import board as boards
from sluice.reports import catalogue, flow
from sluice.reports import cost as costs
from sluice.reports import lineage as lineages
from sluice_airflow.pages.common import (
    Me,
    day_of,
    declared,
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
    """The graph: all tables, those around one, or all that a column feeds and is fed by."""
    require_models(me)
    found = lineages.read()
    traced, shown = None, None
    if found is not None and table:
        if table not in found.by_id:
            raise HTTPException(404, f"the lineage has no table {table}; it may be new: trigger the DAG operations")
        up, down = lineages.around(found, table)
        shown = {table, *up, *down}
        if column and (traced := lineages.trace(found, table, column)) is None:
            raise HTTPException(404, f"{table} has no column {column}")
    on_the_way = _by_table(traced) if traced else {}
    if traced:
        shown = {table, *on_the_way, *traced.exposures}
    tables = (
        []
        if found is None
        else [t for t in found.tables if (shown is None or t.id in shown) and q.lower() in t.id.lower()]
    )
    return page(
        request, "lineage", me, title="Lineage", lineage=found, tables=tables, layers=lineages.LAYERS, table=table,
        column=column, q=q, columns=on_the_way, chosen=found.by_id.get(table) if found else None,
        declared={f"staging.{each.log_name}" for source in declared().values() for each in source.tables.values()},
    )  # fmt: skip


def _by_table(traced: lineages.Traced) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {traced.table: [traced.column]}
    for key in (*traced.upstream, *traced.downstream):
        name, _, column = key.rpartition(".")
        found.setdefault(name, []).append(column)
    return found


@router.get("/catalogue")
def entries(request: Request, me: Me, q: str = "") -> HTMLResponse:
    """Every table."""
    found = catalogue.entries(visible(me).values(), may_read_models(me), search=q)
    return page(request, "catalogue", me, title="Catalogue", entries=found, q=q)


@router.get("/catalogue/{relation}")
def table(request: Request, me: Me, relation: str) -> HTMLResponse:
    """One table with its columns."""
    found = catalogue.table(relation, visible(me).values(), may_read_models(me))
    return page(request, "table", me, title=found.entry.name, table=found)


@router.get("/cost")
def cost(request: Request, me: Me) -> HTMLResponse:
    """What it takes."""
    return page(request, "cost", me, title="Cost", cost=costs.cost(may_read_models(me), visible(me).keys()))
