"""What the browser tests do on a page, as a person would.

While a script runs, what it redraws may stand on the page twice for a moment, old and new. So waits take the first match, and clicks come
when Python has answered all that the page asked. A page tells that itself, by `answered.js`: a fixed wait for the click to reach Python
was too short on a busy machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, TimeoutError, expect

PATIENCE_MS = 300_000  # for what takes seconds: a busy machine fails no test
expect.set_options(timeout=PATIENCE_MS)
ANSWERED = Path(__file__).with_name("answered.js").read_text("utf-8")
ROW_PX = 33  # of a table, and of its head
MIDDLES_PX = {"Compare": 48, "Star": 125, "Editor": 565}  # of columns of the table of masks, from its left
HELD_MS = 160  # by the page's own clock: a table sends what was done in it after 150 at most
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
HELD_IS_SENT = f"() => new Promise((done) => setTimeout(done, {HELD_MS}))"
SHOWN_MS = 20_000  # for an open list
TRIES = 20
LOOK_MS = 30  # a look in each frame would draw frames


def new_window(chromium: Browser, **options: Any) -> BrowserContext:
    """Return a window whose pages can be waited for by `idle`; the caller closes it."""
    window = chromium.new_context(
        **{"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce", **options}
    )
    window.add_init_script(ANSWERED)
    window.set_default_timeout(PATIENCE_MS)
    return window


def idle(page: Page) -> None:
    """Wait until Python has answered all that the page asked, and what the script left out is gone; no exception may be on the page."""
    page.evaluate(HELD_IS_SENT)
    while True:
        page.wait_for_function("() => window.strata.isAtRest()", polling=LOOK_MS)
        page.evaluate(TWO_FRAMES)
        if page.evaluate("() => window.strata.isAnswered()"):
            break
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
    idle(page)
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


def choose(page: Page, label: str, words: str) -> None:
    """Take the first option of a box that holds these words.

    Its list closes where the page is drawn again meanwhile, and is opened again then.
    """
    box = page.get_by_role("combobox", name=label, exact=True).first
    for _ in range(TRIES):
        idle(page)
        box.click()
        box.fill(words)
        try:
            page.get_by_role("option").filter(has_text=words).first.click(timeout=SHOWN_MS)
        except TimeoutError:
            page.keyboard.press("Escape")
            continue
        idle(page)
        return
    raise AssertionError(f"no option of {label!r} with {words!r} could be clicked")


def strip_painted(page: Page) -> None:
    """Wait until the strip is painted: before that its words are missing and its buttons are off."""
    page.locator(".strip .count").filter(has_text=re.compile(r"\d+ of \d+ layers dropped")).first.wait_for()


def write_mask(page: Page, text: str) -> None:
    """Type a mask into the strip, as in "4, 7, 12-14"."""
    field = page.get_by_label("drop:")
    field.fill(text)
    field.press("Enter")


def arrived(page: Page) -> None:
    """Wait until Python has taken all that the strip has sent."""
    number = page.locator(".strip").get_attribute("data-number")
    page.locator(f".strip[data-taken='{number}']").wait_for()
    idle(page)


def click_cell(page: Page, column: str, row: str) -> None:
    """Click a cell of the table of masks: under this heading, in the first row that has a cell with this text.

    The table is drawn on a canvas. In it is a table for screen readers, which tells the row; the columns keep their widths.
    """
    idle(page)
    table = page.get_by_test_id("stDataFrame").first
    number = table.locator(f'tr:has(td:text-is("{row}"))').first.get_attribute("aria-rowindex")
    assert number is not None
    table.click(position={"x": MIDDLES_PX[column], "y": ROW_PX * (int(number) - 0.5)})
