"""What the gradient of each answer token says of every MLP neuron and attention group: w · gradient, from activations alone.

The sum over a unit's weights of weight times gradient is, for rows of a linear layer, the sum over positions of output times its gradient,
and for columns that of input times its gradient. So no weight gradient is made or kept: hooks multiply as gradients pass by. Products are
float32 (float64 in a model of float64), sums float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vlm_analysis.evaluation.run.prepared import answer_logits
from vlm_analysis.models.inputs import Encoded
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.widths import Cut, Part
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.selection.width.scores import NEURONS

Parts = Mapping[tuple[int, str], Part]
Sums = dict[tuple[int, str], torch.Tensor]
"""By layer and unit (n_prompts, n_units) float64 sums of weight times gradient, signed."""


class GradientPasses:
    """One forward pass of a batch, behind which any number of sums of its answer tokens' NLLs are derived.

    Args:
        loaded: the dense model; it is not changed, and no flag of its parameters is.
        items: prompts with their answers.
        parts: by layer and unit, the MLP or the attention.
    """

    def __init__(self, loaded: LoadedModel, items: Sequence[Encoded], parts: Parts) -> None:
        self._name, self._taps = loaded.name, _Taps(len(items), max(item.n_tokens for item in items))
        with torch.enable_grad(), self._taps.on(find_decoder_layers(loaded.model), parts):
            logits = answer_logits(loaded, loaded.model, items)
        self.nlls = [_nlls(one, item) for one, item in zip(logits, items, strict=True)]

    def sums(self, weights: Sequence[torch.Tensor]) -> Sums:
        """Return the sums for each prompt's own sum of its answer tokens' NLLs with these weights, each (answer_tokens,)."""
        stop_if_asked()
        pairs = zip(self.nlls, weights, strict=True)
        total = torch.stack([(one * weight.to(one.device, one.dtype)).sum() for one, weight in pairs]).sum()
        self._taps.sums.clear()
        torch.autograd.grad(total, self._taps.entering, retain_graph=True)
        return dict(self._taps.sums)

    def of_tokens(self) -> Iterator[Sums]:
        """Yield the sums for the NLL of one answer token of each prompt, first to last; 0 for prompts with fewer tokens."""
        for at in range(max(map(len, self.nlls))):
            yield self.sums([(torch.arange(len(one)) == at).to(torch.float64) for one in self.nlls])


def _nlls(logits: torch.Tensor, item: Encoded) -> torch.Tensor:
    """Return the NLL of each of a prompt's answer tokens, in nats; float32, or float64 of a model of float64."""
    ids = torch.tensor(item.answer_ids, device=logits.device)
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(exact, ids, reduction="none")


class _Taps:
    """Adds up products of activations and their gradients, as gradients pass by.

    Attributes:
        sums: those of the pass at work.
        entering: what enters the first layer, from which the gradients are taken.
    """

    def __init__(self, n_prompts: int, n_tokens: int) -> None:
        self._shape = (n_prompts, n_tokens)
        self.sums: Sums = {}
        self.entering: Any = None

    @contextmanager
    def on(self, layers: Sequence[nn.Module] | nn.ModuleList, parts: Parts) -> Iterator[None]:
        """Watch the layers in the forward pass inside."""
        handles = [layers[0].register_forward_pre_hook(self._enter, with_kwargs=True)]
        for (layer, unit), part in parts.items():
            by_module: dict[tuple[str, int], list[Cut]] = {}
            for cut in scored_cuts(unit, part):
                by_module.setdefault((cut.module, cut.dim), []).append(cut)
            for (name, dim), cuts in by_module.items():
                module = layers[layer].get_submodule(name)
                watch = partial(self._watch, (layer, unit), part.n, cuts)
                if dim:
                    handles.append(module.register_forward_pre_hook(lambda _, args, watch=watch: watch(args[0])))  # type: ignore[misc]
                else:
                    handles.append(module.register_forward_hook(lambda _, __, output, watch=watch: watch(output)))  # type: ignore[misc]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        """Begin the gradients at what enters the first layer: nothing before it is kept."""
        states = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_()
        self.entering = states
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    def _watch(self, place: tuple[int, str], n_units: int, cuts: Sequence[Cut], states: torch.Tensor) -> None:
        values = states.detach()
        states.register_hook(lambda gradient: self._add(values, gradient, place, n_units, cuts))

    def _add(
        self, values: torch.Tensor, gradient: torch.Tensor, place: tuple[int, str], n_units: int, cuts: Sequence[Cut]
    ) -> None:
        exact = torch.float64 if values.dtype == torch.float64 else torch.float32
        product = (values.to(exact) * gradient.to(exact)).reshape(*self._shape, values.shape[-1])
        summed = product.sum(dim=1, dtype=torch.float64)
        for cut in cuts:
            own = summed[:, cut.start : cut.start + n_units * cut.size].unflatten(1, (n_units, cut.size)).sum(dim=2)
            known = self.sums.get(place)
            self.sums[place] = own if known is None else known + own.to(known.device)


def scored_cuts(unit: str, part: Part) -> list[Cut]:
    """Return the rows and columns on which units are scored: all of a neuron; of an attention group those of Q and O, as in µCRASP."""
    if unit == NEURONS:
        return list(part.cuts)
    return [
        cut
        for cut in part.cuts
        if cut.dim or cut.module.endswith("q_proj") or (cut.module.endswith("qkv_proj") and not cut.start)
    ]


def magnitudes(layer: nn.Module, unit: str, part: Part) -> torch.Tensor:
    """Return the norm of each unit's scored weights and biases, (n_units,) float64."""
    squares = torch.zeros(part.n, dtype=torch.float64)
    for cut in scored_cuts(unit, part):
        module: Any = layer.get_submodule(cut.module)
        total = module.weight.detach().double().square().sum(dim=1 - cut.dim)
        if not cut.dim and module.bias is not None:
            total = total + module.bias.detach().double().square()
        squares += total[cut.start : cut.start + part.n * cut.size].reshape(part.n, cut.size).sum(dim=1).cpu()
    return squares.sqrt()
