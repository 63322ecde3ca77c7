"""Own images to a heatmap, a refresh and a second browser during a job, and uploads that are broken or hostile."""

from __future__ import annotations

import io
import json
import re
import zipfile

from browser import go, idle, load_bundled, press
from PIL import Image

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
    """A zip of `count` drawn prompts with images, as a user would bring one."""
    members, rows = {}, []
    for seed in range(count):
        example = make_example("count-all", seed, split="browser")
        members[f"images/{seed}.png"] = png(example.image)
        rows.append(
            {"image": f"images/{seed}.png", "question": example.question, "domain": domain, "answer": example.answer}
        )
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


def test_own_images_become_a_heatmap(new_page):
    page = new_page("/")
    load_bundled(page)
    go(page, "Prompts")
    open_tab(page, "Your images")
    files = [
        {"name": f"{task}.png", "mimeType": "image/png", "buffer": png(make_example(task, 1, split="browser").image)}
        for task in ("colour", "bar-value")
    ]
    page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(files)
    page.get_by_role("button", name="Set question").first.wait_for()
    page.get_by_placeholder(re.compile(".*")).first.wait_for()
    fill_and_press(page, "question", "how many shapes are there?")
    fill_and_press(page, "domain", "drawn")
    press(page, "Save as prompt set")
    page.get_by_text(re.compile("In use now")).first.wait_for()
    go(page, "Similarity")
    press(page, "Record", exact=True)
    page.get_by_role("tab", name="Numbers").first.wait_for()
    chart = page.locator('[data-testid="stPlotlyChart"]').first
    chart.locator(".heatmaplayer image, .heatmaplayer .hm").first.wait_for(state="attached")
    chart.get_by_text("drawn").first.wait_for()


def fill_and_press(page, field: str, text: str) -> None:
    page.locator(f".st-key-{field}-for-ticked input").fill(text)
    press(page, f"Set {field}", exact=True)
    idle(page)


def test_job_survives_refresh_and_is_seen_and_cancelled_from_a_second_browser(new_page):
    first = new_page("/")
    load_bundled(first)
    save_zip_as_prompts(first, "many.zip", drawn_zip(400))
    go(first, "Similarity")
    press(first, "Record", exact=True)
    running = re.compile(r"recording.*left")
    first.get_by_text(running).first.wait_for()
    first.reload()
    idle(first)
    first.get_by_text(running).first.wait_for()
    second = new_page("/similarity")
    second.get_by_text(running).first.wait_for()
    cancel = second.get_by_role("button", name="Cancel", exact=True).first
    cancel.dispatch_event("click")  # at once: the page draws itself again while the job runs
    second.get_by_text(re.compile("cancelled after")).first.wait_for()
    first.get_by_text(re.compile("cancelled after")).first.wait_for()


def test_broken_upload_is_reported_by_name_and_the_rest_kept(new_page):
    page = new_page("/prompts")
    open_tab(page, "Open a file or folder")
    good = png(make_example("count-all", 3, split="browser").image)
    rows = [
        {"image": "good.png", "question": "how many shapes are there?", "id": "fine"},
        {"image": "bad.png", "question": "how many shapes are there?", "id": "spoilt"},
        {"image": "../../etc/passwd", "question": "what?", "id": "outside"},
    ]
    table = "\n".join(map(json.dumps, rows)).encode()
    upload(
        page, "mixed.zip", zipped({"good.png": good, "bad.png": good[:60], "../evil.png": good, "prompts.jsonl": table})
    )
    page.get_by_role("button", name="Take these prompts").first.wait_for()
    idle(page)
    press(page, "Take these prompts")
    page.get_by_text(re.compile(r"Saved [\d,]+ prompt")).first.wait_for()
    assert "1 prompt" in page.get_by_test_id("stMain").inner_text()


def test_file_that_is_no_zip_is_one_clear_message(new_page):
    page = new_page("/prompts")
    open_tab(page, "Open a file or folder")
    upload(page, "broken.zip", b"this is no zip")
    page.get_by_test_id("stAlert").first.wait_for()
    assert page.get_by_test_id("stException").count() == 0


def test_hostile_domain_name_reaches_no_other_host(new_page):
    page = new_page("/")
    load_bundled(page)
    save_zip_as_prompts(page, "hostile.zip", drawn_zip(2, domain="![x](http://host.example/p.png) <b>$x$</b>"))
    go(page, "Similarity")
    press(page, "Record", exact=True)
    page.get_by_role("tab", name="Numbers").first.wait_for()
    for label in ("Masks", "Evaluate", "Export", "Overview"):
        go(page, label)  # `new_page` fails the test when any request leaves the server
