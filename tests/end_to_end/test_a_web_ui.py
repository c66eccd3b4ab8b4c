"""What a person sees in Airflow's own web UI, in a real browser. SLUICE_SCREENSHOTS=1 renews the pictures in
docs/images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Running

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def page(running: Running) -> Iterator[object]:
    """A signed-in page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.goto(running.web_url)
        page.locator("input[name=username]").fill("admin")
        page.locator("input[type=password]").fill(running.password)
        page.keyboard.press("Enter")
        page.get_by_text("Health").first.wait_for(timeout=60_000)
        page.wait_for_load_state("networkidle")
        yield page
        browser.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return ROOT / "docs" / "images" if os.environ.get("SLUICE_SCREENSHOTS") else tmp_path


def test_the_graph_of_the_warehouse_is_the_pipeline_on_a_whiteboard(
    page: object, running: Running, pictures: Path
) -> None:
    page.goto(f"{running.web_url}/dags/warehouse")  # type: ignore[attr-defined]
    page.get_by_label("Graph", exact=False).first.click(timeout=60_000)  # type: ignore[attr-defined]
    canvas = page.locator(".react-flow")  # type: ignore[attr-defined]
    canvas.get_by_text("gate_marts").first.wait_for(timeout=60_000)
    for layer in ("staging", "gate_staging", "snapshots", "gate_snapshots", "intermediate", "marts", "gate_marts"):
        assert canvas.get_by_text(layer, exact=True).count() >= 1, layer
    page.locator(".react-flow__controls-fitview").click()  # type: ignore[attr-defined]
    page.wait_for_timeout(1500)  # type: ignore[attr-defined]
    page.screenshot(path=pictures / "warehouse-graph.png")  # type: ignore[attr-defined]


def test_the_graph_of_an_ingest_dag_has_a_group_for_each_table(page: object, running: Running, pictures: Path) -> None:
    page.goto(f"{running.web_url}/dags/ingest_shop")  # type: ignore[attr-defined]
    canvas = page.locator(".react-flow")  # type: ignore[attr-defined]
    canvas.get_by_text("announce").first.wait_for(timeout=60_000)
    assert canvas.get_by_text("order_lines").count() >= 1
    page.locator(".react-flow__controls-fitview").click()  # type: ignore[attr-defined]
    page.wait_for_timeout(1500)  # type: ignore[attr-defined]
    page.screenshot(path=pictures / "ingest-graph.png")  # type: ignore[attr-defined]


def test_the_grid_shows_every_model_as_a_task(page: object, running: Running, pictures: Path) -> None:
    page.set_viewport_size({"width": 1500, "height": 1450})  # type: ignore[attr-defined]  # rows out of sight are not drawn
    page.goto(f"{running.web_url}/dags/warehouse")  # type: ignore[attr-defined]
    page.get_by_label("Grid", exact=False).first.click(timeout=60_000)  # type: ignore[attr-defined]
    page.get_by_text("gate_marts").first.wait_for(timeout=60_000)  # type: ignore[attr-defined]
    page.get_by_label("Expand all", exact=False).first.click()  # type: ignore[attr-defined]
    page.get_by_text("fct_order_line", exact=False).first.wait_for(timeout=60_000)  # type: ignore[attr-defined]
    page.wait_for_timeout(1500)  # type: ignore[attr-defined]
    page.screenshot(path=pictures / "warehouse-grid.png")  # type: ignore[attr-defined]
