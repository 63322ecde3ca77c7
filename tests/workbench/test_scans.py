"""Scans in the workspace: measured once, saved as any other work, and gone on with where they were stopped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scanned import made_scan

from vlm_analysis import (
    Bench,
    Cancelled,
    Comparison,
    LoadedModel,
    PromptSet,
    VisionScan,
    early_exit,
    mask_table,
    regimes,
)
from vlm_analysis.selection.compared.timed import time_left
from vlm_analysis.workbench.scans import find_scan
from vlm_analysis.workbench.shelf import keep, keep_prompts


def test_a_scan_is_saved_found_again_and_gone_on_with(
    small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, two = Bench(small), few[:2]
    stop = ["frozen"]

    def cancel(done: int, total: int, message: str) -> None:
        if "edits" in message and done > total // 2 and stop:
            raise Cancelled

    monkeypatch.setattr("vlm_analysis.evaluation.run.scan.batch_for", lambda loaded: 1)
    with pytest.raises(Cancelled):
        bench.scan(two, on_progress=cancel)
    assert not bench.workspace.items("scans")
    stop.clear()
    seen: list[str] = []
    found = bench.scan(two, on_progress=lambda done, total, message: seen.append(message))
    assert {message for message in seen if message.startswith("part")} == {"part 2 of 2, 24 edits"}
    (item,) = bench.workspace.items("scans")
    assert (item.model, item.details["n"], item.details["form"]) == (small.fingerprint, 2, "sliced")
    assert not list((bench.workspace.root / "unfinished").iterdir())
    opened: VisionScan = bench.open(item)
    pd.testing.assert_frame_equal(opened.by_prompt, found.by_prompt)

    def scanned(*_: object, **__: object) -> None:
        raise AssertionError("it was scanned again")

    monkeypatch.setattr("vlm_analysis.evaluation.run.scan.prepare_scan", scanned)
    pd.testing.assert_frame_equal(bench.scan(two).by_prompt, found.by_prompt)
    assert find_scan(bench.workspace, item.model, item.prompts, form="masked") is None


@pytest.mark.usefixtures("_short_timings")
def test_dropped_layers_and_vision_tokens_compete_on_one_front_over_measured_time(
    small: LoadedModel, few: PromptSet
) -> None:
    bench, two = Bench(small), few[:2]
    prompts = keep_prompts(bench.workspace, two, "two")
    keep(bench.workspace, "scans", made_scan(small.info, two), "made up")
    how = {"criteria": ["block-influence"], "strategies": ["first-k"], "most": 1, "vision": 1}
    item = bench.compare(prompts, **how)  # type: ignore[arg-type]
    comparison: Comparison = bench.open(item)
    out = early_exit(8, 0, form="sliced")
    assert [mask.is_mask for mask in comparison.masks] == [True, False, False]
    assert comparison.masks[1] == out
    assert comparison.masks[2] == comparison.masks[0] + out
    assert list(mask_table(comparison)["budget"]) == [1, 0, 1]
    assert list(regimes(comparison)["budget"].unique()) == [1]
    costs = [bench.open(cost) for cost in bench.time_front(item, rounds=1)]
    assert {cost.edit for cost in costs} <= set(comparison.masks)
    assert np.isfinite(time_left(comparison, costs, "prefill")).sum() == len(costs) >= 1
