"""Stop work inside a forward pass, as a pass over a large model on a CPU takes too long to wait for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from vlm_analysis.progress import stop_if_asked


@contextmanager
def interruptible(model: nn.Module) -> Iterator[None]:
    """Make work stoppable before every layer of the model, including its vision tower; all hooks are removed at the end.

    Raises:
        Cancelled: raised by `stop_if_asked` inside the forward pass.
    """
    handles = [layer.register_forward_pre_hook(_ask) for layer in _outermost_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ask(module: nn.Module, args: Any) -> None:
    stop_if_asked()


def _outermost_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of every outermost ModuleList: layers, not their experts."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _outermost_layers(child)
