"""What a model's prefill costs besides time: the shape that FLOPs follow from, and the bytes of its cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from vlm_analysis.evaluation.flops import Shape
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.layers import text_config
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
