"""Take the README's screenshots: a real server, the demo's result in it, every page in light and dark.

python -m tools.screenshots [FOLDER]      # default assets/screenshots; needs Chromium and requirements-dev.txt
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tools.serving import ROOT, chromium, idle, running_server

PAGES = {"overview": "", "model": "model", "prompts": "prompts", "similarity": "similarity"}
PAGES |= {"masks": "masks", "evaluate": "evaluate", "export": "export"}
WIDTHS = {"": 1280, "-narrow": 390}


def photograph(page: Page, path: Path, width: int) -> None:
    """Save the whole page, as high as it is."""
    idle(page)
    page.wait_for_timeout(1500)
    height = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(int(height) + 10, 5000)})
    page.wait_for_timeout(1200)
    page.screenshot(path=path)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "assets" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, running_server(Path(home)) as url, chromium() as browser:
        first = browser.new_page(base_url=url)
        first.goto("/")
        first.get_by_role("button", name="Try the demo").click()
        first.get_by_role("button", name="Download as HTML").wait_for(timeout=300_000)
        for theme in ("light", "dark"):
            for suffix, width in WIDTHS.items():
                for name, path in PAGES.items():
                    page = browser.new_page(base_url=url, color_scheme=theme, viewport={"width": width, "height": 900})
                    page.goto(f"/{path}")
                    photograph(page, folder / f"{name}-{theme}{suffix}.png", width)
                    page.close()


if __name__ == "__main__":
    main()
