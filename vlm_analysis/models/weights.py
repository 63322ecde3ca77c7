"""Weights from a checkpoint's safetensors into memory, each read once and in place, or spread over devices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from vlm_analysis.errors import ModelError
from vlm_analysis.models.offload import ALIGNMENT, align_offloaded
from vlm_analysis.models.source import Source, parent_renamings
from vlm_analysis.models.spread import Spread, spread_over

OnWeight = Callable[[int, int], None]
_BAR = "Loading weights"  # what transformers calls its progress bar


@contextmanager
def _told(on_weight: OnWeight) -> Iterator[None]:
    """Inside, each weight that transformers reads is told in place of its progress bar."""

    def bar(make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("desc") != _BAR or not args or not hasattr(args[0], "__len__"):
            return make(*args, **kwargs)
        return told(args[0])

    def told(weights: Any) -> Iterator[Any]:
        for done, weight in enumerate(weights):
            on_weight(done, len(weights))
            yield weight

    before = logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def load_weights(source: Source, dtype: str, spread: Spread | None, on_weight: OnWeight) -> Any:
    """Return the model of a source with its weights, on the CPU or spread.

    Args:
        source: the checkpoint.
        dtype: the precision, such as "float32".
        spread: where the weights go; None leaves them on the CPU.
        on_weight: called with (done, total) before each weight; raising `Cancelled` in it stops the work.

    Raises:
        ModelError: weights are missing, are too many, or have other shapes than the configuration says.
    """
    with _told(on_weight):
        return _whole(source, dtype, spread)


def _whole(source: Source, dtype: str, spread: Spread | None) -> Any:
    model, info = _read_weights(source, dtype, spread)
    if info["missing_keys"] and source.has_own_class and (renamings := parent_renamings(type(model))):
        del model
        model, info = _read_weights(source, dtype, spread, key_mapping=renamings)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"The checkpoint is incomplete: {len(missing)} weights are missing, first {missing[0]!r}. "
            "They would be random. Download or save it again."
        )
    surplus = sorted(key for key in info["unexpected_keys"] if re.search(r"\.layers\.\d+\.", key))
    if surplus:
        raise ModelError(
            f"The weights do not fit the configuration: it leaves out {len(surplus)} weights of layers, first {surplus[0]!r}. "
            "The layer count in config.json is too small; fix it or download the checkpoint again."
        )
    if info["mismatched_keys"]:
        raise ModelError(
            f"The weights do not fit the configuration: {sorted(info['mismatched_keys'])[0]}. Download it again."
        )
    return model


def _read_weights(source: Source, dtype: str, spread: Spread | None, **more: Any) -> tuple[Any, dict[str, Any]]:
    if source.has_own_class:
        more["config"] = source.config
    how = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "output_loading_info": True,
        **source.options,
        **more,
    }

    def read(**where: Any) -> tuple[Any, dict[str, Any]]:
        model, info = AutoModelForImageTextToText.from_pretrained(source.where, **how, **where)
        return model, info

    return read() if spread is None else spread_over(spread, read)


def aligned(model: Any) -> Any:
    """Return the model with every weight aligned in memory; the alignment of weights read from a file depends on the file.

    On a CPU alignment decides which instructions multiply matrices, and so the last bits of the logits: two aligned models with equal
    weights have equal logits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
    align_offloaded(model)
    return model
