"""What all searches over masks share: measured masks in order, and how much may go. Pure Python over a callable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import MaskError
from vlm_analysis.selection.search.objective import Objective, Rank
from vlm_analysis.selection.strategies.budgets import as_layers

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation

Layers = tuple[int, ...]
Measure = Callable[[list[Edit]], "Sequence[Evaluation | None]"]
"""Evaluates masks on one prompt set, and returns one Evaluation a mask in their order; None for a mask that the model cannot run."""


class Judge:
    """Measures masks and ranks them; the dense model is measured once, before the first of them."""

    def __init__(self, measure: Measure, objective: Objective, n_layers: int) -> None:
        self._measure, self._objective, self._n_layers = measure, objective, n_layers
        self._dense: Evaluation | None = None

    def ranks(self, sets: Sequence[Layers]) -> dict[Layers, Rank | None]:
        """Return the rank of each set of dropped layers; None where it has no finite harm.

        Raises:
            MaskError: evaluations of other masks than asked, an unknown target, or a dense model whose score is 0 on every domain.
        """
        dense = self._dense = self._dense or self._measured_dense()
        found = self._evaluations([PruneMask(self._n_layers, layers) for layers in sets])
        return {
            layers: None if one is None else self._objective.rank(one, dense)
            for layers, one in zip(sets, found, strict=True)
        }

    def best(self, sets: Sequence[Layers], known: Sequence[Rank] = ()) -> list[Rank]:
        """Return the ranks of the sets that have one and the known ones, the best first.

        Raises:
            MaskError: there is none.
        """
        found = sorted([*known, *(rank for rank in self.ranks(sets).values() if rank is not None)])
        if not found:
            raise MaskError(
                f"No mask can be told from the others: expected a finite {self._objective.score} of at least one of {len(sets)} "
                "masks, got none. Measure on other prompts."
            )
        return found

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
        found = self._measure(masks)
        if len(found) != len(masks) or any(
            one is not None and one.edit != mask for one, mask in zip(found, masks, strict=True)
        ):
            raise MaskError(
                f"The damage does not belong to the masks: expected evaluations of {len(masks)} masks in their order, got others. "
                "Return one Evaluation a mask."
            )
        return found


def layers_to_go(budget: int | float, n_layers: int, free: Sequence[int]) -> int:
    """Return how many layers a budget means.

    Raises:
        MaskError: so many cannot go.
    """
    wanted, most = as_layers(budget, n_layers), min(len(free), n_layers - 1)
    if wanted > most:
        raise MaskError(
            f"Cannot drop {wanted} layers: {most} of {n_layers} may go, the others are protected or locked. Lower the budget."
        )
    return wanted


def told(step: int, steps: int, what: str, best: float | None) -> tuple[int, int, str]:
    """Return what a search reports as a step begins."""
    so_far = "" if best is None else f", best so far {best:.4g}"
    return step, steps, f"{what} {step + 1} of {steps}{so_far}"


def made_mask(
    strategy: str,
    n_layers: int,
    dropped: Layers,
    objective: Objective,
    budget: int | float,
    steps: Sequence[dict[str, Any]],
    **settings: Any,
) -> Edit:
    """Return the mask a search found, with how it was found as provenance."""
    asked = {"strategy": strategy, "budget": budget, "objective": asdict(objective), **settings}
    name = f"{objective.score}, {strategy}, {len(dropped)}"
    return PruneMask(n_layers, dropped, name=name, provenance={**asked, "steps": list(steps)})


def most_tried(
    strategy: str, free: int, budget: int, *, width: int = 4, population: int = 16, generations: int = 8
) -> int:
    """Return how many masks a search measures at most.

    Args:
        strategy: "greedy", "beam" or "evolutionary".
        free: how many layers may go.
        budget: how many shall.
        width, population, generations: as in `beam` and `evolve`, started from at most `population` masks.
    """
    if not budget:
        return 0
    if strategy == "evolutionary":
        return min(population * (generations + 1), math.comb(free, budget))
    kept = 1 if strategy == "greedy" else width
    return sum(
        min(min(kept, math.comb(free, step)) * (free - step), math.comb(free, step + 1)) for step in range(budget)
    )
