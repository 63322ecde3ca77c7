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
        tensor = self._own[name] if name in self._own else self._kept[name]
        return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

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


def value_of(module: nn.Module, name: str) -> torch.Tensor:
    """Return the numbers of a module's parameter or buffer, wherever they are kept.

    Raises:
        ModelError: they are nowhere.
    """
    tensor = getattr(module, name)
    if tensor.device.type != "meta":
        return tensor
    hook = hook_of(module)
    if hook is None or name not in hook.weights_map:
        raise ModelError(
            f"{type(module).__name__}.{name} cannot be read: expected numbers in memory or where accelerate keeps them, got none. Load the "
            "model whole."
        )
    return hook.weights_map[name]


def state_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors of a model's state, by name, those that are kept elsewhere read one at a time."""
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.device.type == "meta" and not hasattr(tensor, "__tensor_flatten__"):
            owner, _, inner = name.rpartition(".")
            tensor = value_of(model.get_submodule(owner), inner)
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


def bytes_by_place(model: nn.Module) -> dict[str, int]:
    """Return the bytes of a model's weights by where they are kept: "cuda:0", "cpu", "disk"; each shared tensor once."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    for parameter in model.parameters():
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        found.setdefault(str(parameter.device), 0)
        found[str(parameter.device)] += parameter.numel() * parameter.element_size()
    if (meta := found.pop("meta", None)) is not None:
        found[DISK] = meta
    return found
