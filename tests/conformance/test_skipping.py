"""Vision tokens skip layers of every class that is shown a picture here, or are refused with the reason."""

from __future__ import annotations

import pytest

from vlm_analysis import Edit, Vision
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_layers, vision_locked

from .image_rows import IMAGES
from .images import image_inputs, image_model
from .noise import NOISE
from .rows import ONE_IMAGE, VISION_LOCKS
from .skipping import check_padded, check_skipping, free_for_vision

SEEING = [*IMAGES, *NOISE]
SKIPPING = [kind for kind in SEEING if free_for_vision(kind)]
# Windows and pictures that see themselves; a hybrid stack. The bundled model is a qwen3_vl, and `make slow` checks all others.
SAMPLE = ("gemma3", "qwen3_5")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in SAMPLE else pytest.mark.slow) for kind in SKIPPING]
)
def test_vision_tokens_skip_layers(kind: str) -> None:
    model = image_model(kind)
    check_skipping(model, image_inputs(kind))
    check_padded(model, image_inputs(kind))
    if kind in IMAGES and kind not in ONE_IMAGE:
        check_skipping(model, image_inputs(kind, n_images=2))


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "mllama" else pytest.mark.slow) for kind in SEEING]
)
def test_layers_that_they_cannot_skip_are_refused_with_the_reason(kind: str) -> None:
    model, (layers, reason) = image_model(kind), VISION_LOCKS.get(kind, ((), ""))
    assert sorted(vision_locked(model)) == sorted(layers)
    n_layers = len(find_decoder_layers(model))
    for layer in layers:
        with pytest.raises(EditError, match=f"Vision tokens cannot skip layer {layer}: .*{reason}"):
            apply_edit(model, Edit(n_layers, (Vision(frozen=(layer,)),)))


def test_at_least_fifteen_classes_skip() -> None:
    assert len(SKIPPING) >= 15
