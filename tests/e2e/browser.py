"""What the browser tests do on a page, as a person would.

While a script runs, what it redraws may stand on the page twice for a moment, old and new. So waits take the first match, and clicks come
when the script has run.
"""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page

from tools import serving

PATIENCE_MS = 300_000  # for what takes seconds: a busy machine fails no test
ROW_PX = 33  # of a table, and of its head
MIDDLES_PX = {"Compare": 48, "Star": 125, "Editor": 565}  # of columns of the table of masks, from its left
SENT_MS = 100  # a click has reached the server by then, and the page says that its script runs
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def idle(page: Page) -> None:
    """Wait until the script has run and what it left out is gone; no exception may be on the page."""
    page.wait_for_timeout(SENT_MS)
    serving.idle(page)
    page.evaluate(TWO_FRAMES)
    assert page.get_by_test_id("stException").count() == 0


def press(page: Page, name: str, role: str = "button", *, exact: bool = False) -> None:
    """Click a button or tab once the script has run."""
    idle(page)
    page.get_by_role(role, name=name, exact=exact).click()


def go(page: Page, label: str) -> None:
    """Follow a link of the menu."""
    idle(page)
    page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True).click()
    page.get_by_role("heading", name=label, exact=True).first.wait_for()
    idle(page)


def load_bundled(page: Page) -> None:
    """Load the bundled model on its page, unless one is loaded: then the page stays."""
    idle(page)
    if page.get_by_test_id("stSidebar").get_by_text("none loaded").first.is_visible():
        go(page, "Model")
        press(page, "Load", exact=True)
        page.get_by_text("Decoder layers that should stay").first.wait_for()
        idle(page)


def load_folder(page: Page, folder: Path) -> None:
    """Load a model from a folder, in place of any that is loaded."""
    go(page, "Model")
    page.get_by_text("Folder on this machine").click()
    box = page.get_by_role("textbox", name="Folder", exact=True)
    box.fill(str(folder))
    box.press("Enter")
    idle(page)
    unload = page.get_by_text(re.compile("^Unload .* to make room"))
    if unload.first.is_visible():
        unload.click()
        idle(page)
    press(page, "Load", exact=True)
    page.get_by_text(f"from {folder}").first.wait_for()
    idle(page)


def strip_painted(page: Page) -> None:
    """Wait until the strip is painted: before that its words are missing and its buttons are off."""
    page.locator(".strip .count").filter(has_text=re.compile(r"\d+ of \d+ layers dropped")).first.wait_for()


def click_cell(page: Page, column: str, row: str) -> None:
    """Click a cell of the table of masks: under this heading, in the first row that has a cell with this text.

    The table is drawn on a canvas. In it is a table for screen readers, which tells the row; the columns keep their widths.
    """
    idle(page)
    table = page.get_by_test_id("stDataFrame").first
    number = table.locator(f'tr:has(td:text-is("{row}"))').first.get_attribute("aria-rowindex")
    assert number is not None
    canvas = table.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # it scrolls smoothly
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + MIDDLES_PX[column], box["y"] + ROW_PX * (int(number) - 0.5))
