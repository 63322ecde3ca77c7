"""Where a layer can be mapped: the linear module that writes last into the stream, or the last one of its attention, found by watching one
pass and trying it in a second.

What is added to the module's output has to arrive in the stream as it is, or times one factor (Granite's residual multiplier). Where a norm
or a gate stands between, it does not, and nothing can be folded there. What the MLP behind an attention makes of it is taken off before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlm_analysis.models.inputs import Encoded, collate, pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import naming
from vlm_analysis.models.widths import has_experts, is_plain
from vlm_analysis.recovery.solving import MLP

_SEED = 0
_EXACT, _ROUNDED = (
    1e-3,
    3e-2,
)  # relative: how far what arrives may be from what was added, in float32 and in half precision


@dataclass(frozen=True)
class Place:
    """A linear module of a layer that writes into the stream.

    Attributes:
        name: of the module inside of the layer.
        factor: times which the stream gets its output.
        is_double: whether its weight is of float64.
    """

    name: str
    factor: float
    is_double: bool


class _EnoughError(Exception):
    """Ends a pass that came as far as it is watched."""


class Watch:
    """What is seen of the layers of a model in a pass that ends early.

    Args:
        loaded: the model's inputs and name.
        model: the model, or a view of it.
        first, last: places in its list of layers, of the layer before a run and of the run's last layer.
    """

    def __init__(self, loaded: LoadedModel, model: nn.Module, first: int, last: int) -> None:
        self.loaded, self.model, self.first, self.last = loaded, model, first, last
        self.layers = list(find_decoder_layers(model))

    def stream(self, items: Sequence[Encoded], *, whole: bool = True) -> list[torch.Tensor]:
        """Return what the layer after `first` gets and, with `whole`, what the one after `last` gets; fewer where one does not run.

        Behind the last layer it is that layer's output.
        """
        seen: list[torch.Tensor] = []

        def take(states: Any, enough: bool) -> None:
            if torch.is_tensor(states):
                seen.append(states)
            if enough:
                raise _EnoughError

        def entering(enough: bool) -> Any:
            return lambda _, args, kwargs: take(args[0] if args else kwargs.get("hidden_states"), enough)

        with ExitStack() as stack:
            stack.enter_context(_hooked(self.layers[self.first + 1], entering(not whole), before=True))
            if whole and self.last + 1 < len(self.layers):
                stack.enter_context(_hooked(self.layers[self.last + 1], entering(True), before=True))
            elif whole:
                leaving = lambda _, __, output: take(output[0] if isinstance(output, tuple) else output, True)  # noqa: E731
                stack.enter_context(_hooked(self.layers[self.last], leaving))
            stack.enter_context(interruptible(self.model))
            stack.enter_context(naming([item.id for item in items], self.loaded.name))
            with suppress(_EnoughError):
                self.model(**collate(items, pad_token(self.loaded)), use_cache=False)
        return seen

    @contextmanager
    def writing(self, name: str) -> Iterator[list[torch.Tensor]]:
        """Keep inside the block what a module of the layer `first` gives in each pass."""
        written: list[torch.Tensor] = []
        with _hooked(self.layers[self.first].get_submodule(name), lambda _, __, output: written.append(output)):
            yield written


@torch.inference_mode()
def find_place(watch: Watch, item: Encoded, weight: str = MLP) -> Place | str:
    """Return where the layer before the run can be mapped, or why it cannot; takes two passes of one prompt, or three.

    Args:
        weight: "mlp" for the module that writes last into the stream, "attention" for the last of another part of the layer.
    """
    layer = watch.layers[watch.first]
    if has_experts(layer):
        return "it routes tokens to experts, of which each has a down-projection"
    called: list[tuple[str, torch.Tensor]] = []
    ran: list[bool] = []
    with ExitStack() as stack:
        stack.enter_context(_hooked(layer, lambda *_: ran.append(True)))
        for name, module in layer.named_modules():
            if is_plain(module):
                seen = lambda _, __, output, name=name: called.append((name, output))  # noqa: E731
                stack.enter_context(_hooked(module, seen))
        streams = watch.stream([item], whole=False)
    if not ran or not streams:
        return "it, or the layer after it, does not run on the first prompt"
    stream = streams[0]
    if stream.ndim != 3:
        return "its stream has several parts"
    names = [name for name, output in called if is_like(output, stream)]
    if not names:
        return "no plain linear module writes into the stream: its weights are packed or quantised"
    last = _placed(watch, item, names[-1], stream)
    if weight == MLP or isinstance(last, str):
        return last
    own = [name for name in names if name.partition(".")[0] != last.name.partition(".")[0]]
    return (
        _placed(watch, item, own[-1], stream, last, dict(called)[last.name]) if own else "no attention writes into it"
    )


def _placed(
    watch: Watch, item: Encoded, name: str, stream: torch.Tensor, behind: Place | None = None, wrote: Any = None
) -> Place | str:
    """Return the place of a linear module, or why it cannot be mapped; `behind` is one after it, which gave `wrote`."""
    layer = watch.layers[watch.first]
    parameter = layer.get_parameter(f"{name}.weight")
    if _n_uses(watch.model, parameter) > 1:
        return f"the weight of {name} is shared with another module"
    factor = _tried(watch, item, layer.get_submodule(name), stream, behind, wrote)
    if factor is None:
        return f"a norm, a gate or another module stands between {name} and the stream"
    return Place(name, factor, parameter.dtype == torch.float64)


def is_like(output: torch.Tensor, stream: torch.Tensor) -> bool:
    """Return whether an output has a row for each token of a stream (prompts, tokens, hidden); some modules get all tokens in one row."""
    return output.shape[-1] == stream.shape[-1] and output.numel() == stream.numel()


def _tried(
    watch: Watch, item: Encoded, module: nn.Module, stream: torch.Tensor, behind: Place | None, wrote: Any
) -> float | None:
    """Return times which factor the stream gets what is added to the output of a module, but for what a module behind it makes of that;
    None where it gets something else."""
    noise = torch.randn(stream.shape, generator=torch.Generator().manual_seed(_SEED)).to(stream.device)
    size = stream.float().square().mean(-1, keepdim=True).sqrt()
    added = (noise * size).to(stream.dtype)
    adding = lambda _, __, output: output + added.reshape(output.shape).to(output.device, output.dtype)  # noqa: E731
    with _hooked(module, adding), watch.writing(behind.name) if behind else nullcontext([]) as written:
        moved = watch.stream([item], whole=False)[0]
    change, given = (moved.double() - stream.double()).cpu(), added.double().cpu()
    if behind is not None:
        change -= behind.factor * (written[0].double() - wrote.double()).reshape(stream.shape).cpu()
    factor = float((change * given).sum() / given.square().sum())
    tolerance = _EXACT if stream.dtype in (torch.float32, torch.float64) else _ROUNDED
    if abs(factor) < tolerance or not (change - factor * given).norm() <= tolerance * abs(factor) * given.norm():
        return None
    return 1.0 if abs(factor - 1) < tolerance / 10 else factor


def _n_uses(model: nn.Module, weight: torch.Tensor) -> int:
    return sum(parameter is weight for module in model.modules() for parameter in module._parameters.values())


@contextmanager
def _hooked(module: nn.Module, hook: Any, *, before: bool = False) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True) if before else module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
