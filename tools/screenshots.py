"""Take the README's screenshots: a real server, the demo's result in it, every page in light and dark.

python tools/screenshots.py [FOLDER]      # default assets/screenshots; needs Chromium and requirements-dev.txt
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PORT = 8599
PAGES = {"overview": "", "model": "model", "prompts": "prompts", "similarity": "similarity"}
PAGES |= {"masks": "masks", "evaluate": "evaluate", "export": "export"}
WIDTHS = {"": 1280, "-narrow": 390}


def wait_idle(page: Page) -> None:
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=120_000)


def start_server(home: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "HOME": home, "HF_HUB_OFFLINE": "1"}
    env.pop("STRATA_HOME", None)  # the pictures then show paths below ~
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app.py",
        "--server.port",
        str(PORT),
        "--server.headless",
        "true",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/_stcore/health", timeout=1).close()
            return process
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def photograph(page: Page, path: Path, width: int) -> None:
    """Save the whole page, as high as it is."""
    wait_idle(page)
    page.wait_for_timeout(1500)
    height = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(int(height) + 10, 5000)})
    page.wait_for_timeout(1200)
    page.screenshot(path=path)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "assets" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = start_server(home)
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        try:
            first = browser.new_page(base_url=f"http://127.0.0.1:{PORT}")
            first.goto("/")
            first.get_by_role("button", name="Try the demo").click()
            first.get_by_role("button", name="Download as HTML").wait_for(timeout=300_000)
            for theme in ("light", "dark"):
                for suffix, width in WIDTHS.items():
                    for name, path in PAGES.items():
                        page = browser.new_page(
                            base_url=f"http://127.0.0.1:{PORT}",
                            color_scheme=theme,
                            viewport={"width": width, "height": 900},
                        )
                        page.goto(f"/{path}")
                        photograph(page, folder / f"{name}-{theme}{suffix}.png", width)
                        page.close()
        finally:
            browser.close()
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
