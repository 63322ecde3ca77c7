"""How long the pages take in a real browser: an edit of the mask, a drag, another page, the first chart, a second window.

    python -m benchmarks.ui        # some four minutes; needs Chromium and requirements-dev.txt
    python -m benchmarks.ui full   # only the pages with 10,000 masks and 90 domains

Prints the median and the slowest of each beside what is promised. "Painted" is measured in the page, from the event until the second frame
after it; "in Python" from the event until the strip has Python's answer; a page from the click on its link until its script has ended and
all its charts and tables are drawn. The recordings of the strip are made of drawn numbers; the pages show the work of the demo, which is
run first, without a loaded model. Full pages have 10,000 saved masks, a recording and an evaluation of 90 domains, all of drawn numbers; of
these the processor time of the server is printed too, which other work on the machine changes less.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import Browser, Page

from tools.made import made_recording, made_workspace
from tools.serving import ROOT, chromium, idle, running_server, started_server
from vlm_analysis.workbench.shelf import keep_recording
from vlm_analysis.workbench.workspace import Workspace

LAYERS, DOMAINS = (16, 64), (1, 6, 30)
CLICKS, DRAGS, DRAGGED = 15, 5, 20
STARTS, VISITS, ROUNDS, FOLLOWED, PARTED = 3, 3, 3, 10, 3
FULL = {"masks": 10_000, "domains": 90}
PAUSE_MS = 400  # between two changes, so that the page is at rest
PAGES = ("Model", "Prompts", "Similarity", "Masks", "Evaluate", "Export", "Glossary", "Overview")
PAINTED_MS, TAKEN_MS, PAGE_MS, EMPTY_MS, FOLLOWED_MS = 50, 300, 1500, 1500, 1000  # what is promised
WATCH = """() => {
  const host = [...document.querySelectorAll('.st-key-mask_strip *')].find((one) => one.shadowRoot);
  const section = host.shadowRoot.querySelector('.strip');
  const painted = (event) => new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - event.timeStamp))));
  const taken = (event) => new Promise((done) => {
    const watch = new MutationObserver(() => {
      if (section.dataset.taken !== section.dataset.number) return;
      watch.disconnect();
      done(performance.now() - event.timeStamp);
    });
    setTimeout(() => watch.observe(section, { attributes: true, attributeFilter: ['data-taken'] }));
  });
  section.addEventListener('pointerdown', (event) => (window.pressed = Promise.all([painted(event), taken(event)])), true);
  section.addEventListener('pointermove', (event) => (window.moved = painted(event)), true);
}"""
SWITCH = """async (link, label) => {
  const seen = (kind) => [...document.querySelectorAll(`[data-testid="${kind}"]`)].filter((one) => one.checkVisibility());
  const isDrawn = () =>
    document.querySelector('h1')?.textContent.trim().endsWith(label) &&
    document.querySelector('[data-testid="stApp"]').dataset.testScriptState === 'notRunning' &&
    !seen('stSkeleton').length &&
    seen('stPlotlyChart').every((one) => one.querySelector('.main-svg')) &&
    seen('stDataFrame').every((one) => one.querySelector('canvas'));
  const start = performance.now();
  link.click();
  do {
    await new Promise((done) => requestAnimationFrame(done));
  } while (!isDrawn() && performance.now() < start + 20000); // a row of 20 s and more is a page that was never drawn
  return performance.now() - start;
}"""
SEEN = """(() => {
  const look = () => {
    const found = [...document.querySelectorAll('button')].some((one) => one.innerText.includes('Try the demo') && one.checkVisibility());
    if (found) window.seen = Date.now();
    else requestAnimationFrame(look);
  };
  if (location.pathname === '/') requestAnimationFrame(look); // on other pages it would look for ever, and slow what is timed there
})()"""
FOLLOW = """() => {
  const host = [...document.querySelectorAll('.st-key-mask_strip *')].find((one) => one.shadowRoot);
  const count = host.shadowRoot.querySelector('.count');
  host.shadowRoot.querySelector('.strip').addEventListener('pointerdown', () => (window.begun = Date.now()), true);
  new MutationObserver(() => (window.told = [count.textContent, Date.now()])).observe(count, { childList: true });
}"""


def row(what: str, times_ms: Sequence[float], promised_ms: float | None) -> None:
    """Print the median and the slowest of some times, and whether the median keeps what is promised."""
    middle = median(times_ms)
    kept = "" if promised_ms is None else f"{promised_ms:.0f}, {'kept' if middle <= promised_ms else 'NOT kept'}"
    print(f"| {what} | {middle:.0f} | {max(times_ms):.0f} | {len(times_ms)} | {kept} |", flush=True)


@contextmanager
def opened(browser: Browser, url: str, path: str = "/") -> Iterator[Page]:
    """Open a page in a browser session of its own, and wait until its script has ended."""
    with browser.new_context(viewport={"width": 1440, "height": 1000}, base_url=url) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(path)
        idle(page)
        yield page


def empty_overview(browser: Browser, url: str) -> float:
    """Return the ms of the first visit to a fresh server without saved work."""
    with browser.new_context(viewport={"width": 1440, "height": 1000}, base_url=url) as context:
        return first_visit(context.new_page())


def first_visit(page: Page) -> float:
    """Open the empty Overview and return the ms until its button is there, as the page itself sees it: a driver looks twice a second."""
    page.add_init_script(SEEN)
    start = time.time()
    page.goto("/")
    page.get_by_role("button", name="Try the demo").wait_for()
    idle(page)
    return float(page.evaluate("window.seen")) - 1000 * start


def cell(page: Page, layer: int) -> tuple[float, float]:
    """Return where the middle of a layer's cell lies on the screen, with the cell in view."""
    place = page.locator(f".strip .edit [data-layer='{layer}']")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def strip(browser: Browser, url: str, recording: str, n_layers: int) -> dict[str, list[float]]:
    """Return in ms what clicks took to be painted and to be in Python, and the cells of drags to be painted."""
    with opened(browser, url, f"/masks?recording={recording}") as page:
        page.locator(".strip .count").wait_for()
        page.get_by_role("button", name="Clear", exact=True).click(force=True)
        page.wait_for_timeout(1500)
        page.evaluate(WATCH)
        clicks = []
        for number in range(CLICKS):
            page.mouse.click(*cell(page, 3 + number % (n_layers - 4)))
            clicks.append(page.evaluate("window.pressed"))
            page.wait_for_timeout(PAUSE_MS)
        dragged = [time_ms for _ in range(DRAGS) for time_ms in drag(page, range(3, min(3 + DRAGGED, n_layers - 1)))]
    return {"painted": [one for one, _ in clicks], "taken": [one for _, one in clicks], "dragged": dragged}


def drag(page: Page, layers: Sequence[int]) -> list[float]:
    """Drag over the cells of some layers and back to rest; return in ms when each was painted."""
    places = [cell(page, layer) for layer in layers]
    page.mouse.move(*places[0])
    page.mouse.down()
    times = []
    for place in places[1:]:
        page.mouse.move(*place)
        times.append(page.evaluate("window.moved"))
    page.mouse.up()
    page.wait_for_timeout(PAUSE_MS)
    return times


def pages(browser: Browser, url: str) -> None:
    """Print what a visit to the Overview with an answer takes to its first chart, and each switch of pages."""
    visits = []
    for _ in range(VISITS):
        start = time.perf_counter()
        with opened(browser, url) as page:
            page.locator(".st-key-answer-curve .scatterlayer path.point").first.wait_for(state="attached")
            visits.append(1000 * (time.perf_counter() - start))
    row("Overview with the demo's answer, a new visit to its first chart", visits, PAGE_MS)
    times: dict[str, list[float]] = {label: [] for label in PAGES}
    with opened(browser, url) as page:
        for _ in range(ROUNDS):
            for label in PAGES:
                link = page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True)
                times[label].append(link.evaluate(SWITCH, label))
                page.wait_for_timeout(PAUSE_MS)
    for label in PAGES:
        row(f"{label}, from another page", times[label], PAGE_MS)


def full_pages(browser: Browser) -> None:
    """Print each page of a full workspace: from the click until all is drawn, the server's time for it, and the server's memory."""
    with tempfile.TemporaryDirectory() as home:
        domains = [f"domain {number}" for number in range(FULL["domains"])]
        made_workspace(Workspace(Path(home) / ".strata"), n_masks=FULL["masks"], domains=domains)
        process, url = started_server(Path(home))
        server, visits = psutil.Process(process.pid), [label for _ in range(ROUNDS + 1) for label in PAGES]
        drawn: dict[str, list[float]] = {label: [] for label in PAGES}
        used: dict[str, list[float]] = {label: [] for label in PAGES}
        memory = []
        try:
            with opened(browser, url) as page:
                for label in visits:
                    link = page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True)
                    before = sum(server.cpu_times()[:2])
                    drawn[label].append(link.evaluate(SWITCH, label))
                    page.wait_for_timeout(PAUSE_MS)
                    used[label].append(1000 * (sum(server.cpu_times()[:2]) - before))
                    memory.append(server.memory_info().rss / 2**20)
        finally:
            process.terminate()
            process.wait()
    for label in PAGES:
        row(
            f"{label}, {FULL['masks']:,} masks and {FULL['domains']} domains, from another page",
            drawn[label][1:],
            PAGE_MS,
        )
        row("of it, the server's processor time", used[label][1:], None)
        row("its first visit to a fresh server, the server's processor time", used[label][:1], None)
    print(
        f"The server held {memory[len(PAGES) - 1]:,.0f} MiB after the first visit to all pages, {memory[-1]:,.0f} MiB at the end."
    )


def two_browsers(browser: Browser, url: str, recording: str) -> None:
    """Print how soon a second browser follows a click in the first, and how soon one of them says that both have changed the mask."""
    path = f"/masks?recording={recording}"
    with opened(browser, url, path) as one, opened(browser, url, path) as other:
        for page in (one, other):
            page.get_by_role("button", name="Clear", exact=True).click(force=True)
            page.wait_for_timeout(1500)
            page.evaluate(FOLLOW)
        follows, parts = [], []
        for number in range(FOLLOWED):
            one.mouse.click(*cell(one, 3 + number))
            other.wait_for_function(f"window.told?.[0].startsWith('{number + 1} of')")
            follows.append(other.evaluate("window.told[1]") - one.evaluate("window.begun"))
            one.wait_for_timeout(PAUSE_MS + 37 * number)  # at another moment of the other's looks
        row("click in one browser, followed in another", follows, FOLLOWED_MS)
        for number in range(PARTED):
            places = cell(one, 3 + number), cell(other, 12 - number)
            start = time.perf_counter()
            for page, place in zip((one, other), places, strict=True):
                page.mouse.click(*place)
            asked = first_asked(one, other)
            parts.append(1000 * (time.perf_counter() - start))
            asked.get_by_role("button", name="Show it").click()
            asked.wait_for_timeout(2000)
        row("click in both at once, until one says so", parts, FOLLOWED_MS)


def first_asked(*windows: Page) -> Page:
    """Return the first page that says that the mask was changed elsewhere."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for page in windows:
            if page.get_by_role("button", name="Show it").is_visible():
                return page
    raise RuntimeError("No page said that the mask was changed elsewhere.")


def run_demo(home: Path) -> None:
    """Run the demo into the workspace of a home."""
    command = [sys.executable, "-m", "vlm_analysis", "demo", "--out", str(home / "demo.html")]
    env = {name: value for name, value in os.environ.items() if name != "STRATA_HOME"}
    subprocess.run(
        command, cwd=ROOT, env={**env, "HOME": str(home), "HF_HUB_OFFLINE": "1"}, check=True, capture_output=True
    )


def strips(browser: Browser, url: str, shelf: Workspace) -> None:
    """Print the times of clicks and drags in strips of all sizes."""
    for n_layers in LAYERS:
        for n_domains in DOMAINS:
            made = made_recording(n_layers, [f"domain {number}" for number in range(n_domains)])
            item = keep_recording(shelf, made, f"{n_layers} x {n_domains}")
            times = strip(browser, url, item.id, n_layers)
            size = f"{n_layers} layers, {n_domains} {'domain' if n_domains == 1 else 'domains'}"
            row(f"{size}: click, painted", times["painted"], PAINTED_MS)
            row(f"{size}: click, in Python", times["taken"], TAKEN_MS)
            row(f"{size}: cell of a drag, painted", times["dragged"], PAINTED_MS)


def main() -> None:
    print("| what | median ms | slowest | times | promised |\n| --- | ---: | ---: | ---: | --- |")
    with chromium() as browser:
        if sys.argv[1:] == ["full"]:
            return full_pages(browser)
        starts = []
        for _ in range(STARTS):
            with tempfile.TemporaryDirectory() as home, running_server(Path(home)) as url:
                starts.append(empty_overview(browser, url))
        row("empty Overview, first visit to a fresh server", starts, EMPTY_MS)
        with tempfile.TemporaryDirectory() as home:
            run_demo(Path(home))
            with running_server(Path(home)) as url:
                pages(browser, url)
        with tempfile.TemporaryDirectory() as home, running_server(Path(home)) as url:
            shelf = Workspace(Path(home) / ".strata")
            strips(browser, url, shelf)
            two_browsers(browser, url, shelf.items("recordings")[-1].id)
        full_pages(browser)
    return None


if __name__ == "__main__":
    main()
