"""A box lists the newest of many saved masks and finds the others; heatmaps of many domains are drawn without a text a cell."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from acting import OpenPage, chart, masks_of, put, ran, words

from tools.made import made_recording, made_workspace
from vlm_analysis import Edit
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.figures.heatmaps import MOST_WRITTEN
from vlm_analysis.ui.common.pickers import MOST_CHOICES
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.masks.masktable import MOST_ROWS
from vlm_analysis.workbench.shelf import keep_mask, keep_recording


def test_the_oldest_of_many_masks_is_found_and_stays_when_others_are_searched(open_page: OpenPage) -> None:
    made_workspace(workspace(), n_masks=MOST_CHOICES + 50, domains=["one", "two"])
    at = open_page("pages/7_export.py")
    assert len(at.selectbox(key="pick:mask").options) == MOST_CHOICES
    at.text_input(key="find:masks").set_value("MASK 0000 ")
    ran(at)
    box = at.selectbox(key="pick:mask")
    names = [name.split(" · ")[0] for name in box.options]
    assert names == ["mask 0000", "five and nine"]  # what was found, and what was chosen
    box.select_index(0)
    assert ran(at).selectbox(key="pick:mask").value == workspace().items("masks")[-1].id
    at.text_input(key="find:masks").set_value("")
    assert len(ran(at).selectbox(key="pick:mask").options) == MOST_CHOICES + 1
    assert at.selectbox(key="pick:mask").value == workspace().items("masks")[-1].id


@pytest.mark.parametrize(("n_domains", "written"), [(2, True), (90, False)])
def test_numbers_stand_in_the_cells_of_a_heatmap_of_few(open_page: OpenPage, n_domains: int, written: bool) -> None:
    recording = made_recording(16, [f"domain {number}" for number in range(n_domains)])
    assert (16 * n_domains <= MOST_WRITTEN) == written
    keep_recording(workspace(), recording, "made")
    cells = next(trace for trace in chart(open_page("pages/3_similarity.py"), 0)["data"] if trace["name"] == "values")
    assert ("text" in cells) == written
    assert "0.9" in json.dumps(cells.get("text", "0.9"))


def test_an_edit_is_opened_only_where_it_is_in_view(open_page: OpenPage) -> None:
    recording = made_workspace(workspace(), n_masks=MOST_ROWS, domains=["one", "two"])
    skips = Edit(16, (Vision(absent=(5,)),), model=recording.model)
    keep_mask(workspace(), replace(skips, name="a first")), keep_mask(workspace(), replace(skips, name="the last"))
    workspace().items("masks")[0].path.write_text("damaged")  # "the last"; where it is opened it is left out
    at = put(open_page("pages/4_masks.py"), mask_order="name")
    n_candidates = masks_of(at)["name"].tolist().index("a first")
    assert f"Masks 1 to {MOST_ROWS} of {n_candidates + MOST_ROWS + 3}" in words(at)
    assert masks_of(put(at, mask_page=2))["name"].tolist()[-1] == f"mask {MOST_ROWS - 1:04d}"
