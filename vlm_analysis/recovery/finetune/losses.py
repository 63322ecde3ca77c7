"""What tuning makes smaller: the answer NLL, and on request the distance to the dense model's states and distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run.prepared import answer_logits
from vlm_analysis.models.inputs import Encoded
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.recovery.tunings import Tuning


def answer_nlls(logits: Sequence[torch.Tensor], items: Sequence[Encoded]) -> torch.Tensor:
    """Return the answer NLL of each prompt (n_prompts,): the mean over its answer's tokens with the end token, in nats.

    Args:
        logits: of each prompt (answer_tokens, vocabulary).
        items: the prompts, encoded with their answers.
    """
    ids = [torch.tensor(item.answer_ids, device=one.device) for one, item in zip(logits, items, strict=True)]
    return torch.stack([functional.cross_entropy(one.float(), own) for one, own in zip(logits, ids, strict=True)])


def kls(dense: Sequence[torch.Tensor], edited: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return KL(dense ‖ edited) of each prompt (n_prompts,), the mean over its answer's tokens, in nats."""
    return torch.stack(
        [
            functional.kl_div(
                two.float().log_softmax(-1), one.float().log_softmax(-1), reduction="none", log_target=True
            )
            .sum(-1)
            .mean()
            for one, two in zip(dense, edited, strict=True)
        ]
    )


def state_distances(
    dense: Sequence[torch.Tensor], edited: Sequence[torch.Tensor], n_tokens: Sequence[int]
) -> torch.Tensor:
    """Return of each prompt (n_prompts,) the squared distance of its states over their squared size, as a mean over layers.

    Sums are over a prompt's tokens, padding aside. Our choice: sources say L2, and not of what.

    Args:
        dense, edited: the states (n_prompts, tokens, hidden) ahead of each layer that is left.
        n_tokens: of each prompt.
    """
    longest = dense[0].shape[1]
    real = torch.arange(longest, device=dense[0].device)[None] < torch.tensor(n_tokens, device=dense[0].device)[:, None]
    parts = []
    for one, two in zip(dense, edited, strict=True):
        one, two, here = one.float(), two.float().to(one.device), real.to(one.device)
        error = (one - two).square().sum(-1).mul(here).sum(-1)
        parts.append((error / one.square().sum(-1).mul(here).sum(-1)).to(real.device))
    return torch.stack(parts).mean(0)


def losses(
    loaded: LoadedModel, view: Any, edit: Edit, items: Sequence[Encoded], tuning: Tuning
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is made smaller and the answer NLL of each prompt, both (n_prompts,).

    Raises:
        EditError: the states of dense and edited model do not match, as the model has several streams.
    """
    kept = [layer for layer, _ in edit.steps.layers]
    layers, own = find_decoder_layers(loaded.model), find_decoder_layers(view)
    with _entering(own if tuning.hidden else ()) as edited_states:
        logits = answer_logits(loaded, view, items)
    nlls = answer_nlls(logits, items)
    total = nlls
    if tuning.needs_dense:
        with torch.no_grad(), _entering([layers[layer] for layer in kept] if tuning.hidden else ()) as dense_states:
            dense_logits = answer_logits(loaded, loaded.model, items)
        if tuning.kl:
            total = total + tuning.kl * kls(dense_logits, logits)
        if tuning.hidden:
            _check_states(loaded.name, dense_states, edited_states, items)
            total = total + tuning.hidden * state_distances(
                dense_states, edited_states, [item.n_tokens for item in items]
            )
    return total, nlls


@contextmanager
def _entering(layers: Sequence[nn.Module] | nn.ModuleList) -> Iterator[list[torch.Tensor]]:
    """Collect what enters each of these layers in the passes inside, in the order in which they run."""
    states: list[torch.Tensor] = []

    def take(module: nn.Module, args: Any, kwargs: Any) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    handles = [layer.register_forward_pre_hook(take, with_kwargs=True) for layer in layers]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _check_states(
    name: str, dense: Sequence[torch.Tensor], edited: Sequence[torch.Tensor], items: Sequence[Encoded]
) -> None:
    shape = (len(items), max(item.n_tokens for item in items))
    shapes = [tuple(states.shape) for states in (*dense, *edited)]
    if len(dense) != len(edited) or any(len(one) != 3 or one[:2] != shape for one in shapes):
        got = next(
            (one for one in shapes if len(one) != 3 or one[:2] != shape), f"{len(dense)} and {len(edited)} of them"
        )
        raise EditError(
            f"The states of {name} cannot be compared with the dense model's: expected ({shape[0]}, {shape[1]}, hidden) ahead of each "
            f"layer, got {got}. Leave `hidden` at 0."
        )
