"""Where a repair can fold a map into a class: at the layer before the first one that may go, tried with two passes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from vlm_analysis.models.inputs import TEXT, Encoded
from vlm_analysis.recovery.places import Place, Watch, find_place

from .checks import masks, text_inputs

REASONS = {
    "norm": "a norm, a gate or another module stands between",
    "experts": "it routes tokens to experts",
    "streams": "its stream has several parts",
    "asleep": "does not run on the first prompt",
}
NO_FOLD = {
    "aria": "experts",
    "blip": "norm",
    "exaone4_5": "norm",
    "gemma3": "norm",
    "gemma3n": "streams",
    "gemma4": "norm",
    "gemma4_unified": "norm",
    "git": "norm",
    "glm46v": "norm",
    "glm4v": "norm",
    "glm5_next": "streams",
    "glm_ocr": "norm",
    "glmga": "norm",
    "hyperclovax_vision_v2": "norm",
    "inkling2": "experts",
    "inkling_mm_model": "experts",
    "lfm3_vl": "norm",
    "llama4": "experts",
    "minimax_m3_vl": "experts",
    "mistral4": "experts",
    "mllama": "asleep",
    "muse_glimmer": "norm",
    "muse_spark": "experts",
    "qwen3_5_moe": "experts",
    "qwen3_omni_moe_thinker": "experts",
    "qwen3_vl_moe": "experts",
    "qwen4_exp": "experts",
    "shieldgemma2": "norm",
}
"""The classes into whose layer nothing can be folded, each with a word for the reason; into all others a map can."""


def place_of(kind: str, model: Any) -> Place | str:
    """Return where the class can be mapped, or the reason why it cannot."""
    inputs = text_inputs(kind)
    item = Encoded(inputs, np.full(inputs["input_ids"].shape[1], TEXT), (), 0, kind)
    layer = masks(model)[0].dropped[0]
    tokenizer = SimpleNamespace(pad_token_id=0)
    loaded: Any = SimpleNamespace(name=kind, processor=SimpleNamespace(tokenizer=tokenizer))
    return find_place(Watch(loaded, model, layer - 1, layer), item)


def check_fold(kind: str, model: Any) -> str:
    """Return the mark of a class, after checking it: ✓ where a map can be folded, else the word for the reason."""
    found, word = place_of(kind, model), NO_FOLD.get(kind, "")
    assert isinstance(found, Place) != bool(word), found
    assert not word or REASONS[word] in str(found), found
    return word or "✓"
