"""The PruneMask: which decoder layers are dropped, as a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import ModelInfo

MOST_LAYERS = 10_000


@dataclass(frozen=True)
class PruneMask:
    """Which of `n_layers` decoder layers are dropped, counted from 0.

    Two masks are equal when they drop the same layers of the same number; name, notes and provenance do not count.

    >>> mask = PruneMask(8, [5, 3])
    >>> mask.dropped, mask.kept, mask.budget, mask.ratio
    ((3, 5), (0, 1, 2, 4, 6, 7), 2, 0.25)

    Raises:
        MaskError: an index that is not a whole number in 0..n_layers-1 or comes twice, or no layer left.
    """

    n_layers: int
    dropped: tuple[int, ...] = ()
    name: str = field(default="", kw_only=True, compare=False)
    notes: str = field(default="", kw_only=True, compare=False)
    model: ModelInfo | None = field(default=None, kw_only=True, compare=False)
    provenance: dict[str, Any] = field(default_factory=dict, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        if not is_whole(self.n_layers) or not 1 <= self.n_layers <= MOST_LAYERS:
            raise MaskError(
                f"A mask needs the number of layers: expected a whole number in 1..{MOST_LAYERS}, got {self.n_layers!r}."
            )
        dropped = tuple(self.dropped)
        for layer in dropped:
            if not is_whole(layer) or not 0 <= layer < self.n_layers:
                raise MaskError(f"No such layer to drop: expected whole numbers 0..{self.n_layers - 1}, got {layer!r}.")
        if len(set(dropped)) != len(dropped):
            raise MaskError(f"A mask names each layer once, got {sorted(dropped)}.")
        if len(dropped) == self.n_layers:
            raise MaskError(f"A mask must keep at least one layer: all {self.n_layers} are dropped.")
        if any(0xD800 <= ord(character) <= 0xDFFF for character in self.name + self.notes):
            raise MaskError("The name or notes of a mask hold half a character. Type them again.")
        object.__setattr__(self, "n_layers", int(self.n_layers))
        object.__setattr__(self, "dropped", tuple(sorted(int(layer) for layer in dropped)))

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(layer for layer in range(self.n_layers) if layer not in self.dropped)

    @property
    def budget(self) -> int:
        """Return the number of dropped layers."""
        return len(self.dropped)

    @property
    def chosen_on(self) -> frozenset[str]:
        """Return the fingerprints of the prompt sets that it was chosen on, as far as its provenance tells."""
        return frozenset(_prompts_told(self.provenance))

    @property
    def ratio(self) -> float:
        """Return dropped layers over all layers, in [0, 1)."""
        return self.budget / self.n_layers


def _prompts_told(provenance: Any) -> Iterator[str]:
    if isinstance(provenance, dict):
        for name, value in provenance.items():
            if name in ("prompts", "recording_prompts", "damage_prompts") and isinstance(value, str):
                yield value
            yield from _prompts_told(value)


def is_whole(value: object) -> bool:
    """Return whether the value is a whole number of Python's or numpy's, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
