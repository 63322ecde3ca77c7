"""Take the README's screenshots: a real server, the demo's result in it, every page in light and dark.

python -m tools.screenshots [FOLDER]      # default assets/screenshots; needs Chromium and requirements-dev.txt
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tools.serving import ROOT, chromium, compare_masks, idle, running_server

PAGES = {"overview": "", "model": "model", "prompts": "prompts", "similarity": "similarity"}
PAGES |= {"masks": "masks", "evaluate": "evaluate", "export": "export"}
TABS = {"evaluate-many": "Many masks", "evaluate-ask": "Ask both", "evaluate-cost": "Cost"}
BROKEN = "count-steps-20"  # a prompt that the pruned model of the demo answers differently
WIDTHS = {"": 1280, "-narrow": 390}


def photograph(page: Page, path: Path, width: int) -> None:
    """Save a screenshot of the whole page."""
    idle(page)
    page.wait_for_timeout(1500)
    height = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(int(height) + 10, 5000)})
    page.wait_for_timeout(1200)
    page.screenshot(path=path)


def open_tab(page: Page, tab: str) -> None:
    """Show a tab of the Evaluate page."""
    page.goto("/evaluate")
    idle(page)
    page.get_by_role("tab", name=tab).click()
    idle(page)


def edit_a_mask(page: Page, layers: str = "5, 9-11") -> None:
    """Drop layers in the mask editor; wait until Python has them."""
    page.goto("/masks")
    page.locator(".strip .count").wait_for()
    page.get_by_label("drop:").fill(layers)
    page.get_by_label("drop:").press("Enter")
    page.locator(".strip[data-taken='1']").wait_for()
    idle(page)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "assets" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, running_server(Path(home)) as url, chromium() as browser:
        first = browser.new_page(base_url=url)
        first.goto("/")
        first.get_by_role("button", name="Try the demo").click()
        first.get_by_role("button", name="Download as HTML").wait_for(timeout=300_000)
        first.set_default_timeout(300_000)
        open_tab(first, "Many masks")
        compare_masks(first)
        open_tab(first, "One mask")
        first.get_by_role("button", name="Prune and evaluate").click()
        first.wait_for_timeout(2000)
        expect(first.get_by_role("button", name="Prune and evaluate")).to_be_enabled(timeout=300_000)
        open_tab(first, "Cost")
        first.get_by_text("Measure other budgets too").click()
        first.get_by_role("button", name="Measure cost").click()
        first.get_by_text("90 % interval").first.wait_for()
        edit_a_mask(first)
        for theme in ("light", "dark"):
            for suffix, width in WIDTHS.items():
                for name, path in PAGES.items():
                    page = browser.new_page(base_url=url, color_scheme=theme, viewport={"width": width, "height": 900})
                    page.goto(f"/{path}")
                    photograph(page, folder / f"{name}-{theme}{suffix}.png", width)
                    page.close()
                for name, tab in TABS.items():
                    page = browser.new_page(base_url=url, color_scheme=theme, viewport={"width": width, "height": 900})
                    page.set_default_timeout(300_000)
                    open_tab(page, tab)
                    if tab == "Ask both":
                        page.get_by_label("Prompt", exact=True).click()
                        page.keyboard.type(BROKEN)
                        page.get_by_role("option").filter(has_text=BROKEN).first.click()
                        idle(page)
                        page.get_by_role("button", name="Ask both").click()
                        page.get_by_text("KL").first.wait_for()
                    photograph(page, folder / f"{name}-{theme}{suffix}.png", width)
                    page.close()


if __name__ == "__main__":
    main()
