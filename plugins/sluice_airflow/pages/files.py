"""Documents that the pipeline builds or brings: dbt docs, Great Expectations' Data Docs, our own docs and runbooks."""

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from markdown_it import MarkdownIt
from markupsafe import Markup

from sluice import settings
from sluice.reports import artefacts
from sluice_airflow.pages.common import Me, page
from sluice_airflow.pages.guard import DATA_DOCS, DOCUMENTS

router = APIRouter(include_in_schema=False)


@router.get("/built/data-docs/{path:path}", response_model=None)
def data_docs(me: Me, path: str = "") -> HTMLResponse:
    """Great Expectations' pages, from the ledger: workers share no disk. They need neither script nor network."""
    from sluice.gates import data_docs as pages
    from sluice.warehouse import reading

    if not me.may_read():
        raise HTTPException(403, "your role may not look at the warehouse")
    with reading() as connection:
        found = pages.one(connection, path or "index.html")
    if found is None:
        raise HTTPException(404, f"data-docs has no {path}. The index of /built/data-docs/ lists all pages")
    return HTMLResponse(found, headers={"content-security-policy": DATA_DOCS})


@router.get("/built/dbt-docs/", response_model=None)
def dbt_docs(me: Me) -> HTMLResponse:
    """dbt's docs as one page, in a sandbox of its own: its scripts can't act as the viewer."""
    if not me.may_read():
        raise HTTPException(403, "your role may not look at the warehouse")
    found = artefacts.read("dbt-docs")
    if found is None:
        raise HTTPException(404, "dbt docs are built every morning by the DAG operations; trigger it to have them now")
    return HTMLResponse(found, headers={"content-security-policy": DOCUMENTS})


@router.get("/runbooks/{name}")
def runbook(request: Request, me: Me, name: str) -> Response:
    """The page of an alert, or the general one where it has none."""
    found = inside(settings.home() / "docs" / "runbooks", f"{name}.md")
    path = f"runbooks/{name}.md" if found else "how-to/when-something-is-red.md"
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs/{path}", 303)


@router.get("/docs/{path:path}", response_model=None)
def document(request: Request, me: Me, path: str) -> Response | HTMLResponse:
    """A page of `docs/`, drawn from its Markdown. HTML inside stays text."""
    found = inside(settings.home() / "docs", path)
    if found is None or found.suffix not in (".md", ".png", ".svg"):
        raise HTTPException(404, f"docs has no {path}")
    if found.suffix != ".md":
        return FileResponse(found)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(found.read_text(encoding="utf-8"))
    return page(request, "document", me, title=found.stem, html=Markup(html))  # markdown-it has escaped it


def inside(root: Path, path: str) -> Path | None:
    """The file at `path` below `root`; None for what is not there or leads out of it."""
    try:
        found = (root / path).resolve(strict=True)
    except (OSError, ValueError):
        return None
    return found if found.is_file() and found.is_relative_to(root.resolve()) else None
