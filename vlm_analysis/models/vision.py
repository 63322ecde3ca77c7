"""Which tokens receive image features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

VISION_FILE = "strata-vision.json"  # of an exported folder: the layers that vision tokens skip there


def image_token(config: Any) -> int | None:
    """Return the token that stands for image features in a model's prompts; None where its configuration names none."""
    token = getattr(config, "image_token_id", None)
    return getattr(config, "image_token_index", None) if token is None else token


def vision_tokens(config: Any, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Return which tokens receive image features, bool (batch, n_tokens), from a model's inputs; None where they do not tell."""
    ids, kinds = inputs.get("input_ids"), inputs.get("mm_token_type_ids")
    if kinds is not None and (
        ids is None or kinds.shape == ids.shape
    ):  # a step of decoding may be told those of all tokens
        return kinds == 1
    token = image_token(config)
    return None if token is None or ids is None else ids == token
