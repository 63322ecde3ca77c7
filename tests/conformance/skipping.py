"""What must hold on a class whose vision tokens skip layers, against an oracle that takes their rows out of the layers by hand.

The oracle shares no code with the view: around each layer of the dense model, it picks rows of what the layer is given, and the rows and
columns of its mask, for one prompt without a cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from vlm_analysis import Edit, Vision
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.kinds.vision import FORMS, MASKED
from vlm_analysis.models.layers import find_decoder_layers, vision_locked
from vlm_analysis.models.vision import image_token

from .build import N_LAYERS
from .checks import Inputs, cached, logits, text_inputs, uncached
from .image_rows import IMAGES
from .noise import NOISE
from .rows import VISION_LOCKS

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def free_for_vision(kind: str) -> int:
    """Return how many layers of a class vision tokens can skip; none where it is shown no picture here."""
    seen = kind in IMAGES or kind in NOISE
    return N_LAYERS - len(VISION_LOCKS.get(kind, ((), ""))[0]) if seen else 0


def skipping_mark(free: int) -> str:
    return {0: "–", N_LAYERS: "✓"}.get(free, str(free))


def edits(model: Any, form: str) -> list[Edit]:
    """Return a late entry, an early exit, no vision tokens at all, and hidden ones beside frozen layers; without locked layers."""
    n_layers, locked = len(find_decoder_layers(model)), vision_locked(model)
    last = n_layers - 1
    wanted = [((0, 1), ()), ((last - 1, last), ()), (range(n_layers), ()), ((0, 1, last), (2, 3))]
    free = [[tuple(layer for layer in part if layer not in locked) for part in parts] for parts in wanted]
    return [Edit(n_layers, (Vision(absent, frozen, form=form),)) for absent, frozen in free]


@contextlib.contextmanager
def by_hand(model: Any, edit: Edit, text: torch.Tensor) -> Iterator[None]:
    """Inside, layers of the dense model run on the rows of text alone, or leave the others as they are."""
    layers = find_decoder_layers(model)
    (change,) = edit.changes
    assert isinstance(change, Vision)
    n_rows = len(text)

    def part(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(part(name, one) for one in value)
        if not torch.is_tensor(value):
            return value
        if name == "attention_mask":
            return value[:, :, text][..., text]
        if name == "position_embeddings":
            return value[..., text, :]
        if name in ("position_ids", "cache_position"):
            return value[..., text]
        return value[:, text] if value.dim() > 1 and value.shape[1] == n_rows else value

    def absent(forward: Any) -> Any:
        def run(states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            assert all(not torch.is_tensor(one) or one.dim() == 4 for one in args)
            more = [part("attention_mask", one) for one in args]
            output = forward(states[:, text], *more, **{name: part(name, value) for name, value in kwargs.items()})
            whole = states.clone()
            whole[:, text] = output[0] if isinstance(output, tuple) else output
            return (whole, *output[1:]) if isinstance(output, tuple) else whole

        return run

    def frozen(forward: Any) -> Any:
        def run(states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            output = forward(states, *args, **kwargs)
            whole = states.clone()
            whole[:, text] = (output[0] if isinstance(output, tuple) else output)[:, text]
            return (whole, *output[1:]) if isinstance(output, tuple) else whole

        return run

    for around, numbers in ((absent, change.absent), (frozen, change.frozen)):
        for number in numbers:
            vars(layers[number])["forward"] = around(layers[number].forward)
    try:
        yield
    finally:
        for number in change.layers:
            del vars(layers[number])["forward"]


def check_skipping(model: Any, inputs: Inputs) -> None:
    """Text logits are those of rows taken out by hand, in both forms, with a cache too, and the dense model is as it was."""
    text = inputs["input_ids"][0] != image_token(model.config)
    assert (~text).sum() > 0
    dense, last = logits(model, inputs), edits(model, MASKED)[-1]
    for masked, sliced in zip(*(edits(model, form) for form in FORMS), strict=True):
        with by_hand(model, masked, text):
            expected = logits(model, inputs)[:, text]
        assert not torch.allclose(dense[:, text], expected, **CLOSE), masked
        for edit in (masked, sliced):
            view = apply_edit(model, edit)
            torch.testing.assert_close(logits(view, inputs)[:, text], expected, **CLOSE, msg=str(edit))
            assert masked != last or cached(view, inputs) == uncached(view, inputs), edit
    assert torch.equal(logits(model, inputs), dense)


def check_padded(model: Any, inputs: Inputs) -> None:
    """In a batch with a prompt without a picture, padded on the left, both forms have the same logits, with a cache too."""
    batch, real = padded(inputs)
    text = real & (batch["input_ids"] != image_token(model.config))
    views = [apply_edit(model, edits(model, form)[-1]) for form in FORMS]
    one, other = (logits(view, batch)[text] for view in views)
    torch.testing.assert_close(other, one, **CLOSE)
    assert written(views[0], batch) == written(views[1], batch)


def padded(inputs: Inputs) -> tuple[Inputs, torch.Tensor]:
    """Return the inputs in one batch with three words fewer than they have, padded on the left, and which tokens are no padding."""
    n_tokens = inputs["input_ids"].shape[1]
    words = text_inputs()["input_ids"].repeat(1, n_tokens)[:, : n_tokens - 3]
    batch = dict(inputs)
    batch["input_ids"] = torch.cat([torch.nn.functional.pad(words, (3, 0)), inputs["input_ids"]])
    real = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    real[0, :3] = False
    batch["attention_mask"] = real.long()
    for name, value in inputs.items():
        if name not in ("input_ids", "attention_mask") and value.shape == inputs["input_ids"].shape:
            batch[name] = torch.cat([torch.zeros_like(value), value])
    return batch, real


def written(model: Any, batch: Inputs) -> list[list[int]]:
    """Return what `generate` writes greedily for each prompt of a batch."""
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    tokens = model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    return tokens[:, -4:].tolist()
