"""Pruning as a pure function: a view of the model without some layers, sharing every weight with the dense one.

How: the module tree is copied shallowly, so that parameters and buffers are shared and everything else is the view's own;
the configuration is copied deeply and once. Five things then change together: the layer list, every `layer_idx`,
`num_hidden_layers`, every per-layer list of the text configuration, and the configuration object all modules see. Nothing
of the dense model is touched, so there is nothing to undo and no lock to forget.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import nn

from vlm_analysis.errors import MaskError, ModelError
from vlm_analysis.layers import find_decoder_path, locked_layers, text_config
from vlm_analysis.masks import PruneMask

M = TypeVar("M", bound=nn.Module)


def prune(model: M, mask: PruneMask) -> M:
    """Return a pruned model that shares the dense weights; `model` is untouched.

    Args:
        model: a transformers model; it may itself be pruned.
        mask: which of its decoder layers to drop.

    Raises:
        MaskError: the mask is of another number of layers, or drops a locked layer.
        ModelError: the decoder layers cannot be found.
    """
    path, layers = find_decoder_path(model)
    _check(model, mask, len(layers))
    view = _Copier(text_config(model), mask.kept).module(model)
    parent, _, name = path.rpartition(".")
    holder = view.get_submodule(parent)
    dense_list = holder._modules[name]
    assert isinstance(dense_list, nn.ModuleList)
    kept = [dense_list[index] for index in mask.kept]
    dense_list._modules = {str(position): layer for position, layer in enumerate(kept)}
    for position, layer in enumerate(kept):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                vars(module)["layer_idx"] = position
    if getattr(view, "generation_config", None) is not None:
        vars(view)["generation_config"] = copy.deepcopy(view.generation_config)
    return view


def _check(model: nn.Module, mask: PruneMask, n_layers: int) -> None:
    if mask.n_layers != n_layers:
        raise MaskError(
            f"The mask does not fit the model: expected one for {n_layers} layers, got one for {mask.n_layers}."
        )
    for layer, reason in locked_layers(model).items():
        if layer in mask.dropped:
            raise MaskError(f"Layer {layer} cannot be dropped: {reason}. Take it out of the mask.")


class _Copier:
    """Copies a module tree so that only tensors are shared, and each configuration once, cut to the kept layers."""

    def __init__(self, decoder_config: Any, kept: tuple[int, ...]) -> None:
        self._kept = kept
        self._modules: dict[int, nn.Module] = {}
        self._config_memo: dict[int, Any] = {}
        self._cut(copy.deepcopy(decoder_config, self._config_memo))
        self._decoder_type, self._n_layers = decoder_config.model_type, decoder_config.num_hidden_layers

    def module(self, module: M) -> M:
        """Return the copy of a module and all below it; a module that stands in two places gets one copy."""
        if id(module) in self._modules:
            return self._modules[id(module)]  # type: ignore[return-value]
        if "forward" in vars(module):
            raise ModelError(
                f"{type(module).__name__} cannot be pruned: its forward was replaced, as by spreading a model over devices, and "
                "the copy would run the dense layers. Load it on one device."
            )
        copied = copy.copy(module)
        self._modules[id(module)] = copied
        state = vars(copied)
        for name, value in state.items():
            if name.startswith("_") and isinstance(value, (dict, set)):
                state[name] = value.copy()  # own registries and hooks; the tensors in them are shared
        if hasattr(state.get("config"), "get_text_config"):
            state["config"] = self._config(state["config"])
        state["_modules"] = {
            name: child if child is None else self.module(child) for name, child in module._modules.items()
        }
        return copied

    def _config(self, config: Any) -> Any:
        """Return the copy of a configuration; another copy of the decoder's own, which some classes make, is cut as well."""
        copied = copy.deepcopy(config, self._config_memo)
        is_decoder = copied.model_type == self._decoder_type and copied.num_hidden_layers == self._n_layers
        if is_decoder:
            self._cut(copied)
        return copied

    def _cut(self, text: Any) -> None:
        n_layers = text.num_hidden_layers
        for name, value in list(vars(text).items()):
            if _is_per_layer(name) and isinstance(value, (list, tuple)) and len(value) == n_layers:
                setattr(text, name, type(value)(value[index] for index in self._kept))
        text.num_hidden_layers = len(self._kept)


def _is_per_layer(name: str) -> bool:
    """Whether a configuration list of the right length holds one entry a layer (`layer_types`, `no_rope_layers`, …)."""
    return "layer" in name or name.endswith("_pattern")
