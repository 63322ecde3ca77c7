"""Fold: a linear map folded into the last linear module of a layer, most often the MLP's down-projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.learnt import Learnt, Tensors
from vlm_analysis.errors import EditError, short

if TYPE_CHECKING:
    import numpy as np

    from vlm_analysis.edits.view import View


@dataclass(frozen=True)
class Fold(Learnt):
    """Maps what a linear module of a layer gives, without a new parameter: the map is multiplied into its weight and bias.

    Attributes:
        layer: the layer's number, from 0.
        tensors: by the module's name inside of the layer ("mlp.down_proj") the map: A of (hidden, hidden), with which its output y
            becomes A y, or factors of (hidden,), one for each channel.
        learnt_on: see `Learnt`.

    Raises:
        EditError: the layer is no whole number, or the tensors are none.
    """

    kind: ClassVar[str] = "fold"

    layer: int
    tensors: Tensors  # type: ignore[bad-override]  # a field that is frozen
    learnt_on: str = field(default="", kw_only=True)  # type: ignore[bad-override]

    def __post_init__(self) -> None:
        if not is_whole(self.layer) or not isinstance(self.tensors, Tensors) or not isinstance(self.learnt_on, str):
            raise EditError(
                "A fold is not whole: expected a layer's number, Tensors and the key of an edit, got "
                f"{short((self.layer, self.tensors, self.learnt_on))}. Make it with `repair`."
            )
        object.__setattr__(self, "layer", int(self.layer))

    @property
    def layers(self) -> Mapping[int, str | None]:
        return {self.layer: self.tensors.sha256}

    def apply(self, view: View) -> None:
        layer = view.layer(self.layer)
        for name, mapping in self.tensors.read().items():
            module = _linear(layer, name, self.layer, mapping)
            for part in ("weight", "bias") if module.bias is not None else ("weight",):
                _multiply(mapping, view.own(module, part))

    def words(self) -> str:
        return f"folds a linear map into {words.layers((self.layer,))}"

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "tensors": self.tensors.sha256, "learnt_on": self.learnt_on}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(content["layer"], Tensors(content["tensors"]), learnt_on=content.get("learnt_on", ""))


def _linear(layer: Any, name: str, number: int, mapping: np.ndarray) -> Any:
    """Return the linear module of this name that the map fits."""
    from torch import nn

    module = dict(layer.named_modules()).get(name)
    if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
        got = "no such module" if module is None else f"a {type(module).__name__}"
        raise EditError(
            f"Nothing can be folded into {short(name, 80)!r} of layer {number}: expected a linear module with a weight of numbers, got "
            f"{got}. Repair this model's own edit."
        )
    if mapping.shape not in ((module.out_features,), (module.out_features,) * 2):
        raise EditError(
            f"The map does not fit {short(name, 80)!r} of layer {number}: expected one of {module.out_features} channels, got one of "
            f"shape {mapping.shape}. Repair this model's own edit."
        )
    return module


def _multiply(mapping: np.ndarray, own: Any) -> None:
    """Multiply a map from the left into a weight (channels, inputs) or a bias (channels), in float64."""
    import torch

    left = torch.tensor(mapping, dtype=torch.float64)
    right = own.to("cpu", torch.float64)
    product = left @ right if left.ndim == 2 else left * right if right.ndim == 1 else left[:, None] * right
    own.copy_(product)
