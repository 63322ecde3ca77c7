"""Replace: one layer with weights of its own stands for a window of layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlm_analysis import words
from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.learnt import Learnt, Tensors
from vlm_analysis.errors import EditError, short

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View


@dataclass(frozen=True)
class Replace(Learnt):
    """Lets one layer stand for a window of consecutive layers: the first of them stays with other weights, and the others go.

    LLM-Streamline (arXiv:2403.19135) trains such a layer; `replace_window` does so.

    Attributes:
        window: the layers' numbers, ascending and without a gap.
        tensors: the weights of the layer that stays, by their names inside of it ("mlp.down_proj.weight"); one that is not named
            stays as it is.
        learnt_on: see `Learnt`.

    Raises:
        EditError: these are no such layers, Tensors or key.
    """

    kind: ClassVar[str] = "replace"

    window: tuple[int, ...]
    tensors: Tensors  # type: ignore[bad-override]  # a field that is frozen
    learnt_on: str = field(default="", kw_only=True)  # type: ignore[bad-override]

    def __repr__(self) -> str:
        return words.brief(self, self.words(), self.tensors.sha256[:8])

    def __post_init__(self) -> None:
        given = self.window if isinstance(self.window, Collection) and not isinstance(self.window, str) else ()
        layers = tuple(sorted(int(layer) for layer in given if is_whole(layer)))
        is_window = bool(layers) and len(layers) == len(given) and layers == tuple(range(layers[0], layers[-1] + 1))
        if not is_window or not isinstance(self.tensors, Tensors) or not isinstance(self.learnt_on, str):
            raise EditError(
                "A replacement is not whole: expected consecutive layers, Tensors and the key of an edit, got "
                f"{short((self.window, self.tensors, self.learnt_on))}. Make it with `replace_window`."
            )
        object.__setattr__(self, "window", layers)

    @property
    def layers(self) -> Mapping[int, str | None]:
        first, *others = self.window
        return {first: self.tensors.sha256, **dict.fromkeys(others)}

    def apply(self, view: View) -> None:
        """Give the first layer of the window its weights.

        Raises:
            EditError: a tensor fits no weight of the layer.
        """
        import torch

        layer = view.layer(self.window[0])
        modules = dict(layer.named_modules())
        for name, values in self.tensors.read().items():
            inner, _, parameter = name.rpartition(".")
            there = modules[inner]._parameters.get(parameter) if inner in modules else None
            if there is None or there.shape != values.shape or not there.is_floating_point():
                got = "no such weight" if there is None else f"one of shape {tuple(there.shape)}"
                raise EditError(
                    f"The layer does not fit the model: expected a weight {short(repr(name), 80)} of shape {values.shape} in layer "
                    f"{self.window[0]}, got {got}. Replace a window of this model."
                )
            view.own(modules[inner], parameter).copy_(torch.tensor(values))

    def words(self) -> str:
        first, *others = self.window
        return f"replaces {words.layers(self.window)} by one" if others else f"replaces the weights of layer {first}"

    def to_json(self) -> dict[str, Any]:
        return {"window": list(self.window), "tensors": self.tensors.sha256, "learnt_on": self.learnt_on}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(tuple(content["window"]), Tensors(content["tensors"]), learnt_on=content.get("learnt_on", ""))
