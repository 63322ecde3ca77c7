"""Criteria: each is what its formula says, checked against worked numbers and a second implementation in plain Python."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from oracles import made_recording
from rankings import DOMAINS, full_recording, joined, left_out, plain

from vlm_analysis import CRITERIA, LayerScores, Recording, score_layers
from vlm_analysis.errors import MaskError, RecordingError
from vlm_analysis.selection.criteria.scoring import usable_criteria
from vlm_analysis.selection.criteria.similarity import z_scores

TWO = [("math", [0.9, 0.5, 0.7]), ("math", [0.7, 0.3, 0.9]), ("general", [0.2, 0.8, 0.5])]


MEASURED = [name for name, row in CRITERIA.items() if row.values]
FROM_COSINES = ["block-influence", "target-aware", "others-aware", "mixed", "mixed-others", "worst-case", "contrast"]


def many(seed: int = 0, domains: tuple[str, ...] = DOMAINS) -> Recording:
    return full_recording(14, 9, domains, seed=seed)


damage_of = functools.cache(lambda n_layers, domains: left_out(n_layers, domains=domains))


def score(recording: Recording, criterion: str, **asked: Any) -> LayerScores:
    """Score with the measured damage at hand, wherever it is needed."""
    if CRITERIA[criterion].needs == "damage":
        asked.setdefault("damage", damage_of(recording.n_layers, tuple(sorted(recording.domain_names))))
    return score_layers(recording, criterion, **asked)


class TestWorkedNumbers:
    def test_block_influence_is_one_minus_the_mean_over_prompts_and_drops_the_lowest(self) -> None:
        scores = score_layers(made_recording(TWO), "block-influence")
        np.testing.assert_allclose(scores.values, [0.4, 1 - 1.6 / 3, 0.3], rtol=1e-12)
        assert (scores.drop, scores.order) == ("lowest", (2, 0, 1))

    def test_target_aware_is_the_z_score_of_the_target_and_drops_the_highest(self) -> None:
        # means 0.8, 0.4, 0.8: mean 2/3, population deviation 0.4·√2/3
        scores = score_layers(made_recording(TWO), "target-aware", target="math")
        np.testing.assert_allclose(scores.values, [math.sqrt(0.5), -math.sqrt(2), math.sqrt(0.5)], rtol=1e-12)
        assert (scores.drop, scores.order) == ("highest", (0, 2, 1))

    def test_others_aware_leaves_the_target_out(self) -> None:
        # general alone: 0.2, 0.8, 0.5 has mean 0.5 and deviation √0.06
        scores = score_layers(made_recording(TWO), "others-aware", target="math")
        np.testing.assert_allclose(scores.values, np.array([-0.3, 0.3, 0.0]) / math.sqrt(0.06), rtol=1e-12, atol=1e-15)
        assert scores.order == (1, 2, 0)

    def test_mixed_takes_seven_tenths_of_the_target(self) -> None:
        scores = score_layers(made_recording(TWO), "mixed", target="math")
        first = 0.7 * math.sqrt(0.5) - 0.3 * 0.3 / math.sqrt(0.06)
        assert scores.values[0] == pytest.approx(first, rel=1e-12)
        assert scores.options["weight"] == 0.7

    def test_z_scores_have_population_deviation_one(self) -> None:
        np.testing.assert_allclose(z_scores(np.array([1.0, 3.0])), [-1, 1])

    def test_no_spread_gives_zero_also_when_only_the_last_bit_differs(self) -> None:
        assert z_scores(np.full(4, 0.3)).tolist() == [0, 0, 0, 0]
        assert z_scores(np.array([0.3, 0.1 + 0.2, 0.3])).tolist() == [0, 0, 0]

    def test_a_nan_layer_counts_for_nothing_in_the_z_scores(self) -> None:
        np.testing.assert_allclose(z_scores(np.array([1.0, np.nan, 3.0])), [-1, np.nan, 1])
        assert np.isnan(z_scores(np.full(3, np.nan))).all()
        np.testing.assert_array_equal(z_scores(np.array([2.0, np.nan, 2.0])), [0, np.nan, 0])


@pytest.mark.parametrize("target", DOMAINS)
@pytest.mark.parametrize("criterion", MEASURED)
def test_each_measured_criterion_equals_a_second_implementation(criterion: str, target: str) -> None:
    recording, damage = many(), left_out()
    scores = score_layers(recording, criterion, target=target, weight=0.4, damage=damage)
    wanted = plain(recording, criterion, target, 0.4, damage)
    np.testing.assert_allclose(scores.values, wanted, rtol=1e-9, atol=1e-12)
    ascending = sorted(range(recording.n_layers), key=wanted.__getitem__)
    assert scores.order == tuple(ascending if scores.drop == "lowest" else ascending[::-1])


class TestOrder:
    def test_ties_go_to_the_lower_layer_at_both_ends(self) -> None:
        values = np.array([0.5, 0.9, 0.5, 0.9])
        assert LayerScores("c", values, values, "highest").order == (1, 3, 0, 2)
        assert LayerScores("c", values, values, "lowest").order == (0, 2, 1, 3)

    def test_a_layer_without_a_score_is_never_in_the_drop_order(self) -> None:
        values = np.array([np.nan, 0.9, 0.5, np.nan])
        assert LayerScores("c", values, values, "highest").order == (1, 2)
        assert LayerScores("c", values, values, "lowest").order == (2, 1)

    def test_a_layer_that_was_not_measured_is_nan_and_the_rest_is_ranked(self) -> None:
        rows = [("math", [0.9, np.nan, 0.7]), ("general", [0.2, np.nan, 0.5])]
        for criterion in FROM_COSINES:
            scores = score_layers(made_recording(rows), criterion)
            assert np.isnan(scores.values).tolist() == [False, True, False]
            assert np.isnan(scores.spread).tolist() == [False, True, False]
            assert set(scores.order) == {0, 2}

    def test_a_domain_without_the_token_group_scores_nan(self) -> None:
        recording = made_recording(TWO, group="answer", empty=[2])
        assert np.isnan(score_layers(recording, "others-aware", target="math", token_group="answer").values).all()
        assert not np.isnan(score_layers(recording, "target-aware", target="math", token_group="answer").values).any()


class TestWeight:
    @pytest.mark.parametrize(("weight", "same"), [(1, "target-aware"), (0, "others-aware")])
    def test_the_ends_of_mixed_are_the_pure_criteria(self, weight: float, same: str) -> None:
        recording = many()
        mixed = score_layers(recording, "mixed", target="general", weight=weight)
        pure = score_layers(recording, same, target="general")
        np.testing.assert_allclose(mixed.values, pure.values, rtol=1e-15, atol=1e-15)
        np.testing.assert_allclose(mixed.spread, pure.spread, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("weight", [-0.01, 1.01, math.nan, math.inf])
    def test_a_weight_outside_zero_to_one_is_refused(self, weight: float) -> None:
        with pytest.raises(MaskError, match=r"must lie in \[0, 1\]"):
            score_layers(many(), "mixed", weight=weight)


class TestSpread:
    @pytest.mark.parametrize("criterion", list(CRITERIA))
    def test_spread_is_the_same_each_time(self, criterion: str) -> None:
        one, two = (score(many(), criterion, target="math", seed=5) for _ in range(2))
        np.testing.assert_array_equal(one.spread, two.spread)

    @pytest.mark.parametrize("criterion", [name for name in MEASURED if not name.startswith("damage")])
    def test_spread_is_zero_where_all_prompts_agree(self, criterion: str) -> None:
        recording = many()
        rows = recording.rows.copy()
        rows[:] = rows[0]
        spread = score_layers(replace(recording, rows=rows), criterion).spread
        known = criterion != "cross-modal-pooled"  # only sums over prompts are kept of it
        np.testing.assert_allclose(spread, 0 if known else np.nan, atol=1e-12)

    def test_spread_is_near_the_standard_error_of_the_mean(self) -> None:
        rng = np.random.default_rng(2)
        values = rng.normal(0.5, 0.1, (60, 4))
        recording = made_recording([("math", row.tolist()) for row in values])
        spread = score_layers(recording, "block-influence").spread
        np.testing.assert_allclose(spread, values.std(0) / math.sqrt(60), rtol=0.2)

    def test_prompts_without_the_group_do_not_widen_it(self) -> None:
        rows = [("math", [0.9, 0.2, 0.6])] * 5
        recording = made_recording(rows, group="answer", empty=[0, 3])
        np.testing.assert_allclose(
            score_layers(recording, "block-influence", token_group="answer").spread, 0, atol=1e-12
        )


class TestRandom:
    def test_random_is_a_seeded_draw_in_zero_to_one(self) -> None:
        one, same, other = (score_layers(many(), "random", seed=seed) for seed in (4, 4, 5))
        np.testing.assert_array_equal(one.values, same.values)
        assert one.order != other.order
        assert ((one.values >= 0) & (one.values < 1)).all()
        assert one.options["seed"] == 4
        assert not one.spread.any()


class TestQuestions:
    def test_an_unknown_criterion_lists_the_choices(self) -> None:
        with pytest.raises(MaskError, match=r"block-influence.*target-aware.*others-aware.*mixed.*random.*got 'best'"):
            score_layers(many(), "best")

    @pytest.mark.parametrize("criterion", [name for name, row in CRITERIA.items() if "target" in row.takes])
    def test_an_unknown_target_lists_the_domains(self, criterion: str) -> None:
        with pytest.raises(MaskError, match=r"(?s)'maps'.*'art'|'art'.*'maps'"):
            score(many(), criterion, target="art")

    def test_an_unknown_token_group_lists_the_choices(self) -> None:
        with pytest.raises(RecordingError, match=r"'vision'.*got 'pixels'"):
            score_layers(many(), "target-aware", token_group="pixels")

    @pytest.mark.parametrize("criterion", FROM_COSINES[2:])
    def test_one_domain_is_refused_where_two_are_compared(self, criterion: str) -> None:
        with pytest.raises(MaskError, match="at least two, got only 'math'"):
            score_layers(many(domains=("math",)), criterion)

    def test_one_domain_is_enough_for_the_others(self) -> None:
        for criterion in CRITERIA.keys() - set(FROM_COSINES[2:]):
            assert len(score(many(domains=("math",)), criterion).values) == 9

    def test_the_target_is_the_first_domain_by_default(self) -> None:
        assert score_layers(many(), "target-aware").options["target"] == "math"

    def test_every_criterion_says_what_it_is(self) -> None:
        for name, row in CRITERIA.items():
            assert row.title, name
            assert row.source, name
            assert row.formula, name
            assert row.drop in ("highest", "lowest")
            assert row.needs in ("recording", "domains", "attention", "damage", "nothing")


class TestInvariance:
    """What no number may depend on."""

    @pytest.mark.parametrize("criterion", MEASURED)
    @given(st.permutations(range(14)))
    def test_prompt_order_changes_neither_values_nor_spread(self, criterion: str, order: list[int]) -> None:
        there, back = (score(full_recording(pick=pick), criterion, target="math") for pick in (None, order))
        np.testing.assert_allclose(there.values, back.values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(there.spread, back.spread, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("criterion", MEASURED)
    @given(st.sets(st.integers(0, 13), min_size=1, max_size=13))
    def test_a_recording_made_in_two_parts_scores_the_same(self, criterion: str, part: set[int]) -> None:
        whole = score(full_recording(), criterion, target="math")
        parts = (full_recording(pick=sorted(rows)) for rows in (part, set(range(14)) - part))
        scores = score(joined(*parts), criterion, target="math")
        np.testing.assert_allclose(scores.values, whole.values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.spread, whole.spread, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("criterion", FROM_COSINES)
    @given(st.integers(0, 5), st.floats(0.1, 10), st.floats(-3, 3))
    def test_scaling_and_shifting_all_cosines_keeps_the_order(
        self, criterion: str, seed: int, scale: float, shift: float
    ) -> None:
        recording = many(seed)
        rows = recording.rows.copy()
        rows["cosine"] = scale * rows["cosine"] + shift
        moved = score(replace(recording, rows=rows), criterion, target="math")
        scores = score(recording, criterion, target="math")
        assert moved.order == scores.order
        if criterion != "block-influence":
            np.testing.assert_allclose(moved.values, scores.values, rtol=1e-9, atol=1e-9)

    def test_a_layer_that_hands_its_input_on_has_no_influence(self) -> None:
        recording = many()
        recording.rows["cosine"][:, 3], recording.rows["changed"][:, 3] = 1.0, 0.0
        for criterion in ("block-influence", "skip-geometric", "skip-proximal"):
            scores = score_layers(recording, criterion)
            assert scores.values[3] == scores.spread[3] == 0
            assert scores.order[0] == 3

    @given(st.integers(0, 20), st.sets(st.integers(0, 8), min_size=1, max_size=8), st.sampled_from(FROM_COSINES))
    def test_layers_without_a_number_are_never_in_the_order(self, seed: int, lost: set[int], criterion: str) -> None:
        recording = many(seed)
        recording.rows["cosine"][:, sorted(lost)] = np.nan
        recording.rows["nonfinite"][:, sorted(lost)] = 1
        assert set(score_layers(recording, criterion, target="math").order) == set(range(9)) - lost


class TestComparedDomains:
    def test_the_worst_case_is_the_lowest_z(self) -> None:
        # z of math (√½, −√2, √½), of general (−0.3, 0.3, 0)/√0.06
        scores = score_layers(made_recording(TWO), "worst-case")
        np.testing.assert_allclose(scores.values, [-0.3 / math.sqrt(0.06), -math.sqrt(2), 0], rtol=1e-12, atol=1e-15)
        assert scores.order == (2, 0, 1)

    def test_the_contrast_drops_first_what_the_target_alone_can_spare(self) -> None:
        scores = score_layers(made_recording(TWO), "contrast", target="math")
        first = math.sqrt(0.5) + 0.3 / math.sqrt(0.06)
        assert scores.values[0] == pytest.approx(first, rel=1e-12)
        assert scores.order == (0, 2, 1)

    def test_the_contrast_of_two_domains_leaves_a_third_out(self) -> None:
        recording = many()
        two = full_recording(pick=[row for row in range(14) if recording.domains[row] != "maps"])
        one = score_layers(recording, "contrast", target="math", other="general")
        np.testing.assert_allclose(one.values, score_layers(two, "contrast", target="math").values, rtol=1e-12)
        assert one.options["other"] == "general"
        with pytest.raises(MaskError, match=r"compare 'math' with.*\['general', 'maps'\], got 'math'"):
            score_layers(recording, "contrast", target="math", other="math")

    @given(st.floats(0, 1))
    def test_the_two_readings_of_the_weight_swap_at_its_complement(self, weight: float) -> None:
        one = score_layers(many(), "mixed", weight=weight).values
        two = score_layers(many(), "mixed-others", weight=1 - weight).values
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)

    def test_one_domain_can_be_asked_alone(self) -> None:
        recording = many()
        alone = full_recording(pick=[row for row in range(14) if recording.domains[row] == "maps"])
        for criterion in MEASURED:
            if "domain" in CRITERIA[criterion].takes:
                asked = score_layers(recording, criterion, domain="maps")
                np.testing.assert_allclose(asked.values, score_layers(alone, criterion).values, rtol=1e-12)
                np.testing.assert_allclose(asked.spread, score_layers(alone, criterion).spread, rtol=1e-12)


class TestOptions:
    def test_the_share_and_the_threshold_are_those_asked(self) -> None:
        recording = many()
        recording.rows["important_cosine"][:] = [0.1, 0.2, 0.3]
        recording.rows["changed"][:] = [0.5, 0.4, 0.3, 0.2, 0.1]
        for share, value in zip((0.25, 0.5, 0.75), (0.1, 0.2, 0.3), strict=True):
            scores = score_layers(recording, "important-tokens", share=share)
            assert scores.values == pytest.approx(value)
            assert scores.options["share"] == share
        for delta, value in zip((0.01, 0.02, 0.05, 0.1, 0.2), (0.5, 0.4, 0.3, 0.2, 0.1), strict=True):
            assert score_layers(recording, "skip-proximal", delta=delta).values == pytest.approx(value)

    @pytest.mark.parametrize("asked", [{"share": 0.3}, {"delta": 0.5}])
    def test_what_was_not_recorded_is_refused(self, asked: dict[str, float]) -> None:
        with pytest.raises(MaskError, match=r"was recorded: expected one of"):
            score_layers(many(), "block-influence", **asked)  # type: ignore[arg-type]

    def test_a_recording_without_attention_maps_says_what_to_do(self) -> None:
        with pytest.raises(MaskError, match=r"needs the measure 'important_cosine'.*Record again with attention maps"):
            score_layers(full_recording(attention=False), "important-tokens")

    def test_a_recording_of_cosines_alone_names_what_is_not_usable(self) -> None:
        found = usable_criteria(made_recording(TWO))
        usable = {name for name, reason in found.items() if not reason}
        assert usable == {*FROM_COSINES, "random"}
        assert "Record again." in found["linear-cka"]
        assert "attention maps" in found["important-tokens"]
        assert "no number for any layer" in found["skip-geometric"]
        assert "needs measured damage" in found["damage-kl"]

    def test_all_is_usable_with_everything_at_hand(self) -> None:
        assert not any(usable_criteria(many(), damage=left_out()).values())


class TestCka:
    def test_the_parts_are_averaged_before_they_are_divided(self) -> None:
        recording = full_recording(2, 3, ("math",))
        recording.rows["hsic"][0], recording.rows["hsic"][1] = [1, 2, 3], [3, 4, 5]
        np.testing.assert_allclose(score_layers(recording, "linear-cka").values, 3 / math.sqrt(2 * 4))

    def test_a_layer_whose_parts_are_not_positive_has_none(self) -> None:
        recording = full_recording(2, 3, ("math",))
        recording.rows["hsic"][:, 1, :, 0] = -1
        assert set(score_layers(recording, "linear-cka").order) == {0, 2}
