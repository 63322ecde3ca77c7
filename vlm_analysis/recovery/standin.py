"""A layer that is trained to stand for a window of layers: weights of its own, and the distance to what the window makes of the stream.

The dense model runs up to the window's end without gradients, a batch at a time; no states are kept. The layer gets what the window's first
layer gets, with everything that is passed beside the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run.prepared import answer_logits
from vlm_analysis.models.inputs import Encoded, collate, pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import naming
from vlm_analysis.recovery.finetune.losses import answer_nlls
from vlm_analysis.recovery.finetune.trainer import Training
from vlm_analysis.recovery.schedules import Schedule


class _EnoughError(Exception):
    """Ends a pass that came to the window's end."""


@dataclass(frozen=True)
class Window:
    """What a pass of the dense model shows of a window of layers.

    Attributes:
        args, kwargs: what its first layer was called with; the stream is not among them.
        entering, leaving: the stream (prompts, tokens, hidden) ahead of it, and behind it, where the next layer gets it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entering: torch.Tensor
    leaving: torch.Tensor

    def run(self, layer: nn.Module) -> torch.Tensor:
        """Return what a layer makes of the stream, called as the window's first layer is."""
        output = layer(self.entering, *self.args, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def watch_window(loaded: LoadedModel, window: Sequence[int], items: Sequence[Encoded]) -> Window:
    """Run prompts through the dense model up to the end of a window; all hooks are removed at the end.

    Raises:
        EditError: the layers of the window do not run, or the stream is not one state a token.
        PromptError: the model refuses the prompts.
    """
    layers = find_decoder_layers(loaded.model)
    seen: list[Any] = []

    def enters(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        seen.append((args[1:], rest, stream.clone()))

    def leaves(stream: Any) -> None:
        seen.append(stream)
        raise _EnoughError

    with ExitStack() as stack:
        hooks = [layers[window[0]].register_forward_pre_hook(enters, with_kwargs=True)]
        if window[-1] + 1 < len(layers):
            ahead = lambda _, args, kwargs: leaves(args[0] if args else kwargs["hidden_states"])  # noqa: E731
            hooks.append(layers[window[-1] + 1].register_forward_pre_hook(ahead, with_kwargs=True))
        else:
            behind = lambda _, __, output: leaves(output[0] if isinstance(output, tuple) else output)  # noqa: E731
            hooks.append(layers[window[-1]].register_forward_hook(behind))
        for hook in hooks:
            stack.callback(hook.remove)
        stack.enter_context(interruptible(loaded.model))
        stack.enter_context(naming([item.id for item in items], loaded.name))
        with suppress(_EnoughError):
            loaded.model(**collate(items, pad_token(loaded)), use_cache=False)
    if len(seen) != 2 or seen[0][2].ndim != 3 or seen[0][2].shape != seen[1].shape:
        raise EditError(
            f"Layers {window[0]}-{window[-1]} of {loaded.name} cannot be replaced: expected one stream that runs through all of them, got "
            "layers that do not run, or several streams. Choose another window."
        )
    args, kwargs, entering = seen[0]
    return Window(args, kwargs, entering, seen[1].to(entering.device))


def own_weights(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Give a layer of a view weights of its own, to be trained, by their names; the dense model's stay where they are.

    They are float32, or float64 as the model's; each pass of the layer takes them in the model's precision.
    """
    own: dict[str, nn.Parameter] = {}
    places: list[tuple[nn.Module, str, nn.Parameter, torch.dtype]] = []
    for prefix, module in layer.named_modules():
        for name, shared in list(module._parameters.items()):
            if shared is not None and shared.is_floating_point():
                wide = shared.detach().to(torch.promote_types(shared.dtype, torch.float32)).clone()
                value = nn.Parameter(wide)
                own[f"{prefix}.{name}".lstrip(".")] = value
                places.append((module, name, value, shared.dtype))
                del module._parameters[name]

    def put(*_: Any) -> None:
        for module, name, value, dtype in places:
            vars(module)[name] = value.to(dtype)

    layer.register_forward_pre_hook(put)
    put()
    return own


def taken(own: dict[str, nn.Parameter] | dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return copies of weights as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in own.items()}


def distances(one: torch.Tensor, other: torch.Tensor, n_tokens: Sequence[int]) -> torch.Tensor:
    """Return of each prompt (n_prompts,) the mean squared distance of two streams over its tokens and channels, padding aside."""
    wide = torch.promote_types(one.dtype, torch.float32)
    counts = torch.tensor(n_tokens, device=one.device)
    real = torch.arange(one.shape[1], device=one.device)[None] < counts[:, None]
    squares = (one.to(wide) - other.to(wide)).square().mean(-1)
    return squares.mul(real).sum(-1) / counts


@dataclass
class StandIn(Training[Schedule]):
    """A running training of a layer that stands for a window: `view` is the layer itself, whose weights are the `factors`."""

    window: tuple[int, ...] = ()

    doing: ClassVar[str] = "training"
    measured: ClassVar[str] = "distance"

    def losses_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        """Return the mean squared distance to the stream behind the window, of each prompt; in a mean over prompts each counts alike."""
        seen = watch_window(self.loaded, self.window, items)
        unused = sum(value.sum() * 0 for value in self.factors.values())  # gives every weight a gradient
        return distances(self.view_run(seen), seen.leaving, [item.n_tokens for item in items]) + unused

    def view_run(self, seen: Window) -> torch.Tensor:
        return seen.run(self.view)

    def measured_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        return self.losses_of(items)


@dataclass
class AnsweringStandIn(Training[Schedule]):
    """The same layer, trained on by answers: `view` is the edited model with the layer in it."""

    def losses_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        return answer_nlls(answer_logits(self.loaded, self.view, items), items)

    def measured_of(self, items: Sequence[Encoded]) -> torch.Tensor:
        return self.losses_of(items)
