"""The paper on domain-aware layers in the browser: pictures, its tasks, layers × tasks, its preset, and its claims."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from browser import click_cell, go, idle, load_bundled, press
from PIL import Image
from playwright.sync_api import expect

from vlm_analysis import Bench, LoadedModel, PromptSet
from vlm_analysis.workbench.workspace import Workspace


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def compared(server_home: Path, loaded: LoadedModel, few: PromptSet) -> str:
    """The preset's masks compared on six prompts, in the workspace of the server."""
    asked = PromptSet(replace(prompt, task=f"task {place % 3}") for place, prompt in enumerate(few))
    item = Bench(loaded, Workspace(server_home / ".strata")).compare(asked, n_draws=1, preset="domain-aware")
    return item.name


@pytest.mark.slow
def test_a_suite_on_pictures_the_preset_and_the_claims(new_page, compared: str) -> None:
    page = new_page("/")
    load_bundled(page)
    go(page, "Prompts")
    press(page, "Probe suites", "tab")
    idle(page)
    files = [{"name": f"{colour}.png", "mimeType": "image/png", "buffer": png(colour)} for colour in ("red", "blue")]
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files(files)
    press(page, "Make the prompts")
    page.get_by_text("2 pictures × 9 tasks: 18 prompts, in use now.").first.wait_for()

    go(page, "Similarity")
    press(page, "Record", exact=True)
    page.get_by_role("radio", name="tasks").first.wait_for()
    idle(page)
    page.get_by_role("radio", name="tasks").first.click()
    page.get_by_text("9 tasks, of 2 prompts at least").first.wait_for()
    rows = page.locator(".js-plotly-plot .ytick")
    expect(rows.filter(has_text="describe")).to_have_count(1)
    expect(rows.filter(has_text="solve")).to_have_count(1)

    go(page, "Masks")
    page.get_by_text("Domain-aware, as in arXiv:2603.20275").first.click()
    page.get_by_text("40%: 5 layers").first.click()
    idle(page)
    click_cell(page, "Editor", "Random")
    page.get_by_text("5 of 16 layers dropped").first.wait_for()

    go(page, "Evaluate")
    press(page, "Claims", "tab")
    idle(page)
    expect(page.get_by_role("combobox", name="Comparison")).to_have_value(re.compile(f"^{re.escape(compared[:20])}"))
    page.get_by_text("Qwen3-VL-4B, math, 10%: 70.5 against 72.8 %").first.wait_for()
    page.get_by_text("Prompts in 5 groups at least that the dense model answers").filter(visible=True).first.wait_for()
    page.get_by_text("Nothing was recovered").first.wait_for()
