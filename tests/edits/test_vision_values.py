"""Edits in which vision tokens skip layers, as values: what they do, their keys and steps, files, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vlm_analysis import Drop, Edit, PruneMask, Vision, early_exit, freeze, late_entry, open_edit, save_edit
from vlm_analysis.errors import EditError
from vlm_analysis.figures.heatmaps import edit_strips
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.workbench.details import edit_details, is_dense, is_mask


def touched(edit: Edit) -> list[int]:
    return [layer for layer, variant in edit.steps.layers if variant]


class TestMeaning:
    def test_tokens_enter_at_a_layer_leave_at_one_or_are_frozen(self) -> None:
        assert late_entry(8, 3) == Edit(8, (Vision(absent=(0, 1, 2)),))
        assert early_exit(8, 6) == Edit(8, (Vision(absent=(7, 6)),))
        assert freeze(8, [4, 2]) == Edit(8, (Vision(frozen=(2, 4)),))
        assert late_entry(8, 0) == early_exit(8, 8) == freeze(8, ()) == Edit(8)

    def test_steps_part_what_a_layer_does_and_the_form_in_which_it_runs(self) -> None:
        assert touched(late_entry(8, 3) + freeze(8, [5])) == [0, 1, 2, 5]
        edits = [late_entry(8, 1), freeze(8, [0]), late_entry(8, 1, form="sliced"), late_entry(8, 1, deepstack=False)]
        assert len({edit.key for edit in edits}) == len({edit.steps.layers[0] for edit in edits}) == 4
        assert late_entry(8, 3).steps.layers[:2] == late_entry(8, 2).steps.layers[:2]

    def test_layers_are_left_out_beside_it_and_a_layer_that_is_gone_has_no_vision_tokens(self) -> None:
        both = late_entry(8, 3) + PruneMask(8, [1, 5])
        assert both == Edit(8, (Drop((1, 5)), Vision(absent=(0, 2)))) == PruneMask(8, [5, 1]) + late_entry(8, 3)
        assert (both.dropped, both.gone, both.is_mask, both.is_dense) == ((1, 5), (1, 5), False, False)
        assert late_entry(8, 2) + PruneMask(8, [0, 1]) == PruneMask(8, [0, 1])

    def test_two_of_one_form_are_one(self) -> None:
        assert late_entry(8, 1) + early_exit(8, 7) == Edit(8, (Vision(absent=(0, 7)),))
        with pytest.raises(EditError, match="expected one form"):
            late_entry(8, 1) + early_exit(8, 7, form="sliced")
        with pytest.raises(EditError, match="both absent and frozen in a layer: expected one of the two, got layer 0"):
            late_entry(8, 1) + freeze(8, [0, 1])

    def test_it_says_what_it_does(self) -> None:
        edit = Edit(16, (Vision(absent=(0, 1, 2, 15), frozen=(7,), form="sliced", deepstack=False), Drop((5,))))
        assert edit.words() == (
            "drops layer 5 and hides vision tokens in layers 0-2 and 15 and freezes vision tokens in layer 7 without DeepStack (sliced)"
        )
        assert len(repr(late_entry(16, 3))) < 120


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Vision(absent=(0, 0)), "names each layer once"),
        (lambda: Vision(absent=(-1,)), "whole numbers from 0 on, got -1"),
        (lambda: Vision(frozen=(True,)), "whole numbers from 0 on, got True"),
        (lambda: Vision(frozen="12"), r"as in Vision\(frozen=\(3, 5\)\)"),
        (lambda: Vision((1,), (1,)), "both absent and frozen"),
        (lambda: Vision((1,), form="quick"), "expected one of masked, sliced, got 'quick'"),
        (lambda: Vision((1,), deepstack="no"), "expected true or false, got 'no'"),
        (lambda: late_entry(8, 9), r"expected a layer in 0\.\.8, got 9"),
        (lambda: early_exit(8, -1), r"expected a layer in 0\.\.8, got -1"),
        (lambda: freeze(8, [8]), r"0\.\.7, got 8"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, said: str) -> None:
    with pytest.raises(EditError, match=said):
        make()


def test_layers_that_vision_tokens_cannot_skip_are_refused_with_the_reason() -> None:
    model = ModelInfo("m", "f", 8, vision_locked={2: "it is odd"})
    assert early_exit(8, 3).refuses(model) == ""
    assert late_entry(8, 3).refuses(model) == "Vision tokens cannot skip layer 2: it is odd. Take it out of the edit."
    assert freeze(8, [2]).refuses(model)


class TestFiles:
    def test_it_opens_as_it_was_saved(self, tmp_path: Any) -> None:
        edit = Edit(
            8, (Drop((3,)), Vision((0, 7), (5,), form="sliced", deepstack=False)), name="mine", notes="of vision tokens"
        )
        found = open_edit(save_edit(edit, tmp_path / "edit.json"))
        assert (found, found.key, found.name) == (edit, edit.key, "mine")

    @pytest.mark.parametrize(
        "change",
        [{"absent": 3}, {"absent": [99]}, {"frozen": ["1"]}, {"form": None}, {"form": ["masked"]}, {"deepstack": 1}, {"frozen": [0]}],
    )  # fmt: skip
    def test_a_damaged_file_is_named(self, tmp_path: Any, change: dict[str, Any]) -> None:
        path = save_edit(late_entry(8, 2), tmp_path / "edit.json")
        content = json.loads(path.read_text())
        content["changes"][0] |= change
        path.write_text(json.dumps(content))
        with pytest.raises(EditError):
            open_edit(path)

    def test_a_sidecar_tells_it_from_a_mask_and_from_the_dense_model(self) -> None:
        details = edit_details(late_entry(8, 2))
        assert (is_mask(details), is_dense(details), details["what"]) == (False, False, late_entry(8, 2).words())

    def test_a_strip_draws_it(self) -> None:
        figure = edit_strips([("late", late_entry(8, 2) + PruneMask(8, [5]))], 8)
        assert [int(value) for value in figure.data[0].z[0]] == [2, 2, 0, 0, 0, 1, 0, 0]
