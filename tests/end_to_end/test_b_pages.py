"""The pipeline's own pages, in a real browser inside Airflow's web UI, over the running demo.

SLUICE_SCREENSHOTS=1 renews the pictures in docs/images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from sluice.runtime.secretstore import SecretStore
from tests.end_to_end.conftest import Running
from tests.end_to_end.test_a_web_ui import CHROMIUM, FLAGS, pictures  # noqa: F401

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]
EVIL = "<script>document.title='owned'</script>"
DECLARATION = f"""
source: desk
description: "A source that a test adds, and takes away again {EVIL}"
owner: tests
start: 2026-01-01
tables:
  notes:
    description: "One row per note {EVIL}"
    from: {{files: {{connection: shop_files, path: "desk/{{date}}.csv", format: csv}}}}
    mode: append
    key: [note_id]
    freshness: 2d
    columns:
      note_id: {{type: bigint, required: true, description: The note}}
      pages: {{type: integer, required: true, minimum: 1, description: How long it is}}
      author: {{type: text, personal: true, description: Who wrote it}}
      words: {{type: text, description: What it says}}
"""
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
PAGES = {
    "board": "",
    "batch": "batches/{batch}",
    "quarantine": "quarantine?table=shop.inventory",
    "lineage": "lineage?table=marts.fct_order&column=margin_amount_eur",
    "catalogue": "catalogue/marts.fct_order",
    "cost": "cost",
}


@pytest.fixture(scope="module")
def browser(running: Running) -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def signed_in(browser: object, running: Running, name: str) -> object:
    """A window in which this user of Airflow has signed in."""
    page = browser.new_page(viewport={"width": 1500, "height": 950})  # type: ignore[attr-defined]
    page.goto(running.web_url)
    page.locator("input[name=username]").fill(name)
    page.locator("input[type=password]").fill(SecretStore(running.state).get(f"airflow_{name}"))
    page.keyboard.press("Enter")
    page.get_by_text("Health").first.wait_for(timeout=60_000)
    page.wait_for_load_state("networkidle")
    return page


@pytest.fixture(scope="module")
def admin(browser: object, running: Running) -> object:
    return signed_in(browser, running, "admin")


@pytest.fixture(scope="module")
def broken(running: Running) -> Iterator[str]:
    """A table of which one row in two hundred breaks its contract; its rejected row has not been looked at."""
    declaration = Path(running.environment["SLUICE_SOURCES_DIR"]) / "desk.yml"
    folder = Path(running.written["SLUICE_SHOP_FILES"]) / "desk"
    folder.mkdir()
    rows = [f'{n},{n},author{n}@example.org,"words {EVIL}"' for n in range(1, 200)]
    (folder / "2026-01-02.csv").write_text(
        "\n".join(["note_id,pages,author,words", *rows, f'200,none,x@example.org,"{EVIL}"\n'])
    )
    declaration.write_text(DECLARATION)
    loaded = running.sluice("load", "desk")
    assert loaded.returncode == 0, loaded.stderr
    yield "desk.notes"
    declaration.unlink()


def test_a_broken_table_is_found_followed_to_its_cause_replayed_and_green_again(
    admin: object, running: Running, broken: str
) -> None:
    admin.goto(f"{running.web_url}/plugin/sluice")  # type: ignore[attr-defined]
    pages = admin.frame_locator("iframe")  # type: ignore[attr-defined]

    def state() -> str:
        pages.get_by_label("Name contains").fill(broken)
        pages.get_by_role("button", name="Filter").click()
        return pages.locator(f"tr[id='{broken}'] .tag").first.inner_text(timeout=30_000)

    assert "rows wait" in state()
    pages.locator(f"tr[id='{broken}']").get_by_role("link", name="1", exact=True).click()
    pages.get_by_role("link", name=re.compile("^TYPE")).click()
    pages.get_by_role("region", name="Rows").locator("tbody a").first.click()
    pages.get_by_text("pages is not of type integer").first.wait_for()
    assert pages.get_by_label("author").input_value() == "***"
    assert pages.get_by_label("words").input_value() == EVIL
    pages.get_by_label("pages", exact=True).fill("7")
    pages.get_by_role("button", name="Rehearse a replay of this row").click()
    assert running.query("select state from ops.quarantine where source = 'desk'") == [("open",)]
    pages.get_by_label("What was mended").fill("the author counted them")
    pages.get_by_role("button", name="Replay 1 row").click()
    pages.get_by_text("1 rows were replayed").wait_for()
    pages.get_by_role("link", name="Board").click()
    assert "fresh" in state()
    assert running.query("select state, state_by, state_reason from ops.quarantine where source = 'desk'") == [
        ("replayed", "admin", "the author counted them")
    ]
    assert running.query("select pages, author from staging.desk__notes where note_id = 200") == [(7, "x@example.org")]
    assert "owned" not in admin.title()  # type: ignore[attr-defined]


def test_a_link_into_airflow_opens_in_the_whole_window(admin: object, running: Running) -> None:
    admin.goto(f"{running.web_url}/plugin/sluice")  # type: ignore[attr-defined]
    admin.frame_locator("iframe").get_by_role("link", name="shop", exact=True).click()  # type: ignore[attr-defined]
    admin.wait_for_url("**/dags/ingest_shop**", timeout=30_000)  # type: ignore[attr-defined]


def test_each_page_is_there_in_airflows_theme(
    admin: object,
    running: Running,
    pictures: Path,  # noqa: F811
) -> None:
    batch = running.query("select max(batch_id) from ops.batch where table_name = 'order_lines' and rows_applied > 0")[
        0
    ][0]
    for theme in ("light", "dark"):
        admin.evaluate(f"localStorage.setItem('theme', '{theme}')")  # type: ignore[attr-defined]
        for name, path in PAGES.items():
            admin.goto(f"{running.web_url}/plugin/sluice/sluice/{path.format(batch=batch)}")  # type: ignore[attr-defined]
            frame = admin.frame_locator("iframe")  # type: ignore[attr-defined]
            frame.locator("main h1").wait_for(timeout=60_000)
            assert frame.locator("html").get_attribute("data-theme") == theme
            assert frame.locator("[role=alert]").count() == 0, name
            admin.wait_for_load_state("networkidle")  # type: ignore[attr-defined]
            shown = admin.frame(url=re.compile("//[^/]+/sluice/"))  # type: ignore[attr-defined]
            assert Axe().run(shown, options=WCAG).violations_count == 0, name
            admin.screenshot(path=pictures / f"page-{name}-{theme}.png")  # type: ignore[attr-defined]


def test_a_receiver_of_openlineage_hears_of_each_table_and_model_by_column(running: Running) -> None:
    """Of the first pass already, through the scheduler: what its tasks read and wrote."""
    told = {event["job"]["name"]: event for event in running.events if event["eventType"] == "COMPLETE"}

    def from_(job: str, column: str) -> list[tuple[str, str, str]]:
        fields = told[job]["outputs"][0]["facets"]["columnLineage"]["fields"]
        return [(each["namespace"], each["name"], each["field"]) for each in fields[column]["inputFields"]]

    assert from_("ingest_shop.orders.publish", "status") == [("sluice://shop", "orders", "status")]
    ((namespace, *column),) = from_("warehouse.marts.fct_order", "order_status")
    assert namespace.startswith("postgres://127.0.0.1:")
    assert column == ["warehouse.intermediate.int_shop__orders", "order_status"]
    assert len(from_("warehouse.snapshots.snap_shop__customers", "dbt_valid_from")) == 1


def test_what_operations_built_is_shown(running: Running, admin: object) -> None:
    traced = running.sluice("lineage", "shop.orders.status")
    assert "marts.fct_order.order_status" in traced.stdout, traced.stderr
    assert running.query("select count(*) > 50 from ops.column_profile") == [(True,)]
    assert running.query("select count(*) from ops.model_run where wal_bytes > 0")[0][0] > 0
    docs = admin.context.request.get(f"{running.web_url}/sluice/built/dbt-docs/")  # type: ignore[attr-defined]
    assert docs.status == 200
    assert "fct_order_line" in docs.text()


def test_a_signed_out_visitor_is_refused(running: Running) -> None:
    for path in ("", "batches", "quarantine/1", "built/dbt-docs/", "api/board"):
        assert httpx.get(f"{running.web_url}/sluice/{path}").status_code == 401, path


def test_a_viewer_looks_and_may_not_change_anything(browser: object, running: Running) -> None:
    viewer = signed_in(browser, running, "viewer")
    row = running.query(
        "select min(quarantine_id) from ops.quarantine where table_name = 'inventory' and state = 'open'"
    )[0][0]
    viewer.goto(f"{running.web_url}/plugin/sluice/sluice/quarantine/{row}")  # type: ignore[attr-defined]
    frame = viewer.frame_locator("iframe")  # type: ignore[attr-defined]
    frame.get_by_text("Your role may look").wait_for(timeout=30_000)
    assert frame.locator("main button").count() == 0
    token = frame.locator("input[name=token]").get_attribute("value")
    refused = viewer.context.request.post(  # type: ignore[attr-defined]
        f"{running.web_url}/sluice/quarantine/settle",
        form={"token": token, "table": "shop.inventory", "row": str(row), "reason": "x", "act": "discard"},
    )
    assert refused.status == 403
    assert running.query("select state from ops.quarantine where quarantine_id = %s", row) == [("open",)]
