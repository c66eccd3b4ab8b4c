"""Great Expectations' Data Docs, one page per table, readable without a network and without a script.

Its pages take their style and scripts from half a dozen public hosts; ours carry a short style themselves. No value of
a row is in them: a column may speak of a person.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

_ELSEWHERE = re.compile(
    r"<script\b.*?</script\s*>|<link\b[^>]*>|<img\b[^>]*>|<noscript\b.*?</noscript\s*>"
    r"|<footer\b.*?</footer\s*>|<meta http-equiv[^>]*>",
    re.IGNORECASE | re.DOTALL,
)
_FETCHED = re.compile(r"@import[^;]*;|url\([^)]*\)", re.IGNORECASE)
_HANDLERS = re.compile(r"""\son\w+\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)
_VALUES = (  # what of a result shows values of rows
    "partial_unexpected_list",
    "partial_unexpected_counts",
    "partial_unexpected_index_list",
    "unexpected_list",
    "unexpected_index_list",
    "unexpected_index_query",
    "details",  # value counts, and the rows of a query
)
_STYLE = """<style>
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:1rem 2rem;color:#1b1f24;background:#fff}
h1,h2,h3,h4,h5{line-height:1.25;margin:1.4em 0 .4em}table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{border:1px solid #d0d7de;padding:.35rem .6rem;text-align:left;vertical-align:top}th{background:#f6f8fa}
ul{padding-left:1.2rem}a{color:#0b5fbd}.collapse{display:block}
nav,.navbar,footer,.cta-footer,.modal,button{display:none}
.text-success{color:#1a7f37}.text-danger{color:#c4262e}
.badge{border:1px solid #d0d7de;border-radius:4px;padding:0 .3rem}
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th{background:#161b22}a{color:#6cb2ff}
th,td,.badge{border-color:#3d444d}}</style>"""


def keep(
    connection: psycopg.Connection, layer: str, relation: str, run_id: str, results: Sequence[Any], *, passed: bool
) -> None:
    """Render the results of one table's suite, and keep the page in place of the one before."""
    connection.execute(
        """
        insert into ops.data_doc (layer, relation, run_id, passed, html) values (%s, %s, %s, %s, %s)
        on conflict (layer, relation) do update set run_id = excluded.run_id, passed = excluded.passed,
            html = excluded.html, written_at = clock_timestamp()
        """,
        [layer, relation, run_id, passed, page(relation, run_id, results)],
    )


def page(relation: str, run_id: str, results: Sequence[Any]) -> str:
    """One table's page, from Great Expectations' own renderer."""
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    for result in results:
        for name in _VALUES:
            (result.result or {}).pop(name, None)
    good = sum(bool(result.success) for result in results)
    whole = ExpectationSuiteValidationResult(
        success=good == len(results),
        results=list(results),
        suite_name=relation,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results) if results else None,
        },
        meta={"run_id": {"run_name": run_id, "run_time": datetime.now(UTC).isoformat()}},
    )
    return offline(DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(whole)))


def offline(text: str) -> str:
    """A page without anything that is fetched or run."""
    text = _HANDLERS.sub("", _FETCHED.sub("", _ELSEWHERE.sub("", text)))
    return text.replace("</head>", f"{_STYLE}</head>", 1) if "</head>" in text else _STYLE + text


def _name(layer: str, relation: str) -> str:
    return f"{layer}__{relation}.html"


def _index(connection: psycopg.Connection) -> str:
    """The page that leads to all others."""
    rows = connection.execute(
        "select layer, relation, run_id, passed, written_at from ops.data_doc order by 1, 2"
    ).fetchall()
    lines = "".join(
        f"<tr><td>{html.escape(layer)}</td><td><a href='{html.escape(_name(layer, relation))}'>"
        f"{html.escape(relation)}</a></td><td class='text-{'success' if passed else 'danger'}'>"
        f"{'passed' if passed else 'did not pass'}</td><td>{at:%Y-%m-%d %H:%M} UTC</td><td>{html.escape(run)}</td></tr>"
        for layer, relation, run, passed, at in rows
    )
    body = (
        f"<table><tr><th>layer</th><th>table</th><th>result</th><th>checked</th><th>run</th></tr>{lines}</table>"
        if rows
        else "<p>No suite has run yet. Pages appear after the first run of the warehouse.</p>"
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Data Docs</title>"
        f"{_STYLE}</head><body><h1>Data Docs</h1><p>What Great Expectations found when a table last changed. "
        f"All checks: <code>sluice gate show</code>.</p>{body}</body></html>"
    )


def one(connection: psycopg.Connection, name: str) -> str | None:
    """A page by the name of its file: `index.html`, or `<layer>__<relation>.html`. None where there is no such."""
    if name == "index.html":
        return _index(connection)
    layer, _, relation = name.removesuffix(".html").partition("__")
    row = connection.execute(
        "select html from ops.data_doc where layer = %s and relation = %s", [layer, relation]
    ).fetchone()
    return row[0] if row else None


def write(connection: psycopg.Connection, folder: Path) -> int:
    """Write all pages as files that a browser opens without a server. Returns how many, without the index."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = connection.execute("select layer, relation, html from ops.data_doc").fetchall()
    for layer, relation, text in rows:
        (folder / _name(layer, relation)).write_text(text, encoding="utf-8")
    (folder / "index.html").write_text(_index(connection), encoding="utf-8")
    return len(rows)
