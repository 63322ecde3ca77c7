"""Which classes `make test` checks: one for each way through the code. `make slow` checks all others,
and `python -m tests.conformance` the whole table.

Classes beyond these take the same steps with other settings: what breaks in one of them alone is a new release of transformers, and
another release is met with `make slow` before one of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

SAMPLE = {
    "paligemma": "a prompt that sees what follows it, so that what is written has a token type of its own",
    "qwen3_vl": "DeepStack, and rotary positions in sections",
    "granite4_vision": "vision features added right before layers that the configuration numbers",
    "mllama": "cross-attention layers",
    "gemma3n": "the decoder alone; layers that reuse keys and values",
    "gemma4": "layers that reuse keys and values, and tables with a part for each layer",
    "mistral_large4": "layers that name the layer whose keys and values they reuse",
    "qwen4_exp": "n-gram tables, numbered from one",
    "inkling2": "blocks of layers counted by position",
    "qwen3_5": "a hybrid stack whose cache counts tokens in attention layers",
    "blip-2": "a decoder inside another model, which needs an image",
    "shieldgemma2": "a class that cannot be loaded again",
    "unlimited_ocr": "a class that cannot be decoded with a cache",
}


def sampled(kinds: Iterable[str], *more: Iterable[str]) -> list[Any]:
    """Return pytest parameters of classes, each with every value of `more`; those beside the sample are marked slow."""
    found = [(kind,) for kind in kinds]
    for values in more:
        found = [(*one, value) for one in found for value in values]
    return [pytest.param(*one, id="-".join(one), marks=[] if one[0] in SAMPLE else pytest.mark.slow) for one in found]
