"""Budgets: how much shall go, in layers, as a ratio of all layers, or as a share of their parameters or measured time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import MaskError
from vlm_analysis.selection.strategies.wanted import Chosen


@dataclass(frozen=True)
class Share:
    """A budget in what the layers cost: as few layers as make up at least this share.

    Unlike a ratio of layers, which is rounded down, a share is reached or passed: what is asked for is what is saved.

    Attributes:
        share: in [0, 1).
        of: what the costs are, in words: "parameters", "latency".
        total: what the share is of, in the unit of the costs; None for the sum over all decoder layers.

    Raises:
        MaskError: a share outside [0, 1), or a total that is not a positive number.
    """

    share: float
    of: str = "parameters"
    total: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise MaskError(f"A budget as share of {self.of} must lie in [0, 1), got {self.share!r}.")
        if self.total is not None and not (math.isfinite(self.total) and self.total > 0):
            raise MaskError(f"The total {self.of} must be a positive number, got {self.total!r}.")


def as_layers(budget: int | float, n_layers: int) -> int:
    """Return how many layers a whole number or a ratio of all layers (rounded down) means."""
    if is_whole(budget) and budget >= 0:
        return int(budget)
    if isinstance(budget, float) and 0 <= budget < 1:
        return math.floor(budget * n_layers + 1e-9)  # 0.29 * 100 is 28.999…
    raise MaskError(f"A budget is a number of layers (int, at least 0) or a ratio (float in [0, 1)), got {budget!r}.")


def checked_costs(share: Share, costs: Sequence[float] | np.ndarray | None, n_layers: int) -> np.ndarray:
    """Return the (n_layers,) costs as float64.

    Raises:
        MaskError: none are given, or not one finite number of at least 0 for each layer, or all are 0.
    """
    if costs is None:
        raise MaskError(f"A budget as share of {share.of} needs the costs of each layer, got none. Measure them first.")
    found = np.asarray(costs, dtype=np.float64)
    if found.shape != (n_layers,) or not np.isfinite(found).all() or found.min() < 0 or found.sum() <= 0:
        raise MaskError(
            f"The costs in {share.of} do not fit: expected {n_layers} numbers of at least 0, not all 0, got {list(found)}."
        )
    return found


def reach(share: Share, costs: np.ndarray, most: int, choose: Callable[[int], Chosen]) -> Chosen:
    """Return the choice of the fewest layers, at most `most`, whose costs add up to the share.

    Args:
        choose: the strategy's choice for a number of layers; may raise MaskError, then no larger number is tried.

    Raises:
        MaskError: no number of layers reaches the share.
    """
    total = costs.sum() if share.total is None else share.total
    best, why = 0.0, ""
    for budget in range(most + 1):
        try:
            chosen = choose(budget)
        except MaskError as error:
            why = f" {error}"
            break
        saved = costs[chosen.layers].sum() / total
        if saved >= share.share - 1e-9:
            return chosen
        best = max(best, saved)
    raise MaskError(
        f"Cannot drop {share.share:.1%} of the {share.of}: the layers that may go make up {best:.1%} at most.{why} Lower the budget."
    )
