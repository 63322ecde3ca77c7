"""Waiting times of a first visit: the empty Overview, the one-click demo from a cold start to its retention curves, the full comparison.

    python -m benchmarks.demo        # needs Chromium and requirements-dev.txt

Prints one row per claim. The baseline of the demo's evaluations is the dense model alone on the same prompts, in the same run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.ui import first_visit
from tools.serving import chromium, compare_masks, idle, running_server

REPEATS = 3
PARTS = {"choosing": ("recording", "choosing"), "reporting": "reporting", "responses and times": ("timing", "asking")}


def in_the_browser() -> tuple[float, ...]:
    """Return seconds to the empty Overview of a fresh server; from the click (torch still to import) until masks are chosen, to the
    curves and to the whole answer; the median from a click on a layer of the mask editor to the mask in Python; and from the click to the
    pictures of the full comparison: all criteria and strategies, budgets 1 to half of the layers, both domains, its recording with
    attention maps and each layer's damage included, on one set of prompts. The page shows progress once a second."""
    with tempfile.TemporaryDirectory() as home, chromium() as browser, running_server(Path(home)) as url:
        page = browser.new_page(base_url=url)
        overview_s = first_visit(page) / 1000
        start = time.perf_counter()
        page.get_by_role("button", name="Try the demo").click()
        page.get_by_text("reporting: ").first.wait_for(timeout=600_000)
        chosen_s = time.perf_counter() - start
        page.locator(".scatterlayer path.point").first.wait_for(state="attached", timeout=600_000)
        curves_s = time.perf_counter() - start
        page.get_by_role("button", name="Edit this mask").wait_for(timeout=600_000)
        whole_s = time.perf_counter() - start
        page.goto("/masks")
        idle(page)
        page.get_by_role("button", name="Clear", exact=True).click()  # the demo's mask is in the editor
        toggle_s = median([toggle(page, layer, count) for count, layer in enumerate(range(2, 12), start=2)])
        page.goto("/evaluate")
        idle(page)
        page.get_by_role("tab", name="Many masks").click()
        report_on_the_same(page)
        start = time.perf_counter()
        compare_masks(page)
        return overview_s, chosen_s, curves_s, whole_s, toggle_s, time.perf_counter() - start


def report_on_the_same(page: Page) -> None:
    """Report on the prompts that masks are chosen on: on others too, which the page proposes, twice as many evaluations run."""
    chosen = page.get_by_role("combobox", name="Choose masks on").input_value()
    page.get_by_role("combobox", name="Report on").click()
    page.get_by_role("option", name=chosen, exact=True).click()
    page.get_by_text("the same prompts").first.wait_for()
    idle(page)


def parts_of_the_demo() -> dict[str, float]:
    """Return the seconds of each part of the demo, in this process with the model loaded: on the choosing half, on the reporting half,
    and what the pruned models say."""
    from vlm_analysis import Bench, load_model

    starts: dict[str, float] = {}

    def note(done: int, total: int, message: str) -> None:
        part = next((part for part, words in PARTS.items() if message.startswith(words)), None)
        if part is not None:
            starts.setdefault(part, time.perf_counter())

    with tempfile.TemporaryDirectory() as home:
        Bench(load_model(), Path(home)).demo(on_progress=note)
    times = [*starts.values(), time.perf_counter()]
    return {part: end - start for part, start, end in zip(starts, times, times[1:], strict=False)}


def toggle(page: Page, layer: int, count: int) -> float:
    """Return seconds from a click on a layer until Python has the mask, in which it is the `count`-th change."""
    page.wait_for_timeout(500)
    cell = page.locator(f".strip .edit [data-layer='{layer}']")
    start = time.perf_counter()
    cell.click()
    page.locator(f".strip[data-taken='{count}']").wait_for()
    return time.perf_counter() - start


def dense_and_pruned() -> tuple[float, float]:
    """Return seconds for the dense evaluation of the bundled packs, and for one mask with the dense one as reference."""
    from vlm_analysis import PruneMask, evaluate, load_model, open_prompts

    loaded, prompts = load_model(), open_prompts("math") + open_prompts("general")
    evaluate(loaded, prompts)
    start = time.perf_counter()
    dense = evaluate(loaded, prompts)
    middle = time.perf_counter()
    evaluate(loaded, prompts, PruneMask(16, (4, 8, 12)), reference=dense)
    return middle - start, time.perf_counter() - middle


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    cold = [in_the_browser() for _ in range(REPEATS)]
    parts = [parts_of_the_demo() for _ in range(REPEATS)]
    warm = [dense_and_pruned() for _ in range(REPEATS)]
    dense, pruned = median([row[0] for row in warm]), median([row[1] for row in warm])
    print("| what | median s | least | most |")
    print("| --- | --- | --- | --- |")
    for name, values in (
        ("empty Overview, first visit", [row[0] for row in cold]),
        ("demo, click until masks are chosen on 90 prompts, torch not yet imported", [row[1] for row in cold]),
        ("demo, click to curves", [row[2] for row in cold]),
        ("demo, click to the whole answer", [row[3] for row in cold]),
        *((f"demo without the page, {part}", [row[part] for row in parts]) for part in PARTS),
        ("mask toggle, click to the mask in Python", [row[4] for row in cold]),
        ("full comparison, click to pictures", [row[5] for row in cold]),
        ("dense evaluation, 90 prompts", [row[0] for row in warm]),
        ("one mask of 3 layers, 90 prompts", [row[1] for row in warm]),
    ):
        print(f"| {name} | {median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    print(f"\npruned over dense evaluation: {pruned / dense:.2f}")


if __name__ == "__main__":
    main()
