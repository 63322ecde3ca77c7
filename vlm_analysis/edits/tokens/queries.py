"""Queries that nobody reads: those of tokens that run to their keys and values and no further."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vlm_analysis.edits.around import put_around

_MADE_BY = "q_proj"  # the module that makes queries and nothing else, in the classes that have one


class Queries:
    """The queries of a layer, which are not made inside `left_out`: zeros of one head stand for them.

    Keys and values do not depend on queries, and layers take the number of heads from what they are given. A layer that does not is run as
    it is, and so is one that makes queries, keys and values at once.

    Args:
        layer: a decoder layer, whose modules of this kind are wrapped.
    """

    def __init__(self, layer: Any) -> None:
        self._left_out, self._fits = False, True
        for module in list(layer.modules()):
            made_by, heads = getattr(module, _MADE_BY, None), _heads_of(module)
            size = getattr(made_by, "out_features", 0)
            if heads and size and size % heads == 0:
                put_around(made_by, self._around(size // heads))

    def _around(self, size: int) -> Callable[..., Any]:
        def run(forward: Callable[..., Any], given: dict[str, Any]) -> Any:
            if not self._left_out:
                return forward(**given)
            states = next(iter(given.values()))
            return states.new_zeros(*states.shape[:-1], size)

        return run

    def run_without(self, forward: Callable[[], Any]) -> Any:
        """Run a part of the layer in which no queries are needed, or with them where it does not run without."""
        if self._fits:
            try:
                with self._leaving_out():
                    return forward()
            except RuntimeError:  # the sizes do not fit; another reason is raised again below
                self._fits = False
        return forward()

    @contextmanager
    def _leaving_out(self) -> Iterator[None]:
        self._left_out = True
        try:
            yield
        finally:
            self._left_out = False


def _heads_of(module: Any) -> int:
    """Return the number of heads that a module's configuration tells; 0 where it tells none, or one for each layer."""
    heads = getattr(getattr(module, "config", None), "num_attention_heads", 0)
    return heads if isinstance(heads, int) else 0
