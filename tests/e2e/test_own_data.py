"""Anyone's data on an empty workspace: three clicks from the Overview to a heatmap, and every ending is accepted."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from browser import choose, go, idle, press
from playwright.sync_api import Page, expect

from vlm_analysis.pocket.tasks import make_example

COUNT_CLICKS = (
    "window.presses = 0; addEventListener('pointerdown', (event) => { window.presses += event.isTrusted }, true)"
)
N_PROMPTS = 4


@pytest.fixture
def page(new_page: Callable[[str], Page]) -> Page:
    page = new_page("/")
    page.set_viewport_size({"width": 1440, "height": 1400})
    return page


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    make_example("count-all", number, split="browser").image.save(buffer, "PNG")
    return buffer.getvalue()


def llava_zip() -> bytes:
    """Return a zip as LLaVA's data come: one JSON of conversations, and the pictures in a folder."""
    buffer, rows = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(N_PROMPTS):
            archive.writestr(f"images/{number}.png", png(number))
            turns = [
                {"from": "human", "value": "<image>\nhow many shapes are there?"},
                {"from": "gpt", "value": f"I can see {number} of them there."},
            ]
            rows.append({"id": f"drawn-{number}", "image": f"images/{number}.png", "conversations": turns})
        archive.writestr("llava.json", json.dumps(rows))
    return buffer.getvalue()


def test_three_clicks_lead_from_an_empty_overview_to_a_heatmap(page: Page) -> None:
    lead_to_a_heatmap(page)


def lead_to_a_heatmap(page: Page) -> None:
    page.evaluate(COUNT_CLICKS)
    page.get_by_test_id("stFileUploader").get_by_test_id("stBaseButton-secondary").click()
    bring(page, "llava.zip", llava_zip())  # what the system's dialog would hand over
    page.get_by_text(re.compile("read as LLaVA conversations")).first.wait_for()
    idle(page)
    expect(page.get_by_text("how many shapes are there?")).to_have_count(3)
    press(page, "Take these prompts")
    press(page, "Record with pocket-vl")
    page.locator(".js-plotly-plot").first.wait_for()
    idle(page)
    page.get_by_text(f"Saved {N_PROMPTS} prompts in 1 domain").first.wait_for()
    assert page.evaluate("window.presses") == 3


@pytest.mark.slow
def test_more_lead_to_a_report(page: Page, tmp_path: Path) -> None:
    lead_to_a_heatmap(page)
    go(page, "Overview")
    press(page, "Tell its story")
    page.get_by_role("heading", name=re.compile("it keeps .* of the dense model's tokens")).first.wait_for()
    idle(page)
    cards = re.findall(
        r"(Lost|Kept)\s+how many shapes are there\?\s+Before (.*)\s+After (.*)",
        page.get_by_test_id("stMain").inner_text(),
    )
    assert len(cards) == N_PROMPTS / 2
    assert all((outcome == "Kept") == (before == after) for outcome, before, after in cards)
    press(page, "Report")
    with page.expect_download() as started:
        press(page, "Download", exact=True)
    started.value.save_as(tmp_path / "report.html")
    assert "how many shapes are there?" in (tmp_path / "report.html").read_text("utf-8")


def picture_text(number: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(number)).decode()}"


def uploads() -> dict[str, bytes]:
    """Return a small table by its ending, its pictures in its cells or, in archives, beside it."""
    texts = [picture_text(number) for number in range(2)]
    table = pd.DataFrame({"image": texts, "question": ["how many?", "what is it?"], "answer": ["1", "2"]})
    rows = table.to_dict(orient="records")
    packed, streamed, tarred = io.BytesIO(), io.BytesIO(), io.BytesIO()
    table.to_parquet(packed)
    arrow = pa.Table.from_pandas(table)
    with pa.ipc.new_file(streamed, arrow.schema) as writer:
        writer.write_table(arrow)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        lines = b"image,question\na.png,how many?\n"
        for name, data in (("prompts.csv", lines), ("a.png", png(0))):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return {
        ".csv": table.to_csv(index=False).encode(),
        ".tsv": table.to_csv(index=False, sep="\t").encode(),
        ".json": json.dumps(rows).encode(),
        ".jsonl": "\n".join(map(json.dumps, rows)).encode(),
        ".parquet": packed.getvalue(),
        ".arrow": streamed.getvalue(),
        ".zip": llava_zip(),
        ".tar": tarred.getvalue(),
    }


@pytest.mark.slow
def test_the_upload_takes_every_ending_and_a_table_of_strange_columns_by_naming_them(page: Page) -> None:
    go(page, "Prompts")
    press(page, "Open a file or folder", "tab")
    for ending, data in uploads().items():
        bring(page, f"mine{ending}", data)
        page.get_by_text(re.compile(rf"mine\{ending}: read as")).first.wait_for()
        press(page, "Put it away")
    strange = pd.DataFrame({"foto": [picture_text(0)], "frage": ["how many?"], "sorte": ["drawn"]})
    bring(page, "strange.csv", strange.to_csv(index=False).encode())
    page.get_by_text(re.compile("expected the columns|could not be read")).first.wait_for()
    choose(page, "Image", "foto")
    choose(page, "Question", "frage")
    page.get_by_text(re.compile(r"strange\.csv: read as")).first.wait_for()
    choose(page, "Domain", "sorte")
    page.get_by_text("drawn", exact=True).first.wait_for()
    press(page, "Take these prompts")
    page.get_by_text(re.compile("Saved 1 prompt in 1 domain")).first.wait_for()


def bring(page: Page, name: str, data: bytes) -> None:
    idle(page)
    page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )
