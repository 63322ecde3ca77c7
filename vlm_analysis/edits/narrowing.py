"""Make layers of a view narrow: cut rows and columns out of their projections, or write zeros into them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from vlm_analysis.edits.view import View
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_layers, text_config
from vlm_analysis.models.widths import Part, find_attention, find_mlp

_NEURONS = ("intermediate_size", "ffn_dim")  # what configurations call the number of neurons
_ROUNDS = "block_auto_adjust_ff_dim"  # where set, LFM2 builds another number of neurons than the configuration's


def narrow_layer(
    view: View, number: int, neurons: Sequence[int] | None, kv_groups: Sequence[int] | None, *, small: bool
) -> None:
    """Let a layer of a view keep these MLP neurons and attention groups; None keeps all.

    Args:
        view: of the model.
        number: of the layer, in the dense model.
        small: cut the weights; else they keep their shapes and get zeros.

    Raises:
        EditError: the layer has no such projections or numbers.
        ModelError: a weight's numbers are nowhere.
    """
    layer = view.layer(number)
    for kept, part in (
        (neurons, None if neurons is None else find_mlp(layer)),
        (kv_groups, None if kv_groups is None else find_attention(layer)),
    ):
        if kept is None or part is None:
            continue
        if isinstance(part, str) or kept[-1] >= part.n:
            got = part if isinstance(part, str) else f"0..{part.n - 1} there"
            raise EditError(
                f"Layer {number} cannot be made narrow: expected {kept[-1] + 1} parts or more, got {got}. Leave it whole."
            )
        (_cut if small else _zero)(view, layer, part, kept)


def fit_config(model: nn.Module) -> None:
    """Write the widths of a view's layers into its configuration, where all layers are equally wide and it has one number for all.

    Other configurations stay those of the dense model: no stock class builds such layers.
    """
    layers, text = find_decoder_layers(model), text_config(model)
    configs = {
        id(config): config for module in layers.modules() if (config := getattr(module, "config", None)) is not None
    }
    mlps, attentions = ([find(layer) for layer in layers] for find in (find_mlp, find_attention))
    numbers: dict[str, int] = {}
    if n := _common(mlps, "n"):
        numbers |= {name: n for name in _NEURONS if isinstance(getattr(text, name, None), int)} | {_ROUNDS: False}
    n, n_heads, head_dim = (_common(attentions, name) for name in ("n", "n_heads", "head_dim"))
    if n and n_heads and head_dim and n_heads != getattr(text, "num_attention_heads", n_heads):
        numbers |= {"num_attention_heads": n_heads, "num_key_value_heads": n, "head_dim": head_dim}
    for config in (configs | {id(text): text}).values():
        for name, number in numbers.items():
            if name == "head_dim" or hasattr(config, name):
                setattr(config, name, number)


def _common(parts: Sequence[Part | str], name: str) -> int:
    """Return a number of all parts; 0 where it differs, or one is none."""
    found = {0 if isinstance(part, str) else getattr(part, name) for part in parts}
    return found.pop() if len(found) == 1 else 0


def _cut(view: View, layer: nn.Module, part: Part, kept: Sequence[int]) -> None:
    for name, dim, index in part.kept(kept):
        module: Any = layer.get_submodule(name)
        view.cut(module, "weight", dim, index)
        if dim == 0 and module.bias is not None:
            view.cut(module, "bias", 0, index)
        setattr(module, "in_features" if dim else "out_features", len(index))
    holder = layer.get_submodule(part.holder)
    for name, size in part.sizes:
        setattr(holder, name, size * len(kept))


def _zero(view: View, layer: nn.Module, part: Part, kept: Sequence[int]) -> None:
    gone = _others(kept, part.n)
    if not gone:
        return
    for name, dim, index in part.kept(gone):
        module: Any = layer.get_submodule(name)
        own = view.own(module)
        own.index_fill_(dim, torch.tensor(index, device=own.device), 0)
        if dim == 0 and module.bias is not None:
            view.own(module, "bias")[index] = 0


def _others(kept: Collection[int], n: int) -> list[int]:
    staying = set(kept)
    return [unit for unit in range(n) if unit not in staying]
