"""`sluice erase`: a person's values leave the warehouse; her key stays, as a pseudonym."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from sluice import settings
from sluice.cli.common import show
from sluice.declarations import load_folder


def erase(
    source: Annotated[str, typer.Argument(help="A declared source, such as shop")],
    person: Annotated[str, typer.Argument(help="<column>=<key>, such as customer_id=123")],
    reason: Annotated[str, typer.Option(help="Why, such as the number of the request; kept in ops.erasure")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what would be done")] = False,
) -> None:
    """Erase a person from change logs and quarantine; snapshots and marts follow in the next run of `warehouse`.

    Of every table of the source that has the column, personal values in her rows become NULL or `erased 1`, `erased 2`
    …; keys, times and all other values stay, and so does the shape of her history. Erase her in the source first: a
    later extract that still has her values brings them back.
    """
    from sluice.loading.erase import erase as run_erase

    column, separator, key = person.partition("=")
    if not (column and separator and key):
        raise typer.BadParameter(f"{person} is not <column>=<key>, such as customer_id=123")
    if not reason:
        raise typer.BadParameter("say why, with --reason")
    known = load_folder(settings.sources_dir()).sources
    if source not in known:
        raise typer.BadParameter(f"there is no source {source} that can be used; known: {', '.join(known) or 'none'}")
    done = run_erase(known[source], column, key, reason=reason, by=getpass.getuser(), rehearse=not yes)
    show(["relation", "rows"], list(done.rows.items()), empty=f"nothing left to erase where {column} is {key}")
    if done.rows and done.rehearsed:
        print("this was a rehearsal; nothing was erased. Do it with --yes")
    elif done.rows:
        print("erased. Snapshots and marts follow in the next run: airflow dags trigger warehouse; then: sluice verify")
