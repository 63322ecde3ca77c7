"""Ask both in a real browser: responses grow while they are written, a second click leaves the model usable, two people ask at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import TRIES, choose, go, idle, load_bundled, press
from playwright.sync_api import Page, expect

from vlm_analysis import PruneMask
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Workspace

# Keeps every text that stands under "Dense model", in the order in which it is seen.
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const text = document.querySelector('[data-testid="stMain"]').innerText;
    const found = /Dense model\\s+([^]*?)\\s+Without layers/.exec(text);
    if (found && found[1] !== window.seen.at(-1)) window.seen.push(found[1]);
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
STEPS = re.compile(r"step 1: .* step 2: .* therefore \d+", re.DOTALL)


@pytest.fixture
def asking(new_page, server_home: Path):
    """Open browsers on the tab Ask both, at a prompt that is answered in steps, with a mask that breaks the answer."""
    keep_mask(Workspace(server_home / ".strata"), PruneMask(16, (2, 4, 9, 14), name="ask hard"))

    def open_tab() -> Page:
        page = new_page("/")
        load_bundled(page)
        go(page, "Prompts")
        press(page, "Use these packs")
        page.get_by_role("heading", name="In use: Bundled packs").wait_for()
        idle(page)
        go(page, "Evaluate")
        choose(page, "Mask", "ask hard")
        press(page, "Ask both", "tab")
        idle(page)
        choose(page, "Prompt", "step by step")
        return page

    return open_tab


def ask(page: Page) -> None:
    """Click whether or not the last responses are still being written."""
    page.get_by_role("button", name="Ask both").first.click()


def answered(page: Page) -> None:
    """Wait for the end: the token strip stands under both responses."""
    page.locator(".st-key-token-strip").first.wait_for()
    idle(page)
    expect(page.get_by_text("Dense model", exact=True)).to_have_count(1)
    expect(page.get_by_text("Without layers 2, 4, 9, 14", exact=True)).to_have_count(1)
    expect(page.get_by_test_id("stMain")).to_contain_text(STEPS)


def test_responses_grow_while_they_are_written_and_stay(asking):
    page = asking()
    page.evaluate(WATCH)
    for _ in range(TRIES):  # a busy machine may show no more than the end
        ask(page)
        answered(page)
        seen = page.evaluate("window.seen")
        if len({len(text) for text in seen if text.startswith("\u2060step")}) > 2:
            break
    else:
        raise AssertionError(f"no response was seen to grow: {seen}")
    press(page, "One mask", "tab")
    press(page, "Ask both", "tab")
    answered(page)
    page.reload()
    expect(page.get_by_role("tab", name="Ask both").first).to_have_attribute("aria-selected", "true")


@pytest.mark.slow
def test_a_second_click_leaves_the_model_usable(asking):
    page = asking()
    ask(page)
    page.get_by_role("tab", name="One mask").first.click()  # any click ends the asking, as Stop does
    idle(page)
    press(page, "Ask both", "tab")
    idle(page)
    for _ in range(3):
        ask(page)
    answered(page)
    press(page, "Show what the model is given")
    page.get_by_text(re.compile("Tokens: .*vision 16")).first.wait_for()


@pytest.mark.slow
def test_two_browsers_ask_at_once(asking):
    pages = [asking(), asking()]
    for page in pages:
        ask(page)
    for page in pages:
        answered(page)


@pytest.mark.slow
def test_a_hostile_question_is_text_and_reaches_no_other_host(asking):
    page = asking()
    box = page.get_by_label("Question", exact=True)
    box.fill("![x](http://host.example/p.png) <img src=x onerror=alert(1)> :red[r] $x$")
    ask(page)
    page.locator(".st-key-token-strip").first.wait_for()
    idle(page)  # `new_page` fails the test when any request leaves the server


@pytest.mark.slow
def test_a_broken_image_is_named_and_the_page_goes_on(asking):
    page = asking()
    uploader = page.locator('[data-testid="stFileUploader"] input[type=file]')
    uploader.set_input_files({"name": "torn.png", "mimeType": "image/png", "buffer": b"no image"})
    page.get_by_text(re.compile("torn.png: the image could not be opened")).first.wait_for()
    idle(page)
    page.get_by_test_id("stFileChipDeleteBtn").click()
    idle(page)
    ask(page)
    answered(page)
