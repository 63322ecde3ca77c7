"""The classes with an image in the prompt: by their own processor, and where that needs torchvision, with noise for one."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import ProcessorMixin, SmolVLMProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from vlm_analysis.models.processors import without_video

from .checks import Inputs, logits
from .image_rows import CLASSES, IMAGES
from .images import image_inputs, image_model, processor_of
from .noise import NOISE
from .sample import sampled
from .test_conformance import hold

WITHOUT_VIDEO = [
    kind
    for kind in IMAGES
    if kind not in CLASSES
    and "video_processor" in getattr(transformers, PROCESSOR_MAPPING_NAMES[kind]).get_attributes()
]
SEEING = [*IMAGES, *NOISE]


@functools.lru_cache(maxsize=1)
def made(kind: str) -> tuple[Any, Inputs]:
    return image_model(kind), image_inputs(kind)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        *sampled(SEEING, ("prune", "decode", "reload")),
        *(pytest.param(kind, "dense", marks=pytest.mark.slow) for kind in SEEING),  # as without an image
    ],
)
def test_class_with_an_image(kind: str, check: str, tmp_path: Path) -> None:
    model, inputs = made(kind)
    hold(kind, check, model, inputs, tmp_path)


@pytest.mark.parametrize("kind", sampled(SEEING))
def test_the_image_is_seen(kind: str) -> None:
    model, inputs = made(kind)
    other = inputs | {"pixel_values": inputs["pixel_values"].flip(-1) * 0.5 + 0.3}
    assert not torch.equal(logits(model, inputs), logits(model, other))


def test_at_least_fifteen_classes_see_by_their_own_processor() -> None:
    assert len(IMAGES) >= 15


@pytest.mark.parametrize("kind", NOISE)
def test_a_class_is_shown_noise_only_where_its_processor_needs_torchvision(kind: str) -> None:
    with pytest.raises(ImportError, match=r"(?i)torchvision"):
        getattr(transformers, NOISE[kind][0])()


@pytest.mark.parametrize("kind", sampled(WITHOUT_VIDEO))
def test_a_processor_without_its_video_part_is_saved_and_opened(kind: str, tmp_path: Path) -> None:
    ProcessorMixin.save_pretrained(processor_of(kind), tmp_path)
    base = getattr(transformers, PROCESSOR_MAPPING_NAMES[kind])
    opened = without_video(base).from_pretrained(tmp_path)
    assert "video_processor" not in vars(opened)
    again, first = image_inputs(kind, opened), image_inputs(kind)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_processor_that_lacks_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[SmolVLMProcessor.__module__], "num2words", None)
    with pytest.raises(ImportError, match="num2words"):
        processor_of("smolvlm")
