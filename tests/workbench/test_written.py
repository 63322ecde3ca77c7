"""What models wrote is found wherever it was kept, by edit, and the newest counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from compared import made

from vlm_analysis import PruneMask
from vlm_analysis.selection.compared.comparison import RESPONSES
from vlm_analysis.workbench.shelf import keep_comparison, keep_evaluation
from vlm_analysis.workbench.workspace import Workspace
from vlm_analysis.workbench.written import written_responses


def test_responses_of_stories_and_evaluations_are_found_and_the_newest_counts(tmp_path: Path) -> None:
    shelf, domains = Workspace(tmp_path), ["a"] * 3
    comparison = made({("one", "first-k", 1): np.zeros(3), ("two", "first-k", 2): np.zeros(3)}, domains)
    dense, (first, second) = comparison.dense, comparison.masks
    model, prompts = dense.model.fingerprint, dense.prompts
    rows = [
        (0, "0", "q", "dense 0", "first 0"),
        (1, "0", "q", "dense 0", "second 0"),
        (0, "2", "q", "dense 2", "first 2"),
    ]
    keep_comparison(shelf, replace(comparison, responses=pd.DataFrame(rows, columns=list(RESPONSES))), "story")
    assert written_responses(shelf, model, prompts, first) == {"0": "first 0", "2": "first 2"}
    assert written_responses(shelf, model, prompts, second) == {"0": "second 0"}
    assert written_responses(shelf, model, prompts, PruneMask(8)) == {"0": "dense 0", "2": "dense 2"}
    frame = dense.by_prompt.assign(response=["later 0", None, None])
    keep_evaluation(shelf, replace(dense, edit=first, by_prompt=frame), "later")
    assert written_responses(shelf, model, prompts, first) == {"0": "later 0", "2": "first 2"}
    keep_comparison(shelf, replace(comparison, responses=pd.DataFrame(rows[:1], columns=list(RESPONSES))), "again")
    assert written_responses(shelf, model, prompts, first) == {"0": "first 0", "2": "first 2"}
    for other in ((model, "o" * 64, first), ("o" * 64, prompts, first), (model, prompts, PruneMask(8, (6,)))):
        assert written_responses(shelf, *other) == {}


def test_a_damaged_file_hides_what_it_held_alone(tmp_path: Path) -> None:
    shelf, comparison = Workspace(tmp_path), made({("one", "first-k", 1): np.zeros(1)}, ["a"])
    rows = pd.DataFrame([(0, "0", "q", "dense", "pruned")], columns=list(RESPONSES))
    for name in ("whole", "damaged"):
        item = keep_comparison(shelf, replace(comparison, responses=rows), name)
    item.path.write_bytes(b"no")
    dense = comparison.dense
    assert written_responses(shelf, dense.model.fingerprint, dense.prompts, comparison.masks[0]) == {"0": "pruned"}
