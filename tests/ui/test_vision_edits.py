"""An edit in which vision tokens skip layers, saved and evaluated elsewhere, is drawn by the pages as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from acting import PATIENCE_S, OpenPage, hold_bundled, load_mask, press, ran, send, strip, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Drop, Edit, LoadedModel, PromptSet, PruneMask, early_exit, evaluate, freeze, late_entry
from vlm_analysis.ui.common.pickers import EDITED
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, open_item

ROOT, MASKS = Path(__file__).resolve().parents[2], "pages/4_masks.py"


def edit_in(at: AppTest) -> Edit:
    """Return the edit in the editor."""
    return Edit(16, (Drop(tuple(at.session_state["mask"])), at.session_state["mask_vision"]))


@pytest.mark.parametrize("page", ["pages/4_masks.py", "pages/5_evaluate.py", "pages/7_export.py"])
def test_the_pages_open_with_it(stocked: OpenPage, loaded: LoadedModel, few: PromptSet, page: str) -> None:
    hold_bundled()
    edit = PruneMask(16, [9], name="late", model=loaded.info) + late_entry(16, 2)
    keep_mask(workspace(), edit)
    keep_evaluation(workspace(), evaluate(loaded, few, edit), "late on a few")
    at = stocked(page)
    if page in ("pages/5_evaluate.py", "pages/7_export.py"):
        box = next(box for box in at.selectbox if box.label == "Mask")
        at = box.select(next(one for one in box.options if one.startswith("late"))).run()
        assert not at.exception
    if page == "pages/5_evaluate.py":
        assert "what vision tokens skip is not in the layers' own times" in words(at)
    if page == "pages/7_export.py":
        assert "stock classes run every layer on all tokens" in words(at)


def test_the_editor_holds_it_through_a_refresh_saving_and_loading(stocked: OpenPage, loaded: LoadedModel) -> None:
    at = send(stocked(MASKS), [9], absent=[13, 14, 15], frozen=[9, 12])
    assert (strip(at)["absent"], strip(at)["frozen"]) == ([13, 14, 15], [12])  # in a dropped layer there are none
    assert strip(stocked(MASKS))["absent"] == [13, 14, 15]
    press(at, "Save mask")
    item = workspace().items("masks")[0]
    edit = PruneMask(16, [9]) + early_exit(16, 13, form="sliced") + freeze(16, [12], form="sliced")
    assert open_item(item) == edit
    assert (
        item.name
        == "drops layer 9 and hides vision tokens in layers 13-15 and freezes vision tokens in layer 12 (sliced)"
    )
    load_mask(at, "five and nine")
    assert (strip(at)["dropped"], strip(at)["absent"]) == ([5, 9], [])
    load_mask(at, item.name)
    assert edit_in(at) == edit
    assert at.session_state["mask_undo"][-1].dropped == (5, 9)


def test_the_address_says_it_and_what_a_layer_refuses_is_left_out(
    stocked: OpenPage, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_bundled()
    at = stocked(MASKS)
    monkeypatch.setitem(model_slot().info.vision_locked, 3, "it passes tokens on through a state")
    at = AppTest.from_file(str(ROOT / MASKS), default_timeout=PATIENCE_S)
    at.query_params.update({"cut": "9", "absent": "13-15", "frozen": "3 12"})
    at = ran(at)
    assert (strip(at)["dropped"], strip(at)["absent"], strip(at)["frozen"]) == ([9], [13, 14, 15], [12])
    assert strip(at)["vision_locked"] == {"3": "it passes tokens on through a state"}
    assert at.query_params["absent"] == "13-15"
    assert strip(send(at, [9], absent=[3, 4]))["absent"] == [4]


def test_what_is_in_the_editor_is_evaluated_as_an_edit(stocked: OpenPage, loaded: LoadedModel) -> None:
    hold_bundled()
    send(stocked(MASKS), [], absent=[14, 15])
    at = stocked("pages/5_evaluate.py")
    box = next(box for box in at.selectbox if box.label == "Mask")
    assert box.options[0] == f"{EDITED} · hides vision tokens in layers 14-15 (sliced)"
    press(at, "Prune and evaluate")
    wait_for(at, "edited: hides vision tokens in layers 14-15 (sliced)")
    assert open_item(workspace().items("evaluations")[0]).edit == early_exit(16, 14, form="sliced")
    assert strip(stocked(MASKS))["result"]["state"] == "known"
