"""How long a change in the strip of the mask editor takes to be painted, and to be in Python.

    python -m benchmarks.ui        # needs Chromium and requirements-dev.txt; no model

Prints a row for each number of layers and domains: the median of 15 clicks, and of 5 drags over as many cells as may go, 20 at most.
"Painted" is measured in the page, from the event to the second frame after it; "in Python" from the event until the strip has
Python's answer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import Page

from tools.made import made_recording
from tools.serving import chromium, idle, running_server
from vlm_analysis.workbench.shelf import keep_recording
from vlm_analysis.workbench.workspace import Workspace

LAYERS, DOMAINS = (16, 64), (1, 6, 30)
CLICKS, DRAGS, DRAGGED = 15, 5, 20
PAUSE_MS = 400  # between two changes, so that the page is at rest
WATCH = """() => {
  const host = [...document.querySelectorAll('.st-key-mask_strip *')].find((one) => one.shadowRoot);
  const section = host.shadowRoot.querySelector('.strip');
  window.times = {};
  section.addEventListener('pointerdown', () => {
    const start = performance.now();
    window.times = {};
    requestAnimationFrame(() => requestAnimationFrame(() => (window.times.painted = performance.now() - start)));
    const watch = new MutationObserver(() => {
      if (section.dataset.taken !== section.dataset.number) return;
      watch.disconnect();
      window.times.taken = performance.now() - start;
    });
    setTimeout(() => watch.observe(section, { attributes: true, attributeFilter: ['data-taken'] }));
  }, true);
}"""
DRAG = """async (layers) => {
  const host = [...document.querySelectorAll('.st-key-mask_strip *')].find((one) => one.shadowRoot);
  const cells = layers.map((layer) => host.shadowRoot.querySelector(`.edit [data-layer="${layer}"]`));
  const event = (type, cell) => {
    const box = cell.getBoundingClientRect();
    const place = { clientX: box.left + box.width / 2, clientY: box.top + 5, pointerId: 1, pointerType: 'pen', button: 0 };
    cell.dispatchEvent(new PointerEvent(type, { bubbles: true, composed: true, ...place }));
  };
  const start = performance.now();
  event('pointerdown', cells[0]);
  for (const cell of cells) event('pointermove', cell);
  event('pointerup', cells.at(-1));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - start;
}"""


def measured(url: str, page: Page, n_layers: int) -> tuple[float, float, float]:
    """Return the medians in ms: a click painted, a click in Python, a drag painted."""
    page.goto(f"{url}/masks")
    page.locator(".strip .count").wait_for()
    idle(page)
    page.wait_for_timeout(1000)
    page.evaluate(WATCH)
    painted, taken = [], []
    for number in range(CLICKS):
        page.locator(f".strip .edit [data-layer='{3 + number % (n_layers - 4)}']").click()
        page.wait_for_function("window.times.taken !== undefined && window.times.painted !== undefined")
        times = page.evaluate("window.times")
        painted.append(times["painted"])
        taken.append(times["taken"])
        page.wait_for_timeout(PAUSE_MS)
    layers = list(range(3, min(3 + DRAGGED, n_layers - 1)))
    dragged = []
    for _ in range(DRAGS):
        page.get_by_role("button", name="Undo", exact=True).wait_for()
        dragged.append(page.evaluate(DRAG, layers))
        page.wait_for_timeout(PAUSE_MS)
    return median(painted), median(taken), median(dragged)


def main() -> None:
    print("| layers | domains | click painted, ms | click in Python, ms | drag painted, ms |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    with chromium() as browser:
        for n_layers in LAYERS:
            for n_domains in DOMAINS:
                with tempfile.TemporaryDirectory() as home:
                    names = [f"domain {number}" for number in range(n_domains)]
                    keep_recording(Workspace(Path(home) / ".strata"), made_recording(n_layers, names), "made")
                    with running_server(Path(home)) as url:
                        page = browser.new_page(viewport={"width": 1440, "height": 1000})
                        painted, taken, dragged = measured(url, page, n_layers)
                        page.close()
                print(f"| {n_layers} | {n_domains} | {painted:.0f} | {taken:.0f} | {dragged:.0f} |", flush=True)


if __name__ == "__main__":
    main()
