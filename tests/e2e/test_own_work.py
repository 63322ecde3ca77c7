"""Own images to a heatmap, a refresh and a second browser during a job, and uploads that are broken or hostile."""

from __future__ import annotations

import io
import itertools
import json
import re
import zipfile
from contextlib import suppress

from browser import SHOWN_MS, TRIES, arrived, go, idle, load_bundled, press, strip_painted, write_mask
from PIL import Image
from playwright.sync_api import TimeoutError

from vlm_analysis.pocket.tasks import make_example


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def drawn_zip(count: int, domain: str = "mine") -> bytes:
    """A zip of `count` prompts on two drawn images, as a user would bring one."""
    examples = [make_example("count-all", seed, split="browser") for seed in range(2)]
    members = {f"images/{seed}.png": png(example.image) for seed, example in enumerate(examples)}
    rows = [
        {"image": f"images/{number % 2}.png", "question": example.question, "domain": domain, "answer": example.answer}
        for number, example in zip(range(count), itertools.cycle(examples), strict=False)
    ]
    members["prompts.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    return zipped(members)


def upload(page, name: str, data: bytes) -> None:
    page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )


def open_tab(page, name: str) -> None:
    press(page, name, "tab")
    idle(page)


def save_zip_as_prompts(page, name: str, data: bytes) -> None:
    go(page, "Prompts")
    open_tab(page, "Open a file or folder")
    upload(page, name, data)
    press(page, "Take these prompts")
    page.get_by_text(re.compile(r"Saved [\d,]+ prompt")).first.wait_for()
    idle(page)


def test_own_images_become_a_heatmap_and_an_evaluated_mask(new_page):
    page = new_page("/")
    load_bundled(page)
    go(page, "Prompts")
    open_tab(page, "Your images")
    files = [
        {"name": f"{task}.png", "mimeType": "image/png", "buffer": png(make_example(task, 1, split="browser").image)}
        for task in ("colour", "bar-value")
    ]
    page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(files)
    page.get_by_role("button", name="Set in ticked rows").first.wait_for()
    page.locator(".st-key-set-text input").fill("how many shapes are there?")
    press(page, "Set in ticked rows")
    idle(page)
    press(page, "the beginning of the file name", "radio")
    press(page, "Set 2 domains in ticked rows")
    idle(page)
    paste_into_the_table(page, "how many?\tdrawn\t3\nwhat colour?\tdrawn\tred")
    press(page, "Save as prompt set")
    page.get_by_role("heading", name="In use: My images").wait_for()
    go(page, "Similarity")
    press(page, "Record", exact=True)
    page.get_by_role("tab", name="Numbers").first.wait_for()
    chart = page.locator('[data-testid="stPlotlyChart"]').first
    chart.locator(".heatmaplayer image, .heatmaplayer .hm").first.wait_for(state="attached")
    chart.get_by_text("drawn").first.wait_for()
    go(page, "Masks")
    strip_painted(page)
    write_mask(page, "5, 9")
    arrived(page)
    go(page, "Evaluate")
    press(page, "Prune and evaluate")
    page.get_by_text("without layers 5, 9: 2 of 16").first.wait_for()
    page.get_by_text("KL to dense").first.wait_for()
    page.get_by_text("what colour?").first.wait_for()  # a card of the gallery


def paste_into_the_table(page, cells: str) -> None:
    """Paste cells as a spreadsheet copies them, from the first row's question on."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("(cells) => navigator.clipboard.writeText(cells)", cells)
    table = page.get_by_test_id("stDataFrame").first
    last = table.locator("td", has_text=re.split(r"[\t\n]", cells)[-1]).first
    for _ in range(TRIES):  # a table that has just been drawn may have no focus yet
        table.click(position={"x": 450, "y": 72})  # below the headings, right of tick, image and name
        page.keyboard.press("Control+V")
        with suppress(TimeoutError):
            last.wait_for(state="attached", timeout=SHOWN_MS)
            break
    idle(page)


def test_job_survives_refresh_and_is_seen_and_cancelled_from_a_second_browser(new_page):
    first = new_page("/")
    load_bundled(first)
    save_zip_as_prompts(first, "many.zip", drawn_zip(2000))
    go(first, "Similarity")
    press(first, "Record", exact=True)
    running = re.compile(r"recording.*left")
    first.get_by_text(running).first.wait_for()
    first.reload()
    idle(first)
    first.get_by_text(running).first.wait_for()
    second = new_page("/model")
    listed = second.get_by_role("button", name="Jobs (1)")
    for _ in range(TRIES):  # the list draws itself again while the job runs
        listed.press("Enter")
        with suppress(TimeoutError):
            second.get_by_text(running).first.wait_for(timeout=SHOWN_MS)
            break
    told = second.get_by_text(running).first.inner_text()
    second.get_by_text(running).filter(has_not_text=told).first.wait_for()  # it moves by itself
    second.get_by_text("Similarity").nth(1).wait_for()
    cancel = second.get_by_role("button", name="Cancel", exact=True).first
    cancel.dispatch_event("click")  # at once: the list draws itself again while the job runs
    second.get_by_text(re.compile("cancelled after")).first.wait_for()
    first.get_by_text(re.compile("cancelled after")).first.wait_for()


def test_broken_and_hostile_uploads_are_reported_by_name_the_rest_is_kept_and_no_other_host_reached(new_page):
    page = new_page("/")
    load_bundled(page)
    go(page, "Prompts")
    open_tab(page, "Open a file or folder")
    upload(page, "broken.zip", b"this is no zip")
    page.get_by_test_id("stAlert").first.wait_for()
    idle(page)
    upload(page, "mixed.zip", mixed_zip())
    press(page, "Take these prompts")
    page.get_by_text("Saved 1 prompt in").first.wait_for()
    save_zip_as_prompts(page, "hostile.zip", drawn_zip(2, domain="![x](http://host.example/p.png) <b>$x$</b>"))
    page.get_by_text("Saved 2 prompts in").first.wait_for()
    go(page, "Similarity")
    press(page, "Record", exact=True)
    page.get_by_role("tab", name="Numbers").first.wait_for()
    for label in ("Masks", "Evaluate", "Export", "Overview"):
        go(page, label)  # `new_page` fails the test when any request leaves the server


def mixed_zip() -> bytes:
    """A zip with one sound prompt, a torn image, and members and images that would lie outside of it."""
    good = png(make_example("count-all", 3, split="browser").image)
    rows = [
        {"image": "good.png", "question": "how many shapes are there?", "id": "fine"},
        {"image": "bad.png", "question": "how many shapes are there?", "id": "spoilt"},
        {"image": "../../etc/passwd", "question": "what?", "id": "outside"},
    ]
    table = "\n".join(map(json.dumps, rows)).encode()
    return zipped({"good.png": good, "bad.png": good[:60], "../evil.png": good, "prompts.jsonl": table})
