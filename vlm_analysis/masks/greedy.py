"""Greedy pruning on measured damage: drop the layer that harms least, measure all that are left again, and so on.

Pure Python over a callable, which is the model's side; SLEB (arXiv:2402.09025) does so with the likelihood of text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.masks.budgets import as_layers
from vlm_analysis.masks.make import free_layers
from vlm_analysis.masks.mask import PruneMask

if TYPE_CHECKING:
    from vlm_analysis.evaluation import Evaluation

Measure = Callable[[list[PruneMask]], "Sequence[Evaluation]"]
SCORES = ("kl_to_dense", "answer_nll")


@dataclass(frozen=True)
class GreedyStep:
    """One step: the layer that went, and the damage of each candidate on top of those gone before; None where not finite."""

    layer: int
    damage: dict[int, float | None]


def greedy(
    measure: Measure,
    budget: int | float,
    *,
    n_layers: int,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    score: str = "kl_to_dense",
    target: str | None = None,
) -> PruneMask:
    """Return the mask that drops, one at a time, the layer whose loss on top of those before does least damage.

    Args:
        measure: evaluates masks on one prompt set, and returns their Evaluations in the same order; called once a step.
        budget: layers to drop (int), or the ratio of all layers (float in [0, 1); the floor counts).
        n_layers: of the model.
        protected, locked: as in `make_mask`.
        score: `kl_to_dense` (KL to the dense model is our choice) or `answer_nll`, in nats; the lowest goes, ties to the lower
            layer; a layer whose number is not finite on some prompt stays.
        target: the domain whose prompts count; None for all.

    Raises:
        MaskError: a budget that cannot be met, an unknown score or target, or evaluations of other masks than asked.
    """
    wanted = as_layers(budget, n_layers)
    number = len(free_layers(n_layers, protected, locked))
    if wanted > number:
        raise MaskError(
            f"Cannot drop {wanted} layers: {number} of {n_layers} may go, the others are protected or locked. Lower the budget."
        )
    steps = []
    if wanted:
        for step in greedy_steps(
            measure, n_layers=n_layers, protected=protected, locked=locked, score=score, target=target
        ):
            steps.append(step)
            if len(steps) == wanted:
                break
    told = [{"layer": step.layer, "damage": step.damage[step.layer], "tried": len(step.damage)} for step in steps]
    dropped = tuple(step.layer for step in steps)
    asked = {"strategy": "greedy", "budget": budget, "score": score, "target": target}
    provenance = {**asked, "drop_order": list(dropped), "steps": told}
    return PruneMask(n_layers, dropped, name=f"{score}, greedy, {wanted}", provenance=provenance)


def greedy_steps(
    measure: Measure,
    *,
    n_layers: int,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    score: str = "kl_to_dense",
    target: str | None = None,
) -> Iterator[GreedyStep]:
    """Yield the steps of `greedy` one by one, until no layer is left that may go; measures only when the next one is asked."""
    if score not in SCORES:
        raise MaskError(f"Unknown damage: expected one of {list(SCORES)}, got {score!r}.")
    gone: tuple[int, ...] = ()
    left = free_layers(n_layers, protected, locked)
    while left and len(gone) < n_layers - 1:
        masks = [PruneMask(n_layers, (*gone, layer)) for layer in left]
        found = measure(masks)
        if [evaluation.mask for evaluation in found] != masks:
            raise MaskError(
                f"The damage does not belong to the masks: expected evaluations of {len(masks)} masks in their order, got others. "
                "Return one Evaluation a mask."
            )
        damage = {layer: _mean(one, score, target) for layer, one in zip(left, found, strict=True)}
        finite = {layer: value for layer, value in damage.items() if value is not None}
        if not finite:
            raise MaskError(
                f"No layer can go after {list(gone)}: expected a finite {score}, got none. Measure on other prompts."
            )
        best = min(finite, key=lambda layer: (finite[layer], layer))
        yield GreedyStep(best, damage)
        gone = (*gone, best)
        left.remove(best)


def _mean(evaluation: Evaluation, score: str, target: str | None) -> float | None:
    """Return the equal-weight mean over the target's prompts; None where a prompt's number is not finite."""
    frame = evaluation.by_prompt
    rows = frame if target is None else frame[frame["domain"] == target]
    if rows.empty:
        raise MaskError(
            f"The damage was not measured on domain {target!r}: expected one of {list(frame['domain'].unique())}. Measure it there."
        )
    values = rows[score].to_numpy(dtype=np.float64)
    return float(values.mean()) if np.isfinite(values).all() else None
