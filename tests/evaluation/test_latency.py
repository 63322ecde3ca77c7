"""Latency: every layer is timed, the sum stays below the whole, and the model is left as it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vlm_analysis import Cancelled, LoadedModel, PromptSet
from vlm_analysis.evaluation.run.latency import MOST_PROMPTS, measure_latency


def n_hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


def test_in_one_pass_all_layers_take_time_and_together_less_than_the_whole(loaded: LoadedModel, few: PromptSet) -> None:
    found = measure_latency(loaded, few[:1], rounds=1)
    assert found.layer_ms.shape == (16,)
    assert (found.layer_ms > 0).all()
    assert found.layer_ms.sum() < found.total_ms
    assert found.device == "cpu"


def test_the_clock_is_read_at_both_ends_of_the_pass_and_of_every_layer(
    loaded: LoadedModel, packs: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = itertools.count()
    monkeypatch.setattr("vlm_analysis.evaluation.run.latency.moment", lambda device: next(reads) / 1000)
    found = measure_latency(loaded, packs, rounds=3)
    np.testing.assert_allclose(found.layer_ms, np.ones(16))
    assert found.total_ms == pytest.approx(1 + 2 * 16)
    assert found.n_prompts == MOST_PROMPTS


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
