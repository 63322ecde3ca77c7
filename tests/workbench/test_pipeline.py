"""The demo's flow: its curve is what single evaluations give, its sentences are what its numbers say."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from outside import outside_prompts, save_outside_model
from scored import n_scores

from vlm_analysis import (
    Cancelled,
    Comparison,
    Evaluation,
    LoadedModel,
    PromptSet,
    PruneMask,
    Recording,
    Story,
    compare,
    compare_masks,
    evaluate,
    load_model,
    many_masks,
    open_comparison,
    record,
    retention,
    retention_interval,
    save_comparison,
    score_layers,
)
from vlm_analysis.edits.apply import why_not
from vlm_analysis.errors import EvaluationError, RecordingError
from vlm_analysis.export.story import story_of, story_sections
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.selection.compared.findings import CURVE, retentions
from vlm_analysis.selection.strategies.many import Way
from vlm_analysis.workbench.pipeline import compare_first_k


@pytest.fixture(scope="module")
def told(loaded: LoadedModel, few: PromptSet) -> tuple[Comparison, Recording]:
    return compare_first_k(loaded, few)


@pytest.fixture(scope="module")
def small_story(small: LoadedModel, few: PromptSet) -> Story:
    return compare(small, few)


@pytest.fixture(scope="module")
def story(told: tuple[Comparison, Recording]) -> Story:
    return story_of(*told)


def test_curve_has_every_method_domain_and_budget(story):
    methods = {"general-aware", "math-aware", "block influence", "random"}
    assert tuple(story.curve.columns) == CURVE
    assert set(story.curve["method"]) == methods
    assert set(story.curve["budget"]) == set(range(1, 9))
    assert len(story.curve) == len(methods) * 2 * 8


def test_curve_has_the_retention_and_the_interval_of_single_evaluations_to_the_last_bit(story, told):
    comparison, _ = told
    ways = comparison.ways[comparison.ways["method"] != "random"]
    curve = story.curve.set_index(["method", "domain", "budget"])
    for way in ways.itertuples():
        alone = comparison.evaluation(way.place)
        for domain, value in retention(alone, story.dense).items():
            expected = value, *retention_interval(alone, story.dense, domain)
            np.testing.assert_array_equal(curve.loc[way.method, domain, way.budget], expected)


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


def test_dense_outputs_too_large_to_keep_are_made_again_and_never_left_out(small_story, small, few, monkeypatch):
    """Without them a pruned model would be compared with itself: agreement 1 and KL 0, silently."""
    monkeypatch.setattr("vlm_analysis.evaluation.run.evaluate.MAX_REFERENCE_BYTES", 0)
    again = compare(small, few)
    assert again.dense.dense_log_probs is None
    assert small_story.pruned.by_prompt["kl_to_dense"].max() > 0
    pd.testing.assert_frame_equal(again.pruned.by_prompt, small_story.pruned.by_prompt)


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


def test_one_domain_alone_has_a_story_too(small, few):
    story = compare(small, few.for_domain("math"))
    assert len(story_sections(story)) == 5  # no difference of two domains


def test_a_layer_without_finite_numbers_is_named(loaded: LoadedModel, few: PromptSet) -> None:
    broken = LoadedModel(copy.deepcopy(loaded.model), loaded.processor, "broken", "made here")
    with torch.no_grad():
        next(find_decoder_layers(broken.model)[8].parameters()).fill_(math.nan)
    with pytest.raises(RecordingError, match=r"got none of layers 8, 9, .*Check the weights of layer 8, or load"):
        compare(broken, few[:2])


def test_sentences_name_the_layers_that_change_least(story):
    mean = np.mean([story.recording.layer_similarity(domain) for domain in ("math", "general")], axis=0)
    least = np.argsort(-mean)[:3]
    text = story_sections(story)[0].text
    assert f"layers {least[0]}, {least[1]} and {least[2]} change it least" in text


def test_a_saved_comparison_tells_the_same_story(story, told, tmp_path: Path):
    opened = story_of(open_comparison(save_comparison(told[0], tmp_path / "c.npz")), story.recording)
    pd.testing.assert_frame_equal(opened.curve, story.curve)
    pd.testing.assert_frame_equal(opened.examples, story.examples)
    assert opened.masks == story.masks
    assert opened.pruned.by_domain.equals(story.pruned.by_domain)
    assert [section.text for section in story_sections(opened)] == [section.text for section in story_sections(story)]


def test_masks_are_shown_at_a_budget_that_every_method_has(story, told):
    comparison, recording = told
    assert {mask.budget for mask in story.masks.values()} == {3}
    ways = comparison.ways
    lacking = ways[~((ways["method"] == "random") & (ways["budget"] == 3))]
    told_of = story_of(replace(comparison, ways=lacking.reset_index(drop=True)), recording)
    assert {mask.budget for mask in told_of.masks.values()} == {2}
    assert told_of.masks.keys() == story.masks.keys()
    nowhere = ways[(ways["method"] == "random") == (ways["budget"] == 1)].reset_index(drop=True)
    with pytest.raises(
        EvaluationError, match="expected a mask of every method at one budget of 1 to 3 layers, got none"
    ):
        story_of(replace(comparison, ways=nowhere), recording)


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

    def test_three_prompts_of_a_domain_have_no_interval(self, story):
        assert np.isnan(retention_interval(story.dense, story.dense, "math")).all()

    def test_interval_of_equal_answers_has_the_width_that_their_number_allows(self, story):
        """Nothing lost or won of 6: where 1 − 0.05^(1/6) were lost, none would be in 5 % of cases; won, the odds of that."""
        one = story.dense.by_prompt.assign(domain="all", exact_match=True)
        dense = replace(story.dense, by_prompt=one)
        most = 1 - 0.05 ** (1 / 6)
        assert retention_interval(dense, dense, "all") == pytest.approx((1 - most, 1 + most / (1 - most)), abs=1e-9)

    def test_evaluations_of_other_prompts_are_refused(self, story):
        with pytest.raises(EvaluationError, match="different prompt sets"):
            retention(replace(story.pruned, prompts="other"), story.dense)


def test_a_comparison_that_broke_off_goes_on_with_what_was_recorded_and_scored(small_story, small, few, tmp_path):
    seen: list[int] = []

    def stop(done: int, total: int, message: str) -> None:
        if message.startswith("pruned model") and done > 2 * len(few):
            raise Cancelled

    with pytest.raises(Cancelled):
        compare(small, few, rows=tmp_path / "rows", scores=tmp_path / "scores", on_progress=stop)
    kept = n_scores(tmp_path / "scores")
    assert kept > 0
    again = compare(
        small,
        few,
        rows=tmp_path / "rows",
        scores=tmp_path / "scores",
        on_progress=lambda done, total, message: seen.append(done),
    )
    pd.testing.assert_frame_equal(again.curve, small_story.curve)
    assert n_scores(tmp_path / "scores") > kept


@pytest.fixture(scope="module")
def recording(small: LoadedModel, few: PromptSet) -> Recording:
    return record(small, few)


class TestManyMasks:
    def ways(self, recording: Recording) -> list[Way]:
        return many_masks(recording, (1, 3), criteria=("block-influence", "target-aware"), n_draws=2)[0]

    def test_every_mask_has_the_numbers_of_evaluating_it_alone(self, small, few, recording) -> None:
        found = compare_masks(small, few, self.ways(recording), recording=recording, batch_size=4)
        dense = evaluate(small, few, batch_size=4)
        pd.testing.assert_frame_equal(found.dense.by_prompt, dense.by_prompt)
        for place, mask in enumerate(found.masks):
            alone = evaluate(small, few, mask, reference=dense, batch_size=4)
            pd.testing.assert_frame_equal(found.evaluation(place).by_prompt, alone.by_prompt)

    def test_numbers_come_while_it_runs_and_are_those_of_the_end(self, small, few, recording) -> None:
        seen: list[Comparison] = []
        ways = self.ways(recording)
        end = compare_masks(small, few, ways, recording=recording, batch_size=2, on_partial=seen.append)
        counts = [len(part.dense.by_prompt) for part in seen]
        assert counts == sorted(counts)
        assert counts[0] < len(few) == counts[-1]
        places = end.dense.by_prompt["id"].isin(seen[0].dense.by_prompt["id"]).to_numpy()
        for metric, values in seen[0].scores.items():
            np.testing.assert_array_equal(values, end.scores[metric][:, places])

    def test_prompts_used_to_choose_are_counted(self, small, few, recording, packs) -> None:
        other = packs[1:5]
        found = compare_masks(small, other, self.ways(recording)[:2], recording=recording)
        assert (found.n_shared, found.chosen_on) == (2, few.fingerprint)
        renamed = PromptSet(replace(prompt, id=None) for prompt in other)
        found = compare_masks(small, renamed, self.ways(recording)[:2], recording=recording)
        assert found.n_shared == 2
        old = replace(recording, rows=recording.rows.copy())
        old.rows["key"] = b""  # as a recording of version 1 has them
        assert compare_masks(small, few, self.ways(recording)[:2], recording=old).n_shared == len(few)

    def test_choices_are_compared_too(self, small, few, recording) -> None:
        asked = PromptSet(
            replace(prompt, choices=(prompt.answer, "none of these")) if place % 2 else prompt
            for place, prompt in enumerate(few)
        )
        found = compare_masks(small, asked, self.ways(recording)[:3], recording=recording, batch_size=1)
        dense = evaluate(small, asked, batch_size=1)
        for place, mask in enumerate(found.masks):
            alone = evaluate(small, asked, mask, reference=dense, batch_size=1)
            np.testing.assert_array_equal(found.scores["choice_match"][place], alone.by_prompt["choice_match"])
            for domain, share in retention(alone, dense, "choice_match").items():
                assert retentions(found, str(domain), "choice_match")[place] == pytest.approx(share, nan_ok=True)

    def test_nothing_to_compare_is_refused(self, small, few, recording) -> None:
        with pytest.raises(EvaluationError, match="nothing to compare"):
            compare_masks(small, few, [], recording=recording)

    def test_masks_the_model_cannot_run_are_left_out_by_name(self, tmp_path) -> None:
        outside = load_model(save_outside_model("mllama", tmp_path / "model"))
        prompts = PromptSet(outside_prompts()[:2])
        made = record(outside, prompts)
        ways, _ = many_masks(made, range(1, outside.n_layers), protected=(), locked=outside.locked_layers)
        found = compare_masks(outside, prompts, ways, recording=made, left_out={"another": "no reason"})
        refused = [mask for mask in dict.fromkeys(way.mask for way in ways) if why_not(outside.model, mask)]
        assert refused
        assert not set(refused) & set(found.masks)
        assert found.left_out["another"] == "no reason"
        assert any("cross-attention layer" in reason for reason in found.left_out.values())
        only = [way for way in ways if way.mask in refused]
        with pytest.raises(EvaluationError, match="cross-attention layer"):
            compare_masks(outside, prompts, only, recording=made)
