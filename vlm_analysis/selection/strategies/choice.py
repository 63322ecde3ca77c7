"""What a strategy takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.spans import Spans


@dataclass(frozen=True, eq=False)
class StrategyInputs:
    """The arguments of a strategy.

    Attributes:
        n_layers: of the model.
        candidates: the layers that may go, ascending.
        budget: how many of them to drop; at most all.
        scores: for strategies that need them.
        spans: for strategies that need a recording.
        gap: kept layers between any two dropped ones, for `minimum-gap`.
        seed: for strategies that draw at random.
    """

    n_layers: int
    candidates: list[int]
    budget: int
    scores: LayerScores | None = None
    spans: Spans | None = None
    gap: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """The layers that a strategy drops, and details for the mask's provenance."""

    layers: list[int]
    details: dict[str, Any] = field(default_factory=dict)


def runs_of(inputs: StrategyInputs) -> list[int]:
    """Return every layer at which a run of `budget` neighbouring candidates starts."""
    allowed = set(inputs.candidates)
    return [start for start in inputs.candidates if all(start + step in allowed for step in range(inputs.budget))]
