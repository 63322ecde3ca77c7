"""Hooks that copy what enters and leaves every decoder layer, and the stream between its attention and its MLP, in one pass.

Copies are float32 and live for one batch. Where the middle lies is found by watching the order in which a layer calls its direct
children, once per model, not by names: the input of the first child called after the attention that is neither the attention's own
input nor its output. Parallel layers and those with one sub-layer have no middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vlm_analysis.models.layers import find_decoder_layers

INPUT, MIDDLE, OUTPUT = range(3)


class Streams:
    """The streams of one batch.

    Attributes:
        states: (3, n_layers, batch, tokens, hidden) float32: true input, middle and raw output of every layer.
        ran: (n_layers,) bool, which layers ran; the states of others are not set.
        has_middle: (n_layers,) bool.
        tokens: (prompts, tokens) of the batch.
        uneven: whether a layer got other tokens than these: some models leave out tokens whose logits are not needed.
    """

    def __init__(self, n_layers: int) -> None:
        self.n_layers = n_layers
        self.states: torch.Tensor = torch.empty(0)
        self.clear((0, 0))

    def clear(self, tokens: tuple[int, int]) -> None:
        """Prepare for a batch of (prompts, tokens); memory is reused if the shape is the same."""
        self.tokens, self.uneven = tokens, False
        self.ran, self.has_middle = [False] * self.n_layers, [False] * self.n_layers

    def take(self, which: int, index: int, hidden_states: torch.Tensor) -> None:
        """Copy one layer's states; several streams per token (4-D states of AltUp and hyper-connections) are concatenated."""
        values = hidden_states
        if values.ndim == 4:  # (prompts, tokens, streams, hidden), or as in Gemma 3n (streams, prompts, tokens, hidden)
            values = (values if values.shape[:2] == self.tokens else values.movedim(0, 2)).flatten(2)
        if values.shape[:2] != self.tokens:
            self.uneven = True
            return
        shape = (3, self.n_layers, *values.shape)
        if self.states.shape != shape:
            self.states = torch.empty(shape, dtype=torch.float32, device=values.device)
        self.states[which, index].copy_(values)
        self.ran[index] |= which == OUTPUT
        self.has_middle[index] |= which == MIDDLE


class LayerWatch:
    """Hooks on the decoder layers of one model; `watching()` registers them inside a block."""

    def __init__(self, model: nn.Module, *, middles: bool = True) -> None:
        self.middles = middles
        self.layers = list(find_decoder_layers(model))
        self.streams = Streams(len(self.layers))
        self._middles: dict[int, nn.Module | None] = {}

    @contextmanager
    def watching(self, tokens: torch.Size) -> Iterator[Streams]:
        """Hook every layer for a batch of (prompts, tokens); the hooks are removed whatever happens."""
        self.streams.clear((tokens[0], tokens[1]))
        handles: list[Any] = []
        try:
            for index, layer in enumerate(self.layers):
                handles += self._hooks(index, layer)
            yield self.streams
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, index: int, layer: nn.Module) -> list[Any]:
        def before(module: Any, args: Any, kwargs: Any) -> None:
            self.streams.take(INPUT, index, _hidden(args, kwargs))

        def after(module: Any, args: Any, output: Any) -> None:
            self.streams.take(OUTPUT, index, first_of(output))

        handles = [layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)]
        if not self.middles:
            return handles
        if index not in self._middles:
            return handles + self._search(index, layer)
        middle = self._middles[index]
        if middle is not None:

            def between(module: Any, args: Any, kwargs: Any) -> None:
                self.streams.take(MIDDLE, index, _hidden(args, kwargs))

            handles.append(middle.register_forward_pre_hook(between, with_kwargs=True))
        return handles

    def _search(self, index: int, layer: nn.Module) -> list[Any]:
        """Return hooks that find the middle of a layer in the next pass, and copy it."""
        seen: dict[str, Any] = {}  # tensors are held, not their addresses: freed memory is used again

        def start(module: Any, args: Any, kwargs: Any) -> None:
            seen.clear()
            seen["shape"] = _hidden(args, kwargs).shape
            self._middles[index] = None

        def enter(module: Any, args: Any, kwargs: Any) -> None:
            hidden = _hidden(args, kwargs)
            if hidden is None or self._middles.get(index) is not None:
                return
            if "output" not in seen:
                if not _is_norm(module):
                    seen.setdefault("attention", module)
                    seen.setdefault("input", hidden)
            elif hidden.shape == seen["shape"] and not _is_one_of(hidden, seen["input"], seen["output"]):
                self._middles[index] = module
                self.streams.take(MIDDLE, index, hidden)

        def leave(module: Any, args: Any, output: Any) -> None:
            if module is seen.get("attention") and "output" not in seen:
                seen["output"] = first_of(output)

        handles: list[Any] = [layer.register_forward_pre_hook(start, with_kwargs=True)]
        for child in layer.children():
            handles.append(child.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(child.register_forward_hook(leave))
        return handles


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the states a module was called with: its first argument, or the keyword `hidden_states`, or None."""
    hidden = args[0] if args else kwargs.get("hidden_states")
    return hidden if torch.is_tensor(hidden) else None


def first_of(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _is_one_of(states: torch.Tensor, *others: torch.Tensor) -> bool:
    return any(states.data_ptr() == other.data_ptr() for other in others)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()
