"""Budgets: how much to drop, in layers, as a ratio of all layers, or as a share of their parameters or measured time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import MaskError
from vlm_analysis.selection.strategies.choice import Choice


@dataclass(frozen=True)
class Share:
    """A budget in the costs of layers: the fewest layers that make up at least this share.

    Unlike a ratio of layers, which is rounded down, a share is reached or passed.

    Attributes:
        share: in [0, 1).
        of: what the costs measure: "parameters", "latency".
        total: the whole that the share refers to, in the unit of the costs; None for the sum over all decoder layers.

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
    """Return a budget, a whole number or a ratio of all layers (rounded down), as a number of layers."""
    if is_whole(budget) and budget >= 0:
        return int(budget)
    if isinstance(budget, float) and 0 <= budget < 1:
        return math.floor(budget * n_layers + 1e-9)  # 0.29 * 100 is 28.999…
    raise MaskError(f"A budget is a number of layers (int, at least 0) or a ratio (float in [0, 1)), got {budget!r}.")


def checked_costs(share: Share, costs: Sequence[float] | np.ndarray | None, n_layers: int) -> np.ndarray:
    """Return the (n_layers,) costs as float64.

    Raises:
        MaskError: `costs` is None, does not hold one finite number of at least 0 for each layer, or is 0 throughout.
    """
    if costs is None:
        raise MaskError(f"A budget as share of {share.of} needs the costs of each layer, got none. Measure them first.")
    checked = np.asarray(costs, dtype=np.float64)
    if checked.shape != (n_layers,) or not np.isfinite(checked).all() or checked.min() < 0 or checked.sum() <= 0:
        raise MaskError(
            f"The costs in {share.of} do not fit: expected {n_layers} numbers of at least 0, not all 0, got {list(checked)}."
        )
    return checked


def reach(share: Share, costs: np.ndarray, most: int, choose: Callable[[int], Choice]) -> Choice:
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
            choice = choose(budget)
        except MaskError as error:
            why = f" {error}"
            break
        saved = costs[choice.layers].sum() / total
        if saved >= share.share - 1e-9:
            return choice
        best = max(best, saved)
    raise MaskError(
        f"Cannot drop {share.share:.1%} of the {share.of}: the layers that may go make up {best:.1%} at most.{why} Lower the budget."
    )
