"""Measure what an edit saves: dense and edited models timed in turn, prefill and decoding separately.

A prefill is one forward pass with a cache. Decoding is timed inside `generate`, from the first token to the last, including the work of
`generate` itself, which dropping layers does not save. Layers are timed in separate passes, as their clocks slow a pass down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from vlm_analysis.edits.apply import apply_edit, why_not
from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.cost import MOST_ROUNDS, ROUNDS, Cost
from vlm_analysis.evaluation.flops import EncoderShape, Shape, encoder_flops, prefill_flops
from vlm_analysis.evaluation.run.latency import layer_clock, moment, time_prefill, timed_batches
from vlm_analysis.evaluation.run.shapes import EncoderWatch, cache_bytes, shape_of
from vlm_analysis.models.decoding import plain_greedy
from vlm_analysis.models.fingerprint import plain_tensors
from vlm_analysis.models.inputs import pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.offload import each_weight
from vlm_analysis.models.refused import naming
from vlm_analysis.models.tower import layers_of_tower
from vlm_analysis.progress import Progress, no_progress, stop_if_asked
from vlm_analysis.prompts.prompts import Prompt

LAYER_ROUNDS = 3  # number of rounds in which the layers are timed too
SLOW_S = 0.1  # a slower pass can be stopped before every layer; the check takes microseconds, which would distort shorter passes
_NOT_CLOCKED = np.zeros(0)


def measure_cost(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    edit: Edit,
    *,
    rounds: int = ROUNDS,
    new_tokens: int = 32,
    on_progress: Progress | None = None,
) -> Cost:
    """Time the dense model and the edited one (see `measure_costs`)."""
    return measure_costs(loaded, prompts, [edit], rounds=rounds, new_tokens=new_tokens, on_progress=on_progress)[0]


def measure_costs(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    edits: Sequence[Edit],
    *,
    rounds: int = ROUNDS,
    new_tokens: int = 32,
    most_s: float = inf,
    on_partial: Callable[[list[Cost]], None] | None = None,
    on_progress: Progress | None = None,
) -> list[Cost]:
    """Return the Cost of each edit; all share the dense times.

    On every prompt the models take turns, and another one starts each time: with one edit dense, edited, edited, dense. The first
    round warms up and does not count. Up to `latency.MOST_PROMPTS` prompts are taken evenly from `prompts`, each run alone. Other
    work on the machine distorts the times.

    Args:
        loaded: the dense model.
        prompts: the prompts to run.
        edits: the edits to compare with the dense model.
        rounds: number of timed runs of every prompt.
        new_tokens: tokens written for each prompt, without an end token.
        most_s: no round begins later than so many seconds after the first one that counts.
        on_partial: called after each round with the Costs of the rounds so far.
        on_progress: called before each pass; raising `Cancelled` in it stops the work. `stop_if_asked` is called between two tokens,
            and before every layer while warming up and where a prefill then took `SLOW_S` or more.

    Raises:
        EvaluationError: no prompt, no or more than 1000 rounds or fewer than two tokens, or a model that stops writing earlier.
        EditError: an edit that does not fit the model.
        PromptError: the model can take none of the prompts that were chosen; others are set aside (`Cost.set_aside`).
    """
    if not prompts or not 1 <= rounds <= MOST_ROUNDS or new_tokens < 2:
        got = f"{len(prompts)}, {rounds} and {new_tokens}"
        raise EvaluationError(
            f"Measuring cost failed: expected a prompt, 1 to {MOST_ROUNDS} rounds and two new tokens at least, got {got}. Ask for so many."
        )
    models = [loaded.model, *(apply_edit(loaded.model, edit) for edit in edits)]
    batches, set_aside = timed_batches(loaded, prompts, new_tokens)
    weights = [count_weights(model) for model in models]
    watch, shape = EncoderWatch(loaded.model), shape_of(loaded.model, batches)
    with watch.watching():
        caches = [cache_bytes(loaded.model, batches)]
    caches += [cache_bytes(model, batches) for model in models[1:]]
    encoder = None if caches[0] is None else watch.mean(len(batches))  # without a cache not all batches were run
    about: dict[str, Any] = {
        "model": loaded.info,
        "device": str(loaded.device),
        "threads": torch.get_num_threads(),
        "n_prompts": len(batches),
        "prompt_tokens": float(np.mean([batch["input_ids"].shape[1] for batch in batches])),
        "new_tokens": new_tokens,
        "set_aside": set_aside,
    }
    costs = list[Cost]()
    with naming([str(prompt.id) for prompt in prompts], loaded.name):
        for times_s, shares in _rounds(loaded, models, batches, rounds, new_tokens, most_s, on_progress or no_progress):
            about |= {"layer_shares": shares[:, : loaded.n_layers], "encoder_shares": shares[0, loaded.n_layers :]}
            costs = _costs(edits, times_s, weights, caches, (shape, encoder), **about)
            if on_partial is not None:
                on_partial(costs)
    return costs


def _costs(
    edits: Sequence[Edit],
    times_s: np.ndarray,
    weights: Sequence[tuple[int, int]],
    caches: Sequence[int | None],
    shapes: tuple[Shape | None, EncoderShape | None],
    **about: Any,
) -> list[Cost]:
    """Return the Cost of each edit from the seconds (2, models, rounds, prompts), weights and caches of all models, the dense one first."""
    shape, encoder = shapes
    prefill_ms, tokens_per_s = 1e3 * times_s[0].mean(axis=-1), 1 / times_s[1].mean(axis=-1)
    return [
        Cost(
            edit=edit,
            n_parameters=(weights[0][0], weights[index][0]),
            n_bytes=(weights[0][1], weights[index][1]),
            prefill_ms=prefill_ms[[0, index]],
            tokens_per_s=tokens_per_s[[0, index]],
            prefill_flops=None if shape is None else prefill_flops(about["model"], edit, shape),
            encoder_flops=None if encoder is None else encoder_flops(about["model"], edit, encoder),
            cache_bytes=_pair(caches[0], caches[index]),
            **about,
        )
        for index, edit in enumerate(edits, start=1)
    ]


def _pair(dense: int | None, edited: int | None) -> tuple[int, int] | None:
    return None if dense is None or edited is None else (dense, edited)


def budget_masks(loaded: LoadedModel, edit: Edit, points: int = 5) -> list[Edit]:
    """Return `edit` and masks up to half of the layers in `points` even steps, by budget, without those that cannot be applied.

    Each drops the first layers of one order: those of `edit`, then the others that may go, the last first (our choice: layers of one
    model cost nearly the same).
    """
    locked = loaded.locks.reasons
    order = [*edit.dropped, *(layer for layer in reversed(edit.kept) if layer not in locked)]
    most = max(1, min(loaded.n_layers // 2, len(order)))
    budgets = {max(1, round((step + 1) * most / points)) for step in range(points)} - {edit.budget}
    others = [PruneMask(loaded.n_layers, order[:budget]) for budget in budgets if budget <= len(order)]
    return sorted([edit, *(other for other in others if not why_not(loaded.model, other))], key=lambda one: one.budget)


def count_weights(model: Any) -> tuple[int, int]:
    """Return the number of parameters and of bytes in a checkpoint of the model; shared weights count once."""
    state, own = model.state_dict(), dict(each_weight(model))
    parameters = sum(state.get(name, parameter).numel() for name, parameter in own.items())
    sizes: dict[str | int, int] = {}
    for name, tensor in state.items():
        for plain in plain_tensors(tensor) if torch.is_tensor(tensor) else ():
            if plain.device.type != "meta" or name in own:  # what is on disk has no address
                sizes[name if plain.device.type == "meta" else plain.data_ptr()] = plain.numel() * plain.element_size()
    return parameters, sum(sizes.values())


def _rounds(
    loaded: LoadedModel,
    models: Sequence[Any],
    batches: Sequence[dict[str, torch.Tensor]],
    rounds: int,
    new_tokens: int,
    most_s: float,
    progress: Progress,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield after each round the seconds of a prefill and of a token so far (2, models, rounds so far, prompts), and each dense layer's
    shares of them (2, n_layers + n_tower), those of the vision encoder last."""
    times_s = np.zeros((2, len(models), rounds + 1, len(batches)))  # the first round warms up
    shares, done, began = [], 0, inf
    total = len(batches) * ((rounds + 1) * len(models) + min(rounds, LAYER_ROUNDS))
    for turn in range(rounds + 1):
        message = f"round {turn} of {rounds}" if turn else "warming up"
        slow = [turn == 0 or bool(times_s[0, which, 0].max() >= SLOW_S) for which in range(len(models))]
        if turn == 1:
            began = time.monotonic()
        for index, batch in enumerate(batches):
            for position in range(len(models)):
                which = (turn + index + position) % len(models)
                progress(done, total, message)
                with _stoppable(models[which], slow[which]):
                    times_s[:, which, turn, index] = (
                        time_prefill(loaded, models[which], batch, use_cache=True),
                        _time_decode(loaded, models[which], batch, new_tokens, _NOT_CLOCKED)[0],
                    )
                done += 1
            if 1 <= turn <= LAYER_ROUNDS:
                progress(done, total, f"{message}, timing layers")
                with _stoppable(loaded.model, slow[0]):
                    shares.append(_layer_shares(loaded, batch, new_tokens))
                done += 1
        if turn:
            yield times_s[:, :, 1 : turn + 1], np.median(shares, axis=0)
        if time.monotonic() - began > most_s:
            return


def _stoppable(model: Any, slow: bool) -> AbstractContextManager[None]:
    return interruptible(model) if slow else nullcontext()


def _layer_shares(loaded: LoadedModel, batch: dict[str, torch.Tensor], new_tokens: int) -> np.ndarray:
    """Return the share (2, n_layers + n_tower) of a dense prefill and of a dense token's time that each layer takes.

    Those of the vision encoder stand last; it does not run for a token.
    """
    tower = layers_of_tower(loaded.model, find_decoder_layers(loaded.model))
    with layer_clock(loaded) as seconds:
        with layer_clock(loaded, tower) as encoder_s:
            total_s = time_prefill(loaded, loaded.model, batch, use_cache=True)
        prefill = np.concatenate([seconds, encoder_s]) / total_s
        token_s, layer_s = _time_decode(loaded, loaded.model, batch, new_tokens, seconds)
    return np.stack([prefill, np.concatenate([layer_s / token_s, np.zeros(len(tower))])])


class _Watch(StoppingCriteria):
    """Records the time of the first and the last token, with the layers' time until then; never stops the decoding."""

    def __init__(self, device: torch.device, new_tokens: int, seconds: np.ndarray) -> None:
        self.n_tokens = 0
        self.marks: list[tuple[float, np.ndarray]] = []
        self._device, self._ends, self._seconds = device, (1, new_tokens), seconds

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        stop_if_asked()
        self.n_tokens += 1
        if self.n_tokens in self._ends:
            self.marks.append((moment(self._device), self._seconds.copy()))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def _time_decode(
    loaded: LoadedModel, model: Any, batch: dict[str, torch.Tensor], new_tokens: int, seconds: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the seconds of one token after the first, and the layers' part of it, from the running sum `seconds`."""
    watch = _Watch(loaded.device, new_tokens, seconds)
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}  # the end token is never chosen
    with plain_greedy(model):
        model.generate(
            **batch,
            **length,
            do_sample=False,
            pad_token_id=pad_token(loaded),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    if len(watch.marks) < 2:
        raise EvaluationError(
            f"Measuring cost failed: expected {new_tokens} new tokens of {loaded.name}, got {watch.n_tokens}. Ask for fewer."
        )
    (first_s, first), (last_s, last) = watch.marks
    return (last_s - first_s) / (new_tokens - 1), (last - first) / (new_tokens - 1)
