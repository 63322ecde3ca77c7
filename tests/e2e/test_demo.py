"""A newcomer's first minutes: the demo, its result, and what other pages can go on with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import PATIENCE_MS, go, idle, press

from vlm_analysis import Edit, open_dialect


@pytest.fixture
def demo_done(new_page):
    """The Overview with the demo's result on it; the first test that needs it presses the button."""
    page = new_page("/")
    download = page.get_by_role("button", name="Download as HTML")
    if not download.first.is_visible():
        unload = page.get_by_text(re.compile("^Unload .* for the demo"))
        if unload.first.is_visible():  # a test before this one loaded a model of its own
            unload.click()
            idle(page)
        press(page, "Try the demo")
        page.get_by_text(re.compile("Demo: ")).first.wait_for()
        download.first.wait_for()
    idle(page)
    return page


def test_demo_button_leads_to_the_retention_curve(demo_done):
    page = demo_done
    page.get_by_text("Retention over the number of dropped layers").first.wait_for()
    curve = page.locator('[data-testid="stPlotlyChart"]').nth(3)
    curve.scroll_into_view_if_needed()
    curve.locator(".scatterlayer path.point").first.wait_for(state="attached")
    assert curve.locator(".scatterlayer path.point").count() > 16  # methods × budgets × domains
    assert re.search(r"Without \d+ of 16 layers", page.get_by_test_id("stMain").inner_text())


def test_result_downloads_as_one_file_that_opens_offline(demo_done, chromium, tmp_path: Path):
    with demo_done.expect_download() as started:
        press(demo_done, "Download as HTML")
    path = tmp_path / "story.html"
    started.value.save_as(path)
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert page.locator(".js-plotly-plot").count() >= 5
    assert "Which layers can pocket-vl do without?" in page.inner_text("body")
    context.close()
    assert not errors


def test_clicking_the_strip_toggles_a_layer_and_the_mask_is_evaluated(demo_done):
    page = demo_done
    go(page, "Masks")
    page.get_by_text("0 of 16 layers dropped").first.wait_for()
    click_layer(page, 7)
    page.get_by_text("1 of 16 layers dropped: 7").first.wait_for()
    click_layer(page, 9)
    page.get_by_text("2 of 16 layers dropped: 7, 9").first.wait_for()
    click_layer(page, 7)
    page.get_by_text("1 of 16 layers dropped: 9").first.wait_for()
    click_layer(page, 0)  # protected: nothing changes
    press(page, "Undo")
    page.get_by_text("2 of 16 layers dropped: 7, 9").first.wait_for()
    go(page, "Evaluate")
    assert "The mask in the editor" in page.get_by_label("Mask", exact=True).input_value()
    press(page, "Prune and evaluate")
    page.get_by_text("without layers 7, 9: 2 of 16").first.wait_for()
    page.get_by_text("Retention, math").last.wait_for()
    press(page, "Ask both", "tab")
    press(page, "Ask both")
    page.get_by_text("Without layers 7, 9", exact=True).first.wait_for()


def test_export_in_the_browser_is_verified(demo_done, server_home: Path):
    page = demo_done
    go(page, "Export")
    press(page, "Export and verify")
    page.get_by_text("equal to the last bit").first.wait_for()
    page.get_by_text("in a process of its own").first.wait_for()
    opened = [downloaded_mask(page, label) for label in ("JSON", "mergekit", "CSV")]
    assert opened[0].budget > 0
    assert opened[0] == opened[1] == opened[2]
    folders = list((server_home / ".strata" / "exports").iterdir())
    assert [folder for folder in folders if (folder / "strata-manifest.json").exists()]


def downloaded_mask(page, label: str) -> Edit:
    """Press a download button of the Export page and open what comes."""
    with page.expect_download() as started:
        press(page, label)
    return open_dialect(Path(started.value.path()).read_bytes(), started.value.suggested_filename, n_layers=16)


def click_layer(page, layer: int) -> None:
    """Click the cell of a layer in the first row of the strip."""
    page.locator(f".st-key-mask_strip [data-row][data-layer='{layer}']").first.click()
