"""Layers lose their attention or their MLP in many classes, with a picture in the prompt, or are refused with the reason."""

from __future__ import annotations

import pytest

from .images import image_inputs, image_model
from .parts import check_parts, refusal

LOSING = [
    "deepseek_vl",
    "exaone4_5",
    "gemma3",
    "glm4v",
    "glm46v",
    "got_ocr2",
    "idefics2",
    "idefics3",
    "internvl",
    "janus",
    "lighton_ocr",
    "llava",
    "llava_next",
    "llava_onevision",
    "paddleocr_vl",
    "paligemma",
    "qianfan_ocr",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "video_llama_3",
    "vipllava",
    "aya_vision",
    "chameleon",
    "cohere_compass",
    "cosmos3_omni",
    "deepseek_vl_hybrid",
    "ernie4_5_vl_moe",
    "glm_ocr",
    "glmga",
    "granite_docling",
]
_STATE, _EXPERTS, _MODULES = (
    "mixes tokens through a state",
    "experts that tokens are routed to",
    "expected one module of the layer",
)
REFUSED = {
    "aria": _EXPERTS,
    "blip": _MODULES,
    "blip-2": _MODULES,
    "gemma4": "KV store",
    "git": _MODULES,
    "glm4v_moe": _EXPERTS,
    "glm5_next": "which does more besides",
    "granite4_vision": "vision features are added right before it",
    "lfm3_vl": _STATE,
    "mllama": _MODULES,
    "qwen3_5": _STATE,
    "qwen3_5_moe": _STATE,
    "qwen3_vl_moe": _EXPERTS,
    "qwen4_exp": _STATE,
}
"""By class, why its layers lose no part, or not all of those that are tried."""
# Norms behind the parts, and windows. The bundled model is a qwen3_vl, and `make slow` checks all others.
SAMPLE = ("gemma3", "git")


def sampled(kinds: list[str]) -> list[object]:
    return [pytest.param(kind, marks=[] if kind in SAMPLE else pytest.mark.slow) for kind in kinds]


@pytest.mark.parametrize("kind", sampled(LOSING))
def test_layers_lose_a_part(kind: str) -> None:
    check_parts(image_model(kind), image_inputs(kind))


@pytest.mark.parametrize("kind", sampled(list(REFUSED)))
def test_what_cannot_lose_a_part_is_refused_with_the_reason(kind: str) -> None:
    assert REFUSED[kind] in refusal(image_model(kind))


def test_at_least_fifteen_classes_lose_parts() -> None:
    assert len(LOSING) >= 15
