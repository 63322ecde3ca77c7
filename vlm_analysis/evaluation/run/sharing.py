"""Run many edits on one batch and compute common parts once: the vision tower and the first steps that edits share.

Edits are walked in the order of their steps, so that each shares the longest start with the one before; at every step where a later
edit branches off, the raw output of the last common layer is kept. An edit then runs the model's own forward, in which the layers before
that step return their input and the last of them returns the kept output. What the model adds between layers (DeepStack) it adds again, at
the same steps. Edits that differ ahead of the first layer share nothing.

Sharing is sound if a layer depends only on its input and on what the model computes before its first layer. Shared keys and values
are known (`first_beside_stream`); beyond that a model is tried once, on a short prompt, and once more when prompts
with more images come. Every layer is run alone: without those before it, after a pass over another stream, it must give the same output to
the last bit; where one does not, no layers are shared. Then edits that leave out the first and the last layer that can go must give the
same scores shared as alone: what a model makes of an image may depend on how the layers are numbered (Granite Vision). Where they do not,
the vision tower runs for each edit, and if that does not help, nothing is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from vlm_analysis.edits.apply import apply_edit, why_not
from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.edits.view import Copies
from vlm_analysis.evaluation.run.evaluate import MAX_STATE_BYTES
from vlm_analysis.evaluation.run.prepared import Batch, answer_logits
from vlm_analysis.models.inputs import Encoded
from vlm_analysis.models.layers import find_decoder_layers, first_beside_stream
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import OF_THE_MODEL

MOST_MODULES = 60_000  # of the views that are kept, some kilobytes each
SEEING = ("get_image_features", "get_rope_index")  # what a model makes of a batch before its first layer
MOST_IMAGES = 2  # a model is tried on prompts without images, with one and with more
_TRIED: WeakKeyDictionary[nn.Module, tuple[int, bool, bool, int]] = WeakKeyDictionary()  # the result of a model's trial


def ordered(edits: Iterable[Edit]) -> list[Edit]:
    """Return the different edits by their steps: each shares the longest start with the one before, the dense one is first."""

    def sort_key(edit: Edit) -> tuple[Any, ...]:
        steps = edit.steps
        return steps.before, (*steps.layers, (edit.n_layers, "")), steps.after  # the end sorts behind every layer

    return sorted(dict.fromkeys(edits), key=sort_key)


class SharedRunner:
    """Runs many edits over one batch after another, sharing what they have in common.

    Args:
        max_bytes: bound on the states kept for sharing, 1 GiB by default; with less, more is computed again.

    Attributes:
        layers_run: decoder layers executed so far, those of the trial not counted.
        layers_counted: what running each edit alone would have executed.
    """

    def __init__(self, loaded: LoadedModel, max_bytes: int | None = None) -> None:
        self.loaded, self.max_bytes = loaded, MAX_STATE_BYTES if max_bytes is None else max_bytes
        self.layers_run = self.layers_counted = 0
        self._plan: list[Edit] = []
        self._limit: int | None  # layers from here on are never shared; None before the trial
        self._limit, self._shares_vision, self._tuples, self._n_images = _TRIED.get(
            loaded.model, (None, True, False, -1)
        )
        self._views: dict[str, nn.Module] = {}  # by the edit's key
        self._modules: set[int] = set()  # of those, by identity
        self._copies: Copies = {}  # modules that views of masks share
        self._kept: dict[int, torch.Tensor] = {}  # raw output of the layer before each branch, by its step
        self._seeing = [
            (path, name)
            for path, module in loaded.model.named_modules()
            for name in SEEING
            if callable(getattr(module, name, None))
        ]
        self._vision: dict[tuple[str, str], Any] = {}  # by module and method

    @torch.inference_mode()
    def run(self, items: list[Encoded], plan: Sequence[Edit]) -> Iterator[tuple[Edit, list[np.ndarray]]]:
        """Yield each edit of the plan with the (answer_tokens, vocabulary) float32 log-probabilities of each item.

        Args:
            items: a batch.
            plan: edits in the order of `ordered`.

        Raises:
            PromptError: the model cannot run these prompts with one of the edits: the next that would have been yielded.
        """
        most = max(items, key=lambda item: (_n_images(item), -item.n_tokens))
        if len(plan) > 1 and _n_images(most) > self._n_images:
            answer_logits(self.loaded, self.loaded.model, [most])  # a prompt that is refused is no trial
            self._try(most)
        yield from self._run(items, plan)

    def _run(self, items: list[Encoded], plan: Sequence[Edit]) -> Iterator[tuple[Edit, list[np.ndarray]]]:
        self._plan, self._kept, self._vision = list(plan), {}, {}
        batch = Batch(self.loaded, items)
        last: Edit | None = None
        for index, edit in enumerate(self._plan):
            shared = 0 if last is None else _common(last, edit)
            if last is not None and last.steps.before != edit.steps.before:
                self._vision = {}
            start = max((known for known in self._kept if known <= shared), default=0)
            self._kept = {known: state for known, state in self._kept.items() if known <= shared}
            logits = self._forward(batch, edit, start, self._branches(index, start))
            yield edit, _log_probs(logits)
            last = edit
        self._kept, self._vision = {}, {}

    def _branches(self, index: int, start: int) -> list[int]:
        """Return the steps after `start` at which a later edit branches off this one before any other does."""
        steps = self._plan[index].steps.layers
        branches, least = [], len(steps)
        for later in self._plan[index + 1 :]:
            least = min(least, _common(self._plan[index], later))
            if least <= start:
                break
            branches.append(least)
        return sorted({branch for branch in branches if steps[branch - 1][0] < (self._limit or 0)})

    def _forward(self, batch: Batch, edit: Edit, start: int, branches: Sequence[int]) -> Sequence[torch.Tensor]:
        view = self._view(edit)
        layers = list(find_decoder_layers(view))
        self.layers_run += len(layers) - start
        self.layers_counted += len(layers)
        states = dict.fromkeys(range(start)) | ({start - 1: self._kept[start]} if start else {})
        with _replaced(layers, states, self._tuples), self._watched(layers, branches):
            return batch.logits(view)

    def _view(self, edit: Edit) -> nn.Module:
        """Return the edited model, kept for the next batch while there is room: making one takes as long as a small model's pass."""
        if edit.key in self._views:
            return self._views[edit.key]
        view = apply_edit(self.loaded.model, edit, copies=self._copies)
        self._see_once(view)
        new = set(map(id, view.modules())) - self._modules
        if len(self._modules) + len(new) <= MOST_MODULES:
            self._views[edit.key] = view
            self._modules |= new
        return view

    @contextmanager
    def _watched(self, layers: Sequence[nn.Module], branches: Sequence[int]) -> Iterator[None]:
        """Keep the raw output of the layer before each branch, as far as memory allows."""

        def keep(branch: int) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                state = output[0] if isinstance(output, tuple) else output
                if sum(map(_n_bytes, self._kept.values())) + _n_bytes(state) <= self.max_bytes:
                    self._kept[branch] = state.clone()

            return hook

        with _hooked({layers[branch - 1]: keep(branch) for branch in self._evenly(branches)}):
            yield

    def _evenly(self, branches: Sequence[int]) -> list[int]:
        """Return as many branches as states fit, spread over all of them; the size is known from the first state."""
        if not self._kept or not branches:
            return list(branches)
        size = max(1, _n_bytes(next(iter(self._kept.values()))))
        room = max(1, self.max_bytes // size - len(self._kept))
        step = -(-len(branches) // room)
        return list(branches)[::-1][::step]

    def _see_once(self, view: nn.Module) -> None:
        """Let every module of a view of our own that turns a batch into image features, or into positions, do so once a batch."""
        for path, name in self._seeing:
            module = view.get_submodule(path)
            look = getattr(module, name)
            if not isinstance(look, _Once):  # views of masks share modules
                vars(module)[name] = _Once(self, (path, name), look)

    def seen(self, key: tuple[str, str], look: Callable[[], Any]) -> Any:
        """Return what a module makes of the batch, made once unless that does not hold for this model."""
        if not self._shares_vision:
            return look()
        if key not in self._vision:
            self._vision[key] = look()
        return self._vision[key]

    def _try(self, item: Encoded) -> None:
        """Find out what may be shared, apart from what a trial on fewer images ruled out."""
        known, counted = (self._limit, self._shares_vision), (self.layers_run, self.layers_counted)
        self._shares_vision = True
        limit, fits = self._limit_alone(item)
        limit = limit if known[0] is None else min(limit, known[0])
        self._limit = limit
        for self._shares_vision in (True, False) if known[1] else (False,):
            if self._same_on_edits(item):
                break
        else:
            self._limit = 0
        self.layers_run, self.layers_counted = counted
        self._n_images = _n_images(item)
        if fits:
            _TRIED[self.loaded.model] = self._limit, self._shares_vision, self._tuples, self._n_images

    def _limit_alone(self, item: Encoded) -> tuple[int, bool]:
        """Return from which layer on none may be shared, as each is run alone on its stored input, and whether these states fit."""
        limit, fits = first_beside_stream(self.loaded.model), True
        view = apply_edit(self.loaded.model, Edit(self.loaded.n_layers))  # its own: what is put into it may prove wrong
        self._see_once(view)
        self._vision = {}
        try:
            states, logits = self._all_states(view, item)
            fits = sum(_n_bytes(state) for state in states if state is not None) <= self.max_bytes
            limit = limit if fits else 0
            strange = [None if state is None else 2 * state + 1 for state in states]
            self._replay(
                view, item, strange, min(1, limit)
            )  # whatever a layer keeps for others is of another stream now
            alone = all(self._stands_alone(view, item, states, layer) for layer in reversed(range(limit)))
            again = self._replay(view, item, states, limit)
            alone = alone and all(torch.equal(one, other) for one, other in zip(again, logits, strict=True))
        except OF_THE_MODEL:
            alone = False
        return (limit if alone else 0), fits

    def _same_on_edits(self, item: Encoded) -> bool:
        """Return whether edits have the same scores as each has alone, sharing as it is set."""
        n_layers, model = self.loaded.n_layers, self.loaded.model
        single = [PruneMask(n_layers, (layer,)) for layer in range(n_layers)]
        ends = [next((one for one in order if not why_not(model, one)), None) for order in (single, single[::-1])]
        try:
            for edit, shared in self._run([item], ordered([Edit(n_layers), *(one for one in ends if one is not None)])):
                alone = answer_logits(self.loaded, apply_edit(model, edit), [item])
                if not np.array_equal(shared[0], _log_probs(alone)[0], equal_nan=True):
                    return False
        except OF_THE_MODEL:
            return False
        return True

    def _all_states(self, view: nn.Module, item: Encoded) -> tuple[list[torch.Tensor | None], list[torch.Tensor]]:
        """Return the raw output of every layer, None for one that did not run, and the logits at answer positions."""
        layers = list(find_decoder_layers(view))
        states: list[torch.Tensor | None] = [None] * len(layers)

        def keep(index: int) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                self._tuples = isinstance(output, tuple)
                states[index] = (output[0] if self._tuples else output).clone()

            return hook

        with _hooked({layer: keep(index) for index, layer in enumerate(layers)}):
            return states, answer_logits(self.loaded, view, [item])

    def _stands_alone(self, view: nn.Module, item: Encoded, states: Sequence[torch.Tensor | None], layer: int) -> bool:
        """Return whether a layer gives its output again when those before it do not run; one that does not run stands alone."""
        layers, expected, outputs = list(find_decoder_layers(view)), states[layer], list[torch.Tensor]()
        if expected is None:
            return True

        def stop(module: Any, args: Any, output: Any) -> None:
            outputs.append(output[0] if isinstance(output, tuple) else output)
            raise _EnoughSeen

        with ExitStack() as stack:
            stack.enter_context(_replaced(layers, _stored_outputs(states, layer), self._tuples))
            stack.enter_context(_hooked({layers[layer]: stop}))
            try:
                answer_logits(self.loaded, view, [item])
            except _EnoughSeen:
                return torch.equal(outputs[0], expected)
        return False

    def _replay(
        self, view: nn.Module, item: Encoded, states: Sequence[torch.Tensor | None], start: int
    ) -> list[torch.Tensor]:
        """Return the logits of a pass in which the layers from `start` on run."""
        with _replaced(list(find_decoder_layers(view)), _stored_outputs(states, start), self._tuples):
            return answer_logits(self.loaded, view, [item])


class _Once:
    """A method of a module by which it turns a batch into something; a runner calls it once a batch."""

    def __init__(self, runner: SharedRunner, key: tuple[str, str], look: Callable[..., Any]) -> None:
        self._runner, self._key, self._look = runner, key, look

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._runner.seen(self._key, lambda: self._look(*args, **kwargs))


class _EnoughSeen(Exception):  # noqa: N818 - ends a pass whose rest is not needed
    pass


def _stored_outputs(states: Sequence[torch.Tensor | None], start: int) -> dict[int, torch.Tensor | None]:
    """Return the output of each layer before `start`: its input (None), except for the last that ran, whose output is stored."""
    ran = [layer for layer in range(start) if states[layer] is not None]
    outputs: dict[int, torch.Tensor | None] = dict.fromkeys(range(start))
    return outputs | ({ran[-1]: states[ran[-1]]} if ran else {})


def _common(one: Edit, other: Edit) -> int:
    """Return how many steps two edits share from the start; none where they differ ahead of the first layer."""
    if one.steps.before != other.steps.before:
        return 0
    alike = 0
    for first, second in zip(one.steps.layers, other.steps.layers, strict=False):
        if first != second:
            break
        alike += 1
    return alike


def _log_probs(logits: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [one.float().log_softmax(dim=-1).cpu().numpy() for one in logits]


def _n_images(item: Encoded) -> int:
    return min(item.n_images, MOST_IMAGES)


def _n_bytes(state: torch.Tensor) -> int:
    return state.numel() * state.element_size()


@contextmanager
def _hooked(hooks: Mapping[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """Call each hook with its module's output."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replaced(layers: Sequence[nn.Module], states: Mapping[int, torch.Tensor | None], tuples: bool) -> Iterator[None]:
    """Let layers of a view hand on their input (None) or a state, by their place; their own forwards come back afterwards."""
    forwards = {index: vars(layers[index]).get("forward") for index in states}

    def forward(state: torch.Tensor | None) -> Callable[..., Any]:
        def hand_on(*args: Any, **kwargs: Any) -> Any:
            state_out = state.clone() if state is not None else args[0] if args else kwargs["hidden_states"]
            return (state_out,) if tuples else state_out

        return hand_on

    try:
        for index, state in states.items():
            vars(layers[index])["forward"] = forward(state)
        yield
    finally:
        for index, previous in forwards.items():
            del vars(layers[index])["forward"]
            if previous is not None:
                vars(layers[index])["forward"] = previous
