"""Criteria: each is what its formula says, checked against worked numbers and a second implementation in plain Python."""

from __future__ import annotations

import math
from statistics import fmean, pstdev

import numpy as np
import pytest
from oracles import made_recording

from vlm_analysis.errors import MaskError, RecordingError
from vlm_analysis.rank import CRITERIA, LayerScores, score_layers
from vlm_analysis.rank.criteria import z_scores
from vlm_analysis.recording import Recording

TWO = [("math", [0.9, 0.5, 0.7]), ("math", [0.7, 0.3, 0.9]), ("general", [0.2, 0.8, 0.5])]


def many(seed: int = 0, domains: tuple[str, ...] = ("math", "general", "maps")) -> Recording:
    rng = np.random.default_rng(seed)
    return made_recording([(domains[i % len(domains)], rng.uniform(0.4, 1, 9).tolist()) for i in range(14)])


def plain_means(recording: Recording, domain: str | None) -> list[float]:
    rows = [
        row[:, 4]
        for row, name in zip(recording.rows["cosine"], recording.domains, strict=True)
        if domain in (None, name)
    ]
    return [fmean(float(row[layer]) for row in rows) for layer in range(recording.n_layers)]


def plain_z(values: list[float]) -> list[float]:
    return [(value - fmean(values)) / pstdev(values) for value in values]


def plain(recording: Recording, criterion: str, target: str, weight: float) -> list[float]:
    if criterion == "block-influence":
        return [1 - mean for mean in plain_means(recording, None)]
    aware = plain_z(plain_means(recording, target))
    names = dict.fromkeys(recording.domains)
    other = plain_z(
        [fmean(column) for column in zip(*(plain_means(recording, d) for d in names if d != target), strict=True)]
    )
    share = {"target-aware": 1.0, "others-aware": 0.0, "mixed": weight}[criterion]
    return [share * one + (1 - share) * two for one, two in zip(aware, other, strict=True)]


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


@pytest.mark.parametrize("target", ["math", "general", "maps"])
@pytest.mark.parametrize("criterion", [name for name, row in CRITERIA.items() if row.values])
def test_each_measured_criterion_equals_a_second_implementation(criterion: str, target: str) -> None:
    recording = many()
    scores = score_layers(recording, criterion, target=target, weight=0.4)
    wanted = plain(recording, criterion, target, 0.4)
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

    @pytest.mark.parametrize("criterion", [name for name, row in CRITERIA.items() if row.values])
    def test_prompt_order_does_not_change_the_ranking(self, criterion: str) -> None:
        rng = np.random.default_rng(3)
        rows = [(("math", "general")[i % 2], rng.uniform(0, 1, 7).tolist()) for i in range(12)]
        there = score_layers(made_recording(rows), criterion, target="math")
        back = score_layers(made_recording(rows[::-1]), criterion, target="math")
        np.testing.assert_array_equal(there.values, back.values)

    def test_a_layer_that_was_not_measured_is_nan_and_the_rest_is_ranked(self) -> None:
        rows = [("math", [0.9, np.nan, 0.7]), ("general", [0.2, np.nan, 0.5])]
        for criterion in ("block-influence", "target-aware", "others-aware", "mixed"):
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
        one, two = (score_layers(many(), criterion, target="math", seed=5) for _ in range(2))
        np.testing.assert_array_equal(one.spread, two.spread)

    @pytest.mark.parametrize("criterion", list(CRITERIA))
    def test_spread_is_zero_where_all_prompts_agree(self, criterion: str) -> None:
        rows = [(domain, [0.9, 0.2, 0.6]) for domain in ("math", "general") for _ in range(7)]
        spread = score_layers(made_recording(rows), criterion).spread
        np.testing.assert_allclose(spread, 0, atol=1e-12)

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

    @pytest.mark.parametrize("criterion", ["target-aware", "others-aware", "mixed"])
    def test_an_unknown_target_lists_the_domains(self, criterion: str) -> None:
        with pytest.raises(MaskError, match=r"\['math', 'general', 'maps'\], got 'art'"):
            score_layers(many(), criterion, target="art")

    def test_an_unknown_token_group_lists_the_choices(self) -> None:
        with pytest.raises(RecordingError, match=r"'vision'.*got 'pixels'"):
            score_layers(many(), "target-aware", token_group="pixels")

    @pytest.mark.parametrize("criterion", ["others-aware", "mixed"])
    def test_one_domain_is_refused_where_two_are_compared(self, criterion: str) -> None:
        with pytest.raises(MaskError, match="at least two, got only 'math'"):
            score_layers(many(domains=("math",)), criterion)

    def test_one_domain_is_enough_for_the_others(self) -> None:
        for criterion in ("block-influence", "target-aware", "random"):
            assert len(score_layers(many(domains=("math",)), criterion).values) == 9

    def test_the_target_is_the_first_domain_by_default(self) -> None:
        assert score_layers(many(), "target-aware").options["target"] == "math"

    def test_every_criterion_says_what_it_is(self) -> None:
        for name, row in CRITERIA.items():
            assert row.title, name
            assert row.source, name
            assert row.formula, name
            assert row.drop in ("highest", "lowest")
            assert row.needs in ("recording", "domains", "nothing")
