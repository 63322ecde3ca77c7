"""ModelInfo: which model a stored item belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelInfo:
    """Which model a stored item belongs to: enough to recognise it without loading it.

    Attributes:
        name: the hub id, or the name of the folder it was loaded from.
        fingerprint: sha256 of all that decides the numbers.
        revision: the commit of a hub id, else what was asked for; None for a folder.
        config_hash: sha256 of the configuration, as far as it decides the architecture; None in items saved before there was one.
        layer_parameters: parameters of each decoder layer; empty in items saved before they were counted.
        n_parameters: of the whole model; 0 in such items.
    """

    name: str
    fingerprint: str
    n_layers: int
    dtype: str = "float32"
    protected: dict[int, str] = field(default_factory=dict)
    locked: dict[int, str] = field(default_factory=dict)
    revision: str | None = None
    config_hash: str | None = None
    layer_parameters: tuple[int, ...] = ()
    n_parameters: int = 0

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ModelInfo:
        """Return the model that `dataclasses.asdict` and JSON made `content` of (JSON turns layer numbers into text)."""
        reasons = {
            name: {int(layer): str(reason) for layer, reason in content[name].items()}
            for name in ("protected", "locked")
        }
        counted = tuple(int(number) for number in content.get("layer_parameters", ()))
        return cls(**{**content, **reasons, "layer_parameters": counted})
