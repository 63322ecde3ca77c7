"""The Masks page's tabs: every criterion, strategy and budget, what the prompts can tell, and the jobs that measure."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from acting import OpenPage, ended, hold_bundled, ran, wait_for, words
from outside import outside_prompts, save_outside_model
from streamlit.testing.v1 import AppTest

from vlm_analysis import (
    CRITERIA,
    STRATEGIES,
    Evaluation,
    LoadedModel,
    PromptSet,
    PruneMask,
    Recording,
    evaluate,
    load_model,
    record,
)
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.selection.criteria.criteria import DEFAULTS
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.masks.inputs import CHOSEN
from vlm_analysis.workbench.damages import LEAVE_ONE_OUT
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording, keep_sweep
from vlm_analysis.workbench.workspace import Workspace

PAGE = "pages/4_masks.py"
TABS = (
    "Candidates",
    "Scores",
    "Agreement",
    "Against damage",
    "Skip-It",
    "Compare two",
    "Open a file",
    "Files for other tools",
)
AT_ONCE = [key for key, row in STRATEGIES.items() if row.needs != "model"]


@pytest.fixture(scope="module")
def measured(loaded: LoadedModel, few: PromptSet) -> tuple[Recording, list[Evaluation]]:
    """A recording with attention maps, and the damage of each layer."""
    dense = evaluate(loaded, few)
    alone = [evaluate(loaded, few, PruneMask(16, (layer,)), reference=dense) for layer in range(16)]
    return record(loaded, few, attention=True), [dense, *alone]


@pytest.fixture(scope="module")
def rich_stock(
    stock: Path, measured: tuple[Recording, list[Evaluation]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    home = Workspace(shutil.copytree(stock, tmp_path_factory.mktemp("rich") / "home"))
    keep_recording(home, measured[0], "with maps")
    keep_sweep(home, measured[1], "each", sweep=LEAVE_ONE_OUT)
    return home.root


@pytest.fixture
def rich(open_page: OpenPage, rich_stock: Path, tmp_path: Path) -> OpenPage:
    """Open pages in a workspace whose newest recording has attention maps, and whose layers' damage is measured."""
    shutil.copytree(rich_stock, tmp_path / "home")
    return open_page


def open_tab(at: AppTest, name: str) -> AppTest:
    at.session_state["mask_tab"] = name
    return ran(at)


def put(at: AppTest, **values: Any) -> AppTest:
    """Run the page with these choices made."""
    for key, value in values.items():
        at.session_state[key] = value
    return ran(at)


def chart(at: AppTest, place: int = -1) -> Any:
    return json.loads(at.get("plotly_chart")[place].proto.spec)


def strips(at: AppTest) -> list[str]:
    """Return the names of the strips, without that of the editor."""
    return [name.split(" · ")[0] for name in chart(at)["layout"]["yaxis"]["ticktext"][1:]]


def press(at: AppTest, label: str) -> AppTest:
    next(button for button in at.button if button.label == label).click()
    return ran(at)


def finish(kind: str) -> None:
    """Wait until the newest job of a kind is done."""
    job = ended(kind)
    assert job.status == "done", job.error


def test_every_tab_opens_without_an_error_on_a_plain_recording(stocked: OpenPage) -> None:
    at = stocked(PAGE)
    for tab in TABS:
        open_tab(at, tab)
        assert (tab, len(at.error), len(at.warning)) == (tab, 0, 0)


class TestCandidates:
    def test_about_eight_criteria_are_drawn_and_the_rest_is_one_click_away(self, rich: OpenPage) -> None:
        at = rich(PAGE)
        assert len(strips(at)) == len(DEFAULTS)
        assert len(strips(press(at, "All criteria"))) == len(CRITERIA)
        assert not at.warning

    def test_every_valid_pair_gives_a_strip_for_each_unit_of_budget(self, rich: OpenPage) -> None:
        at = put(rich(PAGE), **{CHOSEN: list(CRITERIA)})
        expected = {"scores": len(CRITERIA), "recording": 1, "nothing": 1}
        for strategy in AT_ONCE:
            for unit in ("layers", "ratio", "parameters"):
                put(at, candidate_strategy=strategy, candidate_unit=unit)
                n_strips = 5 if strategy == "random-draw" else expected[STRATEGIES[strategy].needs]
                assert (strategy, unit, len(strips(at)), len(at.warning)) == (strategy, unit, n_strips, 0)
                drops = [int(name.split(" · ")[1].split()[0]) for name in chart(at)["layout"]["yaxis"]["ticktext"][1:]]
                assert all(drops)

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


class TestScores:
    def test_every_criterion_is_drawn_with_formula_source_and_what_the_prompts_tell(self, rich: OpenPage) -> None:
        at = open_tab(rich(PAGE), "Scores")
        for criterion, row in CRITERIA.items():
            said = words(put(at, score_criterion=criterion)).replace("\\", "").replace("\u2060", "")
            assert row.formula in said
            assert row.source in said
            drawn = "cannot be drawn again" in said
            assert drawn == (criterion in ("random", "cross-modal-pooled")), criterion
            assert drawn or re.search("your 6 prompts|here are [36] prompts", said), (
                criterion
            )  # those of the target, or all
            assert len(at.get("plotly_chart")) == (1 if drawn else 2), criterion
            assert not at.error

    def test_the_criterions_own_option_changes_the_scores(self, rich: OpenPage) -> None:
        at = open_tab(put(rich(PAGE), score_criterion="skip-proximal"), "Scores")
        before = chart(at, 0)["data"]
        at.select_slider(key="candidate_delta").set_value(0.2)
        assert chart(ran(at), 0)["data"] != before

    def test_a_criterion_without_what_it_needs_says_so(self, stocked: OpenPage) -> None:
        at = open_tab(put(stocked(PAGE), score_criterion="important-tokens"), "Scores")
        assert "attention maps" in at.info[0].value
        assert not at.error


class TestAgreement:
    def test_each_kind_is_a_square_of_numbers_with_downloads(self, rich: OpenPage) -> None:
        at = open_tab(put(rich(PAGE), **{CHOSEN: list(CRITERIA)}), "Agreement")
        for between, size in (("criteria", 18), ("domains", 2), ("token groups", 5)):
            put(at, agreement_between=between)
            assert len(chart(at)["layout"]["yaxis"]["ticktext"]) == size, between
            assert "Kendall" in words(at)
            assert "Most alike" in words(at)
            assert {button.label for button in at.get("download_button")} >= {"CSV", "Parquet"}

    def test_one_criterion_has_nothing_to_compare_with(self, rich: OpenPage) -> None:
        at = open_tab(put(rich(PAGE), **{CHOSEN: ["mixed"]}), "Agreement")
        assert "It takes two rankings" in at.info[0].value


class TestDamage:
    def test_where_cosine_misleads_is_said_in_words_with_every_layer_drawn(self, rich: OpenPage) -> None:
        at = open_tab(rich(PAGE), "Against damage")
        said = words(at).replace("\\", "")
        assert "Over 16 layers cosine and measured damage (KL to the dense model)" in said
        points = [text for trace in chart(at)["data"] for text in trace["text"]]
        assert len(points) == 16
        at.segmented_control(key="damage_by").set_value("damage_nll")
        assert "measured damage (answer NLL)" in words(ran(at)).replace("\\", "")
        at.selectbox(key="damage_target").select("math")
        assert not ran(at).error

    def test_without_model_or_prompts_the_page_says_what_is_missing(self, stocked: OpenPage) -> None:
        at = open_tab(stocked(PAGE), "Against damage")
        assert "load it on the Model page" in at.info[0].value
        for item in workspace().items("prompts"):
            workspace().delete(item)
        assert "add them on the Prompts page" in ran(at).info[0].value

    def test_damage_is_measured_in_a_job_and_then_drawn(self, stocked: OpenPage) -> None:
        hold_bundled()
        at = open_tab(stocked(PAGE), "Against damage")
        assert "16 of 16 layers, each left out alone on 6 prompts: 96 answers" in words(at).replace("\\", "")
        press(at, "Measure damage")
        finish("damage")
        wait_for(at, "Over 16 layers")
        assert not [button for button in at.button if button.label == "Measure damage"]
        assert "Measured damage, KL" in open_tab(at, "Candidates").multiselect[0].options


class TestSkipIt:
    def test_thresholds_select_layers_and_the_bands_are_said_in_words(self, rich: OpenPage) -> None:
        at = open_tab(rich(PAGE), "Skip-It")
        put(at, skip_epsilon=1.0, skip_eta=1.0, skip_tau=1.0)
        assert "Selected: 16 of 16 layers" in words(at)
        assert "vision tokens could enter behind layer 15" in words(at)
        put(at, skip_epsilon=0.0)
        assert "No layer is selected" in words(at)
        for rule in ("either", "geometric", "proximal"):
            assert not put(at, skip_rule=rule).error

    def test_without_attention_maps_the_page_says_how_to_get_them(self, stocked: OpenPage) -> None:
        at = open_tab(stocked(PAGE), "Skip-It")
        assert "record with attention maps" in words(at)
        assert len([trace for trace in chart(at)["data"] if "threshold" in trace["name"]]) == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of numpy, in transformers
def test_all_criteria_run_on_a_model_of_another_family(open_page: OpenPage, tmp_path: Path) -> None:
    other, asked = load_model(save_outside_model("smolvlm", tmp_path / "smolvlm")), outside_prompts()
    keep_prompts(workspace(), asked, "four")
    keep_recording(workspace(), record(other, asked, attention=True), "smolvlm")
    at = press(put(open_page(PAGE), candidate_budget=1), "All criteria")
    assert len(strips(at)) == len(CRITERIA) - 2
    assert not at.warning
    for criterion, row in CRITERIA.items():
        if row.needs != "damage":
            open_tab(put(at, score_criterion=criterion), "Scores")
            assert not at.error
            assert not [info for info in at.info if "needs" in info.value]
    for tab in TABS:
        assert not open_tab(at, tab).error


def test_no_tab_brings_the_model_into_memory(rich: OpenPage) -> None:
    at = rich(PAGE)
    for tab in TABS:
        open_tab(at, tab)
    assert model_slot().info is None


@pytest.mark.parametrize("n_layers", [1, pytest.param(2, marks=pytest.mark.slow), 3])
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
    for criterion in CRITERIA:
        assert not open_tab(put(at, score_criterion=criterion), "Scores").error
    for tab in TABS:
        assert not open_tab(at, tab).error
