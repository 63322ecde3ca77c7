"""A recording of any size that needs no model: for browser tests, screenshots and benchmarks of the pages that only look at one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlm_analysis import MEASURES, Recording
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.measures import empty_rows, triangle
from vlm_analysis.words import TOKEN_GROUPS

EACH = 3  # prompts of a domain


def made_recording(n_layers: int, domains: Sequence[str], *, model: str = "made") -> Recording:
    """Return a recording of drawn numbers, three prompts a domain; the first and the last layer are protected, layer 2 is locked."""
    rng, n_prompts = np.random.default_rng(n_layers), EACH * len(domains)
    rows = empty_rows(n_prompts, n_layers)
    for name, measure in MEASURES.items():
        rows[name] = rng.integers(4, 9, rows[name].shape) if measure.kind == "<i8" else rng.random(rows[name].shape)
    rows["key"] = [f"key-{number}".encode() for number in range(n_prompts)]
    rows["nonfinite"] = 0
    rows["cosine"] = 1 - 10 ** -rng.uniform(0.7, 3.2, (1, n_layers, 1)) * rng.uniform(0.7, 1.3, rows["cosine"].shape)
    streams = rng.normal(size=(n_prompts, len(TOKEN_GROUPS), n_layers + 1, 5)) + 1
    streams /= np.linalg.norm(streams, axis=-1, keepdims=True)
    rows["span"] = triangle(streams @ streams.swapaxes(-1, -2))
    ends = dict.fromkeys((0, n_layers - 1), "first and last layers stay unless you let them go")
    info = ModelInfo(
        model, f"{n_layers:064d}", n_layers, protected=ends, locked={2: "the cache counts its tokens here"}
    )
    names = tuple(name for name in domains for _ in range(EACH))
    ids = tuple(f"prompt-{number}" for number in range(n_prompts))
    return Recording(info, f"{n_prompts:064d}", ids, names, rows)
