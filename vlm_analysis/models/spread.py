"""Spread a model over GPUs, memory and disk by accelerate, where it is too large for one of them."""

from __future__ import annotations

import re
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from vlm_analysis.errors import ModelError, short
from vlm_analysis.models.memory import free_bytes
from vlm_analysis.models.offload import hook_of

AUTO = "auto"
T = TypeVar("T")
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMG]I?B)?", re.IGNORECASE)
_SHARE = 0.8  # of what is free on a device, at most so much of it is for weights; our choice


@dataclass(frozen=True)
class Spread:
    """Where the weights of a model go.

    Attributes:
        device_map: "auto", or a device for each module by its name.
        max_memory: with "auto" the most bytes by device: a GPU's number, or "cpu".
    """

    device_map: str | Mapping[str, str | int]
    max_memory: Mapping[str | int, int]

    def arguments(self, folder: str) -> dict[str, Any]:
        """Return the arguments of `from_pretrained`; what must be converted for the disk is written into `folder`."""
        arguments: dict[str, Any] = {"device_map": self.device_map, "offload_folder": folder}
        return arguments | ({"max_memory": dict(self.max_memory)} if self.device_map == AUTO else {})


def spread_of(
    device_map: str | Mapping[str, str | int] | None,
    max_memory: str | Mapping[Any, str | int] | None,
    device: str = AUTO,
) -> Spread | None:
    """Return the Spread of arguments of `load_model`; None where the model goes to one device.

    Raises:
        ModelError: they are no such arguments, or contradict each other.
    """
    if device_map is None:
        if max_memory is not None:
            raise ModelError(
                "max_memory bounds a model that is spread: expected device_map='auto' beside it, got none."
            )
        return None
    if device != AUTO:
        raise ModelError(
            f"The model cannot be spread: expected device 'auto' beside device_map, got {short(repr(device), 80)}. Leave one of them out."
        )
    if isinstance(device_map, Mapping):
        if max_memory is not None:
            raise ModelError("The device map says where each module goes: expected no max_memory beside it, got one.")
        return Spread(dict(device_map), {})
    if device_map != AUTO:
        raise ModelError(
            f"Unknown device map: expected 'auto' or a device for each module, got {short(repr(device_map), 80)}."
        )
    free: dict[str | int, int] = {"cpu": int(_SHARE * free_bytes())}
    free |= {number: int(_SHARE * free_bytes(f"cuda:{number}")) for number in range(torch.cuda.device_count())}
    return Spread(AUTO, free | {_place(name, free): size_of(value) for name, value in _bounds(max_memory).items()})


def _bounds(max_memory: str | Mapping[Any, str | int] | None) -> Mapping[Any, str | int]:
    """Return the bounds, of a text as "cpu=8GiB,cuda:0=20GiB" too."""
    if not isinstance(max_memory, str):
        return max_memory or {}
    pairs = [text.partition("=") for text in max_memory.split(",") if text.strip()]
    if odd := ["".join(pair) for pair in pairs if not pair[1]]:
        raise ModelError(
            f"No bound of memory: expected DEVICE=SIZE as in cpu=8GiB,cuda:0=20GiB, got {short(repr(odd[0].strip()), 80)}. Write it so."
        )
    bounds = {name.strip(): size for name, _, size in pairs}
    if not bounds or len(bounds) < len(pairs):
        raise ModelError(
            f"No bound of memory: expected each device once as in cpu=8GiB,cuda:0=20GiB, got {short(repr(max_memory), 80)}. Write it so."
        )
    return bounds


def _place(name: Any, known: Mapping[str | int, int]) -> str | int:
    """Return a device as accelerate names it: a GPU's number, or "cpu"."""
    text = str(name).removeprefix("cuda:")
    place: str | int = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
    if place not in known:
        words = ", ".join("cpu" if one == "cpu" else f"cuda:{one}" for one in known)
        raise ModelError(
            f"No such device in max_memory: expected {words}, got {short(repr(name), 80)}. Name one of them."
        )
    return place


def size_of(value: str | int) -> int:
    """Return a size as bytes.

    >>> size_of("8GiB"), size_of("1.5 MB"), size_of(100)
    (8589934592, 1500000, 100)

    Raises:
        ModelError: it is none.
    """
    found = (
        _SIZE.fullmatch(str(value).strip()) if isinstance(value, str | int) and not isinstance(value, bool) else None
    )
    if found is None:
        raise ModelError(f"No size of memory: expected one like '8GiB', got {short(repr(value), 80)}. Write it so.")
    return int(float(found[1]) * _UNITS[(found[2] or "").upper()])


def spread_over(spread: Spread, read: Callable[..., tuple[Any, T]]) -> tuple[Any, T]:
    """Return what `read`, given arguments of `from_pretrained`, returns: a model, and something else.

    What must be converted for the disk is in a temporary folder, which is deleted when the model is no more.
    """
    folder = tempfile.TemporaryDirectory(prefix="strata-offload-", ignore_cleanup_errors=True)
    try:
        model, other = read(**spread.arguments(folder.name))
    except BaseException:  # a request to stop too
        folder.cleanup()
        raise
    weakref.finalize(model, folder.cleanup)
    return model, other


def first_device(model: nn.Module) -> torch.device:
    """Return the device that computes a model's first weight, wherever that is kept."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.device.type != "meta":
                return parameter.device
            if (hook := hook_of(module)) is not None:
                return torch.device(hook.execution_device)
    return torch.device("cpu")
