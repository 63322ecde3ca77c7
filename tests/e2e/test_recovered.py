"""Recovery in a real browser: a cut of the bundled model is repaired, measured on other prompts and exported, for plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from browser import idle, load_bundled, press
from playwright.sync_api import Page, expect
from transformers import AutoModelForImageTextToText

from vlm_analysis import LoadedModel, PromptSet, PruneMask, apply_edit
from vlm_analysis.models.inputs import encode
from vlm_analysis.models.weights import aligned
from vlm_analysis.workbench.shelf import keep_mask, open_item
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture(scope="module")
def server_home(server_home: Path) -> Path:
    """A home with a mask that breaks a fifth of the answers."""
    keep_mask(Workspace(server_home / ".strata"), PruneMask(16, (4, 5, 7, 9, 10, 12, 14), name="seven"))
    return server_home


@pytest.mark.slow
def test_a_cut_is_repaired_measured_and_exported_and_plain_transformers_answers_the_same(
    new_page: Callable[[str], Page], server_home: Path, loaded: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    page = new_page("/")
    load_bundled(page)
    page.get_by_test_id("stSidebar").get_by_role("link", name="Evaluate", exact=True).click()
    press(page, "Get back what was lost", "tab")
    report = page.get_by_label("Report on", exact=True)
    expect(report).to_have_value("Bundled packs: general-report, math-report")
    press(page, "Get it back")
    page.get_by_role("heading", name="What came back, and what broke").first.wait_for()
    idle(page)
    page.get_by_text("Without 7 layers of 16 the model keeps").first.wait_for()
    page.get_by_text("Measured on 90 prompts that nothing was learnt on; learnt on 90 others.").first.wait_for()
    page.get_by_test_id("stMain").get_by_role("link", name="Export it").click()
    page.get_by_role("heading", name="Export", exact=True).first.wait_for()
    idle(page)
    folder = tmp_path / "recovered"
    box = page.get_by_role("textbox", name="New folder")
    box.fill(str(folder))
    box.press("Enter")
    press(page, "Export and verify")
    page.get_by_text("equal to the last bit").first.wait_for()

    saved = [open_item(item) for item in Workspace(server_home / ".strata").items("masks")]
    edit = next(one for one in saved if "repaired (ridge)" in one.name)
    model = aligned(AutoModelForImageTextToText.from_pretrained(folder))
    inputs = encode(loaded, few[0]).tensors
    with torch.inference_mode():
        ours, theirs = (one(**inputs, use_cache=False).logits for one in (apply_edit(loaded.model, edit), model))
    assert len(model.model.language_model.layers) == 9
    assert torch.equal(ours, theirs)
