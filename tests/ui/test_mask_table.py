"""The table of masks: what stands in it, what a click in it does, two ticked masks side by side, and many of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from acting import OpenPage, finish, hold_bundled, masks_of, press, press_in_row, put, ran, send, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import LoadedModel, PruneMask
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.masks.maskpair import difference_words
from vlm_analysis.ui.masks.maskrows import found, origin_words, saved_rows
from vlm_analysis.ui.masks.masktable import LOAD, MOST_ROWS, STAR
from vlm_analysis.workbench.shelf import keep_mask, open_item

PAGE = "pages/4_masks.py"


def change(at: AppTest, **rows: dict[str, Any]) -> AppTest:
    """Tick or type in the table: by a mask's name the changed cells."""
    edits = {masks_of(at)["name"].tolist().index(name): cells for name, cells in rows.items()}
    at.session_state[at.session_state["masks:table"]] = {"edited_rows": edits, "added_rows": [], "deleted_rows": []}
    return ran(at)


def said(at: AppTest) -> str:
    return words(at).replace("\\", "")


class TestTheTable:
    def test_saved_masks_and_candidates_stand_together_with_what_was_measured(self, stocked: OpenPage) -> None:
        frame = masks_of(stocked(PAGE)).set_index("name")
        assert frame.loc["five and nine", "origin"] == "by hand"
        assert frame.loc["Block influence", "origin"] == "candidate: First k of the drop order"
        assert frame.loc["five and nine", "budget"] == 2
        assert 0 < frame.loc["five and nine", "parameters"] < 25
        assert frame["strip"].str.startswith("data:image/svg+xml").all()
        assert frame.loc["five and nine", ["worst", "mean", "kept:general", "kept:math", "kl_to_dense"]].notna().all()
        assert frame.loc["Block influence", ["worst", "mean", "kl_to_dense"]].isna().all()

    def test_the_numbers_are_those_of_the_evaluation(self, stocked: OpenPage) -> None:
        from vlm_analysis import retention

        dense, evaluation = (open_item(item) for item in reversed(workspace().items("evaluations")))
        kept = retention(evaluation, dense)
        row = masks_of(stocked(PAGE)).set_index("name").loc["five and nine"]
        shown = [row[name] for name in ("kept:general", "kept:math", "worst", "mean")]
        assert shown == pytest.approx([100 * kept["general"], 100 * kept["math"], 100 * kept.min(), 100 * kept.mean()])
        assert row["kl_to_dense"] == pytest.approx(evaluation.by_prompt["kl_to_dense"].mean())

    def test_a_mask_of_another_model_is_a_choice(self, stocked: OpenPage, loaded: LoadedModel) -> None:
        from dataclasses import replace

        other = replace(loaded.info, fingerprint="0" * 64, name="another")
        keep_mask(workspace(), PruneMask(16, [3], name="stranger", model=other))
        at = stocked(PAGE)
        assert "stranger" not in masks_of(at)["name"].tolist()
        assert "stranger" in masks_of(put(at, masks_of_others=True))["name"].tolist()

    def test_hundreds_of_masks_are_paged_and_said(self, stocked: OpenPage, loaded: LoadedModel) -> None:
        item = workspace().items("masks")[0]
        text, sidecar = item.path.read_text(), item.path.parent / f"{item.id}.item.json"
        described = sidecar.read_text()
        for number in range(300):
            name = f"20200101-000000-{number:08x}"
            (item.path.parent / f"{name}.json").write_text(text)
            (item.path.parent / f"{name}.item.json").write_text(described.replace(item.id, name))
        at = stocked(PAGE)
        assert len(masks_of(at)) == MOST_ROWS
        assert f"Masks 1 to {MOST_ROWS} of 30" in said(at)
        begun = time.process_time()
        ran(at)
        assert time.process_time() - begun < 5  # seconds even on a busy machine; it was a second for each listing


class TestClicks:
    def test_load_takes_a_mask_into_the_editor_and_undo_brings_the_former_back(self, stocked: OpenPage) -> None:
        at = send(stocked(PAGE), [3])
        press_in_row(at, LOAD, "five and nine")
        assert at.session_state["mask"] == [5, 9]
        assert at.session_state["mask_undo"][-1][0] == (3,)
        assert at.session_state["mask_name"] == "five and nine"

    def test_a_candidate_is_loaded_too(self, stocked: OpenPage) -> None:
        at = press_in_row(stocked(PAGE), LOAD, "Block influence")
        assert at.session_state["mask"] == list(at.session_state["mask_candidates"]["Block influence"].dropped)

    def test_a_star_is_kept_with_the_mask_and_taken_away_again(self, stocked: OpenPage) -> None:
        press_in_row(stocked(PAGE), STAR, "five and nine")
        again = stocked(PAGE)
        assert masks_of(again).set_index("name").loc["five and nine", "star"] == "★"
        press_in_row(again, STAR, "five and nine")
        assert masks_of(again).set_index("name").loc["five and nine", "star"] == "☆"

    def test_a_starred_candidate_is_saved_under_its_name_with_its_origin(self, stocked: OpenPage) -> None:
        at = press_in_row(stocked(PAGE), STAR, "Block influence")
        item = workspace().items("masks")[0]
        assert (item.name, item.details["starred"]) == ("Block influence", True)
        assert open_item(item).provenance["criterion"] == "block-influence"
        assert len(masks_of(at)[masks_of(at)["star"] == "★"]) == 1

    def test_notes_are_written_into_the_masks_file(self, stocked: OpenPage) -> None:
        at = change(stocked(PAGE), **{"five and nine": {"notes": "the middle ones"}})
        item = workspace().items("masks")[0]
        assert (open_item(item).notes, item.details["notes"]) == ("the middle ones", "the middle ones")
        assert masks_of(at).set_index("name").loc["five and nine", "notes"] == "the middle ones"
        assert open_item(item).dropped == (5, 9)

    def test_what_cannot_be_loaded_says_why(self, stocked: OpenPage) -> None:
        at = stocked(PAGE)
        workspace().items("masks")[0].path.write_text("{")
        assert press_in_row(at, LOAD, "five and nine").error


class TestTwoTicked:
    def test_their_layers_numbers_and_parting_answers_stand_side_by_side(
        self, stocked: OpenPage, loaded: LoadedModel
    ) -> None:
        hold_bundled()
        keep_mask(workspace(), PruneMask(16, [5, 8, 9, 11, 12], name="five more", model=loaded.info))
        at = stocked(PAGE)
        change(at, **{"five and nine": {"ticked": True}})
        assert "Tick another mask to compare it with five and nine" in said(at)
        change(at, **{"five and nine": {"ticked": True}, "five more": {"ticked": True}})
        assert "Only five more drops: 8, 11, 12" in said(at)
        assert "Not evaluated on these prompts: five more" in said(at)
        (button,) = [button for button in at.button if button.label.startswith("Evaluate 1 ticked mask")]
        press(at, button.label)
        finish("masks")
        ran(at)
        assert "five and nine keeps" in said(at)
        assert "no interval, it takes 5 groups" in said(at)
        assert "five and nine keeps, five more breaks" in said(at)

    def test_a_tick_outlives_new_rows(self, stocked: OpenPage) -> None:
        at = change(stocked(PAGE), **{"five and nine": {"ticked": True}})
        press_in_row(at, STAR, "Block influence")
        assert masks_of(at).set_index("name")["ticked"].loc["five and nine"]


def test_nothing_is_measured_unasked_and_without_prompts_the_table_says_so(stocked: OpenPage) -> None:
    at = stocked(PAGE)
    assert next(button for button in at.button if button.label.startswith("Evaluate")).disabled
    for item in workspace().items("prompts"):
        workspace().delete(item)
    at = stocked(PAGE)
    assert "Choose some on the Prompts page" in said(at)
    assert masks_of(at)["mean"].isna().all()


@pytest.mark.parametrize(
    ("provenance", "origin"),
    [
        ({}, "by hand"),
        ({"made": "by hand", "started_from": {}}, "by hand"),
        ({"strategy": "first-k", "criterion": "block-influence"}, "Block influence, First k of the drop order"),
        ({"made": "by hand", "started_from": {"strategy": "greedy", "dropped": [3]}}, "Greedy on measured damage"),
        (
            {"made": "by hand", "started_from": {"strategy": "greedy", "dropped": [4]}},
            "by hand, from Greedy on measured damage",
        ),
        ({"opened_from": "mergekit"}, "a file of mergekit"),
        ({"strategy": ["x"], "criterion": 5, "opened_from": {}, "started_from": "y"}, "by hand"),
    ],
)
def test_the_origin_is_told_from_the_file_whatever_it_says(provenance: dict[str, Any], origin: str) -> None:
    assert origin_words(PruneMask(8, [3], provenance=provenance)) == origin


def test_masks_are_found_by_name_and_notes(stocked: OpenPage) -> None:
    rows = saved_rows(workspace().items("masks"))
    assert [row.name for row in found(rows, "FIVE ")] == ["five and nine"]
    assert found(rows, "seven") == []


@pytest.mark.parametrize(
    ("low", "high", "groups", "ending"),
    [
        (0.01, 0.4, 45, "+20 points, 90 % interval +1 to +40: more than chance."),
        (-0.1, 0.5, 45, "+20 points, 90 % interval -10 to +50: these prompts do not tell them apart."),
        (float("nan"), float("nan"), 3, "+20 points; no interval, it takes 5 groups."),
        (float("nan"), float("nan"), 45, "+20 points; no interval, no group parts them."),
    ],
)
def test_a_difference_is_said_with_its_verdict(low: float, high: float, groups: int, ending: str) -> None:
    row = {
        "domain": "math",
        "n": 45,
        "groups": groups,
        "one": 0.9,
        "other": 0.7,
        "difference": 0.2,
        "low": low,
        "high": high,
    }
    assert difference_words(row, "a", "b", "all domains").endswith(f"a keeps 90%, b 70%: {ending}")
