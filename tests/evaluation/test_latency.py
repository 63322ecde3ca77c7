"""Latency: every layer is timed, the sum stays below the whole, and the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_analysis import Cancelled, LoadedModel, PromptSet
from vlm_analysis.evaluation.run.latency import MOST_PROMPTS, measure_latency


def n_hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


def test_every_layer_is_timed_and_together_they_take_less_than_the_whole(loaded: LoadedModel, packs: PromptSet) -> None:
    found = measure_latency(loaded, packs, rounds=3)
    assert found.layer_ms.shape == (16,)
    assert (found.layer_ms > 0).all()
    assert 0.2 * found.total_ms < found.layer_ms.sum() < 1.5 * found.total_ms
    assert found.n_prompts == MOST_PROMPTS
    assert found.device == "cpu"


def test_progress_runs_and_cancelling_leaves_no_hooks(loaded: LoadedModel, few: PromptSet) -> None:
    calls: list[tuple[int, int]] = []
    before = n_hooks(loaded)

    def stop(done: int, total: int, message: str) -> None:
        calls.append((done, total))
        if done == 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_latency(loaded, few, rounds=2, on_progress=stop)
    assert calls[-1] == (7, 18)
    assert n_hooks(loaded) == before
    assert np.isfinite(measure_latency(loaded, few[:1], rounds=1).total_ms)
