"""Vision tokens that skip layers, the whole way in the browser: the second row, the scan, both asked, the cost and the export."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import arrived, go, idle, load_bundled, load_folder, press, strip_painted
from outside import outside_prompts, save_outside_model
from playwright.sync_api import Page, expect

from vlm_analysis import LoadedModel, PromptSet, record
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture(scope="module")
def server_home(server_home: Path, loaded: LoadedModel, few: PromptSet) -> Path:
    """A home with a recording of the bundled model."""
    shelf = Workspace(server_home / ".strata")
    keep_prompts(shelf, few, "a few")
    keep_recording(shelf, record(loaded, few, attention=True), "a recording")
    return server_home


def choose_tab(page: Page, name: str) -> None:
    press(page, name, "tab")
    idle(page)


@pytest.mark.slow
def test_on_the_bundled_model(new_page: Callable[[str], Page], tmp_path: Path) -> None:
    page = new_page("/")
    load_bundled(page)
    skip_and_measure(page, tmp_path)


@pytest.mark.slow
def test_on_a_llava_from_outside(new_page: Callable[[str], Page], server_home: Path, tmp_path: Path) -> None:
    keep_prompts(Workspace(server_home / ".strata"), outside_prompts(), "noise")  # the newest are worked with
    page = new_page("/")
    load_folder(page, save_outside_model("llava", tmp_path / "my-llava"))
    go(page, "Similarity")
    press(page, "Record", exact=True)
    expect(page.get_by_label("Recording", exact=True).first).to_have_value(re.compile("^my-llava on noise"))
    idle(page)
    skip_and_measure(page, tmp_path)


def skip_and_measure(page: Page, tmp_path: Path) -> None:
    """Let vision tokens leave before the last layer, and be frozen in the one before it; then measure, ask and export."""
    go(page, "Masks")
    strip_painted(page)
    last = page.locator(".strip .edit [data-layer]").count() - 1
    what = f"hides vision tokens in layer {last} and freezes vision tokens in layer {last - 1}"
    page.get_by_role("checkbox", name="vision tokens").check()
    page.get_by_label("leave").press("ArrowLeft")
    page.locator(f".strip .vision [data-layer='{last - 1}']").click()
    expect(page.get_by_label("vision:")).to_have_value(f"absent {last}; frozen {last - 1}")
    arrived(page)
    scan(page)
    go(page, "Evaluate")
    press(page, "Prune and evaluate")
    page.get_by_text(f"edited: {what}").first.wait_for()
    choose_tab(page, "Ask both")
    press(page, "Ask both")
    page.get_by_text("KL").filter(visible=True).first.wait_for()
    choose_tab(page, "Cost")
    page.get_by_label("Rounds", exact=True).fill("1")
    page.get_by_label("Rounds", exact=True).press("Enter")
    press(page, "Measure cost")
    page.get_by_text(re.compile("prefill.* as fast")).filter(visible=True).first.wait_for()
    go(page, "Export")
    folder = tmp_path / "exported"
    box = page.get_by_role("textbox", name="New folder")
    box.fill(str(folder))
    box.press("Enter")
    press(page, "Export and verify")
    page.get_by_text("equal to the last bit").first.wait_for()
    assert (folder / "strata-vision.json").is_file()


def scan(page: Page) -> None:
    go(page, "Similarity")
    choose_tab(page, "Explain")
    press(page, "Skip-It", "radio")
    idle(page)
    press(page, "Scan vision tokens")
    page.get_by_role("combobox", name="Choose where they skip by").wait_for()
    page.locator(".st-key-skip-curves .legendtext", has_text="frozen: here alone").first.wait_for(state="attached")
