"""What the access tests ask of a page in the browser: axe-core, what is drawn but not said, and where the keyboard goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from browser import TWO_FRAMES
from playwright.sync_api import Page

MOST_PRESSES = 600  # of Tab on a page
GRAVE = ("serious", "critical")
OURS = Path(__file__).with_suffix(".js").read_text("utf-8")


def grave(page: Page) -> set[str]:
    """Return what axe-core finds serious or critical, as "rule: element: why"."""
    return {
        f"{rule['id']}: {node['html'][:160]}: {' '.join(node['failureSummary'].split())[:300]}"
        for rule in Axe().run(page).response["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    }


def unsaid(page: Page) -> list[str]:
    """Return charts and tables without a label, icons whose names are read out, and text of charts below a contrast of 4.5 to 1."""
    return page.evaluate(f"{OURS}\nwindow.access.unsaid()")


def walked(page: Page, first: int | None = None) -> list[dict[str, Any]]:
    """Press Tab from the beginning of the page until the focus leaves it, or at the `first` so many elements; returns these stops.

    In a table Tab goes from cell to cell before it leaves it.

    Raises:
        AssertionError: the focus came to an element twice, or did not leave the page.
    """
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.evaluate(TWO_FRAMES)
    page.evaluate(f"{OURS}\nwindow.access.begin()")
    stops: list[dict[str, Any]] = []
    for _ in range(MOST_PRESSES):
        page.keyboard.press("Tab")
        stop = page.evaluate("window.access.stop()")
        if stop is None or stop.get("again") == 0:
            return stops
        if "again" in stop:
            in_a_table = stops[-1]["is_grid"] and stop["again"] == len(stops) - 1
            assert in_a_table, f"the focus goes round: {stops[-1]} leads back to {stops[stop['again']]}"
            continue
        stops.append(stop)
        if len(stops) == first:
            return stops
    raise AssertionError(
        f"The focus did not leave the page in {MOST_PRESSES} presses of Tab, the last stops are {stops[-3:]}."
    )
