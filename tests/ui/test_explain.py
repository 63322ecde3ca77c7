"""The Similarity page's Explain tab: criteria's scores, how far they agree, measured damage and Skip-It."""

from __future__ import annotations

import re

import pytest
from acting import OpenPage, chart, finish, hold_small, press, put, ran, wait_for, words
from probed import pictures
from streamlit.testing.v1 import AppTest

from vlm_analysis import CRITERIA, LoadedModel, PromptSet
from vlm_analysis.ui.common.inputs import CHOSEN
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.similarity.scanview import EXIT, FREEZE, WAYS
from vlm_analysis.workbench.shelf import keep_prompts

PAGE = "pages/3_similarity.py"
VIEWS = ("Scores", "Agreement", "Against damage", "Skip-It")


def open_view(at: AppTest, name: str) -> AppTest:
    return put(at, similarity_tab="Explain", explain_view=name)


def test_every_view_opens_without_an_error_and_without_the_model(rich: OpenPage) -> None:
    at = rich(PAGE)
    for view in VIEWS:
        open_view(at, view)
        assert (view, len(at.error), len(at.warning)) == (view, 0, 0)
    assert model_slot().info is None


class TestScores:
    @pytest.mark.parametrize("some", [("random", "mixed"), pytest.param(tuple(CRITERIA), marks=pytest.mark.slow)])
    def test_every_criterion_is_drawn_with_formula_source_and_what_the_prompts_tell(
        self, rich: OpenPage, some: tuple[str, ...]
    ) -> None:
        at = open_view(rich(PAGE), "Scores")
        for criterion in some:
            row = CRITERIA[criterion]
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
        at = open_view(put(rich(PAGE), score_criterion="skip-proximal"), "Scores")
        before = chart(at, 0)["data"]
        at.select_slider(key="candidate_delta").set_value(0.2)
        assert chart(ran(at), 0)["data"] != before

    def test_scores_follow_the_target_chosen_for_the_candidates(self, rich: OpenPage) -> None:
        drawn = []
        for target in ("general", "math"):
            at = open_view(put(rich(PAGE), candidate_target=target, score_criterion="target-aware"), "Scores")
            assert at.selectbox(key="candidate_target").value == target
            drawn.append(chart(at, 0)["data"])
        assert drawn[0] != drawn[1]

    def test_a_criterion_without_what_it_needs_says_so(self, stocked: OpenPage) -> None:
        at = open_view(put(stocked(PAGE), score_criterion="important-tokens"), "Scores")
        assert "attention maps" in at.info[-1].value
        assert not at.error


class TestAgreement:
    def test_each_kind_is_a_square_of_numbers_with_downloads(self, rich: OpenPage) -> None:
        at = open_view(put(rich(PAGE), **{CHOSEN: list(CRITERIA)}), "Agreement")
        for between, size in (("criteria", 18), ("domains", 2), ("token groups", 5)):
            put(at, agreement_between=between)
            assert len(chart(at)["layout"]["yaxis"]["ticktext"]) == size, between
            assert "Kendall" in words(at)
            assert "Most alike" in words(at)
            assert {button.label for button in at.get("download_button")} >= {"CSV", "Parquet"}

    def test_one_criterion_has_nothing_to_compare_with(self, rich: OpenPage) -> None:
        at = open_view(put(rich(PAGE), **{CHOSEN: ["mixed"]}), "Agreement")
        assert "It takes two rankings" in at.info[-1].value


class TestDamage:
    def test_where_cosine_misleads_is_said_in_words_with_every_layer_drawn(self, rich: OpenPage) -> None:
        at = open_view(rich(PAGE), "Against damage")
        said = words(at).replace("\\", "")
        assert "Over 16 layers cosine and measured damage (KL to the dense model)" in said
        points = [text for trace in chart(at)["data"] for text in trace["text"]]
        assert len(points) == 16
        at.segmented_control(key="damage_by").set_value("damage_nll")
        assert "measured damage (answer NLL)" in words(ran(at)).replace("\\", "")
        at.selectbox(key="damage_target").select("math")
        assert not ran(at).error

    def test_without_model_or_prompts_the_page_says_what_is_missing(self, stocked: OpenPage) -> None:
        at = open_view(stocked(PAGE), "Against damage")
        assert "load it on the Model page" in at.info[-1].value
        for item in workspace().items("prompts"):
            workspace().delete(item)
        assert "add them on the Prompts page" in ran(at).info[-1].value

    def test_damage_is_measured_in_a_job_and_then_drawn(
        self, stocked: OpenPage, small: LoadedModel, few: PromptSet
    ) -> None:
        hold_small(small, few)
        at = open_view(stocked(PAGE), "Against damage")
        assert "8 of 8 layers, each left out alone on 6 prompts: 48 answers" in words(at).replace("\\", "")
        press(at, "Measure damage")
        finish("damage")
        wait_for(at, "Over 8 layers")
        assert not [button for button in at.button if button.label == "Measure damage"]
        assert "Measured damage, KL" in open_view(at, "Agreement").multiselect[0].options


class TestSkipIt:
    def test_thresholds_select_layers_and_the_bands_are_said_in_words(self, rich: OpenPage) -> None:
        at = open_view(rich(PAGE), "Skip-It")
        put(at, skip_epsilon=1.0, skip_eta=1.0, skip_tau=1.0)
        assert "Selected: 16 of 16 layers" in words(at)
        assert "vision tokens could enter behind layer 15" in words(at)
        put(at, skip_epsilon=0.0)
        assert "No layer is selected" in words(at)
        for rule in ("either", "geometric", "proximal"):
            assert not put(at, skip_rule=rule).error

    def test_without_attention_maps_the_page_says_how_to_get_them(self, stocked: OpenPage) -> None:
        at = open_view(stocked(PAGE), "Skip-It")
        assert "record with attention maps" in words(at)
        assert len([trace for trace in chart(at)["data"] if "threshold" in trace["name"]]) == 2

    def test_a_scan_is_a_job_and_its_damage_stands_below_the_curves(
        self, stocked: OpenPage, small: LoadedModel, few: PromptSet
    ) -> None:
        hold_small(small, few)
        at = open_view(stocked(PAGE), "Skip-It")
        assert "At most 24 edits on 6 prompts" in words(at)
        press(at, "Scan vision tokens")
        finish("scan")
        assert [trace["name"] for trace in chart(ran(at))["data"]][-3:] == list(WAYS)
        assert "Geometric change and measured damage" in words(at)
        put(at, scan_way=FREEZE, scan_frozen=2)
        press(at, "Take it into the editor")
        edit = at.session_state["mask_vision"]
        assert (len(edit.frozen), edit.form) == (2, "sliced")
        put(at, scan_way=EXIT, scan_bound=0.0)
        assert "No early exit keeps the bound" in words(at)
        assert not [button for button in at.button if button.label == "Scan vision tokens"]

    def test_a_scan_needs_model_and_prompts(self, stocked: OpenPage) -> None:
        assert "load it on the Model page" in open_view(stocked(PAGE), "Skip-It").info[-1].value

    def test_the_answers_are_probed_in_a_job_and_the_curves_stand_below(
        self, stocked: OpenPage, small: LoadedModel
    ) -> None:
        prompts = pictures()
        keep_prompts(workspace(), prompts, "pictures")
        hold_small(small, prompts)
        at = open_view(stocked(PAGE), "Skip-It")
        assert "Two more of Skip-It's redundancies need a probe" in words(at)
        press(at, "Probe the answers")
        finish("probe")
        said = words(ran(at)).replace("\\", "")
        assert "A ridge probe names the answer of 10 prompts" in said
        assert "general: 10 prompts with 2 answers" in said
        curves = chart(at, 1)["data"]
        assert [one["name"] for one in curves if one["mode"] == "lines+markers"] == ["vision tokens", "text tokens"] * 2
        assert not [button for button in at.button if button.label == "Probe the answers"]
