"""What the browser tests do on a page, as a person would.

While a script runs, what it redraws may stand on the page twice for a moment, old and new. So waits take the first match, and clicks come
when the script has run.
"""

from __future__ import annotations

from playwright.sync_api import Page

from tools import serving

PATIENCE_MS = 300_000  # for what takes seconds: a busy machine fails no test
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
    """Load the bundled model, unless it is loaded."""
    go(page, "Model")
    done = page.get_by_text("Decoder layers that should stay").first
    if not done.is_visible():
        press(page, "Load", exact=True)
        done.wait_for()
    idle(page)
