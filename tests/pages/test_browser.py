"""The pages in a real Chromium: by keyboard, with a checker of accessibility, and while the warehouse is slow."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe

from sluice.runtime.ports import free_port
from tests.pages.conftest import Company, access

pytestmark = pytest.mark.usefixtures("measured")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
PAGES = [
    "/",
    "/?show=attention",
    "/?q=no+such+table",
    "/batches",
    "/batches?table=shop.orders",
    "/batches/1",
    "/batches/2",
    "/batches/999999",
    "/quarantine",
    "/quarantine?table=shop.orders&code=TYPE",
    "/quarantine?code=FUTURE",
    "/quarantine/1",
    "/lineage",
    "/lineage?q=amount",
    "/lineage?table=marts.fct_order",
    "/lineage?table=shop.orders&column=amount",
    "/catalogue",
    "/catalogue/marts.fct_order",
    "/catalogue/staging.shop__orders",
    "/cost",
    "/docs/how-to/when-something-is-red.md",
]


@pytest.fixture(scope="module")
def address(company: Company) -> Iterator[str]:
    """A server of the pages."""
    from sluice_airflow.pages.app import create_app

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(access, "a secret"), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A window in which an admin has signed in."""
    context = browser.new_context(base_url=address, viewport={"width": 1400, "height": 900})
    context.add_cookies([{"name": "who", "value": "admin", "url": address}])
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def tab_to(page: Any, name: str) -> None:
    """Press Tab until the element of this accessible name has the focus, and can be seen to have it."""
    for _ in range(150):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const it = document.activeElement, drawn = it.querySelector("rect.hit");
                const labels = [...(it.labels ?? [])].map((label) => label.textContent).join(" ");
                const style = getComputedStyle(it);
                const text = (it.getAttribute("aria-label") ?? (labels || it.textContent)).trim();
                const seen = style.outlineStyle !== "none" || (drawn && getComputedStyle(drawn).stroke !== "none");
                return [text.replace(/\\s+/g, " "), seen];
            }"""
        )
        if found[0] == name:
            assert found[1], f"the focus on {name} can't be seen"
            return
    pytest.fail(f"Tab never came to {name}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_wcag_that_a_machine_can_check(page: Any, theme: str) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    page.goto("/")
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    for path in PAGES:
        page.goto(path)
        assert page.locator("html").get_attribute("data-theme") == theme
        assert page.title() != "owned", path
        for each in page.locator("details").all():
            each.evaluate("it => { it.open = true; }")
        for fault in Axe().run(page, options=WCAG).response["violations"]:
            nodes = [node["html"][:200] for node in fault["nodes"][:3]]
            faults.append(f"{path}: {fault['id']}: {fault['help']}: {nodes}")
    assert not faults, "\n".join(faults)


def test_a_rejected_row_is_found_mended_and_replayed_without_a_mouse(company: Company, page: Any) -> None:
    company.deliver(
        "orders_2026-03-01.csv", "order_id,customer_email,amount,note\n77,k@example.org,many,keys\n78,,1,\n"
    )
    row = company.query("select max(quarantine_id) from ops.quarantine where state = 'open'")[0][0]
    page.goto("/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Skip to the content
    assert page.evaluate("location.hash") == "#main"
    tab_to(page, "Name contains")
    page.keyboard.type("shop.orders")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=shop.orders**")
    waiting = page.locator("tr[id='shop.orders'] td.number a").inner_text()
    tab_to(page, waiting)
    page.keyboard.press("Enter")
    page.wait_for_url("**/quarantine?table=shop.orders")
    tab_to(page, "TYPE of shop.orders")
    page.keyboard.press("Enter")
    page.wait_for_url("**code=TYPE**")
    tab_to(page, str(row))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/quarantine/{row}")
    tab_to(page, "amount")
    page.keyboard.press("Control+A")
    page.keyboard.type("3.50")
    tab_to(page, "Rehearse a replay of this row")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Replay rows of shop.orders").wait_for()
    tab_to(page, "What was mended (kept with each row)")
    page.keyboard.type("read from the paper")
    tab_to(page, "Replay 1 row")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("1 rows were replayed").wait_for()
    assert company.query("select state_reason, corrected from ops.quarantine where quarantine_id = %s", row) == [
        ("read from the paper", {"amount": "3.50"})
    ]


def test_a_column_is_followed_through_the_drawing_by_keyboard(page: Any) -> None:
    page.goto("/lineage?table=shop.orders")
    tab_to(page, "column amount of shop.orders")
    page.keyboard.press("Enter")
    page.wait_for_url("**column=amount**")
    drawing = page.get_by_role("group", name="Lineage of shop.orders.amount")
    assert drawing.locator("path").count() == 4  # to the log, to staging, to the mart, to its dashboard
    assert drawing.locator("a[aria-current]").get_attribute("aria-label") == "column amount of shop.orders"
    tab_to(page, "column doubled_amount of fct_order")
    page.keyboard.press("Enter")
    page.wait_for_url("**table=marts.fct_order&column=doubled_amount")
    page.locator("summary").click()
    words = page.get_by_role("region", name="The same in words")
    assert words.get_by_role("row", name="marts.fct_order.doubled_amount staging.stg_shop__orders.order_amount").count()


_KEEP = """() => {
    const told = document.querySelector(".loading");
    new MutationObserver(() => sessionStorage.setItem("told", told.innerText)).observe(told, { attributes: true });
}"""


def test_while_a_page_is_slow_the_one_before_says_so_and_it_comes_or_says_why_not(
    company: Company, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.warehouse._READING_SECONDS", 3)
    page.goto("/catalogue")
    told = page.locator(".loading")
    assert not told.is_visible()
    with psycopg.connect(company.url) as other:
        other.execute("lock table ops.batch in access exclusive mode")
        page.evaluate(_KEEP)
        page.get_by_role("link", name="Batches", exact=True).click(no_wait_after=True)
        with psycopg.connect(company.url, autocommit=True) as third:
            while not third.execute("select 1 from pg_locks where not granted").fetchone():
                time.sleep(0.02)
        time.sleep(1)  # Playwright asks nothing of a page that is about to go
        other.rollback()
        page.get_by_role("heading", name="Where did the rows go?").wait_for()
        assert page.evaluate("sessionStorage.getItem('told')").startswith("Asking the warehouse")
        assert not told.is_visible()
        other.execute("lock table ops.batch in access exclusive mode")
        page.goto("/batches")
        assert "The warehouse took too long to answer." in page.get_by_role("alert").inner_text()
