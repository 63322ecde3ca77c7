"""How sure a ranking is: ranks under resampling of the prompts, layers they cannot tell apart, and how many prompts would."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from vlm_analysis.model_info import Locks
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import draw_scores
from vlm_analysis.words import joined, layers, sentence

LEVEL = 0.95  # share of draws in which one of two layers must go first for the order to count as settled; our choice
MOST_PROMPTS = 1_000_000  # above it an extrapolation is not reported


@dataclass(frozen=True)
class Unsure:
    """Two layers whose order the prompts do not settle: `goes` is dropped at the budget, `stays` is not.

    Attributes:
        swapped: share of draws, in (0, 1], in which `stays` would go before `goes`; ties count half.
        prompts: number of prompts that would settle the order, extrapolated; inf where the scores are equal.
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
        prompts: number of prompts of each domain that the scores are computed from.
    """

    scores: LayerScores
    order: tuple[int, ...]
    ranks: np.ndarray
    before: np.ndarray
    noise: np.ndarray
    prompts: dict[str, int]

    @property
    def n_prompts(self) -> int:
        return sum(self.prompts.values())

    def interval(self, share: float = 0.9) -> np.ndarray:
        """Return the (2, n_layers) ranks that enclose `share` of the draws; NaN where a layer does not compete."""
        ends = np.full((2, self.ranks.shape[1]), np.nan)
        columns = list(self.order)
        ends[:, columns] = np.quantile(self.ranks[:, columns], [(1 - share) / 2, (1 + share) / 2], axis=0)
        return ends

    def chance(self, budget: int) -> np.ndarray:
        """Return the (n_layers,) share of draws in which a layer is among the first `budget`; 0 where it does not compete."""
        with np.errstate(invalid="ignore"):
            return np.mean(self.ranks < budget, axis=0)

    def unsure(self, budget: int, level: float = LEVEL) -> list[Unsure]:
        """Return the pairs across the budget's boundary whose order is the same in less than `level` of the draws."""
        return [
            Unsure(goes, stays, 1 - float(self.before[goes, stays]), self._prompts_for(goes, stays, level))
            for goes in self.order[:budget]
            for stays in self.order[budget:]
            if self.before[goes, stays] < level
        ]

    def _prompts_for(self, one: int, other: int, level: float) -> float:
        """Return n · (z · noise / gap)², the number of prompts at which the gap is z standard errors; at least n + 1."""
        gap = abs(float(self.scores.values[one] - self.scores.values[other]))
        noise = float(self.noise[one, other])
        if gap <= 1e-12 * max(1.0, abs(float(self.scores.values[one]))):
            return math.inf
        n_prompts = self.n_prompts * (NormalDist().inv_cdf(level) * noise / gap) ** 2
        return max(self.n_prompts + 1, math.ceil(n_prompts)) if n_prompts < MOST_PROMPTS else math.inf


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
    """Return the ranks of the layers that may go, over draws of the prompts with replacement within each domain.

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
    return RankStability(score_draws.scores, order, ranks, before, noise, score_draws.prompts)


def _minus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return one - other


def stability_words(stability: RankStability, budget: int, level: float = LEVEL) -> list[str]:
    """Return sentences on which layers the prompts can and cannot tell apart at a budget; at least one."""
    sentences = single_prompts(stability.prompts)
    number = f"your {stability.n_prompts} prompt{'' if stability.n_prompts == 1 else 's'}"
    if not 0 < budget < len(stability.order):
        return [
            *sentences,
            f"A budget of {budget} leaves no choice among the {len(stability.order)} layers that may go.",
        ]
    pairs = stability.unsure(budget, level)
    if not pairs and not sentences:
        first = sentence(layers(stability.order[:budget]))
        return [
            f"{first} stand{_s(budget)} apart from all others with {number}: first in {level:.0%} of the draws or more."
        ]
    for goes, stays in _groups(pairs):
        inside = [pair for pair in pairs if pair.goes in goes and pair.stays in stays]
        sentences.append(_apart_words(goes, stays, inside, budget, number))
    return sentences


def single_prompts(prompts: dict[str, int]) -> list[str]:
    """Return a warning where a domain has too few prompts to estimate a spread."""
    few = [name for name, number in prompts.items() if number < 2]
    if not few:
        return []
    return [
        f"The spread cannot be told: domain{'s' * (len(few) > 1)} {joined(few)} has fewer than two prompts. Add prompts."
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
        f"About {most.prompts:.0f} prompts of the same mix would do: an extrapolation that takes the gaps as measured and the "
        "noise to shrink with the root of the number of prompts."
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
