"""Sweep: many masks on the same prompts in the time of a few.

What masks have in common is computed once: the prompts' inputs, the vision tower, and the first layers that masks keep alike. Masks
are walked in the order of their kept layers, so that each shares the longest start with the one before; at every place where a later
mask branches off, the raw output of the last common layer is kept. A mask then runs the model's own forward, in which the layers
before that place hand their input on and the last of them hands back what was kept. Whatever the model adds between layers (DeepStack)
it adds again, at the same places. Logits are taken at answer positions only.

Equal to evaluating each mask alone: to the last bit with the same batches. That the model's forward bears it is tried on the first
batch; where it does not (state passed beside the stream), nothing but the inputs is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vlm_analysis.evaluate import Prepared, answer_logits, answer_scores, check_reference, evaluation_of, prepare
from vlm_analysis.evaluation import Evaluation
from vlm_analysis.inputs import Encoded, batches
from vlm_analysis.layers import find_decoder_layers, first_beside_stream
from vlm_analysis.masks import PruneMask
from vlm_analysis.models import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts import Prompt, PromptSet
from vlm_analysis.prune import prune

MAX_BYTES = 1 << 30
OnPartial = Callable[[int, Evaluation], None]


def sweep(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    masks: Sequence[PruneMask],
    *,
    reference: Evaluation | None = None,
    batch_size: int = 8,
    max_bytes: int | None = None,
    on_partial: OnPartial | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Evaluation]:
    """Yield the Evaluation of every mask, in the order of `masks`, equal to what `evaluate` gives mask by mask.

    Args:
        loaded: the dense model.
        prompts: a PromptSet, or any sequence of prompts. One without an answer is scored on the dense model's own response.
        masks: equal ones are evaluated once.
        reference: the dense Evaluation on the same prompts; with its log-probabilities the dense model is not run again.
        batch_size: prompts of like length run together.
        max_bytes: bound on the states kept for sharing, 1 GiB by default; with less, more is computed again.
        on_partial: called after each batch with each mask's place and its Evaluation on the prompts so far.
        on_progress: counts masks times batches; raising `Cancelled` in it stops the work.

    Raises:
        EvaluationError: the reference is not the dense evaluation of this model and these prompts.
        MaskError: a mask does not fit the model or drops a locked layer.
        PromptError: a prompt that this model cannot be asked.
    """
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    check_reference(reference, loaded, prompt_set)
    work = prepare(loaded, prompt_set, reference, on_progress=on_progress)
    known = reference.dense_log_probs if reference else None
    yield from sweep_prepared(
        work, masks, known, batch_size=batch_size, max_bytes=max_bytes, on_partial=on_partial, on_progress=on_progress
    )


def sweep_prepared(
    work: Prepared,
    masks: Sequence[PruneMask],
    dense: tuple[np.ndarray, ...] | None,
    *,
    batch_size: int = 8,
    max_bytes: int | None = None,
    on_partial: OnPartial | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Evaluation]:
    """Sweep over prepared prompts (see `sweep`); `dense` are their dense log-probabilities, None runs the dense model too."""
    report = on_progress or no_progress
    whole = PruneMask(work.loaded.n_layers)
    different = sorted({mask.kept: mask for mask in masks if dense or mask != whole}.items())
    plan = ([] if dense else [whole]) + [mask for _, mask in different]
    runner = SharedRunner(work.loaded, plan, MAX_BYTES if max_bytes is None else max_bytes)
    rows: dict[PruneMask, dict[int, dict[str, Any]]] = {mask: {} for mask in plan}
    parts = list(batches(work.encoded, batch_size))
    for turn, indices in enumerate(parts):
        items = [work.encoded[index] for index in indices]
        base = None if dense is None else [dense[index] for index in indices]
        for place, (mask, scored) in enumerate(runner.run(items)):
            report(turn * len(plan) + place, len(parts) * len(plan), f"mask {place + 1} of {len(plan)}")
            base = scored if base is None else base  # the dense model comes first in the plan
            for index, one, other in zip(indices, scored, base, strict=True):
                rows[mask][index] = answer_scores(one, other, work.answers[index].ids)
        if on_partial is not None:
            for number, mask in enumerate(masks):
                on_partial(number, evaluation_of(work, mask, rows[mask]))
    report(len(parts) * len(plan), len(parts) * len(plan), "evaluated")
    for mask in masks:
        yield evaluation_of(work, mask, rows[mask])


class SharedRunner:
    """Runs many masks over one batch after another, sharing what they have in common.

    Attributes:
        plan: the masks in the order they run in: by their kept layers.
        layers_run: decoder layers executed so far; `layers_counted` is what running each mask alone would have executed.
    """

    def __init__(self, loaded: LoadedModel, plan: Sequence[PruneMask], max_bytes: int) -> None:
        self.loaded, self.plan, self.max_bytes = loaded, list(plan), max_bytes
        self.layers_run = self.layers_counted = 0
        self._limit = first_beside_stream(loaded.model)
        self._tried: set[str] = set()  # what was found to be borne by the model's forward, or not
        self._shares_vision, self._tuples = True, False
        self._kept: dict[int, torch.Tensor] = {}  # raw output of the layer before each branching place, by that place
        self._vision: dict[str, Any] = {}

    @torch.inference_mode()
    def run(self, items: list[Encoded]) -> Iterator[tuple[PruneMask, list[np.ndarray]]]:
        """Yield each mask of the plan with the (answer_tokens, vocabulary) float32 log-probabilities of each item."""
        self._kept, self._vision = {}, {}
        before: tuple[int, ...] = ()
        for place, mask in enumerate(self.plan):
            shared = _common(before, mask.kept)
            start = max((known for known in self._kept if known <= shared), default=0)
            self._kept = {known: state for known, state in self._kept.items() if known <= shared}
            logits = self._forward(items, mask, start, self._branches(place, start))
            if self._tried < ({"vision", "layers"} if self._kept else {"vision"}):
                self._try(items, mask, logits)
            yield mask, [one.float().log_softmax(dim=-1).cpu().numpy() for one in logits]
            before = mask.kept

    def _branches(self, place: int, start: int) -> list[int]:
        """Return the places after `start` at which a later mask branches off this one before any other does."""
        found, least = [], len(self.plan[place].kept)
        for later in self.plan[place + 1 :]:
            least = min(least, _common(self.plan[place].kept, later.kept))
            if least <= start:
                break
            found.append(least)
        kept = self.plan[place].kept
        return sorted({branch for branch in found if kept[branch - 1] < self._limit})

    def _forward(
        self, items: list[Encoded], mask: PruneMask, start: int, branches: Sequence[int]
    ) -> list[torch.Tensor]:
        view = prune(self.loaded.model, mask)
        layers = list(find_decoder_layers(view))
        self.layers_run += len(layers) - start
        self.layers_counted += len(layers)
        with (
            _skipped(layers[:start], self._kept.get(start), self._tuples),
            self._watched(layers, branches),
            self._seen_once(view),
        ):
            return answer_logits(self.loaded, view, items)

    def _try(self, items: list[Encoded], mask: PruneMask, expected: list[torch.Tensor]) -> None:
        """Run a mask again from what was kept; where the logits differ, share neither layers nor vision of this model."""
        self._tried |= {"vision", "layers"} if self._kept else {"vision"}
        counted = self.layers_run, self.layers_counted
        starts = sorted(self._kept)[:: max(1, len(self._kept) - 1)] or [0]
        try:
            again = [self._forward(items, mask, start, []) for start in starts]
            bears = all(torch.equal(one, other) for found in again for one, other in zip(found, expected, strict=True))
        except (
            RuntimeError,
            TypeError,
            ValueError,
            IndexError,
            KeyError,
            AttributeError,
        ):  # a forward of somebody else's
            bears = False
        if not bears:
            self._limit, self._kept, self._vision, self._shares_vision = 0, {}, {}, False
        self.layers_run, self.layers_counted = counted

    @contextmanager
    def _watched(self, layers: Sequence[nn.Module], branches: Sequence[int]) -> Iterator[None]:
        """Keep the raw output of the layer before each branching place, as far as memory allows."""

        def keep(place: int) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                self._tuples = isinstance(output, tuple)
                state = output[0] if self._tuples else output
                if sum(map(_n_bytes, self._kept.values())) + _n_bytes(state) <= self.max_bytes:
                    self._kept[place] = state.clone()

            return hook

        handles = [layers[place - 1].register_forward_hook(keep(place)) for place in self._evenly(branches)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _evenly(self, branches: Sequence[int]) -> list[int]:
        """Return as many branching places as states fit, spread over all of them; the size is known from the first state."""
        if not self._kept or not branches:
            return list(branches)
        size = max(1, _n_bytes(next(iter(self._kept.values()))))
        room = max(1, self.max_bytes // size - len(self._kept))
        step = -(-len(branches) // room)
        return list(branches)[::-1][::step]

    @contextmanager
    def _seen_once(self, view: nn.Module) -> Iterator[None]:
        """Let every module of the view that turns images into features do so once a batch."""
        seers = [(name, module) for name, module in view.named_modules() if hasattr(module, "get_image_features")]
        seers = seers if self._shares_vision else []

        def seen(name: str, look: Callable[..., Any]) -> Callable[..., Any]:
            def once(*args: Any, **kwargs: Any) -> Any:
                if name not in self._vision:
                    self._vision[name] = look(*args, **kwargs)
                return self._vision[name]

            return once

        for name, module in seers:
            vars(module)["get_image_features"] = seen(name, module.get_image_features)  # the view is our own
        yield


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many layers two masks keep alike from the start."""
    alike = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        alike += 1
    return alike


def _n_bytes(state: torch.Tensor) -> int:
    return state.numel() * state.element_size()


@contextmanager
def _skipped(layers: Sequence[nn.Module], state: torch.Tensor | None, tuples: bool) -> Iterator[None]:
    """Let layers of a view hand on their input, and the last of them `state`; their own forwards come back afterwards."""
    if not layers:
        yield
        return
    assert state is not None
    kept = [vars(layer).get("forward") for layer in layers]

    def forward(layer: nn.Module, last: bool) -> Callable[..., Any]:
        def hand_on(*args: Any, **kwargs: Any) -> Any:
            given = state.clone() if last else args[0] if args else kwargs["hidden_states"]
            return (given,) if tuples else given

        return hand_on

    try:
        for layer in layers:
            vars(layer)["forward"] = forward(layer, layer is layers[-1])
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            del vars(layer)["forward"]
            if own is not None:
                vars(layer)["forward"] = own
