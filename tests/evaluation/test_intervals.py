"""Intervals hold the true value as often as they say, by exact calculation and by seeded simulation; the unit is the group."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from compared import dense_of
from hypothesis import given, strategies as st

from vlm_analysis.evaluation import distributions
from vlm_analysis.evaluation.distributions import chi_quantile, chi_tail, exact_ends, t_quantile, t_tail
from vlm_analysis.evaluation.evaluation import retention_bands, score_intervals, with_groups
from vlm_analysis.evaluation.intervals import (
    effective_numbers,
    group_numbers,
    holm,
    kept_bands,
    ratio_bands,
    share_bands,
    tailed_bands,
)

SIZES = (5, 10, 45, 150)


class TestDistributions:
    @pytest.mark.parametrize(("df", "t"), [(1, 6.313752), (4, 2.131847), (10, 1.812461), (1000, 1.646379)])
    def test_quantiles_of_t_are_those_of_the_tables(self, df: int, t: float) -> None:
        assert float(t_quantile(0.9, df)) == pytest.approx(t, abs=2e-6)
        assert float(t_tail(t, df)) == pytest.approx(0.1, abs=1e-6)
        assert float(t_tail(np.inf, df)) == 0

    @pytest.mark.parametrize(("df", "value"), [(1, 3.841459), (5, 11.070498), (40, 55.758479)])
    def test_quantiles_of_chi_squared_are_those_of_the_tables(self, df: int, value: float) -> None:
        assert chi_quantile(0.95, df) == pytest.approx(value, abs=2e-6)
        assert chi_tail(value, df) == pytest.approx(0.05, abs=1e-6)

    def test_exact_ends_are_the_same_in_any_company_and_however_many_are_known(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(distributions, "MOST_KNOWN", 3)
        asked = np.array([[0, 3, 3, 9, 2.5, 1, 40, 997], [9, 9, 9, 9, 7.5, 2, 1000, 1000]])

        def ends(*places: int) -> list[list[float]]:
            monkeypatch.setattr(distributions, "_known", {})
            return exact_ends(*asked[:, places], 0.9).T.tolist()

        together = exact_ends(*asked, 0.9)
        assert together.T.tolist() == [ends(place)[0] for place in range(8)] == ends(*range(7, -1, -1))[::-1]
        assert exact_ends(*asked, 0.9).tolist() == together.tolist()  # some known, some not
        assert (exact_ends(*asked, 0.5)[0, 1:] > together[0, 1:]).all()
        assert exact_ends(np.array([]), np.array([]), 0.9).shape == (2, 0)

    def test_exact_ends_are_where_the_binomial_tail_is_a_twentieth(self) -> None:
        n = 12
        low, high = exact_ends(np.arange(n + 1.0), np.full(n + 1, float(n)), 0.9)
        assert (low[0], high[n]) == (0, 1)
        for k in range(1, n + 1):
            at_least = [
                math.comb(n, i) * Fraction(low[k]) ** i * (1 - Fraction(low[k])) ** (n - i) for i in range(k, n + 1)
            ]
            assert float(sum(at_least)) == pytest.approx(0.05, abs=1e-9)
            assert low[k] == pytest.approx(1 - high[n - k], abs=1e-12)


def chance_to_hold(ends: np.ndarray, true: float) -> float:
    """Return how probable the prompts are whose interval holds the true share: a binomial sum over the counts 0 to n."""
    n = ends.shape[1] - 1
    holds = (ends[0] <= true) & (true <= ends[1])
    return math.fsum(math.comb(n, k) * true**k * (1 - true) ** (n - k) for k in np.flatnonzero(holds).tolist())


class TestRightOrWrong:
    @pytest.mark.parametrize("n", SIZES)
    def test_a_share_is_covered_from_five_prompts_up(self, n: int) -> None:
        hits = np.tri(n + 1, n, -1, dtype=bool)
        ends = share_bands(hits, np.ones_like(hits), np.arange(n))
        for true in (0.01, 0.05, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
            assert chance_to_hold(ends, true) >= 0.9, true

    @pytest.mark.parametrize("n", SIZES)
    def test_losses_are_covered_and_no_interval_is_without_width(self, n: int) -> None:
        kept = np.tri(n + 1, n, -1)
        bands = retention_bands(kept, np.ones(n), "exact_match")
        assert (bands[0] < bands[1]).all()
        for true in (0.05, 0.3, 0.7, 0.9, 0.95, 0.99, 0.999):
            assert chance_to_hold(bands, true) >= 0.88, true

    @pytest.mark.parametrize(("n_groups", "size", "alike"), [(5, 1, 0.0), (45, 1, 0.0), (24, 10, 0.3)])
    @pytest.mark.parametrize(("right", "lost", "won"), [(0.6, 0.03, 0.2), (0.6, 0.4, 0.1), (0.9, 0.05, 0.0)])
    def test_losses_and_gains_are_covered_where_groups_agree(self, n_groups, size, alike, right, lost, won) -> None:
        rng, shape = np.random.default_rng(0), (300, n_groups, size)
        true = 1 - lost + won * (1 - right) / right
        base = rng.random(shape) < chances(rng, right, alike, (300, n_groups, 1))
        stay, wins = (chances(rng, one, alike, (300, n_groups, 1)) for one in (1 - lost, won))
        kept = rng.random(shape) < np.where(base, stay, wins)
        numbers = np.repeat(np.arange(n_groups), size)
        low, high = kept_bands(kept.reshape(300, -1), base.reshape(300, -1), numbers)
        told = ~np.isnan(low)
        assert np.mean((low <= true)[told] & (true <= high)[told]) >= 0.86

    def test_groups_that_always_agree_count_as_one_prompt_each(self) -> None:
        rng = np.random.default_rng(0)
        hits = np.repeat(rng.random((1, 24)) < 0.7, 10, axis=1)
        numbers = np.repeat(np.arange(24), 10)
        number = effective_numbers(hits, np.ones_like(hits), numbers)[0]
        assert 20 < number < 24
        alike = np.ones_like(hits)
        assert effective_numbers(alike, alike, numbers)[0] == pytest.approx(24 * (1.644854 / 1.713872) ** 2, rel=1e-4)
        assert effective_numbers(hits, np.ones_like(hits), np.arange(240))[0] == 240

    def test_the_band_narrows_with_more_prompts_that_agree(self) -> None:
        widths = [np.ptp(retention_bands(np.ones((1, n)), np.ones(n), "choice_match")) for n in (5, 45, 500)]
        assert widths[0] > widths[1] > widths[2]
        assert widths[2] < 0.02

    @pytest.mark.parametrize("base", [np.zeros(8), np.zeros(0), np.ones(4)])
    def test_without_a_dense_score_or_five_groups_there_is_no_interval(self, base: np.ndarray) -> None:
        for metric in ("exact_match", "token_agreement"):
            assert np.isnan(retention_bands(np.ones((2, len(base))), base, metric)).all()
        many = np.repeat(np.arange(4), 10)
        assert np.isnan(retention_bands(np.ones((1, 40)), np.ones(40), "exact_match", many)).all()


def chances(rng: np.random.Generator, mean: float, alike: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return chances of this mean, those of a group the same; `alike` is the correlation within a group."""
    if not alike or mean in (0, 1):
        return np.full(shape, mean)
    return rng.beta(mean * (1 / alike - 1), (1 - mean) * (1 / alike - 1), shape)


class TestMeans:
    @pytest.mark.parametrize("n_groups", [5, 20, 100])
    @pytest.mark.parametrize("size", [1, 4])
    def test_means_of_near_normal_values_are_covered(self, n_groups: int, size: int) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(0.8, 0.1, (2000, n_groups, 1)) + rng.normal(0, 0.05, (2000, n_groups, size))
        numbers = np.repeat(np.arange(n_groups), size)
        low, high = ratio_bands(values.reshape(2000, -1), np.ones(len(numbers)), numbers)
        assert 0.87 <= np.mean((low <= 0.8) & (high >= 0.8)) <= 0.93

    def test_the_interval_is_that_of_students_t(self) -> None:
        values = np.array([[0.2, 0.4, 0.9, 0.5, 0.1, 0.7]])
        reach = 2.015048 * values.std(ddof=1) / math.sqrt(6)
        wanted = values.mean() + np.array([[-reach], [reach]])
        np.testing.assert_allclose(ratio_bands(values, np.ones(6), np.arange(6)), wanted, atol=1e-6)
        np.testing.assert_allclose(retention_bands(values, np.ones(6), "token_agreement"), wanted, atol=1e-6)

    def test_two_hundred_questions_on_24_pictures_are_24_draws(self) -> None:
        values = np.repeat(np.random.default_rng(0).normal(0.8, 0.1, (1, 24)), 10, axis=1)
        tied = ratio_bands(values, np.ones(240), np.repeat(np.arange(24), 10))
        np.testing.assert_allclose(tied, ratio_bands(values[:, ::10], np.ones(24), np.arange(24)), atol=1e-12)
        assert np.ptp(tied) > 3 * np.ptp(ratio_bands(values, np.ones(240), np.arange(240)))

    def test_values_that_agree_have_no_interval(self) -> None:
        for bands in (
            ratio_bands(np.ones((1, 9)), np.ones(9), np.arange(9)),
            tailed_bands(np.zeros((1, 9)), np.arange(9)),
        ):
            assert np.isnan(bands).all()

    @pytest.mark.parametrize("n_groups", [20, 100])
    def test_means_with_a_long_tail_are_covered_from_twenty_groups(self, n_groups: int) -> None:
        rng = np.random.default_rng(0)
        for values, true in (
            (np.exp(rng.normal(0, 1, (2000, n_groups))), math.exp(0.5)),
            (rng.gamma(0.3, 1, (2000, n_groups)), 0.3),
            (rng.exponential(1, (2000, n_groups)) * (rng.random((2000, n_groups)) < 0.3), 0.3),
        ):
            low, high = tailed_bands(values, np.arange(n_groups))
            assert (low[~np.isnan(low)] >= 0).all()
            assert np.mean((low <= true) & (true <= high)) >= 0.85


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=8))
def test_holm_multiplies_the_least_by_all_and_never_turns_an_order_round(p: list[float]) -> None:
    found, known = holm(np.array(p)), [one for one in p if not math.isnan(one)]
    for one, corrected in zip(p, found, strict=True):
        if math.isnan(one):
            assert math.isnan(corrected)
            continue
        rank = sorted(known).index(one)
        wanted = max(sorted(known)[place] * (len(known) - place) for place in range(rank + 1))
        assert corrected >= min(wanted, 1) - 1e-12
        assert one <= corrected <= 1
    if known:
        assert np.nanmin(found) == pytest.approx(min(min(known) * len(known), 1))


def test_prompts_without_groups_are_numbered_each() -> None:
    assert group_numbers((), 3).tolist() == [0, 1, 2]
    assert group_numbers(("b", "a", "b"), 3).tolist() == [1, 0, 1]


def test_every_score_of_an_evaluation_has_the_interval_of_its_kind() -> None:
    rng = np.random.default_rng(0)
    dense = dense_of(np.arange(40) % 4 > 0, ["art"] * 30 + ["math"] * 10)
    kl = rng.gamma(1.0, 1.0, 40)
    frame = with_groups(
        dense.by_prompt.assign(kl_to_dense=kl, token_agreement=rng.random(40)), [str(n // 2) for n in range(40)]
    )
    found = score_intervals(replace(dense, by_prompt=frame)).set_index(["domain", "metric"])
    assert found.loc["art", ["n", "groups"]].drop_duplicates().to_numpy().tolist() == [[30, 15]]
    of = np.arange(30) // 2
    hits = frame["exact_match"].to_numpy()[None, :30]
    wanted = {
        "exact_match": share_bands(hits, np.ones_like(hits), of),
        "kl_to_dense": tailed_bands(kl[None, :30], of),
        "token_agreement": ratio_bands(frame["token_agreement"].to_numpy()[None, :30], np.ones(30), of),
    }
    for metric, ends in wanted.items():
        np.testing.assert_allclose(found.loc[("art", metric), ["low", "high"]].to_numpy(float), ends[:, 0])
    four = score_intervals(replace(dense, by_prompt=frame[:8].reset_index(drop=True)))
    assert four[["low", "high"]].isna().all().all()
