"""The page "Depth or width?" in the browser: it answers from nothing, draws the answer at once after a reload, and hands the edit on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import go, idle, load_bundled, press, strip_painted
from playwright.sync_api import Page, expect

from vlm_analysis import PromptSet
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace

FOUND = re.compile(r"With \d+% of the decoder layers' parameters gone")


@pytest.fixture(scope="module")
def server_home(server_home: Path, few: PromptSet) -> Path:
    """A home with a few prompts in two halves."""
    shelf = Workspace(server_home / ".strata")
    keep_prompts(shelf, few[len(few) // 2 :], "a few, half B")
    keep_prompts(shelf, few[: len(few) // 2], "a few, half A")
    return server_home


def ask(page: Page) -> None:
    press(page, "Depth or width?", "button", exact=True)
    page.get_by_text(FOUND).first.wait_for()
    page.locator(".st-key-contest-bars .barlayer").first.wait_for(state="attached")
    idle(page)


def test_it_answers_from_nothing_and_a_reload_draws_the_answer_at_once(lasting_page: Callable[[str], Page]) -> None:
    page = lasting_page("/")
    load_bundled(page)
    go(page, "Depth or width?")
    slider = page.get_by_role("slider", name=re.compile("^Share of the decoder layers"))
    slider.press("Home")
    idle(page)
    for kind in ("vision", "mix"):
        page.get_by_role("button", name=re.compile(f"{kind}: ")).first.click()
        idle(page)
    ask(page)
    said = page.get_by_text(FOUND).first.text_content()
    page.reload()
    expect(page.get_by_text(FOUND).first).to_have_text(str(said))
    expect(page.get_by_label("Contest", exact=True).first).to_have_value(
        re.compile("^1% of parameters on a few, half B")
    )
    idle(page)
    page.get_by_role("button", name="Edit this mask").first.click()
    idle(page)
    go(page, "Masks")
    strip_painted(page)
    expect(page.locator(".strip .count")).not_to_have_text("0 of 16 layers dropped: none")


@pytest.mark.slow
def test_all_kinds_compete_and_the_winner_is_exported(new_page: Callable[[str], Page], tmp_path: Path) -> None:
    page = new_page("/")
    load_bundled(page)
    go(page, "Depth or width?")
    ask(page)
    expect(page.get_by_text("vision has no entry").or_(page.get_by_text("Vision has no entry")).first).to_be_visible()
    page.get_by_role("button", name="Edit this mask").first.click()
    idle(page)
    go(page, "Masks")
    strip_painted(page)
    go(page, "Export")
    page.get_by_text("With a probe for servers").click()
    idle(page)
    box = page.get_by_role("textbox", name="New folder")
    box.fill(str(tmp_path / "winner"))
    box.press("Enter")
    idle(page)
    masked = page.get_by_text("Masked: zeros in place of what goes")
    if page.get_by_role("button", name="Export and verify").is_disabled():
        masked.click()
    press(page, "Export and verify")
    page.get_by_text(f"Written to {tmp_path / 'winner'}").first.wait_for()
