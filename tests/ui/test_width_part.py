"""Width on the Masks page: scores, the edit made of them, the strip that holds it, and the pages behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from acting import OpenPage, hold_bundled, load_mask, press, put, ran, send, strip, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import (
    Drop,
    Edit,
    LoadedModel,
    Narrow,
    PromptSet,
    PruneMask,
    WidthScores,
    find_pivots,
    make_narrow,
    score_width,
)
from vlm_analysis.ui.common.held import narrow_key
from vlm_analysis.ui.common.sent import Step, read_sent
from vlm_analysis.ui.common.session import last_choices, workspace
from vlm_analysis.ui.masks.pivotview import marked_html
from vlm_analysis.ui.masks.strip.content import narrow_row
from vlm_analysis.workbench.shelf import keep, keep_mask, keep_prompts, open_item

MASKS, EXPORT = "pages/4_masks.py", "pages/7_export.py"
UNSAVED = "not in this address until the edit is saved as a mask"


@pytest.fixture(scope="session")
def few_widths(loaded: LoadedModel, few: PromptSet) -> WidthScores:
    return score_width(loaded, few, fast=True)


def button(at: object, label: str) -> object:
    return next(one for one in at.button if one.label == label)  # type: ignore[attr-defined]


def test_width_is_scored_as_a_job_and_its_edit_goes_into_the_editor_and_among_the_masks(
    stocked: OpenPage, loaded: LoadedModel
) -> None:
    hold_bundled()
    at = stocked(MASKS)
    press(at, "Score the width")
    wait_for(at, "fewer parameters in the decoder layers")
    scores = open_item(workspace().items("widths")[0])
    edit = make_narrow(scores, 0.2, "uniform")
    saved = edit.saved_parameters(loaded.info) / sum(loaded.info.layer_parameters)
    assert f"{saved:.1%} fewer parameters in the decoder layers" in words(at).replace("\\", "")
    assert scores.finding() in words(at).replace("\\", "")
    press(at, "Take it into the editor")
    assert at.session_state["mask_name"] == edit.name
    key = narrow_key(edit.changes[0], 16)
    assert strip(at)["narrow"] == [key]
    assert sum(one["saved"] for one in strip(at)["narrows"][key].values()) == edit.saved_parameters(loaded.info)
    press(at, "Save as a mask")
    kept = workspace().items("masks")[0]
    assert (open_item(kept), kept.name) == (edit, edit.name)
    assert button(at, "Saved as a mask").disabled


class TestEditor:
    def test_a_narrow_edit_stays_through_a_refresh_a_drop_and_an_undo(
        self, stocked: OpenPage, loaded: LoadedModel, few_widths: WidthScores
    ) -> None:
        edit = make_narrow(few_widths, 0.2, "uniform")
        stocked(MASKS)
        keep_mask(workspace(), edit)
        at = stocked(MASKS)
        load_mask(at, edit.name)
        assert strip(stocked(MASKS))["narrow"] == strip(at)["narrow"]
        send(at, [9])
        press(at, "Save mask")
        assert open_item(workspace().items("masks")[0]) == Edit(16, (Drop((9,)), *edit.changes))
        left = strip(at)["narrows"][strip(at)["narrow"][0]]
        assert set(left) == {str(layer) for layer in range(16)}  # the strip hides what it says of the dropped one
        assert open_item(workspace().items("masks")[0]).changes[1] == edit.changes[0].without([9])
        send(at, [])
        assert strip(at)["narrow"] == [narrow_key(edit.changes[0], 16)]
        send(at, [9], narrow=[])
        assert strip(at)["narrow"] == []
        load_mask(at, "five and nine")
        assert (strip(at)["dropped"], strip(at)["narrow"]) == ([5, 9], [])

    def test_a_message_names_a_width_of_the_session_or_none(self) -> None:
        message = {
            "base": "m",
            "number": 1,
            "dropped": [3],
            "own": [],
            "narrow": ["abc"],
            "undo": [[[], [], [], [], ["no"]]],
        }
        sent = read_sent(message, 8, narrows=["abc"])
        assert sent is not None
        assert (sent.now, sent.undo, sent.as_sent) == (Step((3,), narrow=("abc",)), (Step(),), True)
        for odd in (["other"], "abc", [["abc"]], [None], {"abc": 1}):
            refused = read_sent(message | {"narrow": odd}, 8, narrows=["abc"])
            assert refused is not None
            assert (refused.now, refused.as_sent) == (Step((3,)), False)

    def test_the_strip_tells_what_is_left_of_each_layer(self, loaded: LoadedModel) -> None:
        width = loaded.info.widths[4]
        row = narrow_row(Narrow({4: range(72)}, {4: [1]}), loaded.info)["4"]
        saved = (width.neurons - 72) * width.neuron_parameters + (width.kv_groups - 1) * width.group_parameters
        left = 1 - saved / loaded.info.layer_parameters[4]
        assert row["saved"] == saved
        assert row["mark"] == f"{left:.0%}"
        assert row["words"] == (
            f"narrow: keeps 72 of {width.neurons} MLP neurons and 1 of {width.kv_groups} attention groups, {left:.0%} of its parameters"
        )
        zeroed = narrow_row(Narrow({4: range(72)}, form="zeroed"), loaded.info)["4"]
        assert (zeroed["saved"], zeroed["mark"]) == (0, "zeroed")
        assert "save nothing" in zeroed["words"]


class TestBehind:
    def test_evaluate_does_not_expect_a_time_of_it_and_export_refuses_a_global_one_unless_masked(
        self, stocked: OpenPage, loaded: LoadedModel, few_widths: WidthScores, tmp_path: Path
    ) -> None:
        hold_bundled()
        edit = make_narrow(few_widths, 0.2, "global")
        stocked(MASKS)
        keep_mask(workspace(), edit)
        at = stocked(EXPORT)
        box = next(box for box in at.selectbox if box.label == "Mask")
        at = box.select(next(one for one in box.options if one.startswith(edit.name))).run()
        assert not at.exception
        assert "stock classes build all layers equally wide" in words(at)
        assert button(at, "Export and verify").disabled
        tick = next(one for one in at.checkbox if one.label == "Masked: zeros in place of what goes")
        tick.check().run()
        next(one for one in at.checkbox if one.label == "With a probe for servers").uncheck().run()
        folder = next(one for one in at.text_input if one.label == "New folder")
        folder.set_value(str(tmp_path / "zeros")).run()
        press(at, "Export and verify")
        wait_for(at, "equal to the last bit")
        assert json.loads((tmp_path / "zeros" / "config.json").read_text())["text_config"]["num_hidden_layers"] == 16

    def test_a_mask_of_whole_layers_offers_no_masked_export(self, stocked: OpenPage) -> None:
        hold_bundled()
        assert "Masked: zeros in place of what goes" not in [one.label for one in stocked(EXPORT).checkbox]


class TestPivots:
    def test_each_pivot_is_marked_with_its_kind_in_words_and_nothing_in_the_answer_is_live(self) -> None:
        answer = "step 1: 2 < 3 & <b>x</b>. therefore 5"
        drawn = marked_html(answer, find_pivots(answer))
        assert "<mark>step 1<small>step</small></mark>" in drawn
        assert "<mark>therefore<small>conclusion</small></mark>" in drawn
        assert "2 &lt; 3 &amp; &lt;b&gt;x&lt;/b&gt;" in drawn

    def test_pivots_are_marked_in_the_answer_and_those_without_are_said_to_have_nothing_to_protect(
        self, stocked: OpenPage, few: PromptSet, few_widths: WidthScores
    ) -> None:
        plain = PromptSet([prompt for prompt in few if not find_pivots(prompt.answer or "")])
        with_pivots = max(few, key=lambda prompt: len(find_pivots(prompt.answer or "")))
        scores = replace(few_widths, prompts=plain.fingerprint, answers=(0, 0, len(plain)), tokens=(9, 0))
        stocked(MASKS)
        keep(workspace(), "widths", few_widths, "of a few")
        keep(workspace(), "widths", scores, "of plain ones")
        item = keep_prompts(workspace(), plain, "plain")
        at = put(stocked(MASKS), width_fast=True, width_answers=True)
        shown = next(one.proto.body for one in at.get("html") if "strata-answer" in one.proto.body)
        assert shown == marked_html(with_pivots.answer, find_pivots(with_pivots.answer))
        assert with_pivots.answer
        at = put(at, width_prompts=item.id)
        assert "Nothing to protect" in words(at)
        assert "there is nothing to protect" in words(at)


def test_the_page_draws_what_a_mask_without_width_had_before(stocked: OpenPage) -> None:
    at = stocked(MASKS)
    assert (strip(at)["narrow"], strip(at)["narrows"]) == ([], {})
    send(at, [4])
    assert Edit(16, (Drop((4,)),)) == PruneMask(16, [4]) == at.session_state["mask_as_edit"][1]


def test_the_address_names_a_width_by_its_key_and_finds_it_among_saved_masks(
    stocked: OpenPage, loaded: LoadedModel
) -> None:
    narrow = Narrow({4: range(9), 6: range(7)})
    edit = Edit(16, (Drop((9,)), narrow), name="nine and narrow", model=loaded.info)
    address = {"cut": "9", "narrow": narrow_key(narrow, 16)}
    hold_bundled()

    def arrived() -> AppTest:
        last_choices().clear()  # as in another process, which knows the workspace alone
        at = stocked("app.py")
        for name, value in address.items():
            at.query_params[name] = value
        at.switch_page(MASKS)
        return ran(at)

    unknown = arrived()
    assert "The address names a width that is not here" in words(unknown)
    assert (unknown.session_state["mask"], strip(unknown)["narrow"]) == ([9], [])
    keep_mask(workspace(), edit)
    at = arrived()
    assert "is not here" not in words(at)
    assert UNSAVED not in words(at)
    assert at.session_state["mask"] == [9]
    assert strip(at)["narrow"] == [address["narrow"]]
    assert at.query_params["narrow"] in (address["narrow"], [address["narrow"]])
    at = send(at, [9, 10])
    assert at.query_params["narrow"] in (address["narrow"], [address["narrow"]])
    assert UNSAVED not in words(at)
    workspace().delete(workspace().items("masks")[0])
    assert UNSAVED in words(ran(at))
    at = send(at, [9], narrow=[])
    assert "narrow" not in at.query_params
    assert UNSAVED not in words(at)
