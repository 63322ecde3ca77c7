"""The Masks page: every criterion, strategy and budget, what the prompts can tell, and the jobs that measure."""

from __future__ import annotations

from pathlib import Path

import pytest
from acting import OpenPage, finish, hold_bundled, press, put, ran, words
from outside import outside_prompts, save_outside_model
from streamlit.testing.v1 import AppTest

from vlm_analysis import (
    CRITERIA,
    STRATEGIES,
    LoadedModel,
    PromptSet,
    PruneMask,
    load_model,
    record,
)
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.selection.criteria.criteria import DEFAULTS
from vlm_analysis.ui.common.inputs import CHOSEN
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording

PAGE, EXPLAIN = "pages/4_masks.py", "pages/3_similarity.py"
EACH_NEED = {key: CRITERIA[key] for key in {row.needs: key for key, row in CRITERIA.items()}.values()}  # one of each
AT_ONCE = [key for key, row in STRATEGIES.items() if row.needs != "model"]


def open_all(at: AppTest) -> AppTest:
    """Open what is folded."""
    return put(at, mask_opening=True, mask_handing=True)


def strips(at: AppTest) -> list[str]:
    """Return the names of the candidates that are drawn."""
    return list(at.session_state["mask_candidates"])


def test_every_part_opens_without_an_error_on_a_plain_recording(stocked: OpenPage) -> None:
    at = open_all(stocked(PAGE))
    assert (len(at.error), len(at.warning)) == (0, 0)


class TestCandidates:
    def test_about_eight_criteria_are_drawn_and_the_rest_is_one_click_away(self, rich: OpenPage) -> None:
        at = rich(PAGE)
        assert len(strips(at)) == len(DEFAULTS)
        assert len(strips(press(at, "All criteria"))) == len(CRITERIA)
        assert not at.warning

    @pytest.mark.parametrize("units", [("ratio",), pytest.param(("layers", "parameters"), marks=pytest.mark.slow)])
    def test_every_valid_pair_gives_a_strip_for_each_unit_of_budget(
        self, rich: OpenPage, units: tuple[str, ...]
    ) -> None:
        at = put(rich(PAGE), **{CHOSEN: list(CRITERIA)})
        expected = {"scores": len(CRITERIA), "recording": 1, "nothing": 1}
        for strategy in AT_ONCE:
            for unit in units:
                put(at, candidate_strategy=strategy, candidate_unit=unit)
                n_strips = 5 if strategy == "random-draw" else expected[STRATEGIES[strategy].needs]
                assert (strategy, unit, len(strips(at)), len(at.warning)) == (strategy, unit, n_strips, 0)
                assert all(mask.budget for mask in at.session_state["mask_candidates"].values())

    def test_only_the_options_that_matter_are_shown(self, rich: OpenPage) -> None:
        at = put(rich(PAGE), **{CHOSEN: ["worst-case"]})
        there = {element.key for kind in (at.selectbox, at.slider, at.select_slider) for element in kind}
        assert not there & {"candidate_target", "candidate_weight", "candidate_delta", "candidate_share"}
        put(at, **{CHOSEN: ["mixed", "skip-proximal"]})
        there = {element.key for kind in (at.selectbox, at.slider, at.select_slider) for element in kind}
        assert {"candidate_target", "candidate_weight", "candidate_delta"} <= there
        put(at, candidate_strategy="minimum-gap")
        assert at.slider(key="candidate_gap").value == 1

    def test_criteria_that_cannot_be_used_say_why(self, stocked: OpenPage) -> None:
        at = stocked(PAGE)
        assert "3 of 18 criteria cannot be used here, and why" in [box.label for box in at.expander]
        said = words(at).replace("\\", "")
        assert "with attention maps" in said
        assert "needs measured damage" in said

    def test_a_criterion_that_cannot_be_used_on_another_recording_is_taken_out_of_the_choice(
        self, rich: OpenPage
    ) -> None:
        at = put(rich(PAGE), **{CHOSEN: list(CRITERIA)})
        plain = next(item for item in workspace().items("recordings") if item.name == "a recording")
        at.session_state["chosen:recordings"] = plain.id
        ran(at)
        assert "important-tokens" not in at.session_state[CHOSEN]
        assert not at.error

    def test_a_budget_that_cannot_be_met_is_one_message(self, rich: OpenPage) -> None:
        at = put(rich(PAGE), candidate_strategy="minimum-gap", candidate_gap=8, candidate_budget=12)
        assert len(at.warning) == 1
        assert "Lower the budget or the gap" in at.warning[0].value.replace("\\", "")

    def test_protected_layers_are_candidates_only_when_they_may_go(self, rich: OpenPage) -> None:
        at = put(rich(PAGE), candidate_strategy="last-n", candidate_budget=1)
        assert at.session_state["mask_candidates"]["Last layers"].dropped == (14,)
        put(at, mask_unprotect=True)
        assert at.session_state["mask_candidates"]["Last layers"].dropped == (15,)

    def test_how_sure_a_mask_is_is_said_on_demand(self, rich: OpenPage) -> None:
        at = put(rich(PAGE), candidate_strategy="angular-block", candidate_budget=4)
        assert "of the draws" not in words(at)
        at.selectbox(key="candidate_sure").select("angular-block")
        assert "of the draws of your 6 prompts" in words(ran(at)).replace("\\", "")
        put(at, candidate_strategy="first-k", **{CHOSEN: ["random", "mixed"]})
        at.selectbox(key="candidate_sure").select("random")
        assert "cannot be drawn again" in words(ran(at)).replace("\\", "")

    def test_a_budget_in_time_is_measured_first(self, rich: OpenPage) -> None:
        at = put(rich(PAGE), candidate_unit="latency")
        assert "load it on the Model page" in words(at)
        assert not at.session_state["mask_candidates"]
        hold_bundled()
        press(put(rich(PAGE), candidate_unit="latency"), "Measure latency")
        finish("latency")
        at = put(rich(PAGE), candidate_unit="latency")
        assert "A forward pass takes" in words(at)
        assert at.session_state["mask_candidates"]["Block influence"].provenance["budget"]["of"] == "latency"

    def test_parameters_that_are_not_known_say_so(self, rich: OpenPage, loaded: LoadedModel, few: PromptSet) -> None:
        import dataclasses

        old = record(loaded, few)
        model = dataclasses.replace(old.model, layer_parameters=(), n_parameters=0)
        keep_recording(workspace(), dataclasses.replace(old, model=model), "old")
        at = put(rich(PAGE), candidate_unit="parameters")
        assert "Record again" in words(at)
        assert not at.error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of numpy, in transformers
def test_all_criteria_run_on_a_model_of_another_family(open_page: OpenPage, tmp_path: Path) -> None:
    other, asked = load_model(save_outside_model("smolvlm", tmp_path / "smolvlm")), outside_prompts()
    keep_prompts(workspace(), asked, "four")
    keep_recording(workspace(), record(other, asked, attention=True), "smolvlm")
    at = press(put(open_page(PAGE), candidate_budget=1), "All criteria")
    assert len(strips(at)) == len(CRITERIA) - 2
    assert not at.warning
    assert not open_all(at).error
    at = put(open_page(EXPLAIN), similarity_tab="Explain")
    for criterion, row in EACH_NEED.items():
        if row.needs != "damage":
            assert not put(at, score_criterion=criterion).error
            assert not [info for info in at.info if "needs" in info.value and "No model" not in info.value]


def test_no_part_brings_the_model_into_memory(rich: OpenPage) -> None:
    open_all(rich(PAGE))
    assert model_slot().info is None


@pytest.mark.parametrize(
    "n_layers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_tiny_models_of_one_domain_are_drawn_or_refused_in_words(
    open_page: OpenPage, loaded: LoadedModel, few: PromptSet, n_layers: int
) -> None:
    left = PruneMask(16, range(n_layers - 1, 15)) if n_layers > 1 else PruneMask(16, range(1, 16))
    small = LoadedModel(apply_edit(loaded.model, left), loaded.processor, "small", "made here")
    keep_recording(workspace(), record(small, few[:1]), "small")
    at = open_page(PAGE)
    for unit in ("ratio", "parameters", "latency", "layers"):
        assert not put(at, candidate_unit=unit).error
    for strategy in STRATEGIES:
        assert not put(at, candidate_strategy=strategy).error
    put(at, mask_unprotect=True)
    assert not open_all(at).error
    at = put(open_page(EXPLAIN), similarity_tab="Explain", mask_unprotect=True)
    for criterion in EACH_NEED:
        assert not put(at, score_criterion=criterion).error
    for view in ("Agreement", "Against damage", "Skip-It"):
        assert not put(at, explain_view=view).error
