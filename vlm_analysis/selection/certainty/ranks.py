"""How sure a ranking is: ranks under resampling of the prompts, layers they cannot tell apart, and how many prompts would.

Two layers are told apart where the difference of their scores is large beside its standard error over draws of the prompts: by Student's
t, and at most one false claim in ten rankings (`ALPHA`), whichever pairs are looked at. All pairs of layers that may go are corrected for
(`holm`), as the pairs at a budget's boundary are those that these very prompts put there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from vlm_analysis.evaluation.distributions import t_quantile, t_tail
from vlm_analysis.evaluation.intervals import holm
from vlm_analysis.model_info import Locks
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.basis import Basis
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import draw_scores
from vlm_analysis.words import counted, layers, sentence

ALPHA = 0.1  # chance that any two layers of a ranking are told apart by mistake; our choice
POWER = 0.8  # chance that the number of prompts that "would do" tells a pair apart
MOST_PROMPTS = 1_000_000  # above it an extrapolation is not reported


@dataclass(frozen=True)
class Unsure:
    """Two layers whose order the prompts do not settle: `goes` is dropped at the budget, `stays` is not.

    Attributes:
        swapped: share of draws, in [0, 1], in which `stays` would go before `goes`; ties count half.
        prompts: number of prompts that would settle the order in 80 % of cases, extrapolated; inf where the scores are equal.
    """

    goes: int
    stays: int
    swapped: float
    prompts: float


@dataclass(frozen=True, eq=False)
class RankStability:
    """The ranks of layers over draws of the prompts.

    Attributes:
        scores: of all prompts.
        order: the layers that compete, in drop order: those that may go and have a score.
        ranks: (n_draws, n_layers) float64, 0 for the one that goes first; NaN for layers that do not compete. Ties go to the
            lower layer, as in the drop order.
        before: (n_layers, n_layers), share of draws in which layer i goes before layer j, in [0, 1], ties half; NaN where one
            does not compete.
        noise: (n_layers, n_layers), standard deviation over draws of the difference of the two scores, paired.
        basis: the prompts that the scores are computed from.
    """

    scores: LayerScores
    order: tuple[int, ...]
    ranks: np.ndarray
    before: np.ndarray
    noise: np.ndarray
    basis: Basis

    @property
    def n_pairs(self) -> int:
        """Return the number of pairs of layers that compete."""
        return math.comb(len(self.order), 2)

    def interval(self, share: float = 0.9) -> np.ndarray:
        """Return the (2, n_layers) ranks that enclose `share` of the draws; NaN where a layer does not compete or groups are too few."""
        ends = np.full((2, self.ranks.shape[1]), np.nan)
        columns = list(self.order)
        if self.basis.tells:
            ends[:, columns] = np.quantile(self.ranks[:, columns], [(1 - share) / 2, (1 + share) / 2], axis=0)
        return ends

    def chance(self, budget: int) -> np.ndarray:
        """Return the (n_layers,) share of draws in which a layer is among the first `budget`; 0 where it does not compete."""
        with np.errstate(invalid="ignore"):
            return np.mean(self.ranks < budget, axis=0)

    @cached_property
    def p_values(self) -> np.ndarray:
        """Return how probable gaps as large are between equal layers, (n_layers, n_layers) above the diagonal; NaN elsewhere."""
        p = np.full(self.before.shape, np.nan)
        columns = np.array(sorted(self.order), int)
        above = np.triu_indices(len(columns), 1)
        pairs = columns[above[0]], columns[above[1]]
        if self.basis.tells and len(columns) > 1:
            gap, error = self._gap(*pairs), self._error(*pairs)
            with np.errstate(divide="ignore", invalid="ignore"):
                p[pairs] = t_tail(np.where(gap > 0, gap / error, 0.0), self.basis.df)
        return p

    @cached_property
    def apart(self) -> np.ndarray:
        """Return which layers are told apart, (n_layers, n_layers) bool; none where there are too few groups."""
        with np.errstate(invalid="ignore"):
            apart: np.ndarray = (holm(self.p_values.reshape(-1)) <= ALPHA).reshape(self.before.shape)
        return apart | apart.T

    def not_apart(self, budget: int) -> list[tuple[int, int]]:
        """Return the pairs across the budget's boundary that are not told apart: one that goes, and one that stays."""
        return [
            (goes, stays)
            for goes in self.order[:budget]
            for stays in self.order[budget:]
            if not self.apart[goes, stays]
        ]

    def unsure(self, budget: int) -> list[Unsure]:
        """Return what is known of the pairs of `not_apart`."""
        pairs = self.not_apart(budget)
        if not pairs:
            return []
        prompts = self._prompts_for(*np.array(pairs).T)
        return [
            Unsure(goes, stays, 1 - float(self.before[goes, stays]), float(n))
            for (goes, stays), n in zip(pairs, prompts, strict=True)
        ]

    def _gap(self, one: Any, other: Any) -> np.ndarray:
        """Return how far the scores of layers are apart; 0 within rounding."""
        first, second = self.scores.values[one], self.scores.values[other]
        gap = np.abs(first - second)
        return np.where(gap > 1e-12 * np.maximum(1.0, np.abs(first)), gap, 0.0)

    def _error(self, one: Any, other: Any) -> np.ndarray:
        """Return the standard error of a difference of scores: the noise of the draws, which of n groups is low by (n − 1) / n."""
        fewest = max(2, min(self.basis.groups.values()))
        return np.asarray(self.noise[one, other] * math.sqrt(fewest / (fewest - 1)))

    def _prompts_for(self, goes: np.ndarray, stays: np.ndarray) -> np.ndarray:
        """Return the (n,) numbers of prompts at which gaps as measured are told apart with `POWER`; at least one more than there are.

        A gap is then the critical t and the quantile of the power standard errors. The t is corrected for the pairs that are harder to tell
        apart, as Holm's procedure does.
        """
        gap, error, n = self._gap(goes, stays), self._error(goes, stays), self.basis.n_prompts
        p = self.p_values[np.minimum(goes, stays), np.maximum(goes, stays)]
        with np.errstate(divide="ignore", invalid="ignore"):
            level = 1 - ALPHA / np.array([np.sum(self.p_values >= one) for one in p])
            times = np.ones(len(gap))
            for _ in range(5):  # more prompts have more degrees of freedom, and need a lower t; this converges
                df = np.clip(self.basis.df * times, 1.0, 1000.0)
                needed = (t_quantile(level, df) + NormalDist().inv_cdf(POWER)) * error
                times = np.where(gap > 0, (needed / gap) ** 2, np.inf)
        prompts = np.maximum(n + 1, np.ceil(n * times))
        return np.where(prompts < MOST_PROMPTS, prompts, np.inf)


def rank_stability(
    recording: Recording,
    criterion: str,
    *,
    n_draws: int = 1000,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    seed: int = 0,
    **options: Any,
) -> RankStability:
    """Return the ranks of the layers that may go, over draws of the prompts, in their groups, with replacement within each domain.

    Args:
        recording, criterion, options: as in `score_layers`.
        n_draws: number of draws.
        locks, protected, locked: layers that stay, which have no rank, as in `make_mask`.
        seed: of the draws.

    Raises:
        MaskError: as `score_layers`; and for criteria that are not a mean over prompts.
    """
    score_draws = draw_scores(recording, criterion, n_draws, seed=seed, **options)
    n_layers = recording.n_layers
    locked_reasons = Locks.given(n_layers, locks, protected, locked).reasons
    order = tuple(layer for layer in score_draws.scores.order if layer not in locked_reasons)
    sign = 1.0 if score_draws.scores.drop == "highest" else -1.0
    columns = sorted(order)
    wish = np.where(np.isnan(score_draws.draws[:, columns]), -np.inf, sign * score_draws.draws[:, columns])
    ranks = np.full((n_draws, n_layers), np.nan)
    positions = np.argsort(np.argsort(-wish, axis=1, kind="stable"), axis=1, kind="stable")
    ranks[:, columns] = positions
    before, noise = np.full((2, n_layers, n_layers), np.nan)
    for column, layer in enumerate(columns):
        one = wish[:, column : column + 1]
        before[layer, columns] = ((one > wish) + 0.5 * (one == wish)).mean(axis=0)
        noise[layer, columns] = np.std(np.where(np.isfinite(one) & np.isfinite(wish), _minus(one, wish), 0.0), axis=0)
    return RankStability(score_draws.scores, order, ranks, before, noise, score_draws.basis)


def _minus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return one - other


def stability_words(stability: RankStability, budget: int) -> list[str]:
    """Return sentences on which layers the prompts can and cannot tell apart at a budget; at least one."""
    if not stability.basis.tells:
        return [stability.basis.too_few]
    if not 0 < budget < len(stability.order):
        return [
            f"A budget of {budget} leaves no choice among the {counted(len(stability.order), 'layer')} that may go."
        ]
    pairs, number = stability.unsure(budget), f"your {stability.basis.words}"
    if not pairs:
        first = sentence(layers(stability.order[:budget]))
        return [f"{first} stand{_s(budget)} apart from all others with {number}."]
    return [
        _apart_words(goes, stays, [pair for pair in pairs if pair.goes in goes and pair.stays in stays], budget, number)
        for goes, stays in _groups(pairs)
    ]


def _apart_words(goes: set[int], stays: set[int], pairs: list[Unsure], budget: int, number: str) -> str:
    most = max(pairs, key=lambda pair: (pair.swapped, -pair.goes, -pair.stays))
    return (
        f"{sentence(layers(goes | stays))} cannot be told apart with {number}: at a budget of {budget} {layers(goes)} "
        f"go{_es(goes)} and {layers(stays)} stay{_s(len(stays))}, yet {most.stays} goes before {most.goes} in "
        f"{most.swapped:.0%} of the draws. {_enough(pairs)}"
    )


def _enough(pairs: list[Unsure]) -> str:
    most = max(pairs, key=lambda pair: (pair.prompts, -pair.goes, -pair.stays))
    if math.isinf(most.prompts):
        near = layers((most.goes, most.stays))
        return f"No reasonable number of prompts would tell {near} apart: they score all but the same."
    return (
        f"About {counted(round(most.prompts), 'prompt')} of the same mix would tell them apart in {POWER:.0%} of "
        f"cases: an extrapolation that takes the "
        "gaps as measured and the noise to shrink with the root of the number of prompts."
    )


def _groups(pairs: list[Unsure]) -> list[tuple[set[int], set[int]]]:
    """Return the layers that go and those that stay, for each connected set of pairs."""
    groups: list[tuple[set[int], set[int]]] = []
    for pair in pairs:
        touching = [group for group in groups if pair.goes in group[0] or pair.stays in group[1]]
        groups = [group for group in groups if group not in touching]
        goes = {pair.goes}.union(*(group[0] for group in touching))
        groups.append((goes, {pair.stays}.union(*(group[1] for group in touching))))
    return groups


def _s(number: int) -> str:
    return "s" if number == 1 else ""


def _es(group: set[int]) -> str:
    return "es" if len(group) == 1 else ""
