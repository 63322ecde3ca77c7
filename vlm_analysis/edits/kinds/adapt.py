"""Adapt: low-rank updates of linear modules, learnt by fine-tuning and merged into their weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.learnt import Learnt, Tensors
from vlm_analysis.errors import EditError, short

if TYPE_CHECKING:
    import numpy as np

    from vlm_analysis.edits.view import View


@dataclass(frozen=True)
class Adapt(Learnt):
    """Adds `scale · B A` to the weights of linear modules (LoRA, merged): in float64, then in the precision of the weight.

    Attributes:
        tensors: of each module A (rank, inputs) as "MODULE.A" and B (outputs, rank) as "MODULE.B".
        modules: names of the modules in the dense model, sorted: "5.mlp.up_proj" is that of decoder layer 5; any other is that of the
            whole model, as "model.visual.merger.linear_fc1", and ahead of the first layer.
        scale: what the products are multiplied by.
        learnt_on: see `Learnt`.

    Raises:
        EditError: these are no Tensors, names or number.
    """

    kind: ClassVar[str] = "adapt"

    tensors: Tensors  # type: ignore[bad-override]  # a field that is frozen
    modules: tuple[str, ...]
    scale: float = 1.0
    learnt_on: str = field(default="", kw_only=True)  # type: ignore[bad-override]

    def __repr__(self) -> str:
        return words.brief(self, self.words(), words.counted(len(self.modules), "module"), self.tensors.sha256[:8])

    def __post_init__(self) -> None:
        names = self.modules if isinstance(self.modules, Collection) and not isinstance(self.modules, str) else ()
        is_number = isinstance(self.scale, (int, float)) and math.isfinite(self.scale)
        is_whole = isinstance(self.tensors, Tensors) and isinstance(self.learnt_on, str) and is_number
        if not is_whole or not names or not all(isinstance(name, str) and name for name in names):
            raise EditError(
                "An update is not whole: expected Tensors, names of modules, a finite scale and the key of an edit, got "
                f"{short((self.tensors, self.modules, self.scale, self.learnt_on))}. Make it with `finetune`."
            )
        object.__setattr__(self, "modules", tuple(sorted(set(names))))
        object.__setattr__(self, "scale", float(self.scale))

    @cached_property
    def _of_layers(self) -> Mapping[str, tuple[int, str]]:
        """Return the layer and the name in it of each module of a layer, by its name."""
        parts = {name: name.partition(".") for name in self.modules}
        return {name: (int(number), inner) for name, (number, _, inner) in parts.items() if number.isdecimal()}

    @property
    def layers(self) -> Mapping[int, str | None]:
        return {layer: self._text for layer, _ in sorted(self._of_layers.values())}

    @property
    def before(self) -> str:
        return self._text if len(self._of_layers) < len(self.modules) else ""

    @property
    def _text(self) -> str:
        return f"{self.scale!r} {self.tensors.sha256}"

    def apply(self, view: View) -> None:
        import torch

        from vlm_analysis.models.adapter import with_update

        factors = self.tensors.read()
        for name in self.modules:
            module = self._module(view, name)
            a, b = _fitting(module, name, factors.get(f"{name}.A"), factors.get(f"{name}.B"))
            weight = view.own(module)
            weight.copy_(with_update(weight, torch.tensor(a), torch.tensor(b), self.scale))

    def _module(self, view: View, name: str) -> Any:
        layer, inner = self._of_layers.get(name, (None, name))
        root = view.model if layer is None else view.layer(layer)
        return dict(root.named_modules()).get(inner)

    def words(self) -> str:
        where = [words.layers(self.layers)] if self.layers else []
        where += ["what lies ahead of the layers"] if self.before else []
        return f"adds low-rank updates to {words.joined(where)}"

    def to_json(self) -> dict[str, Any]:
        return {
            "tensors": self.tensors.sha256,
            "modules": list(self.modules),
            "scale": self.scale,
            "learnt_on": self.learnt_on,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        tensors, learnt_on = Tensors(content["tensors"]), content.get("learnt_on", "")
        return cls(tensors, tuple(content["modules"]), content["scale"], learnt_on=learnt_on)


def _fitting(module: Any, name: str, a: np.ndarray | None, b: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of a module if they fit it."""
    from torch import nn

    shapes = [None if one is None else one.shape for one in (a, b)]
    is_linear = isinstance(module, nn.Linear) and module.weight.is_floating_point()
    if a is not None and b is not None and is_linear and a.ndim == b.ndim == 2:
        rank = a.shape[0]
        if [(rank, module.in_features), (module.out_features, rank)] == shapes:
            return a, b
    got = "no such module" if module is None else f"a {type(module).__name__}"
    raise EditError(
        f"The update does not fit the model: expected a linear module {short(name, 80)!r}, and factors (rank, inputs) and (outputs, rank) "
        f"of it, got {got} and {shapes[0]} and {shapes[1]}. Tune this model."
    )
