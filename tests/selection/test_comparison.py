"""The Comparison and what it tells, against float64 references written here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from vlm_analysis import Comparison, Evaluation, PruneMask, mask_table, regimes, retention, retention_interval
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.compared.findings import (
    CONVERGING,
    REGIMES,
    SENSITIVE,
    STRUCTURE,
    _pairs,
    cost_curve,
    on_front,
    regime_words,
    retention_curves,
    retentions,
)
from vlm_analysis.selection.strategies.many import Way

MODEL = ModelInfo("toy", "f" * 64, 8, layer_parameters=(10, 20, 30, 40, 40, 30, 20, 10), n_parameters=400)


def dense_of(right: np.ndarray, domains: list[str]) -> Evaluation:
    n = len(domains)
    frame = pd.DataFrame(
        {
            "id": [str(place) for place in range(n)],
            "domain": domains,
            "exact_match": right.astype(bool),
            "answer_nll": np.linspace(0.1, 0.5, n),
            "token_agreement": np.ones(n),
            "kl_to_dense": np.zeros(n),
            "answer": ["a"] * n,
            "answer_source": ["given"] * n,
            "answer_ids": [[1]] * n,
        }
    )
    return Evaluation(PruneMask(8), MODEL, "p" * 64, frame)


def made(
    scores: dict[tuple[str, str, int], np.ndarray], domains: list[str], dense: np.ndarray | None = None
) -> Comparison:
    """Return a comparison of one mask for each (criterion, strategy, budget), with the exact matches given."""
    n = len(domains)
    base = dense_of(np.ones(n) if dense is None else dense, domains)
    masks, ways, rows = [], [], []
    sets = [tuple(range(first, first + size)) for size in range(1, 8) for first in range(9 - size)]
    free = {size: [one for one in sets if len(one) == size] for size in range(1, 8)}
    for (criterion, strategy, budget), right in scores.items():
        mask = PruneMask(8, free[budget].pop(), name=f"{criterion} {budget}")
        masks.append(mask)
        suffix = "" if strategy == "first-k" else ", spaced"
        ways.append(Way(f"{criterion}{suffix}", criterion, strategy, None, budget, 0, mask))
        rows.append(right)
    values = np.array(rows, float)
    metrics = {
        "exact_match": values,
        "answer_nll": values + 0.3,
        "token_agreement": (values + 1) / 2,
        "kl_to_dense": 1 - values,
    }
    return Comparison(base, tuple(masks), metrics, ways_frame(ways, masks), "c" * 64, 0, {"three": "no reason"})


@pytest.fixture
def small() -> Comparison:
    rng = np.random.default_rng(0)
    domains = ["art"] * 12 + ["math"] * 12
    names = [(c, s, b) for c in ("one", "two") for s in ("first-k", "minimum-gap") for b in (1, 2)]
    dense = np.r_[np.ones(10), 0, 0, np.ones(8), np.zeros(4)]
    return made({name: (rng.random(24) < 0.7).astype(float) for name in names}, domains, dense)


class TestNumbers:
    def test_retention_and_its_interval_are_those_of_each_evaluation_alone(self, small: Comparison) -> None:
        curves = retention_curves(small).set_index(["method", "domain", "budget"])
        for row in small.ways.itertuples():
            pruned = small.evaluation(row.place)
            for domain in ("art", "math"):
                found = curves.loc[row.method, domain, row.budget]
                assert found["value"] == pytest.approx(retention(pruned, small.dense)[domain], abs=1e-15)
                assert (found["low"], found["high"]) == pytest.approx(
                    retention_interval(pruned, small.dense, domain), abs=1e-12
                )

    def test_a_domain_the_dense_model_fails_has_no_retention(self) -> None:
        comparison = made({("one", "first-k", 1): np.ones(4)}, ["art", "art", "math", "math"], np.array([1, 1, 0, 0]))
        assert retentions(comparison, "math").tolist() != retentions(comparison, "art").tolist()
        assert np.isnan(retentions(comparison, "math")).all()
        curves = retention_curves(comparison)
        assert curves[curves["domain"] == "math"]["value"].isna().all()
        assert mask_table(comparison)["on_front"].tolist() == [True]  # by what is defined

    def test_random_masks_are_a_range_over_draws(self, small: Comparison) -> None:
        ways = small.ways.assign(method="random", strategy="random-draw", criterion=None)
        curves = retention_curves(replace(small, ways=ways))
        at = curves[(curves["domain"] == "art") & (curves["budget"] == 1)].iloc[0]
        values = retentions(small, "art")[small.ways[small.ways["budget"] == 1]["place"]]
        assert (at["low"], at["value"], at["high"]) == pytest.approx((values.min(), values.mean(), values.max()))

    def test_a_random_draw_without_a_number_leaves_none_for_the_band(self, small: Comparison) -> None:
        ways = small.ways.assign(method="random", strategy="random-draw", criterion=None)
        agreement = small.scores["token_agreement"].copy()
        agreement[int(ways[ways["budget"] == 1]["place"].iloc[0])] = np.nan
        broken = replace(small, ways=ways, scores={**small.scores, "token_agreement": agreement})
        curves = retention_curves(broken, "token_agreement").set_index("budget")
        assert curves.loc[1, ["value", "low", "high"]].isna().all().all()
        assert curves.loc[2, ["value", "low", "high"]].notna().all().all()

    def test_the_worst_domain_is_the_worst_that_is_defined(self) -> None:
        comparison = made(
            {("one", "first-k", 1): np.array([1, 0, 1, 1])}, ["art", "art", "math", "math"], np.array([1, 1, 0, 0])
        )
        assert mask_table(comparison)["worst"].tolist() == [0.5]

    def test_a_domain_called_nan_is_a_domain(self) -> None:
        masks = tuple(PruneMask(8, (layer,)) for layer in range(1, 5))
        kinds = ((None, "first-k"), (None, "minimum-gap"), ("nan", "first-k"), ("nan", "minimum-gap"))
        ways = [
            Way("x", "damage-kl", strategy, target, 1, 0, mask)
            for (target, strategy), mask in zip(kinds, masks, strict=True)
        ]
        plain, spaced = _pairs(ways_frame(ways, masks), 1)
        assert (plain.tolist(), spaced.tolist()) == ([0, 2], [1, 3])

    def test_cost_is_counted_in_parameters_of_the_dropped_layers(self, small: Comparison) -> None:
        left = small.parameters_left()
        for mask, share in zip(small.masks, left, strict=True):
            gone = sum(MODEL.layer_parameters[layer] for layer in mask.dropped)
            assert share == pytest.approx(1 - gone / 400)
        by_budget = cost_curve(small).set_index("budget")["value"]
        assert by_budget[1] == pytest.approx(
            np.mean([s for m, s in zip(small.masks, left, strict=True) if m.budget == 1])
        )

    def test_table_holds_every_mask_with_its_methods(self, small: Comparison) -> None:
        twice = pd.concat([small.ways, small.ways.assign(method="again")], ignore_index=True)
        table = mask_table(replace(small, ways=twice))
        assert len(table) == len(small.masks)
        assert table["methods"][0] == "one; again"
        assert table["worst"].tolist() == table[["retention, art", "retention, math"]].min(axis=1).tolist()
        nll = small.scores["answer_nll"] - small.dense.by_prompt["answer_nll"].to_numpy()
        np.testing.assert_allclose(table["nll_above_dense"], nll.mean(axis=1), rtol=1e-12)

    def test_table_keeps_retention_of_the_score_asked_for(self, small: Comparison) -> None:
        agreement, exact = mask_table(small, "token_agreement"), mask_table(small)
        for domain in small.domains:
            here = (small.dense.by_prompt["domain"] == domain).to_numpy()
            mean = small.scores["token_agreement"][:, here].mean(axis=1)  # the dense model agrees with itself
            np.testing.assert_allclose(agreement[f"retention, {domain}"], mean, rtol=1e-12)
        assert not agreement["worst"].equals(exact["worst"])
        assert agreement["nll_above_dense"].equals(exact["nll_above_dense"])


values = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12)


@settings(max_examples=200)
@given(values)
def test_front_is_what_no_other_row_beats(rows: list[tuple[int, int, int]]) -> None:
    found = on_front(np.array(rows, float))
    for one, mine in zip(found, rows, strict=True):
        beaten = any(all(a <= b for a, b in zip(o, mine, strict=True)) and o != mine for o in rows)
        assert one == (not beaten)


def test_a_row_with_nan_is_never_on_the_front() -> None:
    assert on_front(np.array([[np.nan, 0], [1, 1]])).tolist() == [False, True]
    assert on_front(np.full((2, 2), np.nan)).tolist() == [False, False]


class TestRegimes:
    domains = ["math"] * 60

    def regime(self, plain: list[np.ndarray], spaced: list[np.ndarray]) -> pd.Series:
        scores = {(f"c{n}", "first-k", 2): one for n, one in enumerate(plain)}
        scores |= {(f"c{n}", "minimum-gap", 3): one for n, one in enumerate(spaced)}
        comparison = made(scores, self.domains)
        ways = comparison.ways.assign(budget=2)  # a toy: the masks differ, the budget is one
        return regimes(replace(comparison, ways=ways)).iloc[0]

    @staticmethod
    def right(n: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).permutation(np.r_[np.ones(n), np.zeros(60 - n)])

    def test_rankings_that_differ_beyond_noise_are_sensitive(self) -> None:
        plain = [self.right(58, 1), self.right(12, 2), self.right(50, 3)]
        found = self.regime(plain, plain)
        assert found["regime"] == SENSITIVE
        assert found["spread"] == pytest.approx(np.std([58 / 60, 12 / 60, 50 / 60]))
        assert found["gain"] == 0

    def test_rankings_that_differ_by_chance_converge(self) -> None:
        plain = [self.right(40 + n, n) for n in range(3)]
        assert self.regime(plain, plain)["regime"] == CONVERGING

    def test_spacing_that_helps_every_ranking_is_structure(self) -> None:
        plain = [self.right(20 + n, n) for n in range(3)]
        spaced = [self.right(50 + n, n + 7) for n in range(3)]
        found = self.regime(plain, spaced)
        assert found["regime"] == STRUCTURE
        assert found["gain"] == pytest.approx(0.5)
        assert found["gain_low"] > 0

    def test_the_larger_of_both_decides(self) -> None:
        plain = [self.right(58, 1), self.right(2, 2), self.right(30, 3)]
        spaced = [self.right(60, 4), self.right(8, 5), self.right(36, 6)]
        found = self.regime(plain, spaced)
        assert found["spread"] > found["noise"]
        assert found["gain_low"] > 0 or found["gain"] < found["spread"]
        assert found["regime"] == SENSITIVE

    def test_equal_answers_have_no_spread_and_no_noise(self) -> None:
        found = self.regime([self.right(30)] * 3, [self.right(30)] * 3)
        assert (found["spread"], found["noise"], found["regime"]) == (0, 0, CONVERGING)

    @pytest.mark.parametrize(("spaced", "regime"), [(55, STRUCTURE), (30, CONVERGING), (None, CONVERGING)])
    def test_the_gain_decides_where_rankings_choose_one_mask(self, spaced: int | None, regime: str) -> None:
        scores = {("c0", "first-k", 2): self.right(30)}
        if spaced is not None:
            scores["c0", "minimum-gap", 3] = self.right(spaced)
        comparison = made(scores, self.domains)
        again = comparison.ways.assign(method="again", criterion="c1")
        ways = pd.concat([comparison.ways, again], ignore_index=True).assign(budget=2)
        found = regimes(replace(comparison, ways=ways)).iloc[0]
        assert (found["spread"], found["noise"], found["regime"]) == (0, 0, regime)

    def test_rankings_decide_alone_where_no_spaced_mask_is_left(self) -> None:
        found = self.regime([self.right(58, 1), self.right(12, 2)], [])
        assert np.isnan(found["gain"])
        assert found["regime"] == SENSITIVE

    @pytest.mark.parametrize(("answered", "regime"), [(1, ""), (4, ""), (5, SENSITIVE)])
    def test_too_few_prompts_that_the_dense_model_answers_have_no_regime(self, answered: int, regime: str) -> None:
        base = np.r_[np.zeros(3), np.ones(answered)]
        comparison = made({("c0", "first-k", 2): base, ("c1", "first-k", 2): 0 * base}, ["bars"] * len(base), base)
        frame = regimes(comparison)
        found = frame.iloc[0]
        assert (found["n_prompts"], found["n_answered"], found["noise"]) == (answered + 3, answered, 0)
        assert found["regime"] == regime
        verdict = f"too few prompts that the dense model answers ({answered}); no regime"
        assert regime_words(frame) == [
            f"bars (n = {answered + 3}): {'2 layers ranking-sensitive' if regime else verdict}."
        ]

    def test_rounding_is_no_spread(self) -> None:
        same = [self.right(57)] * 3
        found = self.regime(same, same)
        assert 0 < found["spread"] < 1e-15
        assert found["regime"] == CONVERGING

    def test_noise_is_the_95th_percentile_of_the_spread_of_centred_draws(self) -> None:
        plain = [self.right(40, 1), self.right(45, 2)]
        drawn = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=500)
        centred = [drawn @ one / drawn.sum(axis=1) - one.mean() for one in plain]
        wanted = np.quantile(np.std(centred, axis=0), 0.95)
        assert self.regime(plain, plain)["noise"] == pytest.approx(wanted, abs=1e-12)

    def test_one_ranking_has_no_regime(self) -> None:
        found = self.regime([self.right(30)], [self.right(55)])
        assert found["regime"] == ""
        assert regime_words(found.to_frame().T) == []

    def test_words_name_each_stretch_of_budgets(self) -> None:
        rows = [("math", 45, 40, b, 0, 0, 0, 0, 0, r) for b, r in enumerate([SENSITIVE, SENSITIVE, CONVERGING, ""], 1)]
        frame = pd.DataFrame(rows, columns=list(REGIMES))
        assert regime_words(frame) == ["math (n = 45): 1 to 2 layers ranking-sensitive, 3 layers converging."]
