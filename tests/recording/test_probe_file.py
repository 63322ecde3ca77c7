"""The file of a probe of answers: it opens as it was saved, and what does not fit together is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probed import made_probe

from vlm_analysis import open_answer_probe, save_answer_probe
from vlm_analysis.errors import RecordingError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.probefile import ARRAYS, FORM

MODEL = ModelInfo("m", "f" * 64, 3)


def test_it_opens_as_it_was_saved(tmp_path: Path) -> None:
    probe = made_probe(MODEL, left_out={"b": "4 prompts of 9"}, set_aside={"p9": "it is odd"})
    probe.right[0, 1, 1], probe.log_loss[0, 1, 1] = np.nan, np.nan
    found = open_answer_probe(save_answer_probe(probe, tmp_path / "probe.npz"))
    for name in ("model", "prompts", "ids", "domains", "tasks", "groups", "left_out", "set_aside"):
        assert getattr(found, name) == getattr(probe, name), name
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(probe, name))
    pd.testing.assert_frame_equal(found.parts, probe.parts)


@pytest.mark.parametrize(
    ("change", "arrays", "said"),
    [
        ({"ids": ["p0"] * 12}, {}, "ids that differ"),
        ({"groups": ["0"]}, {}, "an id, domain, task and group for each prompt"),
        ({"parts": [["a", "", 6, 2, 0.5]]}, {}, "the prompts of each task"),
        ({"parts": [["a", "", 6, 1, 0.5], ["b", "", 6, 2, 0.5]]}, {}, "a whole number from 2"),
        ({"probed": ["text", "vision"]}, {}, "the token groups vision and text"),
        ({}, {"right": np.full((2, 3, 2, 12), 0.5)}, "0, 1 or NaN as right"),
        ({}, {"log_loss": np.full((2, 3, 2, 12), -0.1)}, "log_loss of 0 or more"),
        ({}, {"log_loss": np.zeros((2, 2, 2, 12))}, "of shape"),
        ({}, {"more": np.zeros(2)}, "the arrays right and log_loss"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(
    tmp_path: Path, change: dict[str, Any], arrays: dict[str, np.ndarray], said: str
) -> None:
    path = save_answer_probe(made_probe(MODEL), tmp_path / "probe.npz")
    payload, kept = FORM.open_arrays(
        path, lambda content, found: (content, {name: found.get(name, None, (None,) * 4) for name in ARRAYS})
    )
    FORM.save_arrays(path, payload | change, kept | arrays)
    with pytest.raises(RecordingError, match=f"not a whole probe of answers.*{said}.*Probe the answers again"):
        open_answer_probe(path)
