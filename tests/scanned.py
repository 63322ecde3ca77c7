"""A scan of vision tokens with made-up numbers."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from vlm_analysis import PromptSet, VisionScan
from vlm_analysis.evaluation.scan import DENSE, MEANS, ways_of
from vlm_analysis.model_info import ModelInfo


def made_scan(
    model: ModelInfo, prompts: PromptSet, harm: Callable[[int], float] = lambda layer: abs(layer - 4.0)
) -> VisionScan:
    """Return a scan of prompts in which all scores of an edit are the harm of its layer, and every answer is right."""
    rows = [
        {"way": way, "layer": layer, "id": one.id, "domain": one.domain, **dict.fromkeys(MEANS, harm(layer))}
        for way, layer in [(DENSE, -1), *ways_of(model.n_layers)]
        for one in prompts
    ]
    frame = pd.DataFrame(rows).assign(exact_match=True)
    counts = {"n_vision": 64.0, "n_text": 30.0, "attention_size": 128, "kv_parameters": 100}
    return VisionScan(model, prompts.fingerprint, frame, "sliced", **counts)  # type: ignore[arg-type]
