"""What the routes share: the viewer, what they may see, and a page drawn from a template."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse

from sluice import settings
from sluice.declarations import Source, load_folder
from sluice.reports.board import Place
from sluice.reports.project import Project, read_project
from sluice_airflow.pages import present
from sluice_airflow.pages.access import Viewer

NAVIGATION = (
    ("/", "Board"),
    ("/batches", "Batches"),
    ("/quarantine", "Quarantine"),
    ("/lineage", "Lineage"),
    ("/catalogue", "Catalogue"),
    ("/cost", "Cost"),
)
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    auto_reload=False,
)
_templates.globals.update(
    navigation=NAVIGATION, count=present.count, span=present.span, size=present.size, stamp=present.stamp,
    share=present.share, line=present.line, bars=present.bars, histogram=present.histogram, value=present.value,
    query=present.query, place=Place,
)  # fmt: skip


async def signed_in(request: Request) -> Viewer:
    """Whoever asks; 401 if nobody has signed in."""
    return await request.app.state.access(request)  # type: ignore[no-any-return]


Me = Annotated[Viewer, Depends(signed_in)]


def declared() -> dict[str, Source]:
    """The declared sources; a file is read again when it changed."""
    return load_folder(settings.sources_dir()).sources


def project() -> Project:
    """The dbt project as the last manifest has it."""
    return read_project()


def visible(viewer: Viewer) -> dict[str, Source]:
    """The declared sources that the viewer may look at."""
    return {name: source for name, source in declared().items() if viewer.may_read(name)}


def may_read_models(viewer: Viewer) -> Project:
    """The project, or an empty one for those who may not look at the warehouse."""
    return project() if viewer.may_read() else Project()


def require_models(viewer: Viewer) -> None:
    """403 for those who may not look at the warehouse."""
    if not viewer.may_read():
        raise HTTPException(403, "your role may not look at the warehouse")


def require_read(viewer: Viewer, source: str) -> None:
    """403 for a source that the viewer may not look at; the same for one that is not there."""
    if source not in declared() or not viewer.may_read(source):
        raise HTTPException(403, "your role may not look at this source")


def is_api(request: Request) -> bool:
    """Whether the answer is for a program."""
    return _own_path(request).startswith("/api/")


def page(
    request: Request, template: str, viewer: Viewer | None, status_code: int = 200, *, title: str, **values: Any
) -> HTMLResponse:
    """A template with links that hold wherever Airflow is mounted."""
    root = request.scope.get("root_path", "")
    base = root.rsplit("/", 1)[0]
    here = "/" + _own_path(request).lstrip("/").split("/")[0]
    moment = datetime.now(UTC)

    def ago(value: datetime | None) -> str:
        return "never" if value is None else f"{present.span(max((moment - value).total_seconds(), 0))} ago"

    html = _templates.get_template(f"{template}.html").render(
        title=title, viewer=viewer, here=here, ago=ago, url=lambda path: f"{root}{path}",
        airflow=lambda place: f"{base}{present.airflow_path(place)}", **values,
    )  # fmt: skip
    return HTMLResponse(html, status_code)


def token(request: Request, viewer: Viewer) -> str:
    """A token for a form on a page of this viewer."""
    return request.app.state.tokens.make(viewer.name)  # type: ignore[no-any-return]


def day_of(text: str) -> date | None:
    """A day as a form sends it; 404 where it is none."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise HTTPException(404, f"{text!r} is not a day, as in 2026-01-31") from None


def number_of(text: str) -> int | None:
    """A number as a form sends it; 404 where it is none."""
    if text and not (text.isdecimal() and len(text) < 19):
        raise HTTPException(404, f"{text!r} is not a number")
    return int(text) if text else None


def _own_path(request: Request) -> str:
    path, root = request.scope["path"], request.scope.get("root_path", "")
    return path.removeprefix(root) if root else path  # type: ignore[no-any-return]
