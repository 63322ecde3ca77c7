"""A view of a model: a copy of its module tree that shares every tensor, without the dropped layers.

The module tree is copied shallowly: parameters and buffers are shared, everything else belongs to the view. The configuration is
copied deeply, once. Then these change together: the layer list, every `layer_idx`, all per-layer entries of the configuration
(`models.config`), the modules' copies of those, and the configuration object that all modules share. The dense model is not changed.
A change that needs other weights gives the module its own tensor first (`View.own`).
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from vlm_analysis.edits.around import Around
from vlm_analysis.errors import EditError, MaskError, ModelError
from vlm_analysis.models.config import changed_by_saving, cut_config, cut_targets
from vlm_analysis.models.layers import PACKED, find_decoder_path, text_config
from vlm_analysis.models.offload import put_own, value_of
from vlm_analysis.models.tower import with_parts

M = TypeVar("M", bound=nn.Module)
# Copies of modules, by the id of the dense one and, for a decoder layer, its place in the view.
Copies = dict[tuple[int, int | None], nn.Module]

# Attributes that a module computes from the configuration when it is built: a layer's from its number, the decoder's from the count.
_OF_LAYER: dict[str, Callable[[int, Any], Any]] = {
    "is_block_boundary": lambda position, text: position % text.n_layers_per_attn_res_block == 0,
}
_OF_DECODER: dict[str, Callable[[Any], Any]] = {
    "first_kv_shared_layer_idx": lambda text: text.num_hidden_layers - text.num_kv_shared_layers,
    "rope_types": lambda text: [
        "scaled" if layer in text.rope_scaling_layers else "unscaled" for layer in range(text.num_hidden_layers)
    ],
}
# Types of a module's attributes: of those that a copy shares, and of its registries and hooks, of which it has its own.
_PLAIN = frozenset({bool, int, float, str, type(None)})
_REGISTRIES = frozenset({dict, OrderedDict, set})


class View(Generic[M]):
    """A view of a model with some of its layers; `model` is the edited model, which shares its tensors with the dense one.

    Args:
        dense: a transformers model; it may itself be a view, or spread over devices by accelerate. It is not changed.
        kept: the decoder layers to keep, ascending.
        copies: what views of the same model have copied: layers, which are used again at the same place, and modules beside the
            decoder that are the same whatever is kept, such as the vision tower. New ones join them. Views share these modules, so
            that none may change them. By default every module is copied.

    Raises:
        MaskError: the stack of these layers cannot be rebuilt.
        ModelError: the decoder layers cannot be found, or a module's forward was replaced by something unknown.
    """

    def __init__(self, dense: M, kept: Sequence[int], copies: Copies | None = None) -> None:
        path, layers = find_decoder_path(dense)
        holder = path.rpartition(".")[0]
        copier = _Copier(dense, path, kept, copies)
        self.model: M = copier.module(dense)
        self._layers = {layer: copier.module(layers[layer]) for layer in kept}
        text = text_config(self.model)
        for place in copier.places:
            _renumber(self._layers[kept[place]], place, text)
        _refit(self.model.get_submodule(holder), text, len(layers), kept)
        state = vars(self.model)
        if state.get("generation_config") is not None:
            state["generation_config"] = copy.deepcopy(state["generation_config"])
        if state.get("hf_device_map"):
            state["hf_device_map"] = _renamed(state["hf_device_map"], f"{path}.", kept)
        if copies is not None:
            copies |= copier.made

    def layer(self, number: int) -> nn.Module:
        """Return the view's module of a layer, by its number in the dense model.

        Attributes set on it affect the view only. Its tensors are those of the dense model: take one from `own` before changing it.

        Raises:
            EditError: the view has no such layer.
        """
        if number not in self._layers:
            raise EditError(
                f"The edited model has no layer {number}: expected one of {list(self._layers)}. Change another layer."
            )
        return self._layers[number]

    def place(self, number: int) -> int:
        """Return where a layer stands among those of the view, by its number in the dense model.

        Raises:
            EditError: the view has no such layer.
        """
        self.layer(number)
        return list(self._layers).index(number)

    def own(self, module: nn.Module, name: str = "weight") -> torch.Tensor:
        """Replace a shared parameter of a module of the view by a copy, and return the copy to be changed in place.

        Raises:
            ModelError: there is no such parameter, or its values are nowhere. Those that accelerate keeps elsewhere are read.
        """
        return self._put(module, name, self._shared(module, name).detach().clone())

    def cut(self, module: nn.Module, name: str, dim: int, index: Sequence[int]) -> None:
        """Replace a shared parameter of a module of the view by these rows (`dim` 0) or columns (1) of it; raises as `own`."""
        shared = self._shared(module, name).detach()
        self._put(module, name, shared.index_select(dim, torch.tensor(index, device=shared.device)))

    def leave(self, path: str, kept: Sequence[int]) -> None:
        """Leave out modules of another list of the view than that of the decoder layers, which get new numbers; weights stay shared.

        Args:
            path: dotted name of the list.
            kept: the numbers of those that stay, ascending.
        """
        layers = self.model.get_submodule(path)
        layers._modules = {str(place): layers._modules[str(layer)] for place, layer in enumerate(kept)}
        for place, layer in enumerate(layers.children()):
            for module in layer.modules():
                if isinstance(getattr(module, "layer_idx", None), int):
                    vars(module)["layer_idx"] = place
        state = vars(self.model)
        if state.get("hf_device_map"):
            state["hf_device_map"] = _renamed(state["hf_device_map"], f"{path}.", kept)

    def _shared(self, module: nn.Module, name: str) -> torch.Tensor:
        """Return a parameter's values; raises ModelError where there are none."""
        shared = module._parameters.get(name)
        if shared is None:
            raise ModelError(
                f"{type(module).__name__} has no parameter {name!r}: expected one of "
                f"{[key for key, value in module._parameters.items() if value is not None]}. Name one of them."
            )
        return value_of(module, name)

    def _put(self, module: nn.Module, name: str, values: torch.Tensor) -> torch.Tensor:
        put_own(module, name, values)
        return values


def check_config(model: nn.Module, kept: Sequence[int]) -> None:
    """Check that a configuration can be made of the layers to keep; no module is copied.

    Raises:
        MaskError: the stack of these layers cannot be rebuilt.
    """
    _Copier(model, find_decoder_path(model)[0], kept)


def misnumbered(model: M) -> M:
    """Return a view that runs the layers of a model in wrong order: 1, 2, … and last layer 0, as if they were counted from 1.

    It stands for a server that gives the weights of one layer to the next; the model itself is not changed.

    Raises:
        EditError: the model has one layer only.
        MaskError, ModelError: as `View`.
    """
    path, layers = find_decoder_path(model)
    if len(layers) < 2:
        raise EditError("The layers cannot be numbered wrongly: expected two or more, got one. Take another model.")
    view = View(model, range(len(layers))).model
    text, moved = text_config(view), view.get_submodule(path)
    first, *others = moved.children()
    moved._modules.clear()
    for position, layer in enumerate([*others, first]):
        _renumber(layer, position, text)
        moved._modules[str(position)] = layer
    return view


def _renumber(layer: nn.Module, position: int, text: Any) -> None:
    """Set the layer index in every module of a layer."""
    for module in layer.modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            vars(module)["layer_idx"] = position
        for name, attribute in _OF_LAYER.items():
            if name in vars(module):
                vars(module)[name] = attribute(position, text)


def _refit(decoder: nn.Module, text: Any, n_layers: int, kept: Sequence[int]) -> None:
    """Update the per-layer attributes and packed modules of the decoder to the kept layers."""
    for name, attribute in _OF_DECODER.items():
        if name in vars(decoder):
            vars(decoder)[name] = attribute(text)
    for name, dim in PACKED.items():
        module = getattr(decoder, name, None)
        if isinstance(module, nn.Module):
            _select(module, dim, n_layers, kept)


def _select(module: nn.Module, dim: int, n_layers: int, kept: Sequence[int]) -> None:
    """Make a module with one slice of output per layer return the kept layers' slices, and save those slices of its weight.

    The weight itself stays shared: in Gemma 3n it is a third of the model.
    """

    def choose(tensor: torch.Tensor, along: int) -> torch.Tensor:
        parts = tensor.unflatten(along, (n_layers, -1))
        index = torch.tensor(kept, device=tensor.device)
        return parts.index_select(along % tensor.dim(), index).flatten(along % tensor.dim(), along % tensor.dim() + 1)

    def save(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        state[f"{prefix}weight"] = choose(state[f"{prefix}weight"], dim)

    module.register_forward_hook(lambda _, __, output: choose(output, -1))
    module.register_state_dict_post_hook(save)


def _renamed(device_map: dict[str, Any], prefix: str, kept: Sequence[int]) -> dict[str, Any]:
    """Return a device map with the new layer numbers in its names."""
    position = {str(layer): str(index) for index, layer in enumerate(kept)}
    renamed = {}
    for name, device in device_map.items():
        number, dot, rest = name.removeprefix(prefix).partition(".")
        if not name.startswith(prefix):
            renamed[name] = device
        elif number in position:
            renamed[f"{prefix}{position[number]}{dot}{rest}"] = device
    return renamed


class _Copier:
    """Copies a module tree, sharing only tensors, and each configuration once, cut to the kept layers.

    Attributes:
        made: copies for other views, which were not among those given.
        places: those of the layers copied.
    """

    def __init__(self, model: Any, path: str, kept: Sequence[int], copies: Copies | None = None) -> None:
        self._layers, self._kept = model.get_submodule(path), tuple(kept)
        parts = path.split(".")
        around = [model.get_submodule(".".join(parts[:length])) for length in range(len(parts))]
        self._around = set(around)
        self._own = {*self._layers, self._layers, *(getattr(around[-1], name, None) for name in PACKED)}
        self._copies = copies or {}
        self.made: Copies = {}
        self.places: list[int] = []
        self._modules: dict[int, nn.Module] = {}
        self._config_memo: dict[int, Any] = {}
        self._cut: set[int] = set()
        self._lists: dict[int, Any] = {}  # by the id of a list in the dense configuration, the cut list
        decoder_config = text_config(model)
        self._decoder_type, self._n_layers = decoder_config.model_type, decoder_config.num_hidden_layers
        if len(self._kept) < self._n_layers:
            _check_saving(decoder_config, self._config(decoder_config))
        cut_targets(self._config(model.config), self._kept)

    def module(self, module: M) -> M:
        """Return the copy of a module and all below it; a module that occurs twice gets one copy."""
        if id(module) in self._modules:
            return self._modules[id(module)]  # type: ignore[return-value]
        copied: M = object.__new__(type(module))  # not copy.copy, which goes a long way round for each module
        self._modules[id(module)] = copied
        state = vars(copied)
        state.update(vars(module))
        if "forward" in state:
            _rebind(module, copied)
        for name, value in state.items():
            kind = type(value)
            if kind in _PLAIN:
                continue
            if name[:1] == "_" and isinstance(value, (dict, set)):
                # registries and hooks; the tensors in them are shared. Most are empty, and a new one is made faster than a copy
                state[name] = value.copy() if value or kind not in _REGISTRIES else kind()
            elif id(value) in self._lists:
                state[name] = self._lists[id(value)]
        if hasattr(state.get("config"), "get_text_config"):
            state["config"] = self._config(state["config"])
        if module is self._layers:
            state["_modules"] = {str(place): self._layer(layer, place) for place, layer in enumerate(self._kept)}
        else:
            copy_of = self._beside if module in self._around else self.module
            children = module._modules.items()
            state["_modules"] = {name: child if child is None else copy_of(child) for name, child in children}
        return copied

    def _layer(self, number: int, place: int) -> nn.Module:
        """Return the copy of a decoder layer that stands at a place, one from before where there is one."""
        dense = self._layers[number]
        if (known := self._copies.get((id(dense), place))) is not None:
            return self._modules.setdefault(id(dense), known)
        self.places.append(place)
        self.made[id(dense), place] = self.module(dense)
        return self.made[id(dense), place]

    def _beside(self, dense: nn.Module) -> nn.Module:
        """Return the copy of a module beside or around the layers, one from before where there is one."""
        if (known := self._copies.get((id(dense), None))) is not None:
            return self._modules.setdefault(id(dense), known)
        copied = self.module(dense)
        if not any(map(self._differs, dense.modules())):
            self.made[id(dense), None] = copied
        return copied

    def _differs(self, module: nn.Module) -> bool:
        """Return whether the copy of a module depends on the layers that are kept: it holds them, or what is cut to them."""
        state = vars(module)
        config = state.get("config")
        of_decoder = hasattr(config, "get_text_config") and any(id(inner) in self._cut for inner in with_parts(config))
        return of_decoder or module in self._own or any(id(value) in self._lists for value in state.values())

    def _config(self, config: Any) -> Any:
        """Return the copy of a configuration; that of the decoder, and copies of it that some classes make, are cut."""
        if id(config) in self._config_memo:
            return self._config_memo[id(config)]
        copied = copy.deepcopy(config, self._config_memo)
        for inner in with_parts(config):
            is_decoder = inner.model_type == self._decoder_type and inner.num_hidden_layers == self._n_layers
            if is_decoder and id(inner) not in self._cut:
                self._cut.add(id(inner))
                names = cut_config(self._config_memo[id(inner)], self._kept)
                self._lists |= {id(vars(inner)[name]): value for name, value in names.items()}
        return copied


def _check_saving(dense: Any, cut: Any) -> None:
    """Raise MaskError where transformers would refuse or repair the configuration when the pruned model is loaded."""
    try:
        differing = changed_by_saving(cut)
        if differing:
            differing -= changed_by_saving(dense)
    except Exception as error:  # each model raises its own kinds of errors
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise MaskError(
            f"The mask leaves layers that transformers does not build again: {reason}. Choose other layers."
        ) from error
    if differing:
        raise MaskError(
            f"The mask leaves layers that transformers does not build again: it would change {', '.join(sorted(differing))} when the "
            "pruned model is loaded. Choose other layers: often the last one has to stay."
        )


def _rebind(module: nn.Module, copied: nn.Module) -> None:
    """Make the replaced forward of a copy run the copy: accelerate replaces it to move tensors between devices.

    Raises:
        ModelError: something else replaced the forward; the copy would run the dense layers.
    """
    state = vars(copied)
    if isinstance(around := state["forward"], Around):
        state["forward"] = around.below
        if around.below is None:
            del state["forward"]
        else:
            _rebind(module, copied)
        state["forward"] = Around(copied, around.run, state.get("forward"))
        return
    old, new = state.get("_old_forward"), state["forward"]
    runs_dense = isinstance(new, functools.partial) and new.args == (module,) and "_hf_hook" in state
    if not runs_dense or not isinstance(old, types.MethodType) or old.__self__ is not module:
        raise ModelError(
            f"{type(module).__name__} cannot be pruned: its forward was replaced by something other than accelerate, and the "
            "copy would run the dense layers. Load the model anew."
        )
    state["_old_forward"] = types.MethodType(old.__func__, copied)
    state["forward"] = functools.update_wrapper(functools.partial(new.func, copied), state["_old_forward"])
