"""The classes whose own processor runs here, with an image in the prompt."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SmolVLMProcessor

from vlm_analysis.models import _without_video

from .checks import Inputs, logits, masks
from .images import IMAGE, IMAGES, image_inputs, image_model, tokenizer
from .test_conformance import CHECKS

CASES = [(kind, check) for kind in IMAGES for check in ("prune", "dense", "decode", "reload")]


@functools.lru_cache(maxsize=1)
def made(kind: str) -> tuple[Any, Inputs]:
    return image_model(kind), image_inputs(kind)


@pytest.mark.parametrize(("kind", "check"), CASES, ids=[f"{kind}-{check}" for kind, check in CASES])
def test_class_with_an_image(kind: str, check: str, tmp_path: Path) -> None:
    model, inputs = made(kind)
    CHECKS[check](model, inputs, tmp_path, kind, masks(model))


@pytest.mark.parametrize("kind", IMAGES)
def test_the_image_is_seen(kind: str) -> None:
    model, inputs = made(kind)
    assert IMAGE in inputs["input_ids"]
    other = inputs | {"pixel_values": inputs["pixel_values"].flip(-1) + 0.5}
    assert not torch.equal(logits(model, inputs), logits(model, other))


def test_at_least_fifteen_classes_see() -> None:
    assert len(IMAGES) >= 15


def test_a_processor_that_lacks_a_package_says_which() -> None:
    with pytest.raises(ImportError, match="num2words"):
        _without_video(SmolVLMProcessor)(tokenizer=tokenizer())
