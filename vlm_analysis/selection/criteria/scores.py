"""LayerScores: one number per decoder layer, its spread, and which end is dropped first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vlm_analysis.words import brief, counted, some_of


@dataclass(frozen=True, eq=False)
class LayerScores:
    """The scores of one criterion.

    Attributes:
        criterion: its key in `CRITERIA`.
        values: (n_layers,) float64; NaN where the layer could not be scored (such a layer is never dropped by score).
        spread: (n_layers,) float64, standard deviation of `values` under resampling of the prompts within each domain; zero
            where nothing was measured, NaN where it is unknown.
        drop: which end is dropped first.
        options: the arguments of the criterion (target, weight, token group, seed).
    """

    criterion: str
    values: np.ndarray
    spread: np.ndarray
    drop: Literal["highest", "lowest"]
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        options = (f"{name} {value}" for name, value in self.options.items())
        first = f"drops first {some_of(map(str, self.order), 6)}"
        return brief(self, self.criterion, counted(len(self.values), "layer"), first, *options)

    @property
    def wish(self) -> np.ndarray:
        """Return the values with their sign such that the highest is dropped first; NaN without a score."""
        return self.values if self.drop == "highest" else -self.values

    @property
    def order(self) -> tuple[int, ...]:
        """Return the layers in drop order, ties to the lower index; layers without a score are left out."""
        scored = np.flatnonzero(~np.isnan(self.values))
        return tuple(int(layer) for layer in scored[np.argsort(-self.wish[scored], kind="stable")])
