"""Recording: one forward pass per prompt, with a hook on every decoder layer's true input and raw output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vlm_analysis.errors import RecordingError
from vlm_analysis.inputs import Encoded, answer_tokens, batches, collate, encode, pad_token, takes_logits_to_keep
from vlm_analysis.layers import find_decoder_layers
from vlm_analysis.models import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts import Prompt, PromptSet
from vlm_analysis.measures import TOKEN_GROUPS
from vlm_analysis.recording import Recording
from vlm_analysis.similarity import group_means, stream_cosine, token_cosine, unit_vectors

CHUNK = 16  # prompts whose tensors are held at once


class LayerStreams:
    """The unit vectors of one batch: what enters each decoder layer and what leaves it raw."""

    def __init__(self, n_layers: int) -> None:
        self.inputs: list[torch.Tensor | None] = [None] * n_layers
        self.cosines: list[torch.Tensor | None] = [None] * n_layers
        self.last_output: torch.Tensor | None = None

    def note_input(self, index: int, hidden_states: torch.Tensor) -> None:
        self.inputs[index] = unit_vectors(hidden_states)

    def note_output(self, index: int, hidden_states: torch.Tensor) -> None:
        layer_input, layer_output = self.inputs[index], unit_vectors(hidden_states)
        assert layer_input is not None
        self.cosines[index] = token_cosine(layer_input.to(layer_output.device), layer_output)
        if index == len(self.inputs) - 1:
            self.last_output = layer_output


@contextmanager
def watched_layers(model: torch.nn.Module) -> Iterator[LayerStreams]:
    """Hook every decoder layer of `model` for the length of the block; the hooks are removed whatever happens."""
    layers = find_decoder_layers(model)
    streams = LayerStreams(len(layers))
    handles = []

    def before(index: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            streams.note_input(index, args[0] if args else kwargs["hidden_states"])

        return hook

    def after(index: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            streams.note_output(index, output[0] if isinstance(output, tuple) else output)

        return hook

    try:
        for index, layer in enumerate(layers):
            handles.append(layer.register_forward_pre_hook(before(index), with_kwargs=True))
            handles.append(layer.register_forward_hook(after(index)))
        yield streams
    finally:
        for handle in handles:
            handle.remove()


def record(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    batch_size: int = 1,
    on_progress: Progress | None = None,
) -> Recording:
    """Run every prompt once and return how much each decoder layer changes its input.

    A reference answer is appended to its prompt, so that the answer tokens are seen in the same pass. Hidden states are
    kept for one batch only.

    Args:
        loaded: the model; a pruned view can be recorded by putting it into a LoadedModel.
        prompts: a PromptSet, or any sequence of prompts.
        batch_size: prompts of like length run together; padding belongs to no token group.
        on_progress: called after each batch; raising `Cancelled` in it stops the work and removes the hooks.

    Raises:
        PromptError: no prompts, or a prompt that this model cannot be asked.
        RecordingError: the model gave no hidden states.
    """
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    report = on_progress or no_progress
    n_prompts, n_layers, n_groups = len(prompt_set), loaded.n_layers, len(TOKEN_GROUPS)
    layer_cosine = np.full((n_prompts, n_layers, n_groups), np.nan)
    span_cosine = np.full((n_prompts, n_groups, n_layers + 1, n_layers + 1), np.nan)
    token_counts = np.zeros((n_prompts, n_groups), dtype=np.int64)
    nonfinite = np.zeros((n_prompts, n_layers), dtype=np.int64)
    report(0, n_prompts, "recording")
    for first in range(0, n_prompts, CHUNK):
        chunk = range(first, min(first + CHUNK, n_prompts))
        encoded = [_encoded(loaded, prompt_set[index], report, first, n_prompts) for index in chunk]
        done = first
        for indices in batches(encoded, batch_size):
            streams = _run(loaded, [encoded[index] for index in indices])
            for row, place in enumerate(indices):
                item, index = encoded[place], first + place
                cosines, spans = _prompt_tensors(streams, row, item.n_tokens)
                groups = item.group_mask()
                layer_cosine[index] = group_means(cosines, groups).T
                span_cosine[index] = _unit_diagonal(group_means(spans, groups))
                token_counts[index] = groups.sum(axis=1)
                nonfinite[index] = (~torch.isfinite(cosines)).sum(dim=0).cpu().numpy()
            done += len(indices)
            report(done, n_prompts, "recording")
    return Recording(
        model=loaded.info,
        prompts=prompt_set.fingerprint,
        prompt_ids=tuple(str(prompt.id) for prompt in prompt_set),
        domains=tuple(prompt.domain for prompt in prompt_set),
        layer_cosine=layer_cosine,
        span_cosine=span_cosine,
        token_counts=token_counts,
        nonfinite=nonfinite,
        settings={"max_vision_tokens": loaded.max_vision_tokens, "batch_size": batch_size},
    )


def _encoded(loaded: LoadedModel, prompt: Prompt, report: Progress, done: int, total: int) -> Encoded:
    report(done, total, "recording")
    return encode(loaded, prompt, answer_tokens(loaded, prompt.answer))


@torch.inference_mode()
def _run(loaded: LoadedModel, items: list[Encoded]) -> LayerStreams:
    with watched_layers(loaded.model) as streams:
        keep = {"logits_to_keep": 1} if takes_logits_to_keep(loaded.model) else {}
        loaded.model(**collate(items, pad_token(loaded)), **keep, use_cache=False)
    if all(cosine is None for cosine in streams.cosines):
        raise RecordingError(
            f"{loaded.name} ran none of its {loaded.n_layers} decoder layers: nothing could be recorded."
        )
    return streams


def _prompt_tensors(streams: LayerStreams, row: int, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a prompt's (tokens, n_layers) cosines and (tokens, n_layers + 1, n_layers + 1) span cosines; NaN for layers not run."""
    seen = next(cosine for cosine in streams.cosines if cosine is not None)
    missing = torch.full((n_tokens,), torch.nan, device=seen.device)
    cosines = [missing if cosine is None else cosine[row, :n_tokens].to(seen.device) for cosine in streams.cosines]
    ends = [*streams.inputs, streams.last_output]
    width = next(unit for unit in ends if unit is not None).shape[-1]
    lost = torch.full((n_tokens, width), torch.nan, device=seen.device)
    units = [lost if unit is None else unit[row, :n_tokens].to(seen.device) for unit in ends]
    return torch.stack(cosines, dim=1), stream_cosine(torch.stack(units, dim=1))


def _unit_diagonal(spans: np.ndarray) -> np.ndarray:
    """Set the diagonal of (n_groups, n, n) to exactly 1 where the group has tokens: a stream is equal to itself."""
    index = np.arange(spans.shape[1])
    diagonal = spans[:, index, index]
    spans[:, index, index] = np.where(np.isnan(diagonal), diagonal, 1.0)
    return spans
