"""What tuning makes smaller, and what it keeps in memory, against passes of another making."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask
from tuned import CUT

from vlm_analysis import LoadedModel, Prompt, PromptSet, apply_edit
from vlm_analysis.evaluation.run.prepared import Prepared, answer_logits, prepare
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.recovery.finetune.activations import compute_again, kept_bytes
from vlm_analysis.recovery.finetune.adapters import own_parameters, put_in
from vlm_analysis.recovery.finetune.losses import losses
from vlm_analysis.recovery.finetune.targets import find_targets
from vlm_analysis.recovery.tunings import Tuning


@pytest.fixture(scope="module")
def work(small: LoadedModel, few: PromptSet) -> Prepared:
    return prepare(small, few[:2])


def view_with_updates(small: LoadedModel) -> tuple[Any, dict[str, Any]]:
    """Return a view of the cut model with updates in it that are not 0."""
    view = apply_edit(small.model, CUT)
    own_parameters(view)
    factors = put_in(view, find_targets(view, CUT, "decoder", lambda: None), Tuning())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, factor in factors.items():
            if name.endswith(".B"):
                factor.copy_(torch.randn(factor.shape, generator=draw) * 0.02)
    return view, factors


def test_losses_are_those_of_float64(small: LoadedModel, few: PromptSet, work: Prepared) -> None:
    view, _ = view_with_updates(small)
    items = [work.encoded[0], work.encoded[1]]
    with torch.no_grad():
        plain, with_kl, with_states = (
            losses(small, view, CUT, items, tuning)[0].double().numpy()
            for tuning in (Tuning(), Tuning(kl=2.0), Tuning(hidden=2.0))
        )
        dense, edited = (
            [one.double().log_softmax(-1).numpy() for one in answer_logits(small, model, items)]
            for model in (small.model, view)
        )
    nlls = [-one[range(len(item.answer_ids)), item.answer_ids].mean() for one, item in zip(edited, items, strict=True)]
    kls = [(np.exp(one) * (one - two)).sum(1).mean() for one, two in zip(dense, edited, strict=True)]
    distances = [distance(small, view, prompt, item.answer_ids) for prompt, item in zip(few[:2], items, strict=True)]
    np.testing.assert_allclose(plain, nlls, rtol=1e-5)
    np.testing.assert_allclose((with_kl - plain) / 2, kls, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose((with_states - plain) / 2, distances, rtol=1e-4)


@torch.no_grad()
def distance(small: LoadedModel, view: Any, prompt: Prompt, answer_ids: tuple[int, ...]) -> float:
    """Return the mean over layers of |x - y|² / |x|² of what enters the layers that are left, of a prompt alone, in float64."""
    found = []
    for model, kept in ((small.model, CUT.kept), (view, range(6))):
        states: list[np.ndarray] = []

        def take(into: list[np.ndarray], _: Any, args: Any, kwargs: Any) -> None:
            into.append((args[0] if args else kwargs["hidden_states"]).double().numpy())

        layers = find_decoder_layers(model)
        hooks = [layers[one].register_forward_pre_hook(partial(take, states), with_kwargs=True) for one in kept]
        model(**ask(small, prompt, answer_ids))
        for hook in hooks:
            hook.remove()
        found.append(states)
    return float(np.mean([((x - y) ** 2).sum() / (x**2).sum() for x, y in zip(*found, strict=True)]))


def test_layers_computed_again_give_the_same_gradients_and_keep_less(small: LoadedModel, work: Prepared) -> None:
    gradients, item = [], work.encoded[0]
    for again in (False, True):
        view, factors = view_with_updates(small)
        run = partial(losses, small, view, CUT, [item], Tuning())
        told = kept_bytes(view, run)
        if again:
            compute_again(view)
        stored = bytes_stored(view, lambda run=run: run()[0].sum().backward())  # type: ignore[misc]
        assert stored < told / 3 if again else stored <= told <= 1.6 * stored
        gradients.append({name: factor.grad for name, factor in factors.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def bytes_stored(view: Any, run: Callable[[], object]) -> int:
    """Return the bytes that are really kept for gradients, each storage once."""
    own = {tensor.data_ptr() for tensor in view.parameters()}
    storages: dict[int, int] = {}

    def take(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(take, lambda tensor: tensor):
        run()
    return sum(storages.values())
