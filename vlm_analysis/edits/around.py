"""Something that runs around the forward of a layer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


class Around:
    """The forward of a layer with something around it; below it is the class's, or one that was set on the layer before."""

    def __init__(self, layer: Any, run: Callable[..., Any], below: Callable[..., Any] | None) -> None:
        self.layer, self.run, self.below = layer, run, below
        parameters = inspect.signature(type(layer).forward).parameters.values()
        self._names = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD][1:]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.below or functools.partial(type(self.layer).forward, self.layer)
        return self.run(forward, dict(zip(self._names, args, strict=False)) | kwargs)


def put_around(layer: Any, run: Callable[..., Any]) -> None:
    """Let a layer be run by `run(forward, given)`, where `given` are the arguments of its forward by name."""
    vars(layer)["forward"] = Around(layer, run, vars(layer).get("forward"))
