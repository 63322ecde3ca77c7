"""Leave attention or MLP out of a layer of a view: something that adds nothing takes its place.

A layer is known by what it does: without both parts it must hand on what it is given, to the last bit. One that does more besides, or puts
a norm with a bias behind a part, is refused.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import text_config
from vlm_analysis.models.widths import PART_NAMES, has_experts, part_of

if TYPE_CHECKING:
    from vlm_analysis.edits.view import View

ATTENTION, MLP = PART_NAMES
_COUNTS = {ATTENTION: (2, 1, 3), MLP: (1, 2)}  # how many values a part gives, the most usual first


class Nothing(nn.Module):
    """Stands for a part of a layer and adds nothing: zeros, in the shape of what the part is given.

    Args:
        part: what it stands for; its settings are taken over, as layers read some of them.
        n_values: how many values it gives; those after the first are None.
    """

    def __init__(self, part: nn.Module, n_values: int) -> None:
        super().__init__()
        plain = {name: value for name, value in vars(part).items() if not name.startswith("_") and name != "forward"}
        vars(self).update({name: value for name, value in plain.items() if not callable(value)})
        self.n_values = n_values
        self.training = False

    def forward(self, hidden_states: Any = None, *args: Any, **kwargs: Any) -> Any:
        states = next(one for one in (hidden_states, *args, *kwargs.values()) if torch.is_tensor(one))
        cache = kwargs.get("past_key_values")
        place = getattr(self, "layer_idx", None)
        if cache is not None and isinstance(place, int) and _is_counted(cache, place):
            token = states.new_zeros(states.shape[0], 1, states.shape[1], 1)
            cache.update(token, token, place)
        zeros = torch.zeros_like(states)
        return zeros if self.n_values == 1 else (zeros, *[None] * (self.n_values - 1))


def _is_counted(cache: Any, place: int) -> bool:
    """Return whether transformers may count tokens by the cache of this layer: it is the first, or the first of its kind."""
    kinds = [type(one) for one in getattr(cache, "layers", ())]
    return place == 0 or place >= len(kinds) or kinds.index(kinds[place]) == place


def leave_out(view: View, number: int, part: str) -> None:
    """Leave a part of a layer out of a view, by the layer's number in the dense model.

    Raises:
        EditError: the layer has no such part, or its parts do not add to the stream by themselves.
    """
    layer = view.layer(number)
    failed = f"The {'MLP' if part == MLP else part} of layer {number} cannot be left out"
    parts = {each: module for each in PART_NAMES if (module := part_of(layer, each)) is not None}
    if len(parts) < len(PART_NAMES):
        raise EditError(
            f"{failed}: expected one module of the layer for its attention and one for its MLP, got {_children(layer)}. Drop the layer "
            "instead."
        )
    if part == MLP and has_experts(parts[MLP]):
        raise EditError(f"{failed}: expected one MLP, got experts that tokens are routed to. Drop the layer instead.")
    names = {each: name for each, one in parts.items() for name, module in layer.named_children() if module is one}
    nothing = _fitting(layer, names, text_config(view.model).hidden_size)
    if nothing is None:
        raise EditError(
            f"{failed}: expected a layer that hands on its input without attention and MLP, got a {type(layer).__name__}, which does "
            "more besides. Drop the layer instead."
        )
    setattr(layer, names[part], nothing[part])


def _children(layer: nn.Module) -> str:
    return f"{type(layer).__name__} ({', '.join(name for name, _ in layer.named_children())})"


@torch.no_grad()
def _fitting(layer: nn.Module, names: dict[str, str], hidden: int) -> dict[str, Nothing] | None:
    """Return what stands for each part so that the layer, without both, hands on what it is given; None where nothing does."""
    parameter = next((one for one in layer.parameters() if one.device.type != "meta"), torch.zeros(()))
    states = torch.randn(1, 3, hidden, generator=torch.Generator().manual_seed(0)).to(parameter.device, parameter.dtype)
    parts = {part: layer.get_submodule(name) for part, name in names.items()}
    wanted = list(inspect.signature(type(layer).forward).parameters.values())[2:]
    given = {one.name: None for one in wanted if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}
    try:
        for n_attention in _COUNTS[ATTENTION]:
            for n_mlp in _COUNTS[MLP]:
                counts = {ATTENTION: n_attention, MLP: n_mlp}
                nothing = {part: Nothing(parts[part], counts[part]) for part in names}
                for part, name in names.items():
                    setattr(layer, name, nothing[part])
                if _hands_on(layer, states, given):
                    return nothing
    finally:
        for part, name in names.items():
            setattr(layer, name, parts[part])
    return None


def _hands_on(layer: nn.Module, states: torch.Tensor, given: dict[str, Any]) -> bool:
    try:
        output = layer(states, **given)
    except Exception:  # whatever its other modules raise without their arguments
        return False
    output = output[0] if isinstance(output, tuple) else output
    return torch.is_tensor(output) and torch.equal(output, states)
