"""Attention maps, read while a prompt runs and reduced at once: visual attention ratio and the tokens Short-LVLM calls important.

Maps exist only with eager attention, so the pass runs on a view of the model whose text configuration asks for it; the dense model
and its attention stay as they are. Heads are averaged; only prompt tokens count, never the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.edit import Edit
from vlm_analysis.models.layers import find_decoder_layers, text_config


def eager_view(model: nn.Module) -> Any:
    """Return a view of the whole model, sharing its weights, whose decoder uses eager attention."""
    view = apply_edit(model, Edit(len(find_decoder_layers(model))))
    text_config(view)._attn_implementation = "eager"
    return view


class AttentionMaps:
    """The maps of the last pass: (batch, tokens, tokens) float32 for each layer, queries × keys, or None where a layer has none."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = list(find_decoder_layers(model))
        self.maps: list[torch.Tensor | None] = [None] * len(self.layers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the direct children of every layer that return attention weights; the hooks are always removed."""
        self.maps = [None] * len(self.layers)
        handles = []

        def taker(index: int) -> Any:
            def take(module: Any, args: Any, output: Any) -> None:
                weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
                if torch.is_tensor(weights) and weights.ndim == 4 and weights.shape[2] == weights.shape[3]:
                    self.maps[index] = weights.float().mean(dim=1)

            return take

        try:
            for index, layer in enumerate(self.layers):
                handles += [child.register_forward_hook(taker(index)) for child in layer.children()]
            yield
        finally:
            for handle in handles:
                handle.remove()


def visual_attention(attention: torch.Tensor, vision: torch.Tensor, text: torch.Tensor) -> float:
    """Return the share of the attention of text queries that goes to vision keys, in [0, 1] (Skip-It?, arXiv:2509.25584).

    Args:
        attention: (tokens, tokens), queries × keys.
        vision, text: (tokens,) bool. NaN where one of them is empty.
    """
    if not bool(vision.any()) or not bool(text.any()):
        return float("nan")
    return float(attention[text][:, vision].double().sum(dim=1).mean())


def token_weights(attention: torch.Tensor, vision: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Return the (tokens,) float64 weights of Short-LVLM (arXiv:2507.23362); zero for tokens of neither kind.

    A vision token: mean of the attention it receives from vision tokens and from text tokens. A text token: mean of the attention it
    receives from text tokens and the attention it pays to vision tokens. "From" is averaged over the queries, "to" over the keys;
    a kind without tokens adds nothing.
    """
    weights = attention.new_zeros(len(attention), dtype=torch.float64)
    attention = attention.double()
    if bool(vision.any()):
        weights[vision] += attention[vision][:, vision].mean(dim=0) / 2
    if bool(text.any()):
        weights[text] += attention[text][:, text].mean(dim=0) / 2
    if bool(vision.any()) and bool(text.any()):
        weights[vision] += attention[text][:, vision].mean(dim=0) / 2
        weights[text] += attention[text][:, vision].mean(dim=1) / 2
    return weights


def important_tokens(weights: np.ndarray, share: float) -> np.ndarray:
    """Return the indices of the share of tokens with the largest weights, at least one; ties to the earlier token."""
    count = max(1, int(np.ceil(share * len(weights) - 1e-9)))
    return np.sort(np.argsort(-weights, kind="stable")[:count])
