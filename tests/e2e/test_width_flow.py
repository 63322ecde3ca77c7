"""Width, the whole way in the browser: scored, into the editor beside a dropped layer, undone, evaluated, and exported or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import arrived, go, idle, load_bundled, press, strip_painted
from playwright.sync_api import Page, expect

from vlm_analysis import LoadedModel, PromptSet, record
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording
from vlm_analysis.workbench.workspace import Workspace

LEFT = re.compile(r"; 16 narrow")


@pytest.fixture(scope="module")
def server_home(server_home: Path, loaded: LoadedModel, few: PromptSet) -> Path:
    """A home with a recording of the bundled model on a few prompts."""
    shelf = Workspace(server_home / ".strata")
    keep_prompts(shelf, few, "a few")
    keep_recording(shelf, record(loaded, few), "a recording")
    return server_home


@pytest.fixture
def scored(lasting_page: Callable[[str], Page]) -> Page:
    page = lasting_page("/")
    load_bundled(page)
    go(page, "Masks")
    strip_painted(page)
    return page


def test_width_is_scored_held_by_the_strip_and_undone_in_the_browser_at_once(scored: Page) -> None:
    page = scored
    press(page, "Score the width")
    page.locator(".st-key-width-heatmap .heatmaplayer").first.wait_for(state="attached")
    press(page, "Take it into the editor")
    count = page.locator(".strip .count")
    expect(count).to_have_text(LEFT)
    cell = page.locator(".strip .edit [data-layer='8']")
    expect(cell).to_have_attribute("data-mark", re.compile(r"\d+%"))
    expect(cell).to_have_attribute("aria-label", re.compile(r"narrow: keeps \d+ of 288 MLP neurons"))
    kept = page.locator(".strip .left")
    narrow_only = kept.text_content()
    cell.click()
    expect(count).to_have_text(re.compile(r"1 of 16 layers dropped: 8; 15 narrow"))
    expect(page).to_have_url(re.compile(r"(?=.*cut=8)(?=.*narrow=[0-9a-f]{16})"))
    assert kept.text_content() != narrow_only
    page.get_by_role("button", name="Make layers whole").click()
    expect(count).to_have_text("1 of 16 layers dropped: 8")
    expect(page).not_to_have_url(re.compile("narrow="))
    arrived(page)
    page.locator(".strip").get_by_role("button", name="Undo", exact=True).click()
    page.locator(".strip").get_by_role("button", name="Undo", exact=True).click()
    expect(count).to_have_text(LEFT)
    arrived(page)
    expect(kept).to_have_text(str(narrow_only))
    if not page.get_by_role("button", name="Saved as a mask").count():
        press(page, "Save as a mask")
    expect(page.get_by_role("button", name="Saved as a mask")).to_be_disabled()


@pytest.mark.slow
def test_a_uniform_width_is_evaluated_timed_and_exported_smaller_and_a_global_one_is_refused(
    new_page: Callable[[str], Page], tmp_path: Path
) -> None:
    page = new_page("/")
    load_bundled(page)
    go(page, "Masks")
    strip_painted(page)
    idle(page)
    if page.get_by_role("button", name="Score the width").is_visible():
        press(page, "Score the width")
    page.locator(".st-key-width-heatmap .heatmaplayer").first.wait_for(state="attached")
    press(page, "Take it into the editor")
    expect(page.locator(".strip .count")).to_have_text(LEFT)
    go(page, "Evaluate")
    press(page, "Prune and evaluate")
    page.get_by_text(re.compile("edited: keeps .* MLP neurons")).first.wait_for()
    page.get_by_text("what narrow layers save is not in the layers' own times").first.wait_for()
    export(page, tmp_path / "narrow")
    go(page, "Masks")
    press(page, "global: a view", "radio")
    page.get_by_text("It cannot be exported as a smaller checkpoint").first.wait_for()
    press(page, "Take it into the editor")
    idle(page)
    go(page, "Export")
    page.get_by_text("It cannot be written as a smaller checkpoint").first.wait_for()
    expect(page.get_by_role("button", name="Export and verify")).to_be_disabled()
    page.get_by_text("Masked: zeros in place of what goes").click()
    export(page, tmp_path / "zeros")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("narrow", "zeros")]
    assert sizes[0] < 0.9 * sizes[1]


def export(page: Page, folder: Path) -> None:
    """Export what is chosen to a folder, without a probe, and wait for its proof."""
    if page.get_by_role("heading", name="Export", exact=True).count() == 0:
        go(page, "Export")
    page.get_by_text("With a probe for servers").click()
    idle(page)
    box = page.get_by_role("textbox", name="New folder")
    box.fill(str(folder))
    box.press("Enter")
    press(page, "Export and verify")
    page.get_by_text(f"Written to {folder}").first.wait_for()
    page.get_by_text("equal to the last bit").first.wait_for()
