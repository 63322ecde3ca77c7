"""What all searches over masks share: ranking measured masks and checking budgets. Pure Python over a callable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import MaskError
from vlm_analysis.selection.search.objective import Objective, Rank
from vlm_analysis.selection.strategies.budgets import as_layers
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation

Layers = tuple[int, ...]
Measure = Callable[[list[Edit]], "Sequence[Evaluation | None]"]
"""Evaluates masks on one prompt set and returns one Evaluation per mask, in order; None for a mask that the model cannot run."""


class Judge:
    """Measures masks and ranks them; the dense model is measured once, before the first mask."""

    def __init__(self, measure: Measure, objective: Objective, n_layers: int, beside: Edit | None = None) -> None:
        self._measure, self._objective, self._n_layers = measure, objective, n_layers
        self._beside = Edit(n_layers) if beside is None else beside
        self._dense: Evaluation | None = None

    def ranks(self, sets: Sequence[Layers]) -> dict[Layers, Rank | None]:
        """Return the rank of each set of dropped layers; None where it has no finite harm.

        Raises:
            MaskError: evaluations of other masks than these, an unknown target, or a dense model whose score is 0 on every domain.
        """
        found = self.of([PruneMask(self._n_layers, layers) + self._beside for layers in sets])
        return dict(zip(sets, found, strict=True))

    def of(self, edits: list[Edit]) -> list[Rank | None]:
        """Return the rank of each edit; None where it has no finite harm.

        Raises:
            MaskError: as `ranks`.
        """
        dense = self._dense = self._dense or self._measured_dense()
        evaluations = self._evaluations(edits)
        return [None if one is None else self._objective.rank(one, dense) for one in evaluations]

    def best(self, sets: Sequence[Layers], others: Sequence[Rank] = ()) -> list[Rank]:
        """Return the ranks of the sets that have one together with `others`, the best first.

        Raises:
            MaskError: there are no ranks.
        """
        ranks = sorted([*others, *(rank for rank in self.ranks(sets).values() if rank is not None)])
        if not ranks:
            raise MaskError(
                f"No mask can be told from the others: expected a finite {self._objective.score} of at least one of {len(sets)} "
                "masks, got none. Measure on other prompts."
            )
        return ranks

    def _measured_dense(self) -> Evaluation:
        (dense,) = self._evaluations([PruneMask(self._n_layers)])
        score = self._objective.score
        if dense is None or self._objective.harm(dense, dense) is None:
            raise MaskError(
                f"The damage cannot be told: expected a finite {score} of the dense model, above 0 on one domain at least, got none. "
                "Measure on other prompts, or as kl_to_dense."
            )
        return dense

    def _evaluations(self, masks: list[Edit]) -> Sequence[Evaluation | None]:
        evaluations = self._measure(masks)
        if len(evaluations) != len(masks) or any(
            one is not None and one.edit != mask for one, mask in zip(evaluations, masks, strict=True)
        ):
            raise MaskError(
                f"The damage does not belong to the masks: expected evaluations of {len(masks)} masks in their order, got others. "
                "Return one Evaluation a mask."
            )
        return evaluations


def layers_to_go(budget: int | float, n_layers: int, free: Sequence[int]) -> int:
    """Return a budget as a number of layers.

    Raises:
        MaskError: there are too few layers to drop.
    """
    n_dropped, most = as_layers(budget, n_layers), min(len(free), n_layers - 1)
    if n_dropped > most:
        raise MaskError(
            f"Cannot drop {counted(n_dropped, 'layer')}: {most} of {n_layers} may go, the others are protected or locked. Lower the budget."
        )
    return n_dropped


def step_progress(step: int, steps: int, what: str, best: float | None) -> tuple[int, int, str]:
    """Return the arguments of `on_progress` at the start of a step."""
    so_far = "" if best is None else f", best so far {best:.4g}"
    return step, steps, f"{what} {step + 1} of {steps}{so_far}"


def mask_of(
    strategy: str,
    n_layers: int,
    dropped: Layers,
    objective: Objective,
    budget: int | float,
    steps: Sequence[dict[str, Any]],
    beside: Edit | None = None,
    **settings: Any,
) -> Edit:
    """Return the mask that a search found, and the edit `beside` it, with settings and steps as provenance."""
    arguments = {"strategy": strategy, "budget": budget, "objective": asdict(objective), **settings}
    name = f"{objective.score}, {strategy}, {len(dropped)}"
    if beside is None or beside.is_dense:
        return PruneMask(n_layers, dropped, name=name, provenance={**arguments, "steps": list(steps)})
    provenance = {**arguments, "beside": beside.words(), "steps": list(steps)}
    return PruneMask(n_layers, dropped, name=f"{name}, {beside.words()}", provenance=provenance) + beside


def most_tried(
    strategy: str, free: int, budget: int, *, width: int = 4, population: int = 16, generations: int = 8
) -> int:
    """Return the largest number of masks that a search may measure.

    Args:
        strategy: "greedy", "beam" or "evolutionary".
        free: how many layers may go.
        budget: how many of them to drop.
        width, population, generations: as in `beam` and `evolve`, started from at most `population` masks.
    """
    if not budget:
        return 0
    if strategy == "evolutionary":
        return min(population * (generations + 1), math.comb(free, budget))
    width = 1 if strategy == "greedy" else width
    return sum(
        min(min(width, math.comb(free, step)) * (free - step), math.comb(free, step + 1)) for step in range(budget)
    )
