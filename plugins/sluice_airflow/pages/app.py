"""The application: who may come in, what is served where, and what is said when something fails."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.staticfiles import StaticFiles

from sluice.errors import SluiceError
from sluice_airflow.pages import api, files, quarantine, web
from sluice_airflow.pages.access import Access
from sluice_airflow.pages.common import declared, is_api, page, project
from sluice_airflow.pages.guard import Headers, Tokens

log = logging.getLogger("sluice.pages")
_HERE = Path(__file__).parent


def create_app(access: Access, secret: str, *, sign_in: str = "/auth/login") -> FastAPI:
    """The pages for those whom `access` lets in. All workers share `secret`; `sign_in` is where others are sent."""
    app = FastAPI(
        title="Sluice",
        description="All that the pages show, as JSON. For signed-in users: a session cookie or a bearer token.",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # served by api.py, to those who are signed in
        lifespan=_warmed,
    )
    app.state.access, app.state.tokens, app.state.sign_in = access, Tokens(secret), sign_in
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    for part in (api.router, web.router, quarantine.router, files.router):
        app.include_router(part)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(SluiceError, _mistaken)
    app.add_exception_handler(psycopg.Error, _unreachable)
    app.add_middleware(Headers)
    return app


@asynccontextmanager
async def _warmed(app: FastAPI) -> AsyncIterator[None]:
    """Read manifest and declarations beside the start, so that the first visitor does not wait for them."""
    threading.Thread(target=_warm, name="sluice-pages", daemon=True).start()
    yield


def _warm() -> None:
    try:
        declared()
        project()
    except Exception as error:
        log.warning("the pages could not read their artefacts yet: %s", error)


async def _refused(request: Request, error: HTTPException) -> Response:
    if is_api(request):
        return JSONResponse({"detail": error.detail}, error.status_code)
    title, todo = {
        401: ("Please sign in", "These pages are for users of this Airflow."),
        403: ("Not allowed", "Ask an administrator of this Airflow for the right, or go back."),
        404: ("Not found", "Check the address, or begin at the board."),
    }.get(error.status_code, ("This did not work", "Go back and try again."))
    sign_in = request.app.state.sign_in if error.status_code == 401 else None
    return page(
        request, "error", None, error.status_code, title=title, what=str(error.detail), todo=todo, sign_in=sign_in
    )


async def _mistaken(request: Request, error: SluiceError) -> Response:
    if is_api(request):
        return JSONResponse({"detail": str(error)}, 409 if request.method == "POST" else 404)
    if request.method != "POST":
        return await _refused(request, HTTPException(404, str(error)))
    return page(
        request, "error", None, 409, title="This can't be done", what=str(error), todo="Go back, and try otherwise."
    )


async def _unreachable(request: Request, error: psycopg.Error) -> Response:
    """The text of the server may hold values: it goes to the log as its kind only."""
    if isinstance(error, psycopg.DataError) and error.sqlstate is None:  # refused before it was sent
        return await _refused(request, HTTPException(404, "what was asked for holds a character that no text may have"))
    log.error("the warehouse did not answer %s: %s (%s)", request.url.path, type(error).__name__, error.sqlstate)
    what, todo = _told(error)
    if is_api(request):
        return JSONResponse({"detail": f"{what} {todo}"}, 503)
    return page(request, "error", None, 503, title="No answer from the warehouse", what=what, todo=todo)


def _told(error: psycopg.Error) -> tuple[str, str]:
    """What happened, and what to do."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "The warehouse took too long to answer.", "Try again; if it stays slow, narrow the filter."
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return (
            "The ledger is older than these pages.",
            "Bring it up to date: make run does, and so does the init container of a server.",
        )
    if isinstance(error, psycopg.OperationalError):
        return (
            "The warehouse can't be reached, so nothing can be said about the data.",
            "Is PostgreSQL running, and does the connection `warehouse` name it? Then load this page again.",
        )
    return (
        f"The warehouse refused a query of this page ({type(error).__name__}).",
        "That is a fault of the page: report it, with the address. The other pages are not touched by it.",
    )
