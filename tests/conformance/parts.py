"""What must hold on a class whose layers lose a part, against an oracle that runs the part and puts zeros where its result was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vlm_analysis import DropPart, Edit
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_layers

from .build import N_LAYERS
from .checks import Inputs, cached, logits, uncached

LOST = (0, 2), (4,)  # layers that lose their attention, the first among them, and those that lose their MLP
WRITERS = ("o_proj", "out_proj", "dense", "wo", "c_proj", "down_proj", "fc2", "w2", "dense_4h_to_h")


@contextlib.contextmanager
def silent(model: Any, parts: Mapping[int, str]) -> Iterator[None]:
    """Inside, what a part writes last is zero: the output of its last projection, found by its name."""
    hooks, layers = [], find_decoder_layers(model)
    for layer, part in parts.items():
        words = ("attn", "attention") if part == "attention" else ("mlp", "feed_forward", "ffn")
        children = [(name, one) for name, one in layers[layer].named_children() if "norm" not in name]
        owners = [one for name, one in children if any(word in name for word in words)]
        (owner,) = [one for one in owners if any(name in WRITERS for name, _ in one.named_children())]
        (last,) = [one for name, one in owner.named_children() if name in WRITERS]
        hooks.append(last.register_forward_hook(lambda _, __, output: torch.zeros_like(output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def losing(model: Any, attention: tuple[int, ...] = (), mlp: tuple[int, ...] = ()) -> Any:
    return apply_edit(model, Edit(N_LAYERS, (DropPart(attention, mlp),)))


def refusal(model: Any) -> str:
    """Return why two layers cannot lose their attention, or one its MLP; "" where they can."""
    try:
        losing(model, *LOST)
    except EditError as error:
        return str(error)
    return ""


def check_parts(model: Any, inputs: Inputs) -> None:
    """Check two layers without attention, the first among them, and one without MLP: logits, and decoding with a cache."""
    view = losing(model, *LOST)
    with silent(model, {0: "attention", 2: "attention", 4: "mlp"}):
        expected = logits(model, inputs)
    torch.testing.assert_close(logits(view, inputs), expected, rtol=0, atol=1e-6)
    assert not torch.equal(expected, logits(model, inputs))
    assert cached(view, inputs) == uncached(view, inputs)
