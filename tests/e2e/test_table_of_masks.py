"""The table of masks and the layer card in a real browser: a click loads or cuts, two ticks compare, and a star outlives a reload."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import click_cell, idle, strip_painted
from playwright.sync_api import Page, expect

from tools.made import made_recording
from vlm_analysis import PruneMask
from vlm_analysis.workbench.shelf import keep_mask, keep_recording
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture(scope="module")
def server_home(server_home: Path) -> Path:
    """A home with a recording of 16 layers and two saved masks, without a model."""
    shelf, recording = Workspace(server_home / ".strata"), made_recording(16, ["general", "math"])
    keep_recording(shelf, recording, "made")
    for name, layers in (("older", [4]), ("newer", [6, 7])):
        keep_mask(shelf, PruneMask(16, layers, name=name, model=recording.model))
    return server_home


def test_click_loads_ticks_compare_and_a_star_outlives_a_reload(
    new_page: Callable[[str], Page], server_home: Path
) -> None:
    page = new_page("/masks")
    strip_painted(page)
    click_cell(page, "Editor", "newer")
    expect(page.locator(".strip .count")).to_contain_text("2 of 16 layers dropped: 6, 7")
    page.get_by_role("button", name="Undo", exact=True).first.click()
    expect(page.locator(".strip .count")).to_contain_text("0 of 16 layers dropped")
    idle(page)
    click_cell(page, "Compare", "newer")
    page.get_by_text("Tick another mask to compare it with newer").wait_for()
    click_cell(page, "Compare", "older")
    page.get_by_text("Only older drops: 4").wait_for()
    click_cell(page, "Star", "older")
    idle(page)
    shelf = Workspace(server_home / ".strata")
    page.reload()
    idle(page)
    cells = page.get_by_test_id("stDataFrame").first.locator("td")
    for name in ("older", "newer"):
        cells.get_by_text(name, exact=True).first.wait_for(state="attached")
    names = cells.all_text_contents()
    assert names.index("older") < names.index("newer")  # the starred one is the first now
    assert {item.name: item.details.get("starred") for item in shelf.items("masks")} == {"newer": None, "older": True}
    click_cell(page, "Editor", "older")
    expect(page.locator(".strip .count")).to_contain_text("1 of 16 layers dropped: 4")


@pytest.mark.slow
def test_a_click_on_a_column_opens_the_layers_card_which_cuts_it_in_the_editor(
    new_page: Callable[[str], Page],
) -> None:
    page = new_page("/similarity")
    idle(page)
    area = page.locator(".st-key-similarity-heatmap .nsewdrag").first
    box = area.bounding_box()
    assert box is not None
    x, y = box["width"] * 7.5 / 16, box["height"] * 0.3
    area.hover(position={"x": x - 3, "y": y})  # Plotly takes a click where the mouse was seen before
    area.click(position={"x": x, "y": y})
    card = page.locator(".st-key-layer_card")
    card.get_by_text("Layer 7 of 16").wait_for()
    idle(page)
    card.get_by_role("button", name="Cut in the editor").click()
    expect(page.locator(".strip .count")).to_contain_text(re.compile(r"dropped: .*\b7\b"))
