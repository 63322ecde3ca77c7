"""The interval of retention holds the true value as often as it says, by exact calculation and by seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm_analysis.evaluation.evaluation import drawn_ratios, retention_bands


def bands_by_lost(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (2, n + 1) ends where 0 to n of n prompts are lost that the dense model all answers: ours, and the bootstrap's."""
    kept = np.stack([np.r_[np.zeros(lost), np.ones(n - lost)] for lost in range(n + 1)])
    return retention_bands(kept, np.ones(n), "exact_match"), np.quantile(
        drawn_ratios(kept, np.ones(n)), [0.05, 0.95], axis=1
    )


def coverage(bands: np.ndarray, true: float) -> float:
    """Return how probable the prompts are whose interval holds the true retention: a binomial sum over the lost ones."""
    n = bands.shape[1] - 1
    holds = (bands[0] <= true) & (true <= bands[1])
    return math.fsum(math.comb(n, k) * (1 - true) ** k * true ** (n - k) for k in np.flatnonzero(holds).tolist())


@pytest.mark.parametrize("n", [10, 45, 150])
def test_losses_are_covered_where_a_bootstrap_alone_is_blind(n: int) -> None:
    ours, bootstrap = bands_by_lost(n)
    for true in (0.05, 0.3, 0.7, 0.9, 0.95, 0.97, 0.99, 0.999):
        assert coverage(ours, true) > 0.87, true
    assert coverage(bootstrap, 1 - 0.45 / n) < 0.4


@pytest.mark.parametrize(
    ("accuracy", "lost", "won"), [(0.6, 0, 0.02), (0.6, 0.03, 0.2), (0.6, 0.1, 0.3), (0.9, 0.03, 0.2), (0.9, 0.02, 0.5)]
)
def test_losses_and_gains_together_are_covered(accuracy: float, lost: float, won: float) -> None:
    rng, held = np.random.default_rng(0), []
    true = 1 - lost + won * (1 - accuracy) / accuracy
    for _ in range(400):
        base, chance = (rng.random(45) < accuracy).astype(float), rng.random(45)
        kept = np.where(base > 0, chance >= lost, chance < won).astype(float)
        low, high = retention_bands(kept[None], base, "exact_match")[:, 0]
        held.append(low <= true <= high)
    assert np.mean(held) > 0.85


def test_the_union_is_never_shorter_than_the_bootstrap_and_never_without_width() -> None:
    ours, bootstrap = bands_by_lost(45)
    assert (ours[0] <= bootstrap[0]).all()
    assert (ours[1] >= bootstrap[1]).all()
    assert (ours[0] < ours[1]).all()
    np.testing.assert_allclose(ours[:, 20], bootstrap[:, 20], atol=0.03)  # far from the ends both say the same


def test_the_band_narrows_with_more_prompts_that_agree() -> None:
    widths = [np.ptp(retention_bands(np.ones((1, n)), np.ones(n), "choice_match")) for n in (5, 45, 500)]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 0.02


def test_shares_of_an_answer_keep_the_bootstrap_alone() -> None:
    kept, base = np.random.default_rng(0).random((3, 20)), np.ones(20)
    wanted = np.quantile(drawn_ratios(kept, base), [0.05, 0.95], axis=1)
    np.testing.assert_array_equal(retention_bands(kept, base, "token_agreement"), wanted)
    assert np.ptp(retention_bands(base[None], base, "token_agreement")) == 0


@pytest.mark.parametrize("base", [np.zeros(4), np.zeros(0)])
def test_without_a_dense_score_there_is_no_interval(base: np.ndarray) -> None:
    assert np.isnan(retention_bands(np.ones((2, len(base))), base, "exact_match")).all()
