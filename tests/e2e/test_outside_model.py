"""A small model saved outside the project goes the whole way in the browser, and what was exported is loaded and asked."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from browser import go, idle, load_folder, press, strip_painted
from outside import save_outside_model
from PIL import Image
from playwright.sync_api import expect


def prompts_zip() -> bytes:
    """Six prompts of noise in two domains, in words the model knows."""
    buffer, rows = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(6):
            picture = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(picture, "PNG")
            archive.writestr(f"{number}.png", picture.getvalue())
            row = {
                "image": f"{number}.png",
                "question": f"w{number + 1} w9",
                "domain": "ab"[number % 2],
                "answer": "w5 w6",
            }
            rows.append(json.dumps(row))
        archive.writestr("prompts.jsonl", "\n".join(rows))
    return buffer.getvalue()


@pytest.mark.slow
def test_an_outside_model_is_recorded_masked_pruned_exported_and_loaded_again(new_page, tmp_path: Path):
    page = new_page("/")
    load_folder(page, save_outside_model("smolvlm", tmp_path / "my-smolvlm"))
    go(page, "Prompts")
    press(page, "Open a file or folder", "tab")
    idle(page)
    uploader = page.locator('[data-testid="stFileUploader"] input[type=file]')
    uploader.set_input_files({"name": "mine.zip", "mimeType": "application/zip", "buffer": prompts_zip()})
    press(page, "Take these prompts")
    page.get_by_text(re.compile(r"Saved [\d,]+ prompt")).first.wait_for()
    go(page, "Similarity")
    press(page, "Record", exact=True)
    expect(page.get_by_label("Recording", exact=True).first).to_have_value(re.compile("^my-smolvlm on mine"))
    idle(page)
    go(page, "Masks")
    strip_painted(page)
    for layer in (2, 4):
        page.get_by_role("button", name=f"layer {layer}, kept", exact=True).click()
    page.get_by_text("2 of 6 layers dropped: 2, 4").first.wait_for()
    idle(page)
    go(page, "Similarity")
    press(page, "Explain", "tab")
    idle(page)
    press(page, "Against damage", "radio")
    idle(page)
    press(page, "Measure damage")
    page.get_by_text("cosine and measured damage").first.wait_for()
    page.locator(".st-key-damage-scatter .scatterlayer path.point").first.wait_for(state="attached")
    go(page, "Evaluate")
    press(page, "Prune and evaluate")
    page.get_by_text("without layers 2, 4: 2 of 6").first.wait_for()
    go(page, "Export")
    folder = tmp_path / "exported"
    box = page.get_by_role("textbox", name="New folder")
    box.fill(str(folder))
    box.press("Enter")
    idle(page)
    press(page, "Export and verify")
    page.get_by_text("equal to the last bit").first.wait_for()
    load_folder(page, folder)
    expect(page.get_by_test_id("stMetric").first).to_contain_text(re.compile(r"^\s*Decoder layers\s*4\b"))
