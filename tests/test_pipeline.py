"""The demo's flow: its curve is what single evaluations give, its sentences are what its numbers say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluate import evaluate
from vlm_analysis.evaluation import Evaluation, retention, retention_interval
from vlm_analysis.masks import PruneMask
from vlm_analysis.models import LoadedModel
from vlm_analysis.pipeline import compare
from vlm_analysis.progress import Cancelled
from vlm_analysis.prompts import PromptSet
from vlm_analysis.rank import score_layers
from vlm_analysis.story import CURVE_COLUMNS, Story, open_story, save_story, story_sections


@pytest.fixture(scope="module")
def story(loaded: LoadedModel, few: PromptSet) -> Story:
    return compare(loaded, few)


def test_curve_has_every_method_domain_and_budget(story):
    methods = {"general-aware", "math-aware", "block influence", "random"}
    assert tuple(story.curve.columns) == CURVE_COLUMNS
    assert set(story.curve["method"]) == methods
    assert set(story.curve["budget"]) == set(range(1, 9))
    assert len(story.curve) == len(methods) * 2 * 8


def test_curve_is_what_evaluating_the_mask_alone_gives(story, loaded, few):
    dense = evaluate(loaded, few)
    order = score_layers(story.recording, "target-aware", target="math").order
    free = [layer for layer in order if layer not in loaded.protected_layers]
    for budget in (1, 5):
        alone = evaluate(loaded, few, PruneMask(16, free[:budget]))
        rows = story.curve[(story.curve["method"] == "math-aware") & (story.curve["budget"] == budget)]
        for row in rows.itertuples():
            right = [alone.by_domain, dense.by_domain]
            pruned_share, dense_share = (frame.loc[row.domain, "exact_match"] for frame in right)
            expected = pruned_share / dense_share if dense_share else math.nan
            assert row.value == pytest.approx(expected, nan_ok=True)


def test_dense_outputs_too_large_to_keep_are_made_again_and_never_left_out(story, loaded, few, monkeypatch):
    """Without them a pruned model would be compared with itself: agreement 1 and KL 0, silently."""
    monkeypatch.setattr("vlm_analysis.evaluate.MAX_REFERENCE_BYTES", 0)
    again = compare(loaded, few)
    assert again.dense.dense_log_probs is None
    assert story.pruned.by_prompt["kl_to_dense"].max() > 0
    pd.testing.assert_frame_equal(again.pruned.by_prompt, story.pruned.by_prompt)


def test_random_band_holds_the_mean_of_its_draws(story):
    rows = story.curve[story.curve["method"] == "random"].dropna()
    assert (rows["low"] <= rows["value"] + 1e-12).all()
    assert (rows["value"] <= rows["high"] + 1e-12).all()


def test_protected_layers_are_in_no_mask(story, loaded):
    for mask in story.masks.values():
        assert not set(mask.dropped) & set(loaded.protected_layers)


def test_cancelled_comparison_leaves_the_model_as_it_was(loaded, few):
    before = evaluate(loaded, few).by_prompt

    def stop(done: int, total: int, message: str) -> None:
        assert done <= total
        if "pruned model" in message:
            raise Cancelled

    with pytest.raises(Cancelled):
        compare(loaded, few, on_progress=stop)
    pd.testing.assert_frame_equal(evaluate(loaded, few).by_prompt, before)


def test_one_domain_alone_has_a_story_too(loaded, few):
    story = compare(loaded, few.for_domain("math"))
    assert len(story_sections(story)) == 5  # no difference of two domains


def test_sentences_name_the_layers_that_change_least(story):
    mean = np.mean([story.recording.layer_similarity(domain) for domain in ("math", "general")], axis=0)
    least = np.argsort(-mean)[:3]
    text = story_sections(story)[0].text
    assert f"layers {least[0]}, {least[1]} and {least[2]} change it least" in text


def test_story_opens_as_it_was_saved(story, tmp_path: Path):
    path = save_story(story, tmp_path / "story.json", recording_id="r")
    opened = open_story(path, story.recording)
    pd.testing.assert_frame_equal(opened.curve, story.curve, check_dtype=False, rtol=1e-12)
    assert opened.masks == story.masks
    assert opened.pruned.by_domain.equals(story.pruned.by_domain)
    assert [section.text for section in story_sections(opened)] == [section.text for section in story_sections(story)]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_story_cut_short_is_refused_in_words(story, tmp_path, share):
    path = save_story(story, tmp_path / "story.json", recording_id="r")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(EvaluationError, match="Run the demo again"):
        open_story(path, story.recording)


class TestRetention:
    @staticmethod
    def with_matches(evaluation: Evaluation, matches: list[bool]) -> Evaluation:
        return replace(evaluation, by_prompt=evaluation.by_prompt.assign(exact_match=matches))

    def test_retention_is_pruned_over_dense_per_domain(self, story):
        dense = self.with_matches(story.dense, [True, True, False, True, True, True])
        pruned = self.with_matches(story.pruned, [True, False, False, True, True, False])
        kept = retention(pruned, dense)
        assert kept["math"] == pytest.approx(1 / 2)
        assert kept["general"] == pytest.approx(2 / 3)

    def test_retention_over_a_dense_score_of_zero_is_not_defined(self, story):
        dense = self.with_matches(story.dense, [False] * 6)
        assert retention(story.pruned, dense).isna().all()
        assert np.isnan(retention_interval(story.pruned, dense, "math")).all()

    def test_interval_of_equal_answers_is_one(self, story):
        dense = self.with_matches(story.dense, [True] * 6)
        assert retention_interval(dense, dense, "math") == (1.0, 1.0)

    def test_interval_is_that_of_a_paired_bootstrap(self, story):
        """Three prompts, two kept: of all 27 equally likely draws, the ratio's quantiles by enumeration."""
        dense = self.with_matches(story.dense, [True] * 6)
        pruned = self.with_matches(story.pruned, [True, True, False] * 2)
        draws = np.array([[a, b, c] for a in range(3) for b in range(3) for c in range(3)])
        ratios = np.array([1, 1, 0])[draws].mean(axis=1)
        expected = np.quantile(ratios, [0.05, 0.95])
        assert retention_interval(pruned, dense, "math") == pytest.approx(tuple(expected), abs=1e-9)
        assert retention_interval(pruned, dense, "math") == retention_interval(pruned, dense, "math")

    def test_evaluations_of_other_prompts_are_refused(self, story):
        with pytest.raises(EvaluationError, match="different prompt sets"):
            retention(replace(story.pruned, prompts="other"), story.dense)
