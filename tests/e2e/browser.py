"""What the browser tests do on a page, as a person would."""

from __future__ import annotations

from playwright.sync_api import Page

from tools import serving


def idle(page: Page) -> None:
    """Wait until the script has run; no exception may be on the page."""
    serving.idle(page)
    assert page.get_by_test_id("stException").count() == 0


def go(page: Page, label: str) -> None:
    """Follow a link of the menu."""
    page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True).click()
    page.get_by_role("heading", name=label, exact=True).wait_for()
    idle(page)
