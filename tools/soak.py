"""Two browsers use one dashboard for a long time: pages, edits, jobs and cancels. Does the server end with the memory it began with?

    python -m tools.soak                 # an hour; `make soak` is the same
    python -m tools.soak --minutes 5

Needs Chromium and requirements-dev.txt. Every round each browser goes through the pages, changes the mask, starts an evaluation, cancels
every other one, and loads the page anew. After the first rounds, which fill caches, the resident memory of the server and its children is
taken at rest. Ends with 1 where it has grown by more than a tenth at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import Browser, Page, TimeoutError

from tools.serving import chromium, idle, started_server

MOST_GROWTH = 0.1
LEAST_ROUNDS = 4  # after the warm-up: the last of them are compared with the first
WARM_ROUNDS = 3  # fill caches, and what Python and the C library keep of freed memory
PAGES = ("Prompts", "Similarity", "Masks", "Evaluate", "Export", "Overview", "Model")
REST_S = 3.0
LONG_MS = 300_000


@contextmanager
def served(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the dashboard; yields its process and address."""
    process, url = started_server(home)
    try:
        yield process, url
    finally:
        process.terminate()
        process.wait()


def memory_of(process: subprocess.Popen[bytes]) -> int:
    """Return the resident bytes of a process and its children, the least of some looks at rest."""
    looks = []
    for _ in range(3):
        time.sleep(REST_S / 3)
        owner = psutil.Process(process.pid)
        looks.append(sum(one.memory_info().rss for one in (owner, *owner.children(recursive=True))))
    return min(looks)


def opened(browser: Browser, url: str) -> Page:
    """Open the Overview in a session of its own."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}, base_url=url).new_page()
    page.set_default_timeout(LONG_MS)
    page.goto("/")
    idle(page)
    return page


def prepare(page: Page) -> None:
    """Run the demo, which loads the bundled model and leaves work for every page."""
    page.get_by_role("button", name="Try the demo").click()
    page.get_by_role("button", name="Edit this mask").wait_for()
    idle(page)


def to(page: Page, label: str) -> None:
    page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True).click()
    page.get_by_role("heading", name=label, exact=True).first.wait_for()
    idle(page)


def change_mask(page: Page, number: int) -> None:
    """Clear the mask and drop three layers of it."""
    to(page, "Masks")
    page.get_by_role("button", name="Clear", exact=True).click()
    for layer in range(3):
        page.locator(f".strip .edit [data-layer='{3 + (number + 3 * layer) % 11}']").click()
    idle(page)


def work(page: Page, number: int) -> None:
    """Evaluate the mask; every other time the job is cancelled as soon as that can be done."""
    to(page, "Evaluate")
    page.get_by_role("button", name="Prune and evaluate", exact=True).first.click()
    if number % 2:
        cancel = page.get_by_role("button", name="Cancel", exact=True)
        if cancel.count():
            with suppress(TimeoutError):  # it ended before
                cancel.first.click(timeout=2000)
    page.wait_for_function(
        "() => ![...document.querySelectorAll('button')].some((one) => one.innerText.trim() === 'Cancel')"
    )
    idle(page)


def a_round(pages: Sequence[Page], number: int) -> None:
    """Let every browser do all once, each another page first."""
    for place, page in enumerate(pages):
        change_mask(page, number + place)
        work(page, number + place)
        for label in PAGES[place::2]:
            to(page, label)
        page.reload()
        idle(page)


def soak(browser: Browser, minutes: float, home: Path) -> list[int]:
    """Return the resident bytes of the server after each round, those of the first ones included."""
    looks: list[int] = []
    with served(home) as (process, url):
        pages = [opened(browser, url)]
        prepare(pages[0])
        pages.append(opened(browser, url))
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end or len(looks) < WARM_ROUNDS + LEAST_ROUNDS:
            a_round(pages, len(looks))
            looks.append(memory_of(process))
            print(f"round {len(looks)}: {looks[-1] / 2**20:,.0f} MiB", flush=True)
            if len(looks) % 5 == 0:  # a tab is closed and another one opened
                pages.pop(0).context.close()
                pages.append(opened(browser, url))
    return looks


def growth(looks: Sequence[int]) -> float:
    """Return how much memory grew, as a share: the median of the last rounds over that of the first ones after the warm-up.

    >>> round(growth([50, 90, 98, 100, 100, 100, 104, 105, 103]), 2)
    0.04
    """
    rest = looks[WARM_ROUNDS:]
    few = max(1, min(5, len(rest) // 2))
    return median(rest[-few:]) / median(rest[:few]) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as home, chromium() as browser:
        looks = soak(browser, minutes, Path(home))
    grown = growth(looks)
    print(
        f"{len(looks)} rounds; memory grew by {grown:.1%} after the first {WARM_ROUNDS}, at most {MOST_GROWTH:.0%} is meant"
    )
    sys.exit(grown > MOST_GROWTH)


if __name__ == "__main__":
    main()
