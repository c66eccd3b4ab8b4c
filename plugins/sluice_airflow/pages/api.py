"""The same as JSON. `GET …/api/openapi.json` describes it."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import BaseModel, Field

from sluice.loading import quarantine, replay
from sluice.loading.quarantine import Masker
from sluice.reports import board as boards
from sluice.reports import catalogue as catalogues
from sluice.reports import cost as costs
from sluice.reports import flow
from sluice.reports import lineage as lineages
from sluice_airflow.pages.common import (
    Me,
    day_of,
    may_read_models,
    number_of,
    require_models,
    require_read,
    visible,
)  # fmt: skip
from sluice_airflow.pages.quarantine import require_change, where_of

router = APIRouter(prefix="/api", tags=["reports"])


@router.get("/openapi.json", include_in_schema=False)
def description(request: Request, me: Me) -> dict[str, Any]:
    """The OpenAPI description of what follows."""
    return request.app.openapi()  # type: ignore[no-any-return]


@router.get("/board")
def board(me: Me) -> boards.Board:
    """Every table: fresh or late, gate, rows, open quarantine, 30 days; and what is affected downstream."""
    return boards.board(visible(me).values(), may_read_models(me))


@router.get("/batches")
def batches(
    me: Me, table: str = "", state: str = "", day: str = "", before: str = "", limit: int = 50
) -> list[flow.BatchLine]:
    """Batches with their books, the latest first; `before` a batch id begins the next page."""
    source, _, name = table.partition(".")
    if source:
        require_read(me, source)
    wanted = flow.Wanted(source, name, state, day_of(day), number_of(before), visible(me).keys())
    return flow.batches(wanted, limit=max(1, min(limit, 500)))


@router.get("/batches/totals")
def totals(me: Me, table: str, days: int = 30) -> flow.Books:
    """The books of a table over all batches that were published in the last days."""
    source, _, name = table.partition(".")
    require_read(me, source)
    return flow.totals(source, name, days=max(1, min(days, 400)))


@router.get("/batches/{batch_id}")
def batch(me: Me, batch_id: int) -> flow.Batch:
    """One batch: books, checks, rejects, and the models that read it."""
    found = flow.batch(batch_id, may_read_models(me))
    require_read(me, found.line.source)
    return found


@router.get("/quarantine")
def groups(
    me: Me, table: str = "", code: str = "", column: str = "", batch: str = "", since: str = "", state: str = "open"
) -> list[quarantine.Group]:
    """Rejected rows counted by reason."""
    return quarantine.groups(where_of(me, table, code, column, batch, since, state), limit=500)


@router.get("/quarantine/rows")
def rows(
    me: Me, table: str = "", code: str = "", column: str = "", batch: str = "", since: str = "", state: str = "open",
    limit: int = 50,
) -> list[quarantine.Shown]:  # fmt: skip
    """The rows themselves; personal values are masked."""
    where, masker = where_of(me, table, code, column, batch, since, state), Masker()
    return [masker.row(row) for row in quarantine.rows(where, limit=max(1, min(limit, 500)))]


@router.get("/quarantine/{quarantine_id}")
def row(me: Me, quarantine_id: int) -> quarantine.Shown:
    """One row as it came, masked."""
    found = quarantine.row(quarantine_id)
    require_read(me, found.source)
    return Masker().row(found)


@router.get("/lineage")
def lineage(me: Me) -> lineages.Lineage:
    """Every table, and for each column what goes into it."""
    require_models(me)
    found = lineages.read()
    if found is None:
        raise HTTPException(404, "no lineage was built yet: trigger the DAG operations, or: sluice lineage --build")
    return found


@router.get("/lineage/{table}/{column:path}")
def column(me: Me, table: str, column: str) -> lineages.Traced:
    """All that goes into a column, and that it goes into; `table`: `shop.orders` at the source, else `schema.table`."""
    found = lineages.trace(lineage(me), table, column)
    if found is None:
        raise HTTPException(404, f"the lineage has no column {table}.{column}")
    return found


@router.get("/catalogue")
def entries(me: Me, q: str = "") -> list[catalogues.Entry]:
    """Every table whose name, description or a column has `q` in it."""
    return catalogues.entries(visible(me).values(), may_read_models(me), search=q)


@router.get("/catalogue/{relation}")
def table(me: Me, relation: str) -> catalogues.TableShown:
    """One table: columns, tests and last results, profiles."""
    return catalogues.table(relation, visible(me).values(), may_read_models(me))


@router.get("/cost")
def cost(me: Me) -> costs.Cost:
    """Time, rows, bytes and WAL per model and source, and what grows."""
    return costs.cost(may_read_models(me), visible(me).keys())


class Settle(BaseModel):
    """Which open rows, and what to do with them. Without `rehearse: false` it is only said what would happen."""

    table: str = Field(description="<source> or <source>.<table>")
    code: str = ""
    column: str = ""
    batch: int | None = None
    row: int | None = None
    corrections: dict[str, str | None] = Field(default_factory=dict, description="Fields of that one row")
    reason: str = ""
    rehearse: bool = True


Token = Annotated[str | None, Header(alias="x-csrf-token", description="With a session cookie: the token of a form")]


@router.post("/quarantine/replay")
def replay_rows(request: Request, me: Me, wanted: Settle, token: Token = None) -> list[replay.Replayed]:
    """Load open rows again, as `sluice quarantine replay` does."""
    where = _checked(request, me, wanted, token)
    given = (
        replay.Corrections({}, {wanted.row: wanted.corrections})
        if wanted.row and wanted.corrections
        else replay.NOTHING
    )
    return replay.replay(where, by=me.name, reason=wanted.reason, corrections=given, rehearse=wanted.rehearse)


@router.post("/quarantine/discard")
def discard_rows(request: Request, me: Me, wanted: Settle, token: Token = None) -> quarantine.Discarded:
    """Give open rows up, as `sluice quarantine discard` does."""
    where = _checked(request, me, wanted, token)
    return quarantine.discard(where, by=me.name, reason=wanted.reason or "a rehearsal", rehearse=wanted.rehearse)


def _checked(request: Request, me: Me, wanted: Settle, token: str | None) -> quarantine.Where:
    request.app.state.tokens.check(request, me.name, token)
    batch, row = (str(value) if value is not None else "" for value in (wanted.batch, wanted.row))
    where = where_of(me, wanted.table, wanted.code, wanted.column, batch, "", "open", row)
    require_change(me, where)
    if not wanted.rehearse and not wanted.reason.strip():
        raise HTTPException(409, "say why, in `reason`; nothing was changed")
    return where
