"""A newcomer's first minutes: the demo, its result, and what other pages can go on with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PATIENCE_MS, go, idle, new_window, press, strip_painted
from playwright.sync_api import Browser, BrowserContext, Page, expect

from vlm_analysis import Edit, open_dialect

IS_SEEN_WHOLE = """() => {
  const curve = document.querySelector("[data-testid='stPlotlyChart']");
  const box = curve?.querySelector(".scatterlayer path.point") && curve.getBoundingClientRect();
  return box && box.top > 0 && box.bottom <= innerHeight;
}"""


@pytest.fixture
def tabs(chromium: Browser) -> Iterator[BrowserContext]:
    """A window of each test's own, as a presentation takes all of it."""
    context = new_window(chromium)
    yield context
    context.close()


@pytest.fixture
def demo_done(new_page):
    """The Overview with the demo's result on it; the first test that needs it presses the button."""
    page = new_page("/")
    page.get_by_role("button", name="Try the demo").first.wait_for()  # below the result, where there is one
    idle(page)
    told = page.get_by_role("button", name="Present")
    if not told.first.is_visible():
        press(page, "Try the demo")
        told.first.wait_for(timeout=4 * PATIENCE_MS)  # forty seconds of a processor that is free
    idle(page)
    return page


def test_the_demo_answers_in_a_sentence_with_its_curve_above_the_fold_a_report_and_a_slider(demo_done, tmp_path: Path):
    page = demo_done
    page.get_by_role(
        "heading", name=re.compile(r"Pocket-VL can lose \d of 16 layers: \d+ of 45 general and \d+ of 45 math")
    ).wait_for()
    expect(page.get_by_text("flatters")).to_have_count(0)
    for width, height in ((1440, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(IS_SEEN_WHOLE)
        expect(page.get_by_test_id("stPlotlyChart").first.locator(".ytitle")).to_contain_text("retention")
    page.set_viewport_size({"width": 1440, "height": 1000})
    download_the_report_with_a_title(page, tmp_path)
    move_sentence_dot_strip_and_answers_together(page)


def download_the_report_with_a_title(page: Page, tmp_path: Path) -> None:
    press(page, "Report")
    page.get_by_label("Title").fill("Ours, <b>cut</b>")
    page.get_by_label("Title").press("Enter")
    idle(page)
    with page.expect_download() as started:
        press(page, "Download", exact=True)
    started.value.save_as(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<h1>Ours, &lt;b&gt;cut&lt;/b&gt;</h1>" in text
    assert text.count("<img src=") == 6
    assert len(text) < 300_000  # its pictures are drawn and small


def move_sentence_dot_strip_and_answers_together(page: Page) -> None:
    idle(page)
    page.get_by_role("slider", name="Budget").press("End")
    page.get_by_role("heading", name="Losing 8 of 16 layers costs Pocket-VL answers").wait_for()
    page.get_by_text("Drops 8 of 16 layers").first.wait_for()
    page.wait_for_function(
        "document.querySelector('.st-key-answer-strip .js-plotly-plot')?.data?.[0].text.flat().filter(one => one === '×').length === 8"
    )
    expect(page.get_by_text("Lost", exact=True)).to_have_count(5)
    page.wait_for_function(
        "String(document.querySelector('.st-key-answer-curve .js-plotly-plot')?.data?.filter(one => one.marker?.size?.length)"
        ".map(one => one.marker.size.indexOf(14))) === '8,8'"
    )
    idle(page)
    page.get_by_text("% smaller", exact=True).click()
    page.get_by_text(re.compile(r"^\d+ % smaller · 8 layers$")).first.wait_for()
    press(page, "Edit this mask")
    page.get_by_text(re.compile("8 of 16 layers dropped: ")).first.wait_for()


@pytest.mark.slow
def test_the_answer_is_presented_over_the_whole_window_by_keys(demo_done):
    page = demo_done
    press(page, "Present")
    frame = page.frame_locator("iframe[title=Presentation]")
    frame.get_by_text(re.compile(r"^1 of \d+$")).wait_for()
    box = page.locator("iframe[title=Presentation]").bounding_box()
    assert (box["width"], box["height"]) == (page.viewport_size["width"], page.viewport_size["height"])
    page.keyboard.press("ArrowRight")
    frame.get_by_text(re.compile(r"^2 of \d+$")).wait_for()
    page.keyboard.press("Escape")
    page.locator("iframe[title=Presentation]").wait_for(state="hidden")
    idle(page)
    press(page, "Present")
    frame.get_by_text(re.compile(r"^1 of \d+$")).wait_for()
    frame.get_by_role("button", name="Close").click()
    page.locator("iframe[title=Presentation]").wait_for(state="hidden")


@pytest.mark.slow  # own images (test_own_work.py) lead to an evaluated mask in `make test`
def test_clicking_the_strip_toggles_a_layer_and_the_mask_is_evaluated_and_exported(demo_done, server_home: Path):
    page = demo_done
    go(page, "Masks")
    strip_painted(page)
    press(page, "Clear", exact=True)
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
    expect(page.get_by_label("Mask", exact=True)).to_have_value(re.compile("The mask in the editor"))
    press(page, "Prune and evaluate")
    page.get_by_text("without layers 7, 9: 2 of 16").first.wait_for()
    page.get_by_text("Answers lost").last.wait_for()
    press(page, "Ask both", "tab")
    press(page, "Ask both")
    page.get_by_text("Without layers 7, 9", exact=True).first.wait_for()
    export_and_open_its_masks(page, server_home)


def export_and_open_its_masks(page: Page, server_home: Path) -> None:
    go(page, "Export")
    press(page, "Export and verify")
    page.get_by_text("equal to the last bit").first.wait_for()
    page.get_by_text("in a process of its own").first.wait_for()
    opened = [downloaded_mask(page, label) for label in ("JSON", "mergekit", "CSV")]
    assert opened[0].dropped == (7, 9)
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
