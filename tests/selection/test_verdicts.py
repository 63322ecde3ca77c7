"""Verdicts on budgets: over different masks of a stated family, corrected for their number, by groups of prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from compared import made

from vlm_analysis import Comparison, PruneMask, regimes
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.evaluation import with_groups
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.compared.verdicts import (
    CONVERGING,
    HURTS,
    REGIMES,
    SENSITIVE,
    STRUCTURE,
    _pairs,
    count_tests,
    family_of,
    family_words,
    members_of,
    regime_words,
)
from vlm_analysis.selection.strategies.many import Way

DOMAINS = ["math"] * 60


def right(n: int, seed: int = 0) -> np.ndarray:
    """Return 60 answers of which n are right, in a drawn order."""
    return np.random.default_rng(seed).permutation(np.r_[np.ones(n), np.zeros(60 - n)])


def of_one_budget(plain: list[np.ndarray], spaced: list[np.ndarray]) -> Comparison:
    """Return a toy comparison: masks of two sizes that count as one budget."""
    scores = {(f"c{n}", "first-k", 2): one for n, one in enumerate(plain)}
    scores |= {(f"c{n}", "minimum-gap", 3): one for n, one in enumerate(spaced)}
    comparison = made(scores, DOMAINS)
    return replace(comparison, ways=comparison.ways.assign(budget=2))


def told(plain: list[np.ndarray], spaced: list[np.ndarray]) -> pd.Series:
    return regimes(of_one_budget(plain, spaced)).iloc[0]


class TestRegimes:
    def test_rankings_that_differ_beyond_noise_are_sensitive(self) -> None:
        plain = [right(58, 1), right(12, 2), right(50, 3)]
        found = told(plain, plain)
        assert found["regime"] == SENSITIVE
        assert found["spread"] == pytest.approx(np.std([58 / 60, 12 / 60, 50 / 60]))
        assert found["gain"] == 0

    def test_rankings_that_differ_by_chance_converge(self) -> None:
        plain = [right(40 + n, n) for n in range(3)]
        assert told(plain, plain)["regime"] == CONVERGING

    @pytest.mark.parametrize(
        ("plain", "spaced", "regime"), [(20, 50, STRUCTURE), (50, 20, HURTS), (30, 30, CONVERGING)]
    )
    def test_spacing_that_helps_or_hurts_every_ranking_is_told(self, plain: int, spaced: int, regime: str) -> None:
        found = told([right(plain + n, n) for n in range(3)], [right(spaced + n, n + 7) for n in range(3)])
        assert found["regime"] == regime
        assert found["gain"] == pytest.approx((spaced - plain) / 60)
        assert found["gain_low"] < found["gain"] < found["gain_high"]
        assert (found["gain_low"] > 0) == (regime == STRUCTURE)
        assert (found["gain_high"] < 0) == (regime == HURTS)

    def test_the_larger_of_both_decides(self) -> None:
        plain = [right(58, 1), right(2, 2), right(30, 3)]
        found = told(plain, [right(60, 4), right(8, 5), right(36, 6)])
        assert found["spread"] > found["gain"] > 0
        assert found["p_gain"] < 0.05
        assert found["regime"] == SENSITIVE

    def test_equal_answers_have_no_spread_and_no_noise(self) -> None:
        found = told([right(30)] * 3, [right(30)] * 3)
        assert (found["spread"], found["noise"], found["regime"]) == (0, 0, CONVERGING)

    @pytest.mark.parametrize(("spaced", "regime"), [(55, STRUCTURE), (5, HURTS), (30, CONVERGING), (None, CONVERGING)])
    def test_the_gain_decides_where_rankings_choose_one_mask(self, spaced: int | None, regime: str) -> None:
        scores = {("c0", "first-k", 2): right(30)}
        if spaced is not None:
            scores["c0", "minimum-gap", 3] = right(spaced)
        comparison = made(scores, DOMAINS)
        again = comparison.ways.assign(method="again", criterion="c1")
        ways = pd.concat([comparison.ways, again], ignore_index=True).assign(budget=2)
        found = regimes(replace(comparison, ways=ways)).iloc[0]
        assert (found["spread"], found["noise"], found["regime"]) == (0, 0, regime)
        assert found["n_masks"] == 1

    def test_rankings_decide_alone_where_no_spaced_mask_is_left(self) -> None:
        found = told([right(58, 1), right(12, 2)], [])
        assert np.isnan(found["gain"])
        assert found["regime"] == SENSITIVE

    @pytest.mark.parametrize(("answered", "regime"), [(1, ""), (4, ""), (5, SENSITIVE)])
    def test_too_few_prompts_that_the_dense_model_answers_have_no_verdict(self, answered: int, regime: str) -> None:
        base = np.r_[np.zeros(3), np.ones(answered)]
        comparison = made({("c0", "first-k", 2): base, ("c1", "first-k", 2): 0 * base}, ["bars"] * len(base), base)
        frame = regimes(comparison)
        found = frame.iloc[0]
        assert (found["n_prompts"], found["n_answered"]) == (answered + 3, answered)
        assert found["regime"] == regime
        prompts = "1 prompt" if answered == 1 else f"{answered} prompts"
        verdict = f"too few prompts that the dense model answers ({prompts}); no verdict"
        assert regime_words(frame) == [
            f"bars ({answered + 3} prompts): {'2 layers ranking-sensitive' if regime else verdict}."
        ]

    def test_one_ranking_has_no_regime(self) -> None:
        found = told([right(30)], [right(55)])
        assert found["regime"] == ""
        assert regime_words(found.to_frame().T) == []

    def test_words_name_each_stretch_of_budgets(self) -> None:
        frame = pd.DataFrame(
            [("math", 45, 12, 40, 11, b, 3, *[0.0] * 7, r) for b, r in enumerate([SENSITIVE, SENSITIVE, HURTS, ""], 1)],
            columns=list(REGIMES),
        )
        assert regime_words(frame) == [
            "math (45 prompts in 12 groups): 1 to 2 layers ranking-sensitive, 3 layers spacing hurts."
        ]

    def test_a_domain_called_nan_is_a_domain(self) -> None:
        masks = tuple(PruneMask(8, (layer,)) for layer in range(1, 5))
        kinds = ((None, "first-k"), (None, "minimum-gap"), ("nan", "first-k"), ("nan", "minimum-gap"))
        ways = [
            Way("x", "damage-kl", strategy, target, 1, 0, mask)
            for (target, strategy), mask in zip(kinds, masks, strict=True)
        ]
        plain, spaced = _pairs(ways_frame(ways, masks), 1)
        assert (plain.tolist(), spaced.tolist()) == ([0, 2], [1, 3])


class TestTests:
    def test_two_masks_are_compared_by_the_answers_in_which_they_differ(self) -> None:
        plain = [right(40, 1), right(45, 2)]
        found = told(plain, [])
        won, lost = (plain[0] > plain[1]).sum(), (plain[0] < plain[1]).sum()
        q = (won - lost) ** 2 / (won + lost)  # McNemar's, which Cochran's Q is for two
        assert found["spread"] ** 2 / found["noise"] ** 2 * 3.841459 == pytest.approx(q, rel=1e-6)

    def test_copies_of_masks_count_once(self) -> None:
        comparison = of_one_budget(
            [right(58, 1), right(40, 2), right(50, 3)], [right(50, 4), right(50, 5), right(50, 6)]
        )
        copies = [comparison.ways.assign(method=f"copy {n}", criterion=f"d{n}") for n in range(5)]
        copies = [one[one["place"].isin((0, 3))] for one in copies]  # of the first pair
        more = replace(comparison, ways=pd.concat([comparison.ways, *copies], ignore_index=True))
        one = regimes(comparison).iloc[0]
        assert one["n_masks"] == 3
        pd.testing.assert_series_equal(regimes(more).iloc[0], one)

    def test_random_draws_count_as_one_by_their_mean(self) -> None:
        comparison = made({(f"c{n}", "first-k", 2): right(20 + 10 * n, n) for n in range(4)}, DOMAINS)
        ways = comparison.ways
        ways.loc[2:, ["criterion", "strategy"]] = [[None, "random-draw"]] * 2
        found = regimes(replace(comparison, ways=ways)).iloc[0]
        assert found["spread"] == pytest.approx(np.std([20, 30, 45]) / 60)
        assert found["n_masks"] == 4

    def test_a_question_asked_ten_times_of_one_picture_is_one_question(self) -> None:
        rng = np.random.default_rng(4)
        answers = {(f"c{n}", "first-k", 2): (rng.random(8) < 0.7).astype(float) for n in range(3)}
        alone = regimes(made(answers, ["math"] * 8)).iloc[0]
        ten = made({name: np.repeat(one, 10) for name, one in answers.items()}, ["math"] * 80)
        names = [str(place // 10) for place in range(80)]
        frame = with_groups(ten.dense.by_prompt, names)
        tied = regimes(replace(ten, dense=replace(ten.dense, by_prompt=frame))).iloc[0]
        columns = ["spread", "noise", "p_spread"]
        np.testing.assert_allclose(list(tied[columns]), list(alone[columns]), rtol=1e-9)
        assert tied["n_groups"] == 8
        assert regimes(ten).iloc[0]["noise"] < alone["noise"] / 3

    @pytest.mark.slow
    def test_of_many_verdicts_on_equal_masks_few_tables_claim_anything(self) -> None:
        rng, claims = np.random.default_rng(0), []
        for _ in range(60):
            chance = rng.beta(4, 2, 60)
            names = [
                (f"c{n}", strategy, b) for n in range(3) for strategy in ("first-k", "minimum-gap") for b in (1, 2)
            ]
            scores = {name: (rng.random(60) < chance).astype(float) for name in names}
            frame = regimes(made(scores, ["art"] * 30 + ["math"] * 30))
            assert count_tests(frame) == 8
            claims.append((frame["regime"] != CONVERGING).any())
        assert np.mean(claims) <= 0.17  # 10 % are meant; of 60 tables up to 10 may

    def test_verdicts_are_corrected_for_their_number(self) -> None:
        one = {("c0", "first-k", 1): right(30, 1), ("c1", "first-k", 1): right(41, 2)}
        alone = regimes(made(one, DOMAINS))
        assert alone["regime"].tolist() == [SENSITIVE]
        rng = np.random.default_rng(0)
        more = {
            (f"c{n}", "first-k", b): (rng.random(60) < 0.6).astype(float) for n in range(2) for b in (2, 3, 4, 5, 6)
        }
        among = regimes(made(one | more, DOMAINS))
        assert among["p_spread"][0] == pytest.approx(alone["p_spread"][0])
        assert among["regime"][0] == CONVERGING


class TestFamily:
    @pytest.fixture
    def comparison(self) -> Comparison:
        criteria = ("target-aware", "others-aware", "block-influence", "attention-similarity")
        scores = {(name, "first-k", 2): right(30 + 8 * n, n) for n, name in enumerate(criteria)}
        return made(scores, DOMAINS)

    def test_by_default_it_is_that_of_the_paper_as_far_as_it_was_compared(self, comparison: Comparison) -> None:
        assert members_of(comparison) == ("target-aware", "others-aware", "block-influence", "attention-similarity")
        assert family_of(comparison) == ("target-aware", "others-aware")
        found = regimes(comparison).iloc[0]
        assert found["spread"] == pytest.approx(4 / 60)
        assert found["n_masks"] == 2

    def test_one_that_is_chosen_decides(self, comparison: Comparison) -> None:
        found = regimes(comparison, family=("attention-similarity", "target-aware"))
        assert found["spread"][0] == pytest.approx(12 / 60)
        family = family_of(comparison, ("attention-similarity", "target-aware"))
        words = family_words(found, family)
        assert words.startswith(
            "Compared: Target-aware and Attention similarity; 2 different masks a budget. 1 verdict, "
        )
        assert "corrected (Holm) for their 1 test" in words

    def test_where_fewer_than_two_are_there_all_are_compared(self, comparison: Comparison) -> None:
        ways = comparison.ways
        bare = replace(comparison, ways=ways[~ways["criterion"].isin(("target-aware",))].reset_index(drop=True))
        assert family_of(bare) == ("others-aware", "block-influence", "attention-similarity")

    @pytest.mark.parametrize("family", ["target-aware", ("target-aware", "linear-cka")])
    def test_one_that_was_not_compared_is_refused(self, comparison: Comparison, family) -> None:
        with pytest.raises(EvaluationError, match=r"expected a family of some of target-aware, .*\. Name others\."):
            regimes(comparison, family=family)
