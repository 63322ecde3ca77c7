"""What a model's prefill costs besides time: the shapes that FLOPs follow from, and the bytes of its cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vlm_analysis.evaluation.flops import EncoderShape, Shape
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.layers import find_decoder_layers, text_config
from vlm_analysis.models.tower import given_to, layers_of_tower
from vlm_analysis.models.vision import vision_tokens


def attention_of(model: Any) -> tuple[int, int]:
    """Return heads times their size, and how many parameters make the keys and values of a layer."""
    text = text_config(model)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return text.num_attention_heads * size, 2 * text.hidden_size * kv_heads * size


def shape_of(model: Any, batches: Sequence[Mapping[str, torch.Tensor]]) -> Shape | None:
    """Return the mean shape of prompts, each its own batch; None where the configuration does not tell the size of attention."""
    try:
        size, kv_parameters = attention_of(model)
    except (AttributeError, TypeError):  # some classes have no such numbers, or one for each layer
        return None
    seen = [vision_tokens(model.config, batch) for batch in batches]
    n_vision = sum(0 if one is None else int(one.sum()) for one in seen) / len(batches)
    n_tokens = sum(batch["input_ids"].shape[1] for batch in batches) / len(batches)
    return Shape(n_vision, n_tokens - n_vision, size, kv_parameters)


class EncoderWatch:
    """Reads how many tokens run through each layer of a model's vision encoder, and how many of them each sees."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = layers_of_tower(model, find_decoder_layers(model))
        self._sums, self._is_known = np.zeros((2, len(self._layers))), bool(self._layers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook every layer; the hooks are removed whatever happens."""
        handles = [
            layer.register_forward_pre_hook(self._note(index, layer), with_kwargs=True)
            for index, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def mean(self, n_prompts: int) -> EncoderShape | None:
        """Return the shape of the mean prompt of so many that were run; None where a class runs its layers in another way."""
        tokens, attention = (self._sums / n_prompts).tolist()
        return EncoderShape(tuple(tokens), tuple(attention)) if self._is_known else None

    def _note(self, index: int, layer: nn.Module) -> Any:
        attends = any("att" in name.lower() for name, _ in layer.named_modules())

        def before(module: Any, args: Any, kwargs: Any) -> None:
            state = given_to(args, kwargs)
            pairs = _pairs(tuple(state.shape), kwargs.get("cu_seqlens")) if torch.is_tensor(state) else None
            if pairs is None:
                self._is_known = False
                return
            size = state.shape[-1]
            self._sums[:, index] += state.numel() / size, size * pairs if attends else 0

        return before


def _pairs(shape: tuple[int, ...], ends: torch.Tensor | None) -> int | None:
    """Return the pairs of a query and a key in a state of (tokens, size) or (pictures, tokens, size); None for another one.

    Args:
        shape: of the state.
        ends: of the stretches of tokens that see each other, from 0 on; None where all tokens of a picture do.
    """
    if ends is not None and len(shape) in (2, 3):
        return int((ends.diff().long() ** 2).sum())
    return shape[0] * shape[1] ** 2 if len(shape) == 3 else None


@torch.inference_mode()
def cache_bytes(model: Any, batches: Sequence[Mapping[str, torch.Tensor]]) -> int | None:
    """Return the bytes of the cache behind a prefill, as a mean over prompts; None where the model hands out none."""
    total = 0
    for batch in batches:
        with interruptible(model):
            layers = getattr(model(**batch, use_cache=True).past_key_values, "layers", None)
        if layers is None:
            return None
        total += sum(tensor.numel() * tensor.element_size() for layer in layers for tensor in _tensors(vars(layer)))
    return round(total / len(batches))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
