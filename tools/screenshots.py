"""Take the README's screenshots: a real server, the demo's result in it, every page in light and dark.

python -m tools.screenshots [FOLDER]      # default assets/screenshots; needs Chromium and requirements-dev.txt

It takes a quarter of an hour, and says what it does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, expect

from tools.serving import ROOT, chromium, compare_masks, idle, running_server

PAGES = {"overview": "", "model": "model", "prompts": "prompts", "similarity": "similarity"}
PAGES |= {
    "masks": "masks",
    "evaluate": "evaluate",
    "depth-or-width": "depth_or_width",
    "export": "export",
    "glossary": "glossary",
}
PAGES |= {"prompts-suites": "prompts?way-in=Probe+suites", "similarity-explain": "similarity?similarity_tab=Explain"}
TABS = {
    "many": "Many+masks",
    "recover": "Get+back+what+was+lost",
    "ask": "Ask+both",
    "cost": "Cost",
    "claims": "Claims",
}
PAGES |= {f"evaluate-{name}": f"evaluate?evaluate_tab={tab}" for name, tab in TABS.items()}
BROKEN_MASK = "4, 5, 7, 9, 10, 12, 14"  # layers without which a fifth of the answers go
SKIP_IT = "similarity-skip-it"
VISION, TOWER = "masks-vision", "masks-tower"
PAGES |= {SKIP_IT: "similarity?similarity_tab=Explain", VISION: "masks?cut=5+9-11&absent=13-15&frozen=4"}
PAGES |= {TOWER: "masks?cut=5+9-11&tower=2"}
BROKEN = "caption-865"  # a prompt of the report packs that the mask in the editor answers differently
PATIENCE_MS = 900_000  # a busy machine spoils no picture
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
    """Drop layers of the decoder alone in the mask editor; wait until Python has them."""
    page.goto("/masks")
    page.locator(".strip .count").wait_for()
    if (restore := page.locator("[data-do='restore']:enabled")).count():  # layers of the vision encoder
        restore.click()
    page.get_by_label("drop:").fill(layers)
    page.get_by_label("drop:").press("Enter")
    page.locator(".strip:not([data-taken='0'])").wait_for()  # how often it told Python
    idle(page)


def edit_a_broken_mask(page: Page) -> None:
    """Drop layers without which answers go."""
    edit_a_mask(page, BROKEN_MASK)


def recover(page: Page) -> None:
    """Get back what the mask in the editor lost, by a repair and a short fine-tuning."""
    open_tab(page, "Get back what was lost")
    page.get_by_label("Short fine-tuning", exact=True).click()
    page.get_by_role("option").filter(has_text="small").first.click()
    idle(page)
    page.get_by_role("button", name="Get it back").click()
    page.get_by_role("heading", name="What came back, and what broke").first.wait_for(timeout=1_200_000)


def show_skip_it(page: Page) -> None:
    """Show Skip-It's conditions."""
    idle(page)
    page.get_by_role("radio", name="Skip-It").click()
    page.locator(".st-key-skip-curves .scatterlayer").first.wait_for(state="attached")


def score_width(page: Page) -> None:
    """Score the width on the Masks page, which shows its heatmap from then on."""
    page.goto("/masks")
    idle(page)
    page.get_by_role("button", name="Score the width").click()
    page.locator(".st-key-width-heatmap .heatmaplayer").first.wait_for(state="attached")


def hold_a_contest(page: Page) -> None:
    """Ask which kind of edit keeps most, with the same recovery beside."""
    page.goto("/depth_or_width")
    idle(page)
    if (halves := page.get_by_role("button", name="Split in halves")).is_visible():
        halves.click()
        idle(page)
    page.get_by_text("Options", exact=True).click()
    page.wait_for_timeout(1000)  # the options open slowly, and a list in them would close again
    page.get_by_placeholder("Only the edits as they are").click()
    page.get_by_role("option").filter(has_text="small").first.click()
    page.keyboard.press("Escape")  # the open list lies over the button
    idle(page)
    page.get_by_test_id("stMain").get_by_role("button", name="Depth or width?", exact=True).click()
    page.get_by_role("combobox", name="Contest").wait_for(timeout=1_200_000)
    page.get_by_text("With the same fine-tuning").first.wait_for()


def ask_both(page: Page) -> None:
    """Ask both models the prompt that the mask answers differently."""
    idle(page)
    page.get_by_label("Prompt", exact=True).click()
    page.keyboard.type(BROKEN)
    page.get_by_role("option").filter(has_text=BROKEN).first.click()
    idle(page)
    page.get_by_role("button", name="Ask both").click()
    page.get_by_text("KL").first.wait_for()


def try_the_demo(page: Page) -> None:
    """Press the demo's button on an empty Overview, and wait for the whole answer."""
    page.goto("/")
    page.get_by_role("button", name="Try the demo").click()
    page.get_by_role("button", name="Present").wait_for()


def compare_and_evaluate(page: Page) -> None:
    """Compare many masks, and evaluate the demo's."""
    open_tab(page, "Many masks")
    compare_masks(page)
    open_tab(page, "One mask")
    page.get_by_role("button", name="Prune and evaluate").click()
    page.wait_for_timeout(2000)
    expect(page.get_by_role("button", name="Prune and evaluate")).to_be_enabled(timeout=PATIENCE_MS)


def measure_cost(page: Page) -> None:
    """Time the mask, and what is proposed beside it."""
    open_tab(page, "Cost")
    page.get_by_text("Measure other budgets too").click()
    page.get_by_role("button", name="Measure cost").click()
    page.get_by_text("90 % interval").first.wait_for()


def scan_vision(page: Page) -> None:
    """Scan where vision tokens may skip layers, on the tab of Skip-It's conditions."""
    page.goto(f"/{PAGES[SKIP_IT]}")
    show_skip_it(page)
    page.get_by_role("button", name="Scan vision tokens").click()
    page.get_by_role("combobox", name="Choose where they skip by").wait_for()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "assets" / "screenshots")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as home, running_server(Path(home)) as url, chromium() as browser:
        first = browser.new_page(base_url=url)
        first.set_default_timeout(PATIENCE_MS)
        steps = (
            try_the_demo,
            compare_and_evaluate,
            edit_a_mask,
            measure_cost,
            edit_a_broken_mask,
            recover,
            scan_vision,
        )
        for step in (*steps, score_width, hold_a_contest, edit_a_mask):
            step(first)
            print(f"{time.monotonic() - begun:5.0f} s  {step.__name__.replace('_', ' ')}", flush=True)
        for theme in ("light", "dark"):
            for suffix, width in WIDTHS.items():
                print(f"{time.monotonic() - begun:5.0f} s  {theme}, {width} pixels wide", flush=True)
                for name, path in PAGES.items():
                    page = browser.new_page(base_url=url, color_scheme=theme, viewport={"width": width, "height": 900})
                    page.set_default_timeout(PATIENCE_MS)
                    page.goto(f"/{path}")
                    if name == "evaluate-ask":
                        ask_both(page)
                    if name == SKIP_IT:
                        show_skip_it(page)
                    photograph(page, folder / f"{name}-{theme}{suffix}.png", width)
                    page.close()
                    if name in (VISION, TOWER):
                        edit_a_mask(first, "5, 9-11; vision none")  # the next picture shows the mask alone again


if __name__ == "__main__":
    main()
