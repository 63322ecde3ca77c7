"""Width scores in the workspace: measured once, saved as any other work, and with the recording that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_analysis import Bench, Cancelled, LoadedModel, PromptSet, WidthScores, score_width
from vlm_analysis.selection.width import kept, scoring
from vlm_analysis.selection.width.passes import GradientPasses
from vlm_analysis.workbench.desk import prompts_item
from vlm_analysis.workbench.shelf import unfinished_folder
from vlm_analysis.workbench.widths import find_width

OPTIONS = {"window": 8, "sides": "each", "fast": False, "seed": None}


def test_width_is_scored_once_for_its_windows_and_takes_a_recording_that_is_there(
    small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, two = Bench(small), few[3:5]
    recording = bench.recording(two)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it was measured again")

    monkeypatch.setattr("vlm_analysis.selection.width.scoring.record", again)
    found = bench.score_width(two, fast=True, seed=1)
    np.testing.assert_allclose(found.cmds, recording.cross_modal_distance())
    (item,) = bench.workspace.items("widths")
    assert (item.model, item.prompts) == (small.fingerprint, two.fingerprint)
    assert (item.details["n"], item.details["how"]) == (2, "fast")
    monkeypatch.setattr("vlm_analysis.selection.width.scoring.score_width", again)
    opened: WidthScores = bench.score_width(two, fast=True)  # windows at random places are there, and not asked for
    for one, two_ in zip(opened.neurons, found.neurons, strict=True):
        np.testing.assert_array_equal(one, two_)
    about = {"window": 8, "sides": "each", "fast": True, "seed": None}
    for other in ({"fast": False}, {"window": 4}, {"sides": "all"}, {"seed": 2}):
        assert find_width(bench.workspace, item.model, item.prompts, **{**about, **other}) is None


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_scoring_that_was_stopped_goes_on_to_the_same_numbers(
    small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    three, bench, batches = few[2:5], Bench(small), list[int]()
    folder = unfinished_folder(
        bench.workspace, small.fingerprint, prompts_item(bench.workspace, three), {"width": sorted(OPTIONS.items())}
    )

    def counted(loaded: LoadedModel, items: Any, parts: Any) -> GradientPasses:
        batches.append(len(items))
        if len(batches) == 3 and not is_cancelled:
            raise RuntimeError("killed")
        return GradientPasses(loaded, items, parts)

    def stop(done: int, total: int, message: str) -> None:
        if is_cancelled and len(batches) == 2 and message.startswith("scoring"):
            raise Cancelled

    monkeypatch.setattr(scoring, "batch_for", lambda loaded: 1)
    monkeypatch.setattr(kept, "EVERY_S", 0.0)
    monkeypatch.setattr(scoring, "GradientPasses", counted)
    with pytest.raises((Cancelled, RuntimeError)):
        bench.measure_width(three, on_progress=stop)
    assert (folder / kept.FILE).exists()
    assert not list(bench.workspace.items("widths"))
    found = bench.score_width(three)
    assert batches == [1] * (3 if is_cancelled else 4)
    assert not folder.exists()
    alone = score_width(small, three)
    for one, other in zip((*found.neurons, *found.kv_groups), (*alone.neurons, *alone.kv_groups), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sums_of_other_work_or_a_damaged_file_count_for_nothing(tmp_path: Path) -> None:
    sums = {(0, "neurons"): np.ones((3, 4)), (0, "kv_groups"): np.full((3, 2), 2.0)}
    kept.KeptSums(tmp_path, "one").keep(sums, 5, {7: "too long"}, at_once=True)
    again = {place: np.zeros_like(one) for place, one in sums.items()}
    for work, damage in (("other", b""), ("one", b"damaged")):
        content = (tmp_path / kept.FILE).read_bytes()
        (tmp_path / kept.FILE).write_bytes(damage or content)
        assert kept.KeptSums(tmp_path, work).open(again) == (0, {})
        assert not any(one.any() for one in again.values())
        (tmp_path / kept.FILE).write_bytes(content)
    assert kept.KeptSums(tmp_path, "one").open(again) == (5, {7: "too long"})
    for place, one in sums.items():
        np.testing.assert_array_equal(again[place], one)
