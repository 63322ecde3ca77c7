"""How sure a mask is: how often each layer is dropped when the prompts are resampled, for any strategy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.basis import Basis, basis_of
from vlm_analysis.selection.criteria.draws import Sample, Sampled
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import ScoreDraws, draw_scores
from vlm_analysis.selection.criteria.spans import ANGULAR_GROUP, SIMILARITY_GROUP, Spans
from vlm_analysis.selection.strategies.budgets import Share
from vlm_analysis.selection.strategies.choice import StrategyInputs
from vlm_analysis.selection.strategies.make import choose, make_mask
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.words import counted, joined, layers, sentence

LEVEL = 0.95  # share of draws in which a layer of the mask must go to count as sure; our choice
MOST_NAMED = 5  # rivals in a sentence
SPAN_GROUPS = {"angular-block": ANGULAR_GROUP, "interlace": SIMILARITY_GROUP}


@dataclass(frozen=True, eq=False)
class MaskStability:
    """How often each layer is dropped when the prompts are resampled.

    Attributes:
        mask: of all prompts.
        frequency: (n_layers,) share of the draws that made a mask, in [0, 1]; NaN where none did.
        same: share of these draws that made exactly `mask`.
        refused: how many draws allowed no mask of this budget.
        n_draws: number of draws.
        basis: the prompts that the mask is made from.
    """

    mask: Edit
    frequency: np.ndarray
    same: float
    refused: int
    n_draws: int
    basis: Basis


def mask_stability(
    recording: Recording,
    criterion: str | None,
    strategy: str,
    budget: int | float | Share,
    *,
    n_draws: int = 200,
    seed: int = 0,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    gap: int = 1,
    costs: Sequence[float] | np.ndarray | None = None,
    **options: Any,
) -> MaskStability:
    """Return how often each layer is dropped over draws of the prompts, in their groups, with replacement within each domain.

    Args:
        recording: what was measured.
        criterion: for strategies that need scores; None for those that read spans.
        strategy, budget, locks, protected, locked, gap, costs: as in `make_mask`.
        n_draws, seed: number and seed of the draws.
        options: arguments of `score_layers`; for strategies that read spans only `domain` and `token_group`.

    Raises:
        MaskError: as `score_layers` and `make_mask`; and for strategies that read no prompts.
    """
    needs = STRATEGIES[strategy].needs if strategy in STRATEGIES else ""
    if needs not in ("scores", "recording"):
        usable = [key for key, row in STRATEGIES.items() if row.needs in ("scores", "recording")]
        raise MaskError(f"Only what depends on prompts can be resampled: expected one of {usable}, got {strategy!r}.")
    if needs == "scores" and criterion is None:
        raise MaskError(f"Strategy {strategy!r} needs layer scores: expected a criterion, got none. Name one.")
    locks = Locks.given(recording.n_layers, locks, protected, locked)
    mask_options: dict[str, Any] = {"locks": locks, "gap": gap, "costs": costs}
    inputs = StrategyInputs(recording.n_layers, locks.free, 0, gap=gap)
    if needs == "scores" and criterion is not None:
        score_draws = draw_scores(recording, criterion, n_draws, seed=seed, **options)
        mask = make_mask(score_draws.scores, strategy, budget, **mask_options)
        return _count(mask, strategy, budget, costs, _with_scores(inputs, score_draws), n_draws, score_draws.basis)
    mask = make_mask(None, strategy, budget, recording=recording, **mask_options, **options)
    spans = Spans(recording, options.get("domain"), options.get("token_group"), Sample(n_draws, seed))
    every = (replace(inputs, spans=one) for one in spans.draws())
    return _count(mask, strategy, budget, costs, every, n_draws, _basis_of(spans, SPAN_GROUPS[strategy]))


def mask_words(stability: MaskStability, level: float = LEVEL) -> list[str]:
    """Return which layers of the mask are sure and which are not, in plain sentences; at least one."""
    mask, frequency = stability.mask, stability.frequency
    if np.isnan(frequency).all():
        return ["No draw of the prompts allowed a mask of this budget: nothing can be said of how sure it is."]
    if not stability.basis.tells and mask.dropped:
        return [stability.basis.too_few]
    number = f"your {stability.basis.words}"
    sentences = []
    sure = [layer for layer in mask.dropped if frequency[layer] >= level]
    unsure = [layer for layer in mask.dropped if frequency[layer] < level]
    if sure:
        sentences.append(
            f"{sentence(layers(sure))} go{'es' * (len(sure) == 1)} in at least {level:.0%} of the draws of {number}."
        )
    if unsure:
        rivals = [int(layer) for layer in np.argsort(-frequency, kind="stable") if frequency[layer] > 1 - level]
        rivals = [layer for layer in rivals if layer not in mask.dropped]
        more = f", and {len(rivals) - MOST_NAMED} more" if len(rivals) > MOST_NAMED else ""
        instead = f" Instead go {_shares(frequency, rivals[:MOST_NAMED])}{more}." if rivals else ""
        sentences.append(
            f"Unsure with {number}, by share of the draws in which they go: {_shares(frequency, unsure)}.{instead}"
        )
    if stability.refused:
        sentences.append(
            f"{stability.refused} of {counted(stability.n_draws, 'draw')} allowed no such mask and are left out."
        )
    return sentences or ["The mask drops nothing."]


def _shares(frequency: np.ndarray, numbers: list[int]) -> str:
    return joined(f"layer {layer} ({frequency[layer]:.0%})" for layer in numbers)


def _with_scores(inputs: StrategyInputs, score_draws: ScoreDraws) -> Iterator[StrategyInputs]:
    scores = score_draws.scores
    for values in score_draws.draws:
        yield replace(inputs, scores=LayerScores(scores.criterion, values, scores.spread, scores.drop, scores.options))


def _count(
    mask: Edit,
    strategy: str,
    budget: int | float | Share,
    costs: Sequence[float] | np.ndarray | None,
    every: Iterator[StrategyInputs],
    n_draws: int,
    basis: Basis,
) -> MaskStability:
    counts, n_masks, same = np.zeros(mask.n_layers), 0, 0
    for inputs in every:
        try:
            dropped = choose(strategy, inputs, budget, costs).layers
        except MaskError:
            continue
        counts[dropped] += 1
        n_masks += 1
        same += set(dropped) == set(mask.dropped)
    frequency = counts / n_masks if n_masks else np.full(mask.n_layers, np.nan)
    return MaskStability(mask, frequency, same / n_masks if n_masks else np.nan, n_draws - n_masks, n_draws, basis)


def _basis_of(spans: Spans, token_group: str) -> Basis:
    recording = spans.recording
    counts = recording.has_group(None, spans.token_group or token_group)
    rows = [row for row, name in enumerate(recording.domains) if spans.domain in (None, name) and counts[row]]
    return basis_of(recording.domains, Sampled(recording).units, rows, compares=False)
