"""What stands beside the strip in a real browser: numbers that come by themselves, or by a button, and the next layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import go, idle, load_bundled, strip_painted, write_mask
from playwright.sync_api import Locator, Page, expect

from vlm_analysis import LoadedModel, PromptSet, PruneMask, open_prompts, record, score_layers
from vlm_analysis.workbench.known import find_known
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording
from vlm_analysis.workbench.workspace import Item, Workspace

Stand = tuple[Workspace, Item, list[int]]


@pytest.fixture(scope="module")
def stand(server_home: Path, loaded: LoadedModel, few: PromptSet) -> Stand:
    """A workspace with 12 prompts and a recording said to be theirs; and the drop order of the layers that may go."""
    from dataclasses import replace

    shelf, prompts = Workspace(server_home / ".strata"), open_prompts("general")[:6] + open_prompts("math")[:6]
    item = keep_prompts(shelf, prompts, "a dozen")
    recording = replace(record(loaded, few), prompts=prompts.fingerprint)
    keep_recording(shelf, recording, "some of them")
    free = loaded.locks.free
    return shelf, item, [layer for layer in score_layers(recording, "block-influence").order if layer in free]


@pytest.fixture
def page(stand: Stand, new_page: Callable[[str], Page]) -> Page:
    """The Masks page with the model loaded and an empty mask."""
    page = new_page("/")
    load_bundled(page)
    go(page, "Masks")
    strip_painted(page)
    write_mask(page, "none")
    expect(result(page)).to_contain_text("Nothing is dropped")
    return page


def cell(page: Page, layer: int) -> Locator:
    return page.locator(f".strip .edit [data-layer='{layer}']")


def result(page: Page) -> Locator:
    return page.get_by_role("group", name="Retention")


def test_numbers_come_by_themselves_and_what_is_left_follows_each_edit(
    page: Page, stand: Stand, loaded: LoadedModel
) -> None:
    shelf, item, order = stand
    first, second = order[:2]
    cell(page, first).click()
    cell(page, second).click()
    expect(result(page)).to_contain_text(re.compile(r"Retention on a dozen.*general\d+%.*math\d+%"))
    known = find_known(shelf, loaded.fingerprint, item)
    assert known is not None
    assert known.evaluation(PruneMask(16, (first, second))) is not None
    expect(page.get_by_role("button", name="Evaluate now")).to_have_count(0)
    cell(page, second).click()
    check_what_is_left(page, first, loaded)


@pytest.mark.slow
def test_without_the_switch_a_button_evaluates(page: Page, stand: Stand) -> None:
    page.get_by_label("evaluate by itself").uncheck()
    cell(page, stand[2][2]).click()
    button = page.get_by_role(
        "button", name=re.compile(r"Evaluate now")
    )  # the time is said once the dense model has answered
    expect(button).to_be_visible()
    page.wait_for_timeout(1500)
    expect(button).to_be_visible()
    button.click()
    expect(result(page)).to_contain_text("Retention on a dozen")
    page.get_by_label("evaluate by itself").check()
    idle(page)


@pytest.mark.slow
def test_the_next_layer_moves_with_the_mask_and_its_locks(page: Page, stand: Stand) -> None:
    first, second, third = stand[2][:3]
    ghost = page.locator(".strip .edit .ghost")
    expect(ghost).to_have_accessible_name(f"layer {first}, kept, next by Block influence")
    ghost.click()
    expect(ghost).to_have_accessible_name(f"layer {second}, kept, next by Block influence")
    ghost.focus()
    page.keyboard.press("l")
    expect(ghost).to_have_accessible_name(f"layer {third}, kept, next by Block influence")
    cell(page, second).focus()
    page.keyboard.press("l")
    page.locator(".strip .next").select_option("nothing")
    expect(ghost).to_have_count(0)
    page.locator(".strip .next").select_option("Target-aware")
    expect(ghost).to_have_accessible_name(re.compile("next by Target-aware"))
    page.locator(".strip .next").select_option("Block influence")
    idle(page)


def check_what_is_left(page: Page, layer: int, loaded: LoadedModel) -> None:
    """What the strip tells of parameters and bytes once this layer is dropped."""
    left = loaded.info.n_parameters - loaded.info.layer_parameters[layer]
    facts = page.locator(".strip .left")
    expect(facts).to_contain_text("15 of 16")
    expect(facts).to_contain_text(f"{left / 1e6:.2f} million")
    expect(facts.get_by_title(f"{left:,} of {loaded.info.n_parameters:,}")).to_be_visible()
    expect(facts.get_by_title(f"{4 * left:,} bytes")).to_be_visible()
    expect(facts).to_contain_text("nothing timed yet")
