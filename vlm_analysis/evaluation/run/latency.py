"""Measured time of each decoder layer on a prompt, for budgets in time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from vlm_analysis.errors import PromptError
from vlm_analysis.models.decoding import room
from vlm_analysis.models.inputs import collate, encode, pad_token, takes_logits_to_keep
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import naming, none_left
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt

MOST_PROMPTS = 8


@dataclass(frozen=True, eq=False)
class Latency:
    """The time of one forward pass over a prompt (prefill), batch 1.

    Attributes:
        layer_ms: (n_layers,) float64, median over prompts and rounds of the time of one layer; 0 for a layer that did not run.
        total_ms: median time of the whole pass, vision tower and head included.
        n_prompts: number of timed prompts.
        device: the device of the model.
        set_aside: the prompts among those taken that the model refused, by id, each with the reason.
    """

    layer_ms: np.ndarray
    total_ms: float
    n_prompts: int
    device: str
    set_aside: dict[str, str] = field(default_factory=dict, kw_only=True)


def measure_latency(
    loaded: LoadedModel, prompts: Sequence[Prompt], *, rounds: int = 5, on_progress: Progress | None = None
) -> Latency:
    """Time every decoder layer on up to `MOST_PROMPTS` prompts, taken evenly from `prompts`.

    The first round warms up and does not count. A layer's time is taken between its start and its end, after the device has finished.
    Other work on the machine distorts the times: compare layers of one measurement, not of two.

    Raises:
        PromptError: the model can take none of these prompts; others are set aside (`Latency.set_aside`).
    """
    progress = on_progress or no_progress
    batches, set_aside = timed_batches(loaded, prompts)
    layers, totals = [], []
    for turn in range(rounds + 1):
        for index, batch in enumerate(batches):
            progress(turn * len(batches) + index, (rounds + 1) * len(batches), "timing layers")
            with layer_clock(loaded) as seconds, interruptible(loaded.model):
                total_s = time_prefill(loaded, loaded.model, batch, use_cache=False)
            if turn:
                layers.append(seconds)
                totals.append(total_s)
    return Latency(
        np.median(layers, axis=0) * 1e3,
        float(np.median(totals)) * 1e3,
        len(batches),
        str(loaded.device),
        set_aside=set_aside,
    )


def timed_batches(
    loaded: LoadedModel, prompts: Sequence[Prompt], new_tokens: int = 0
) -> tuple[list[dict[str, torch.Tensor]], dict[str, str]]:
    """Return up to `MOST_PROMPTS` of the prompts, taken evenly, each as its own batch; and those among them that the model refuses, by id,
    with the reason.

    Args:
        new_tokens: how many tokens are to be written after each.

    Raises:
        PromptError: the model refuses all of them.
    """
    count = min(MOST_PROMPTS, len(prompts))
    sample = [prompts[index * len(prompts) // count] for index in range(count)]
    taken, set_aside = list[dict[str, torch.Tensor]](), dict[str, str]()
    for number, prompt in enumerate(sample):
        try:
            encoded = encode(loaded, prompt)
            if room(loaded, encoded.n_tokens, new_tokens) < new_tokens:
                raise PromptError(
                    f"Prompt {prompt.id!r} cannot be timed: expected room for {new_tokens} new tokens behind its {encoded.n_tokens:,}, got "
                    f"a context of {loaded.context_length:,}. Shorten it, or take it out."
                )
            batch = collate([encoded], pad_token(loaded))
            with naming([encoded.id], loaded.name), interruptible(loaded.model):
                time_prefill(loaded, loaded.model, batch, use_cache=True)
            taken.append(batch)
        except PromptError as error:
            set_aside[str(prompt.id or number + 1)] = str(error)
    if not taken:
        raise none_left(loaded.name, set_aside)
    return taken, set_aside


@torch.inference_mode()
def time_prefill(loaded: LoadedModel, model: Any, batch: dict[str, torch.Tensor], *, use_cache: bool) -> float:
    """Return the seconds of one forward pass, logits of the last position only where the model can do that."""
    keep = {"logits_to_keep": 1} if takes_logits_to_keep(model) else {}
    start = moment(loaded.device)
    model(**batch, **keep, use_cache=use_cache)
    return moment(loaded.device) - start


def moment(device: torch.device) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def layer_clock(loaded: LoadedModel, layers: Sequence[nn.Module] | None = None) -> Iterator[np.ndarray]:
    """Yield a running sum of the (n_layers,) seconds that each layer of the dense model takes; all hooks are removed at the end.

    Args:
        loaded: the dense model.
        layers: that are timed; None for the decoder layers.
    """
    timed = list(find_decoder_layers(loaded.model) if layers is None else layers)
    seconds, handles, start = np.zeros(len(timed)), [], [0.0]

    def before(*_: Any) -> None:
        start[0] = moment(loaded.device)

    def after(index: int) -> Any:
        def note(*_: Any) -> None:
            seconds[index] += moment(loaded.device) - start[0]

        return note

    try:
        for index, layer in enumerate(timed):
            handles.append(layer.register_forward_pre_hook(before))
            handles.append(layer.register_forward_hook(after(index)))
        yield seconds
    finally:
        for handle in handles:
            handle.remove()
