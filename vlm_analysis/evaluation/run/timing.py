"""Measuring what an edit saves: dense and edited models timed in turn, the prompt's pass and the writing apart.

A prefill is one forward pass with its cache. Writing is timed inside `generate`, from the first token to the last, with all that
`generate` itself does between them, which no layer saves. Layers are timed in passes of their own, as their clocks slow a pass down.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from vlm_analysis.edits.apply import apply_edit, why_not
from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.cost import MOST_ROUNDS, Cost
from vlm_analysis.evaluation.run.latency import layer_clock, moment, time_prefill, timed_batches
from vlm_analysis.models.decoding import plain_greedy
from vlm_analysis.models.inputs import pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel, plain_tensors
from vlm_analysis.progress import Progress, no_progress, stop_if_asked
from vlm_analysis.prompts.prompts import Prompt

LAYER_ROUNDS = 3  # rounds after which the layers are timed too
SLOW_S = 0.1  # from here on a pass can be stopped before every layer; asking there takes microseconds, which shorter passes are spared
_NOT_CLOCKED = np.zeros(0)


def measure_cost(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    edit: Edit,
    *,
    rounds: int = 7,
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
    rounds: int = 7,
    new_tokens: int = 32,
    on_progress: Progress | None = None,
) -> list[Cost]:
    """Return the Cost of each edit; all share the dense times.

    On every prompt the models take turns, and each time the next one is first: with one edit dense, edited, edited, dense. The first
    round warms up and does not count. Up to `latency.MOST_PROMPTS` prompts are taken evenly out of those given, each alone. Other
    work on the machine disturbs it.

    Args:
        loaded: the dense model.
        prompts: what is asked.
        edits: what is done to the model.
        rounds: how often every prompt is run.
        new_tokens: tokens written for each prompt, the end token not among them.
        on_progress: called before each pass; raising `Cancelled` in it stops the work. `stop_if_asked` is asked between two tokens,
            and before every layer while warming up and where a prefill then took `SLOW_S` or more.

    Raises:
        EvaluationError: no prompt, no or more than 1000 rounds or fewer than two tokens, or a model that stops writing earlier.
        EditError: an edit that does not fit the model.
        PromptError: a prompt that this model cannot be asked.
    """
    if not prompts or not 1 <= rounds <= MOST_ROUNDS or new_tokens < 2:
        got = f"{len(prompts)}, {rounds} and {new_tokens}"
        raise EvaluationError(
            f"Measuring cost failed: expected a prompt, 1 to {MOST_ROUNDS} rounds and two new tokens at least, got {got}. Ask for so many."
        )
    models = [loaded.model, *(apply_edit(loaded.model, edit) for edit in edits)]
    batches = timed_batches(loaded, prompts)
    took, shares = _in_turn(loaded, models, batches, rounds, new_tokens, on_progress or no_progress)
    prefill_ms, tokens_per_s = 1e3 * took[0].mean(axis=-1), 1 / took[1].mean(axis=-1)
    weights = [count_weights(model) for model in models]
    return [
        Cost(
            edit=edit,
            model=loaded.info,
            device=str(loaded.device),
            threads=torch.get_num_threads(),
            n_prompts=len(batches),
            prompt_tokens=float(np.mean([batch["input_ids"].shape[1] for batch in batches])),
            new_tokens=new_tokens,
            n_parameters=(weights[0][0], weights[place][0]),
            n_bytes=(weights[0][1], weights[place][1]),
            prefill_ms=prefill_ms[[0, place]],
            tokens_per_s=tokens_per_s[[0, place]],
            layer_shares=shares,
        )
        for place, edit in enumerate(edits, start=1)
    ]


def budget_masks(loaded: LoadedModel, edit: Edit, points: int = 5) -> list[Edit]:
    """Return `edit` and others up to half of the layers in `points` even steps, by budget; what cannot be applied is left out.

    Each drops the first layers of one order: those of `edit`, then the others that may go, the last first (our choice: layers of one
    model cost nearly alike).
    """
    kept = loaded.locks.reasons
    order = [*edit.dropped, *(layer for layer in reversed(edit.kept) if layer not in kept)]
    most = max(1, min(loaded.n_layers // 2, len(order)))
    budgets = {max(1, round((step + 1) * most / points)) for step in range(points)} - {edit.budget}
    others = [PruneMask(loaded.n_layers, order[:budget]) for budget in budgets if budget <= len(order)]
    return sorted([edit, *(other for other in others if not why_not(loaded.model, other))], key=lambda one: one.budget)


def count_weights(model: Any) -> tuple[int, int]:
    """Return the parameters and the bytes of what a checkpoint of the model holds, shared weights counted once."""
    state = model.state_dict()
    parameters = sum(state.get(name, parameter).numel() for name, parameter in model.named_parameters())
    tensors = (plain for tensor in state.values() if torch.is_tensor(tensor) for plain in plain_tensors(tensor))
    return parameters, sum({plain.data_ptr(): plain.numel() * plain.element_size() for plain in tensors}.values())


def _in_turn(
    loaded: LoadedModel,
    models: Sequence[Any],
    batches: Sequence[dict[str, torch.Tensor]],
    rounds: int,
    new_tokens: int,
    report: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds of a prefill and of a token (2, models, rounds, prompts), and the dense layers' shares of them (2, n_layers)."""
    took = np.zeros((2, len(models), rounds + 1, len(batches)))  # the first round warms up
    shares, done = [], 0
    total = len(batches) * ((rounds + 1) * len(models) + min(rounds, LAYER_ROUNDS))
    for turn in range(rounds + 1):
        said = f"round {turn} of {rounds}" if turn else "warming up"
        slow = [turn == 0 or bool(took[0, which, 0].max() >= SLOW_S) for which in range(len(models))]
        for place, batch in enumerate(batches):
            for position in range(len(models)):
                which = (turn + place + position) % len(models)
                report(done, total, said)
                with _stoppable(models[which], slow[which]):
                    took[:, which, turn, place] = (
                        time_prefill(loaded, models[which], batch, use_cache=True),
                        _time_decode(loaded, models[which], batch, new_tokens, _NOT_CLOCKED)[0],
                    )
                done += 1
            if 1 <= turn <= LAYER_ROUNDS:
                report(done, total, f"{said}, timing layers")
                with _stoppable(loaded.model, slow[0]):
                    shares.append(_layer_shares(loaded, batch, new_tokens))
                done += 1
    return took[:, :, 1:], np.median(shares, axis=0)


def _stoppable(model: Any, slow: bool) -> AbstractContextManager[None]:
    return interruptible(model) if slow else nullcontext()


def _layer_shares(loaded: LoadedModel, batch: dict[str, torch.Tensor], new_tokens: int) -> np.ndarray:
    """Return the share (2, n_layers) of a dense prefill and of a dense token's time that each layer takes."""
    with layer_clock(loaded) as spent:
        prefill = spent / time_prefill(loaded, loaded.model, batch, use_cache=True)
        token_s, layer_s = _time_decode(loaded, loaded.model, batch, new_tokens, spent)
    return np.stack([prefill, layer_s / token_s])


class _Watch(StoppingCriteria):
    """Notes when the first and the last token were written, with what the layers had taken until then; never stops the writing."""

    def __init__(self, device: torch.device, new_tokens: int, spent: np.ndarray) -> None:
        self.written = 0
        self.noted: list[tuple[float, np.ndarray]] = []
        self._device, self._ends, self._spent = device, (1, new_tokens), spent

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        stop_if_asked()
        self.written += 1
        if self.written in self._ends:
            self.noted.append((moment(self._device), self._spent.copy()))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def _time_decode(
    loaded: LoadedModel, model: Any, batch: dict[str, torch.Tensor], new_tokens: int, spent: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the seconds of one token after the first, and how much of them `spent`, a running count, grew by."""
    watch = _Watch(loaded.device, new_tokens, spent)
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}  # the end token is never chosen
    with plain_greedy(model):
        model.generate(
            **batch,
            **length,
            do_sample=False,
            pad_token_id=pad_token(loaded),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    if len(watch.noted) < 2:
        raise EvaluationError(
            f"Measuring cost failed: expected {new_tokens} new tokens of {loaded.name}, got {watch.written}. Ask for fewer."
        )
    (first_s, first), (last_s, last) = watch.noted
    return (last_s - first_s) / (new_tokens - 1), (last - first) / (new_tokens - 1)
