"""Width scores in the workspace: measured once, saved as any other work, and with the recording that is there."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_analysis import Bench, LoadedModel, PromptSet, WidthScores
from vlm_analysis.workbench.widths import find_width


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
