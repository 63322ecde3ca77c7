"""The mask in the editor: what a refresh keeps of it, and which mask the pages call the current one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from acting import OpenPage, hold_bundled, load_mask, ran, send, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Edit, LoadedModel, PromptSet, PruneMask
from vlm_analysis.ui.common.pickers import EDITED
from vlm_analysis.ui.common.sent import Step
from vlm_analysis.ui.common.session import last_choices, workspace
from vlm_analysis.workbench.shelf import keep_mask, open_item

MASKS, EVALUATE = "pages/4_masks.py", "pages/5_evaluate.py"


def press(at: AppTest, label: str) -> AppTest:
    next(button for button in at.button if button.label == label).click()
    return ran(at)


def edit(stocked: OpenPage, mask: Edit, notes: str = "") -> AppTest:
    """Load a saved mask into the editor of a new session."""
    item = keep_mask(workspace(), mask)
    at = stocked(MASKS)
    load_mask(at, item.name)
    at.text_input(key="mask_notes").set_value(notes)
    return ran(at)


def test_a_refresh_keeps_name_notes_and_origin_of_the_edited_mask(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    searched = PruneMask(16, (6, 7), name="searched", model=loaded.info, provenance={"prompts": few.fingerprint})
    edit(stocked, searched, "why not")
    again = stocked(MASKS)  # a refresh is a new session
    press(again, "Save mask")
    kept = open_item(workspace().items("masks")[0])
    assert (kept.dropped, kept.name, kept.notes) == ((6, 7), "searched", "why not")
    assert kept.chosen_on == {few.fingerprint}


@pytest.mark.slow  # tests/ui/test_flow_pages.py tells it without a refresh
def test_an_evaluation_after_a_refresh_still_tells_that_the_mask_was_chosen_on_its_prompts(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    hold_bundled()
    edit(stocked, PruneMask(16, (6,), name="searched", model=loaded.info, provenance={"prompts": few.fingerprint}))
    at = stocked(EVALUATE)
    box = next(box for box in at.selectbox if box.label == "Mask")
    assert (box.value, box.options[0]) == (EDITED, f"{EDITED}, searched · drops 6")
    press(at, "Prune and evaluate")
    wait_for(at, "chosen on 6 of these 6 prompts")


@pytest.mark.parametrize("kept", [None, [5], "5", {"dropped": [5]}, PruneMask(4, (1,), name="of another size")])
def test_what_is_not_a_mask_of_this_model_starts_an_empty_one(
    stocked: OpenPage, loaded: LoadedModel, kept: object
) -> None:
    last_choices()[f"mask:{loaded.fingerprint}"] = kept
    at = stocked(MASKS)
    assert at.session_state["mask"] == []
    assert at.session_state["mask_name"] == ""


def test_an_origin_that_claims_another_name_and_layers_changes_neither(stocked: OpenPage, loaded: LoadedModel) -> None:
    odd = {"name": ["x"], "dropped": 5, "prompts": {"prompts": 7}}
    at = edit(stocked, PruneMask(16, (6,), name="mine", model=loaded.info, provenance=odd))
    assert at.session_state["mask_name"] == "mine"
    assert send(at, [6, 8]).session_state["mask_name"] == ""
    assert stocked(MASKS).session_state["mask"] == [6, 8]


def test_the_overview_tells_the_mask_in_the_editor_from_a_saved_one(stocked: OpenPage, loaded: LoadedModel) -> None:
    at = stocked("app.py")
    assert "saved, five and nine: drops 5, 9" in words(at)
    model = replace(loaded.info)
    at.session_state["mask"], at.session_state["mask_model"] = [6], model
    assert "in the editor: drops 6" in words(ran(at))
    at.session_state["mask_name"] = "mine"
    assert "in the editor, mine: drops 6" in words(ran(at))
    at.session_state["mask"] = []
    assert "saved, five and nine: drops 5, 9" in words(ran(at))


def test_name_and_notes_of_a_saved_mask_are_not_saved_with_other_layers(stocked: OpenPage, loaded: LoadedModel) -> None:
    at = press(edit(stocked, PruneMask(16, (6,), name="first", model=loaded.info), "why six"), "Save mask")
    assert open_item(workspace().items("masks")[0]).notes == "why six"
    press(send(at, [6, 8]), "Save mask")
    kept = open_item(workspace().items("masks")[0])
    assert (kept.dropped, kept.name, kept.notes) == ((6, 8), "drops 6, 8", "")


def test_a_mask_brings_its_notes_and_notes_written_for_what_is_edited_stay(
    stocked: OpenPage, loaded: LoadedModel
) -> None:
    item = keep_mask(workspace(), PruneMask(16, (6,), name="first", notes="why six", model=loaded.info))
    at = stocked(MASKS)
    load_mask(at, item.name)
    assert at.session_state["mask_notes"] == "why six"
    at.text_input(key="mask_notes").set_value("to try")
    assert send(at, [6, 8]).session_state["mask_notes"] == "to try"


def test_a_refresh_keeps_the_layers_that_the_user_locked(stocked: OpenPage) -> None:
    send(stocked(MASKS), [8], own=[3])
    assert stocked(MASKS).session_state["mask_locks"] == [3]


def test_a_click_sent_before_another_windows_mask_was_seen_is_kept(stocked: OpenPage) -> None:
    one, other = stocked(MASKS), stocked(MASKS)
    send(one, [8])
    assert send(other, [9]).session_state["mask"] == [9]
    assert "The mask was changed elsewhere" in words(ran(one))


def test_two_windows_on_one_mask_follow_each_others_edits_and_an_undo_takes_them_back(stocked: OpenPage) -> None:
    one, other = stocked(MASKS), stocked(MASKS)
    send(one, [8])
    assert ran(other).session_state["mask"] == [8]
    send(other, [8, 9])
    assert ran(one).session_state["mask"] == [8, 9]
    assert one.session_state["mask_undo"][-1] == Step((8,))
    assert "changed elsewhere" not in words(one) + words(ran(other))
    assert send(one, [8]).session_state["mask"] == ran(other).session_state["mask"] == [8]


def both_edited(stocked: OpenPage) -> tuple[AppTest, AppTest]:
    """Two windows that changed the same mask at once, the second one last."""
    one, other = stocked(MASKS), stocked(MASKS)
    send(one, [8])
    send(other, [9])
    assert "The mask was changed elsewhere: there it drops 9." in words(ran(one))
    assert one.session_state["mask"] == [8]
    return one, other


def test_of_two_edits_at_once_each_window_keeps_its_own_until_it_shows_the_others(stocked: OpenPage) -> None:
    one, other = both_edited(stocked)
    press(one, "Show it")
    assert one.session_state["mask"] == [9]
    assert "changed elsewhere" not in words(one)
    send(other, [9, 10])
    assert ran(one).session_state["mask"] == [9, 10]


def test_a_window_that_keeps_its_mask_is_asked_again_once_the_other_goes_on(stocked: OpenPage) -> None:
    one, other = both_edited(stocked)
    press(one, "Keep mine")
    assert "changed elsewhere" not in words(one)
    assert one.session_state["mask"] == [8]
    assert "changed elsewhere" not in words(ran(one)) + words(ran(other))
    send(one, [7, 8])
    assert "The mask was changed elsewhere: there it drops 7, 8." in words(ran(other))
    assert other.session_state["mask"] == [9]
