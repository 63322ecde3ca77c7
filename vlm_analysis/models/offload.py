"""Weights that accelerate keeps outside of memory: read in place, one at a time, and replaced in a view.

A module with such weights has a hook that brings them before its forward and lets them go behind it. What it brings is in its
`weights_map`; the module itself holds tensors of the meta device, which have a shape and no numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from vlm_analysis.errors import ModelError

ALIGNMENT = 64  # bytes; the alignment of tensors that torch allocates
DISK = "disk"


class Aligned(Mapping[str, torch.Tensor]):
    """What a hook brings, every tensor aligned as torch aligns its own; `own` stands in place of what is kept elsewhere.

    On a CPU alignment decides which instructions multiply matrices, and so the last bits of what comes out.
    """

    def __init__(self, kept: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor] | None = None) -> None:
        self._kept, self._own = kept, dict(own or {})

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self.as_kept(name)
        return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def as_kept(self, name: str) -> torch.Tensor:
        """Return a tensor as it lies there, which reads no more of a file than is looked at."""
        return self._own[name] if name in self._own else self._kept[name]

    def with_own(self, name: str, tensor: torch.Tensor) -> Aligned:
        """Return the same with another tensor under a name."""
        return Aligned(self._kept, {**self._own, name: tensor})


def hook_of(module: nn.Module) -> Any:
    """Return the hook that brings a module's own weights; None where they are in memory."""
    found: Any = getattr(module, "_hf_hook", None)
    hooks: list[Any] = [found, *getattr(found, "hooks", ())]
    return next((one for one in hooks if getattr(one, "offload", False) and not one.place_submodules), None)


def is_offloaded(model: nn.Module) -> bool:
    """Return whether some weights of a model are outside of memory."""
    return any(parameter.device.type == "meta" for parameter in model.parameters())


def align_offloaded(model: nn.Module) -> None:
    """Let all that hooks of a model bring be aligned."""
    for module in model.modules():
        hook = hook_of(module)
        if hook is not None and not isinstance(hook.weights_map, Aligned):
            hook.weights_map = Aligned(hook.weights_map)


def value_of(module: nn.Module, name: str, *, as_kept: bool = False) -> torch.Tensor:
    """Return the numbers of a module's parameter or buffer, wherever they are kept.

    `as_kept` are they as they lie there, to be looked at: not aligned, and of a file no more is read than is looked at.

    Raises:
        ModelError: they are nowhere.
    """
    tensor = getattr(module, name)
    if tensor.device.type != "meta":
        return tensor
    hook = hook_of(module)
    kept = {} if hook is None else hook.weights_map
    try:  # whether a name is there is asked by reading it, so it is not asked
        return kept.as_kept(name) if as_kept and isinstance(kept, Aligned) else kept[name]
    except KeyError as error:
        raise ModelError(
            f"{type(module).__name__}.{name} cannot be read: expected numbers in memory or where accelerate keeps them, got none. Load the "
            "model whole."
        ) from error


def state_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors of a model's state, by name, to be looked at; those that are kept elsewhere one at a time."""
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.device.type == "meta" and not hasattr(tensor, "__tensor_flatten__"):
            owner, _, inner = name.rpartition(".")
            tensor = value_of(model.get_submodule(owner), inner, as_kept=True)
        yield name, tensor


def put_own(module: nn.Module, name: str, values: torch.Tensor) -> None:
    """Give a module of a view its own values of a parameter; where a hook brings it, let the view's hook bring these."""
    hook = hook_of(module)
    if hook is None:
        module._parameters[name] = nn.Parameter(values, requires_grad=False)
        return
    kept = hook.weights_map if isinstance(hook.weights_map, Aligned) else Aligned(hook.weights_map)
    own = copy.copy(hook)
    own.weights_map = kept.with_own(name, values)
    found: Any = module._hf_hook
    if found is hook:
        module._hf_hook = own
    else:
        several = copy.copy(found)
        several.hooks = tuple(own if one is hook else one for one in found.hooks)
        module._hf_hook = several
    module._parameters[name] = nn.Parameter(torch.empty_like(values, device="meta"), requires_grad=False)


def each_weight(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the names and parameters of a model, a shared one once.

    Outside of memory, accelerate gives each module of a shared parameter one of its own after the first pass.
    """
    tied: Mapping[str, str] = vars(model).get("all_tied_weights_keys") or {}
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if parameter.device.type != "meta" or tied.get(name) not in parameters:
            yield name, parameter


def bytes_by_place(model: nn.Module) -> dict[str, int]:
    """Return the bytes of a model's weights by where they are kept: "cuda:0", "cpu", "disk"; each shared tensor once."""
    found: dict[str, int] = {}
    for _, parameter in each_weight(model):
        place = DISK if parameter.device.type == "meta" else str(parameter.device)
        found[place] = found.get(place, 0) + parameter.numel() * parameter.element_size()
    return found
