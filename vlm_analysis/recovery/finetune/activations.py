"""How much a prompt keeps in memory for its gradients, measured without keeping it; and how to keep less."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vlm_analysis.models.layers import find_decoder_layers


def kept_bytes(view: nn.Module, run: Callable[[], object]) -> int:
    """Return the bytes that the passes of `run` would keep for gradients, parameters and buffers aside; nothing is kept meanwhile.

    What two operations keep counts twice.
    """
    own = {tensor.data_ptr() for tensor in (*view.parameters(), *view.buffers())}
    total = 0

    def count(tensor: torch.Tensor) -> None:
        nonlocal total
        if tensor.data_ptr() not in own:
            total += tensor.numel() * tensor.element_size()

    def refuse(_: Any) -> torch.Tensor:
        raise RuntimeError("nothing was kept")

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, refuse):
        run()
    return total


def recomputed_bytes(view: nn.Module, kept: int, n_tokens: int) -> int:
    """Return what a prompt of so many tokens keeps once `compute_again` was called: what enters each layer, and one layer's at a time."""
    layers: Any = find_decoder_layers(view)
    text = view.config.get_text_config(decoder=True)  # type: ignore[operator, union-attr]
    width = next(view.parameters()).element_size()
    return len(layers) * n_tokens * text.hidden_size * width + kept // len(layers)


def compute_again(view: nn.Module) -> None:
    """Make each decoder layer of a view keep its input only, and compute the rest again for the gradients.

    Layers stay out of training mode, in which some drop numbers; so transformers' own switch is not used.
    """
    for layer in find_decoder_layers(view):
        vars(layer)["forward"] = functools.partial(checkpoint, layer.forward, use_reentrant=False)
