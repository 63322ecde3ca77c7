"""What a strategy is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.spans import Spans


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a strategy is given.

    Attributes:
        n_layers: of the model.
        candidates: the layers that may go, ascending.
        budget: how many of them shall; at most all.
        scores: for strategies that need them.
        spans: for strategies that need a recording.
        gap: kept layers between any two dropped ones, for `minimum-gap`.
        seed: for strategies that draw.
    """

    n_layers: int
    candidates: list[int]
    budget: int
    scores: LayerScores | None = None
    spans: Spans | None = None
    gap: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Chosen:
    """The layers a strategy drops, and what it tells about them for the mask's provenance."""

    layers: list[int]
    told: dict[str, Any] = field(default_factory=dict)


def runs_of(wanted: Wanted) -> list[int]:
    """Return every layer at which a run of `budget` neighbouring candidates starts."""
    allowed = set(wanted.candidates)
    return [start for start in wanted.candidates if all(start + step in allowed for step in range(wanted.budget))]
