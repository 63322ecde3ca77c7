"""Every page for those who use it by keyboard or by ear: axe-core, labels, contrast, and the way of the Tab key."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from access import grave, unsaid, walked
from browser import TWO_FRAMES, idle, load_bundled
from dashboards import Dashboards
from playwright.sync_api import BrowserContext, Page, expect

SAVED = Path(__file__).resolve().parents[1] / "saved_0_1" / "home"
PAGES = ("", "model", "prompts", "similarity", "masks", "evaluate", "export", "glossary")
THEMES = ("light", "dark")
DRAWN = """() => !document.querySelector("[data-testid='stSkeleton']")
  && [...document.querySelectorAll("[data-testid='stPlotlyChart']")]
    .every((one) => !one.getClientRects().length || one.querySelector(".main-svg"))"""


@pytest.fixture(scope="module")
def full(dashboards: Dashboards, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard whose workspace holds an item of every kind."""
    home = tmp_path_factory.mktemp("full")
    shutil.copytree(SAVED, home / ".strata")
    with dashboards.running(home) as url:
        yield url


@pytest.fixture
def opened(tabs: BrowserContext) -> Iterator[Callable[[str, str], Page]]:
    """Open an address in a tab, in a theme."""
    pages: list[Page] = []

    def open_page(url: str, theme: Literal["light", "dark"]) -> Page:
        page = tabs.new_page()
        pages.append(page)
        page.emulate_media(color_scheme=theme)
        page.goto(url)
        _drawn(page)
        return page

    yield open_page
    for page in pages:
        page.close()


def _drawn(page: Page) -> None:
    idle(page)
    page.wait_for_function(DRAWN)  # charts and tables come after the script has run
    page.evaluate(TWO_FRAMES)


def tabs_of(page: Page) -> Iterator[int]:
    """Open each tab of a page in turn; a page without tabs once."""
    for number in range(max(1, page.get_by_role("tab").count())):
        if page.get_by_role("tab").count():
            # A walk scrolls the page: below a resting mouse an explanation may open over the tabs.
            page.mouse.move(0, 0)
            page.get_by_role("tab").nth(number).click()
            _drawn(page)
        yield number


def check(page: Page, *, by_keyboard: bool = True) -> None:
    """Check what a page shows now."""
    assert not grave(page)
    assert not unsaid(page)
    if by_keyboard:
        stops = walked(page)
        assert len(stops) > 10
        seen = [stop for stop in stops if not stop["is_grid"]]  # Streamlit's tables draw the ring of a cell on a canvas
        assert not [stop for stop in seen if not stop["shows"] or not stop["is_seen"]]


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("path", PAGES)
def test_every_full_page_is_read_and_walked(
    opened: Callable[[str, str], Page], full: str, path: str, theme: str
) -> None:
    page = opened(f"{full}/model", theme)
    load_bundled(page)
    page.goto(f"{full}/{path}")
    _drawn(page)
    for _ in tabs_of(page):
        check(page, by_keyboard=theme == "dark")


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("path", PAGES)
def test_every_empty_page_is_read_and_walked(
    opened: Callable[[str, str], Page], server: str, path: str, theme: str
) -> None:
    page = opened(f"{server}/{path}", theme)
    for _ in tabs_of(page):
        check(page, by_keyboard=theme == "dark")


FAULTS = {
    "chart without a label": "document.querySelector('[role=figure]').removeAttribute('role')",
    "faint text of a chart": "document.querySelector('.xtitle').style.setProperty('fill', 'rgb(200, 200, 200)', 'important')",
    "icon that is read out": "document.body.insertAdjacentHTML('beforeend', `<i style=\"font-family: 'Material Icons'\">home</i>`)",
}


def test_a_full_page_is_read_and_walked_and_faults_put_into_it_are_found(
    opened: Callable[[str, str], Page], full: str
) -> None:
    page = opened(f"{full}/similarity", "light")
    check(page)
    escape_closes_an_explanation_until_it_is_come_to_anew(page)
    for what, fault in FAULTS.items():
        page.evaluate(fault)
        assert [line for line in unsaid(page) if line.startswith(what)], what
    page.add_style_tag(content="a, a * { outline: none !important; } a:focus-visible { box-shadow: none !important; }")
    assert [stop for stop in walked(page, first=8) if not stop["shows"] and stop["name"].startswith("<a")]


def escape_closes_an_explanation_until_it_is_come_to_anew(page: Page) -> None:
    term = page.locator(".strata-term").first
    explanation = term.get_by_role("tooltip", include_hidden=True)
    for come, leave in ((term.hover, lambda: page.mouse.move(5, 5)), (term.focus, term.blur)):
        come()
        expect(explanation).to_be_visible()
        page.keyboard.press("Escape")
        expect(explanation).to_be_hidden()
        leave()
        come()
        expect(explanation).to_be_visible()
        leave()
