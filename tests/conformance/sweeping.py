"""What a sweep must do on every class: each edit, sharing with the others, has the scores that it has alone, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_analysis import Edit, PruneMask
from vlm_analysis.edits.apply import apply_edit, why_not
from vlm_analysis.evaluation.run.prepared import answer_logits
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.models.inputs import TEXT, Encoded
from vlm_analysis.models.layers import find_decoder_layers

from .checks import Inputs, loaded_as, text_inputs
from .image_rows import IMAGES
from .images import image_inputs, processor_of
from .noise import NOISE
from .rows import ONE_IMAGE

N_ANSWER = 3


def prompts(kind: str) -> list[tuple[int, Inputs]]:
    """Return the class's prompts that are tried, with their number of images: none, one and two, as far as it can be asked so."""
    found = [(0, text_inputs(kind))]
    if kind in IMAGES or kind in NOISE:
        found.append((1, image_inputs(kind)))
    if kind in IMAGES and kind not in ONE_IMAGE:
        found.append((2, image_inputs(kind, n_images=2)))
    return found


def check_sweep(kind: str, model: Any, n_images: int, inputs: Inputs, folder: Path) -> None:
    """Every layer that can go left out, and two at once, sharing and alone."""
    loaded = loaded_as(model, processor_of(kind), folder)
    item = _encoded(inputs, n_images)
    runner = SharedRunner(loaded)
    for edit, shared in runner.run([item], edits(model)):
        with torch.no_grad():
            (alone,) = answer_logits(loaded, apply_edit(model, edit), [item])
        np.testing.assert_array_equal(shared[0], alone.float().log_softmax(-1).numpy(), err_msg=str(edit.dropped))


def edits(model: Any) -> list[Edit]:
    """Return the dense edit, each layer that can go left out, and two of them at once."""
    n_layers = len(find_decoder_layers(model))
    single = [mask for layer in range(n_layers) if not why_not(model, mask := PruneMask(n_layers, (layer,)))]
    pairs = [PruneMask(n_layers, one.dropped + two.dropped) for one, two in zip(single, single[2:], strict=False)]
    return ordered([Edit(n_layers), *single, *(mask for mask in pairs if not why_not(model, mask))])


def _encoded(inputs: Inputs, n_images: int) -> Encoded:
    """Return inputs as a prompt whose last tokens are its answer."""
    ids = inputs["input_ids"][0].tolist()
    return Encoded(dict(inputs), np.full(len(ids), TEXT), tuple(ids[-N_ANSWER:]), n_images)
