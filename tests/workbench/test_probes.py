"""Probes of the answers in the workspace: measured once, and anew where prompts are in other groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from probed import pictures

from vlm_analysis import Bench, Cancelled, LoadedModel, PromptSet
from vlm_analysis.workbench.probes import find_probe


def test_a_probe_is_saved_and_opened_afterwards_and_measured_anew_in_other_groups(
    small: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, prompts = Bench(small), pictures()

    def cancel(done: int, total: int, message: str) -> None:
        if message == "fitting the probes" and done > total // 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        bench.probe_answers(prompts, on_progress=cancel)
    assert not bench.workspace.items("probes")
    seen: list[tuple[int, int]] = []
    found = bench.probe_answers(
        prompts, on_progress=lambda done, total, message: seen.append((done, total)) if "fitting" in message else None
    )
    assert seen == [(layer, 16) for layer in range(1, 17)]  # of vision and of text states
    (item,) = bench.workspace.items("probes")
    assert (item.model, item.prompts) == (small.fingerprint, prompts.fingerprint)
    assert item.details | {"n": 10, "n_layers": 8, "n_tasks": 1} == item.details
    np.testing.assert_array_equal(bench.open(item).log_loss, found.log_loss)

    def probed(*_: object, **__: object) -> None:
        raise AssertionError("it was probed again")

    with monkeypatch.context() as patch:
        patch.setattr("vlm_analysis.recording.probing.probe_answers", probed)
        np.testing.assert_array_equal(bench.probe_answers(prompts).right, found.right)
    in_pairs = PromptSet(replace(prompt, group=f"pair {row // 2}") for row, prompt in enumerate(prompts))
    assert in_pairs.fingerprint == prompts.fingerprint
    assert len(set(bench.probe_answers(in_pairs).groups)) == 5
    assert len(bench.workspace.items("probes")) == 2
    kept = {len(bench.open(one).groups.shared): one for one in bench.workspace.items("prompts")}
    assert find_probe(bench.workspace, item.model, kept[0]) == item
